"""How large compressed data become, found out before a library inflates all of them at once."""

from __future__ import annotations

from typing import BinaryIO, Protocol

CHUNK = 1 << 16
"""Compressed bytes that are read at a time."""
PART = 1 << 20
"""Bytes that are inflated at a time: a few kB of bzip2 may be as many as gigabytes."""


class Inflater(Protocol):
    """What `zlib.decompressobj` and `bz2.BZ2Decompressor` have in common.

    The former hands back what it has not looked at, as `unconsumed_tail`; the latter keeps it.
    """

    @property
    def eof(self) -> bool:
        """Whether the compressed data have ended."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """What these bytes add, or so many bytes of it."""


def inflates_beyond(stream: BinaryIO, inflater: Inflater, most: int) -> bool:
    """Whether what comes next in a stream is more than so many bytes when it is inflated."""
    size, given, more = 0, b"", False
    while not inflater.eof:
        if not given and not more and not (given := stream.read(CHUNK)):
            break
        part = inflater.decompress(given, PART)
        size += len(part)
        if size > most:
            return True
        given, more = getattr(inflater, "unconsumed_tail", b""), len(part) == PART
    return False
