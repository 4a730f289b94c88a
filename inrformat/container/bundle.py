"""Section BNDL: the small sections of a file as one, deflated with a dictionary (spec, "BNDL").

u8        the number of the dictionary, 1
the rest  raw DEFLATE (RFC 1951) of the sections, one after the other: type 4 bytes, u16 length, bytes

A small volume's records take a kilobyte, of which names, hashes of shipped models and usual values are most.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Sequence

from .codes import fail, show
from .dictionary import DICTIONARY

SECTION = "BNDL"
PART = struct.Struct("<4sH")
MOST_BYTES = 1 << 16
"""Inflated."""
NUMBER = 1
RAW = -zlib.MAX_WBITS
TYPE = re.compile("[A-Za-z]{4}")


def bundled(sections: Sequence[tuple[str, bytes]], types: Collection[str]) -> list[tuple[str, bytes]]:
    """The sections, those of `types` in a bundle before the others.

    As they are where the first is not one of these, or they are too large.
    """
    small = [(name, body) for name, body in sections if name in types]
    size = sum(PART.size + len(body) for _, body in small)
    if sections[0][0] not in types or size > MOST_BYTES or any(len(body) >> 16 for _, body in small):
        return list(sections)
    parts = b"".join(PART.pack(name.encode(), len(body)) + body for name, body in small)
    deflater = zlib.compressobj(9, zlib.DEFLATED, RAW, zdict=DICTIONARY)
    body = bytes([NUMBER]) + deflater.compress(parts) + deflater.flush()
    return [(SECTION, body), *(section for section in sections if section[0] not in types)]


def unbundled(body: bytes) -> dict[str, bytes]:
    """The sections of a bundle by their type; FormatError, UnsupportedError for an unknown dictionary."""
    if not body:
        raise fail("bad-bundle", "the bundle is empty", section=SECTION)
    if body[0] != NUMBER:
        raise fail("unknown-dictionary", f"dictionary {body[0]} of bundles is not known", section=SECTION)
    parts = _inflated(body[1:])
    found: dict[str, bytes] = {}
    at = 0
    while at < len(parts):
        if len(parts) - at < PART.size:
            raise fail("bad-bundle", "a section in the bundle is cut short", section=SECTION)
        raw, length = PART.unpack_from(parts, at)
        name, at = raw.decode("latin-1"), at + PART.size
        if TYPE.fullmatch(name) is None or name == SECTION:
            raise fail(
                "bad-section-type", f"{show(raw)} is not a type of a section in a bundle", section=SECTION
            )
        if name in found:
            raise fail("duplicate-section", "a section type comes twice", section=name)
        if at + length > len(parts):
            raise fail("bad-bundle", f"the section {name} in the bundle is cut short", section=SECTION)
        found[name] = parts[at : at + length]
        at += length
    if not found:
        raise fail("bad-bundle", "there is no section in the bundle", section=SECTION)
    return found


def _inflated(code: bytes) -> bytes:
    """What a raw DEFLATE stream, all of `code`, holds: at most MOST_BYTES."""
    inflater = zlib.decompressobj(RAW, zdict=DICTIONARY)
    try:
        parts = inflater.decompress(code, MOST_BYTES + 1)
    except zlib.error as error:
        raise fail("bad-bundle", "the bundle is not deflated as it should be", section=SECTION) from error
    if len(parts) > MOST_BYTES:
        raise fail("bundle-too-large", f"the bundle holds more than {MOST_BYTES} bytes", section=SECTION)
    if not inflater.eof or inflater.unused_data:
        raise fail("bad-bundle", "the bundle's DEFLATE stream does not end with it", section=SECTION)
    return parts
