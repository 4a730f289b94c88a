"""meta: what the source said of itself, as one Zstandard frame around a MessagePack map (ancillary).

It may be large and it is not canonical: it holds a scanner's own strings, and nothing is decoded from it. Its
strings can have control characters; whoever prints them escapes them (`codes.show`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import zstandard

from ..errors import FormatError, UsageError
from .codes import fail, show
from .limits import DEFAULT_LIMITS, Limits
from .records import parse

SECTION = "meta"
FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
LEVEL = 10  # most of what level 19 gains, at a small part of its time


def pack_metadata(mapping: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The section's bytes for a mapping of plain types (None, bool, int, float, str, bytes, list, dict)."""
    try:
        data = msgpack.packb(dict(mapping), use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"the metadata is not of plain types: {error}") from error
    packed = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True).compress(
        data
    )
    try:
        unpack_metadata(packed, limits)  # what cannot be read back is not written
    except FormatError as error:
        raise UsageError(f"the metadata cannot be stored: {error}") from error
    return packed


def unpack_metadata(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """The mapping of a `meta` section; FormatError or LimitError."""
    plain = decompress(data, limits.max_metadata_bytes, section=SECTION)
    mapping = parse(
        plain, limits.max_metadata_depth, limits.max_metadata_items, section=SECTION, source_data=True
    )
    if not isinstance(mapping, dict):
        raise fail("bad-type", f"the metadata is a map, not {show(mapping)}", section=SECTION)
    return mapping


def decompress(data: bytes, most: int, *, section: str | None = None) -> bytes:
    """The content, of at most `most` bytes, of exactly one Zstandard frame that declares its size.

    All is checked in the frame's header before anything is allocated: zstandard ignores its own
    `max_output_size` when the frame declares a size.
    """
    if not data.startswith(FRAME_MAGIC):  # also refuses skippable frames
        raise fail("metadata-bad-frame", "not a Zstandard frame", section=section)
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError:
        raise fail("metadata-bad-frame", "the Zstandard frame's header is damaged", section=section) from None
    if frame.dict_id:
        raise fail("metadata-bad-frame", "the Zstandard frame needs a dictionary", section=section)
    if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        raise fail("metadata-no-size", "the Zstandard frame does not declare its size", section=section)
    if max(frame.content_size, frame.window_size) > most:
        message = f"{frame.content_size} bytes (window {frame.window_size}), at most {most} are allowed"
        raise fail("metadata-too-large", message, section=section)
    try:
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError:
        raise fail("metadata-bad-frame", "not one whole Zstandard frame", section=section) from None
