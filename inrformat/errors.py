"""The error tree. Every error that a user can cause, or a hostile file can provoke, is an InrError."""

from __future__ import annotations

from functools import partial
from typing import Any


class InrError(Exception):
    """Base of every error that inrformat raises on purpose. `exit_code` is what the CLI ends with."""

    exit_code = 1


class EncodeError(InrError):
    """The volume cannot be encoded as asked (for example a target that was not reached)."""


class InputError(InrError):
    """The input volume or file is not usable: empty, mixed, truncated, not finite, of a wrong kind."""

    exit_code = 3


class OutputError(InrError):
    """The output cannot be written."""

    exit_code = 1


class UsageError(InrError, ValueError):
    """The call itself is wrong: an unknown preset, suffix or level, contradictory options."""

    exit_code = 2


class FormatError(InrError):
    """The bytes are not a valid .inrv (or .inrm) file.

    `code` names the broken rule (spec/inrv.md lists every code); `section` and `offset` say where, if known.
    """

    exit_code = 4

    def __init__(
        self, code: str, message: str, *, section: str | None = None, offset: int | None = None
    ) -> None:
        self.code, self.section, self.offset = code, section, offset
        self._message = message
        where = "".join(
            [f", section {section}" if section else "", f", offset {offset}" if offset is not None else ""]
        )
        super().__init__(f"{message} [{code}{where}]")

    def __reduce__(self) -> tuple[Any, ...]:
        """The same in another process, where a worker's error is told."""
        make = partial(type(self), section=self.section, offset=self.offset)
        return make, (self.code, self._message)


class LimitError(FormatError):
    """The file asks for more than the caller's `Limits` allow; raised before anything is allocated."""


class PromiseError(InrError):
    """A file does not keep what it records about itself (a measured figure, a bound)."""

    exit_code = 4


class UnsupportedError(InrError):
    """Something absent is needed: a newer version of the format, an optional package, a device."""

    exit_code = 5


class ModelNotFoundError(UnsupportedError):
    """The file refers to a super-resolution model that is neither embedded nor known here."""
