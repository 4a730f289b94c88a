"""Records: strict, canonical MessagePack (spec/inrv.md, "Records").

One object has one encoding: map keys are ASCII strings in bytewise order, integers and lengths take their
shortest form, floats are finite float64, there are no extension types. `unpack` accepts that encoding alone.

The reader is our own because msgpack's allocates what an array's header announces before its elements have
been seen: nested headers of five bytes each would reserve gigabytes. Here nothing is allocated ahead.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import msgpack

from ..errors import UsageError
from .codes import fail, show
from .limits import DEFAULT_LIMITS, Limits

SCALARS = {
    code: struct.Struct(layout)
    for code, layout in {
        **{0xCA: ">f", 0xCB: ">d"},
        **{0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"},
        **{0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"},
    }.items()
}
LENGTHS = {  # lead byte -> what follows, and the width of its length
    **{0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)},
    **{0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)},
    **{0xDC: ("array", 2), 0xDD: ("array", 4)},
    **{0xDE: ("map", 2), 0xDF: ("map", 4)},
}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def pack(obj: Any) -> bytes:
    """The canonical encoding of an object of None, bool, int, float, str, bytes, list or tuple, and dict."""
    return bytes(msgpack.packb(_canonical(obj)))


def unpack(data: bytes, limits: Limits = DEFAULT_LIMITS, *, section: str | None = None) -> Any:
    """The object of a record; FormatError or LimitError for anything that `pack` would not have written."""
    if len(data) > limits.max_record_bytes:
        message = f"a record of {len(data)} bytes, at most {limits.max_record_bytes} are allowed"
        raise fail("record-too-large", message, section=section)
    obj = parse(data, limits.max_record_depth, limits.max_record_items, section=section)
    if pack(obj) != data:  # keys out of order, a longer form than needed, float32
        raise fail("record-not-canonical", "the record is not in its canonical encoding", section=section)
    return obj


def parse(
    data: bytes, max_depth: int, max_items: int, *, section: str | None = None, source_data: bool = False
) -> Any:
    """Read one MessagePack object in bounded time and memory, in any of its encodings.

    `source_data` allows what a header must not hold but a source's own metadata may: NaN, infinity and keys
    outside ASCII.
    """
    parser = _Parser(data, max_depth, max_items, section, source_data)
    obj = parser.value(1)
    if parser.at != len(data):
        raise fail("record-trailing-bytes", "bytes follow the record", section=section, offset=parser.at)
    return obj


def _canonical(obj: Any) -> Any:
    """The object with sorted keys, after checking that it has a canonical encoding."""
    if obj is None or isinstance(obj, (bool, bytes)):
        return obj
    if type(obj) is int and -(2**63) <= obj < 2**64:
        return obj
    if isinstance(obj, float) and math.isfinite(obj):
        return float(obj)
    if type(obj) is str and not any("\ud800" <= c <= "\udfff" for c in obj):
        return obj
    if isinstance(obj, (list, tuple)):
        return [_canonical(item) for item in obj]
    if isinstance(obj, dict) and all(type(key) is str and key.isascii() for key in obj):
        return {key: _canonical(obj[key]) for key in sorted(obj)}
    raise UsageError(f"a record cannot hold {show(obj)}")


class _Parser:
    """Recursive descent over one object; `at` is the next byte."""

    def __init__(self, data: bytes, depth: int, items: int, section: str | None, source_data: bool) -> None:
        self.data, self.at = data, 0
        self.max_depth, self.items_left = depth, items
        self.section, self.source_data = section, source_data

    def value(self, depth: int) -> Any:
        at = self.at
        lead = self.take(1)[0]
        if lead <= 0x7F:
            return lead
        if lead >= 0xE0:
            return lead - 0x100
        if lead in CONSTANTS:
            return CONSTANTS[lead]
        if lead in SCALARS:
            return self.number(SCALARS[lead], at)
        if lead in LENGTHS:
            kind, width = LENGTHS[lead]
            return self.sized(kind, int.from_bytes(self.take(width), "big"), at, depth)
        if lead <= 0xBF:  # the short forms: map, array and str with their length in the lead byte
            kind = "map" if lead <= 0x8F else "array" if lead <= 0x9F else "str"
            return self.sized(kind, lead & (0x1F if kind == "str" else 0x0F), at, depth)
        raise self.error("record-bad-type", f"MessagePack type {lead:#04x} is not allowed", at)

    def sized(self, kind: str, length: int, at: int, depth: int) -> Any:
        if kind == "bin":
            return self.take(length)
        if kind == "str":
            return self.text(length)
        if depth > self.max_depth:
            raise self.error("record-too-deep", f"more than {self.max_depth} nested arrays and maps", at)
        if length > len(self.data) - self.at:  # each element takes a byte at least
            raise self.error("record-truncated", f"{length} items announced, fewer bytes left", at)
        self.items_left -= length
        if self.items_left < 0:
            raise self.error("record-too-many-items", "the record has too many items", at)
        if kind == "array":
            return [self.value(depth + 1) for _ in range(length)]
        return self.map(length, depth)

    def map(self, length: int, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for _ in range(length):
            at = self.at
            lead = self.data[at] if at < len(self.data) else 0xA0
            if not (0xA0 <= lead <= 0xBF or 0xD9 <= lead <= 0xDB):  # not a str: refused before it is read
                raise self.error("record-bad-key", "a map's key is not a string", at)
            key = self.value(depth)
            if not (self.source_data or key.isascii()):
                raise self.error("record-bad-key", f"{show(key)} is not ASCII", at)
            if key in result:
                raise self.error("record-duplicate-key", f"the key {show(key)} comes twice", at)
            result[key] = self.value(depth + 1)
        return result

    def number(self, layout: struct.Struct, at: int) -> int | float:
        number: int | float = layout.unpack(self.take(layout.size))[0]
        if isinstance(number, float) and not math.isfinite(number) and not self.source_data:
            raise self.error("record-not-finite", "a float is not finite", at)
        return number

    def text(self, length: int) -> str:
        at = self.at
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("record-bad-utf8", "a string is not valid UTF-8", at) from None

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise self.error("record-truncated", "the record ends too early", self.at)
        self.at += length
        return self.data[self.at - length : self.at]

    def error(self, code: str, message: str, at: int) -> Exception:
        return fail(code, message, section=self.section, offset=at)
