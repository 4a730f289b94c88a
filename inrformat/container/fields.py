"""Checks of a record's fields: each is taken once, typed and bounded; what is left over is unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import InrError
from .codes import fail, show
from .layout import is_critical

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""A model's name. It cannot be a path or a URL: no slash, backslash, colon or leading dot."""


class Fields:
    """The fields of one record that are still to be read. `section` is where, and tells if it is critical."""

    def __init__(self, record: Any, section: str) -> None:
        self.section = section
        if not isinstance(record, Mapping):
            raise self.error("bad-type", f"a record is a map, not {show(record)}")
        self._left = dict(record)

    def take(self, key: str) -> Any:
        """The value as it is; FormatError when it is missing."""
        if key not in self._left:
            raise self.error("missing-key", f"the field {key} is missing")
        return self._left.pop(key)

    def done(self) -> None:
        """Refuse a field that nothing took; in an ancillary section such a field is ignored."""
        if self._left and is_critical(self.section):
            raise self.error("unknown-key", f"unknown field {show(next(iter(self._left)))}")

    def take_int(self, key: str, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        return self.int_of(key, self.take(key), low, high)

    def take_bool(self, key: str) -> bool:
        """A boolean."""
        value = self.take(key)
        if type(value) is not bool:
            raise self.error("bad-type", f"{key} is not a boolean")
        return value

    def take_float(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite float from `low` to `high`."""
        return self.float_of(key, self.take(key), low, high)

    def take_optional_float(self, key: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A finite float from `low` to `high`, or nil."""
        value = self.take(key)
        return None if value is None else self.float_of(key, value, low, high)

    def take_ints(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """A list of exactly `count` integers from `low` to `high`."""
        return tuple(self.int_of(key, value, low, high) for value in self.take_list(key, count, count))

    def take_floats(
        self, key: str, *counts: int, low: float = -math.inf, high: float = math.inf
    ) -> tuple[float, ...]:
        """A list of finite floats from `low` to `high`; its length is one of `counts`."""
        values = self.take_list(key, min(counts), max(counts))
        if len(values) not in counts:
            raise self.error("out-of-range", f"{key} has {len(values)} entries")
        return tuple(self.float_of(key, value, low, high) for value in values)

    def take_list(self, key: str, fewest: int, most: int) -> list[Any]:
        """A list of `fewest` to `most` values of any type."""
        value = self.take(key)
        if type(value) is not list:
            raise self.error("bad-type", f"{key} is not a list")
        if not fewest <= len(value) <= most:
            raise self.error("out-of-range", f"{key} has {len(value)} entries")
        return value

    def take_choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of these strings."""
        value = self.take(key)
        if type(value) is not str:
            raise self.error("bad-type", f"{key} is not a string")
        if value not in choices:
            raise self.error("out-of-range", f"{key} is {show(value)}, not one of {', '.join(choices)}")
        return value

    def take_text(self, key: str, longest: int) -> str:
        """A printable string of at most `longest` characters."""
        return self.text_of(key, self.take(key), longest)

    def take_pattern(self, key: str, pattern: re.Pattern[str]) -> str:
        """A string that matches the whole pattern."""
        value = self.take(key)
        if type(value) is not str:
            raise self.error("bad-type", f"{key} is not a string")
        if pattern.fullmatch(value) is None:
            raise self.error("out-of-range", f"{show(value)} cannot be a {key}")
        return value

    def take_bytes(self, key: str, length: int) -> bytes:
        """Exactly `length` bytes."""
        value = self.take(key)
        if type(value) is not bytes:
            raise self.error("bad-type", f"{key} is not a byte string")
        if len(value) != length:
            raise self.error("out-of-range", f"{key} has {len(value)} bytes, not {length}")
        return value

    def int_of(self, key: str, value: Any, low: int, high: int) -> int:
        """Check one integer of the field `key`."""
        if type(value) is not int:  # a bool is not an integer
            raise self.error("bad-type", f"{key} holds {show(value)}, not an integer")
        if not low <= value <= high:
            raise self.error("out-of-range", f"{key} holds {value}, not {low} to {high}")
        return value

    def float_of(self, key: str, value: Any, low: float, high: float) -> float:
        """Check one float of the field `key`."""
        if type(value) is not float:
            raise self.error("bad-type", f"{key} holds {show(value)}, not a float")
        if not (math.isfinite(value) and low <= value <= high):
            raise self.error("out-of-range", f"{key} holds {value}, not {low} to {high}")
        return value

    def text_of(self, key: str, value: Any, longest: int) -> str:
        """Check one string of the field `key`."""
        if type(value) is not str:
            raise self.error("bad-type", f"{key} is not a string")
        if len(value) > longest:
            raise self.error(
                "out-of-range", f"{key} has {len(value)} characters, at most {longest} are allowed"
            )
        if not value.isprintable():
            raise self.error("not-printable", f"{key} has characters that are not printable")
        return value

    def error(self, code: str, message: str) -> InrError:
        """The error for a broken rule of this record."""
        return fail(code, message, section=self.section)
