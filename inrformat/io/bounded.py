"""How large compressed data become, found out before a library inflates all of them at once."""

from __future__ import annotations

from typing import BinaryIO, Protocol

CHUNK = 1 << 12
"""Bytes at a time: of deflated ones a thousand times as many are held for a moment."""


class Inflater(Protocol):
    """What `zlib.decompressobj` and `bz2.BZ2Decompressor` have in common."""

    @property
    def eof(self) -> bool:
        """Whether the compressed data have ended."""

    def decompress(self, data: bytes, /) -> bytes:
        """What these bytes add."""


def inflates_beyond(stream: BinaryIO, inflater: Inflater, most: int) -> bool:
    """Whether what comes next in a stream is more than so many bytes when it is inflated."""
    size = 0
    while not inflater.eof and (chunk := stream.read(CHUNK)):
        size += len(inflater.decompress(chunk))
        if size > most:
            return True
    return False
