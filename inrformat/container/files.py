"""Whole files or none: written beside the target, made durable, then moved over it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace otherwise.

    The file is written under a temporary name in the same folder. Whatever ends the block early, a
    KeyboardInterrupt too, removes it and leaves `path` as it was. An OSError becomes OutputError.
    """
    temporary: Path | None = None
    try:
        target = _target(path)
        temporary = target.with_name(f".inr-{secrets.token_hex(8)}.tmp")
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, or none; OutputError."""
    with atomic_write(path) as file:
        file.write(data)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to replace: links are followed, so that a link keeps pointing at it."""
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():  # never replace a folder, or a device such as /dev/null
            raise OutputError(f"cannot write {path}: it is not a regular file")
    except ValueError as error:
        raise OutputError(f"cannot write {path!a}: {error}") from error
    return target


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can (Windows cannot open a folder)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
