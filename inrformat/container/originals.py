"""file and rest: the files that a volume was made from, or that a pack holds (spec/inrv.md, "The files").

`file` (in a pack `FILE`) lists them. `rest` (`REST`) is what the volume does not give: of each file, in the
list's order, the bytes before its pixels and those after them; of a file without slices, all its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import zstandard

from ..errors import InrError
from . import records
from .codes import fail, show
from .fields import Fields
from .headers import LONGEST_AXIS
from .layout import Reader
from .limits import DEFAULT_LIMITS, Limits
from .metadata import decompress

LIST, REST = "file", "rest"
PACK_LIST, PACK_REST = "FILE", "REST"
PACK_CRITICAL = (PACK_LIST, PACK_REST)
"""Critical sections of a pack."""
LONGEST_PATH = 4096
MOST_PATHS = 1 << 16
LARGEST_FILE = 1 << 62
WINDOW_LOG = 26
"""Of `rest`: 64 MiB. Headers of one series are alike, so each is found in the one before it."""
LEVEL = 19
CHUNK = 1 << 20
MAGIC = b"\x28\xb5\x2f\xfd"
FED = 1 << 10
"""Bytes of a frame that are decompressed at a time: they can become 32 MiB."""


@dataclass(frozen=True)
class Original:
    """One file.

    paths   where it was: relative, '/' between the parts, in the bytes of the file system. Several: copies.
    size    bytes.
    sha256  of the whole file.
    at      the offset of its pixels; 0 when it has no slices.
    slices  the volume's slices (z) that its pixels are, in the file's order.
    reason  why it was not coded as a volume; '' when it was.
    """

    paths: tuple[bytes, ...]
    size: int
    sha256: bytes
    at: int = 0
    slices: tuple[int, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Originals:
    """The list of files.

    exact       the volume is lossless: with `rest` it gives every file, byte for byte.
    big_endian  of the files' pixels.
    """

    files: tuple[Original, ...]
    exact: bool = True
    big_endian: bool = False

    def pack(self, section: str = LIST, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The section's bytes; FormatError or LimitError when they would not be accepted."""
        files = [[list(f.paths), f.size, f.sha256, f.at, list(f.slices), f.reason] for f in self.files]
        plain = records.pack({"files": files, "exact": self.exact, "big_endian": self.big_endian})
        data = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(plain)
        self.unpack(data, section, limits)
        return data

    @classmethod
    def unpack(cls, data: bytes, section: str = LIST, limits: Limits = DEFAULT_LIMITS) -> Self:
        """The list of a section; FormatError or LimitError."""
        plain = decompress(data, limits.max_metadata_bytes, section=section)
        wide = replace(
            limits, max_record_bytes=limits.max_metadata_bytes, max_record_items=limits.max_metadata_items
        )
        fields = Fields(records.unpack(plain, wide, section=section), section)
        entries = fields.take_list("files", 1, LONGEST_AXIS)
        exact, big_endian = fields.take_bool("exact"), fields.take_bool("big_endian")
        fields.done()
        files = tuple(_original(fields, entry) for entry in entries)
        _check_once(fields, "duplicate-path", [path for f in files for path in f.paths])
        _check_once(fields, "duplicate-slice", [z for f in files for z in f.slices])
        return cls(files, exact, big_endian)

    def rest_bytes(self, slice_bytes: int) -> int:
        """How much `rest` holds, where a slice of the volume has `slice_bytes`; FormatError, LimitError."""
        return sum(f.size - len(f.slices) * slice_bytes for f in self.files)

    def check(
        self, slices: int, slice_bytes: int, section: str = LIST, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Every file's pixels lie inside it and in a volume of so many slices; FormatError, LimitError."""
        for f in self.files:
            if f.at + len(f.slices) * slice_bytes > f.size or max(f.slices, default=-1) >= slices:
                raise fail("pixels-out-of-bounds", "a file's pixels lie outside it", section=section)
        if self.rest_bytes(slice_bytes) > limits.max_section_bytes:
            raise fail("section-too-large", "the files have too many bytes beside pixels", section=section)


def read_originals(reader: Reader, slices: int, slice_bytes: int) -> tuple[Originals, bytes] | None:
    """The list of an open file or pack, and its `rest` still compressed; None when it has no list."""
    name, rest = (PACK_LIST, PACK_REST) if reader.kind == "pack" else (LIST, REST)
    if reader.kind == "pack":
        reader.check_known(PACK_CRITICAL)
    elif not reader.has(name):
        return None
    originals = Originals.unpack(reader.read(name), name, reader.limits)
    originals.check(slices, slice_bytes, name, reader.limits)
    return originals, reader.read(rest)


def compress_rest(parts: Iterable[bytes], size: int) -> bytes:
    """One Zstandard frame of the parts, which are `size` bytes in all."""
    window = min(max((size - 1).bit_length(), 10), WINDOW_LOG)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=window, enable_ldm=True, write_checksum=True
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    return b"".join([*(frame.compress(part) for part in parts), frame.flush()])


class Rest:
    """The bytes of `rest`, from the first to the last, in bounded memory."""

    def __init__(self, data: bytes, section: str = REST) -> None:
        self._section, self._data, self._at = section, data, 0
        self._frame: Any = None  # the one that is being read
        self._out = memoryview(b"")  # what it gave and nobody has taken
        if not data:
            raise self._broken()

    def read(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, in chunks; FormatError when they are not there."""
        while length:
            chunk = self._chunk(min(length, CHUNK))
            if not chunk:
                raise fail(
                    "rest-size-mismatch", "the bytes of the files end too early", section=self._section
                )
            length -= len(chunk)
            yield chunk

    def end(self) -> None:
        """FormatError when bytes are left."""
        if self._chunk(1):
            raise fail(
                "rest-size-mismatch", "the files have fewer bytes than there are", section=self._section
            )

    def _chunk(self, length: int) -> bytes:
        """The next bytes, `length` at most; none at the end of the last frame."""
        while not self._out and (self._frame is not None or self._at < len(self._data)):
            self._feed()
        chunk, self._out = bytes(self._out[:length]), self._out[length:]
        return chunk

    def _feed(self) -> None:
        """Give a little to the frame: what it makes of that is bounded, too."""
        if self._frame is None:
            if not self._data.startswith(MAGIC, self._at):
                raise self._broken()
            self._frame = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).decompressobj()
        piece = self._data[self._at : self._at + FED]
        if not piece:
            raise self._broken()  # its checksum or more is missing
        try:
            self._out = memoryview(self._frame.decompress(piece))
        except zstandard.ZstdError:
            raise self._broken() from None
        self._at += len(piece)
        if self._frame.eof:
            self._at -= len(self._frame.unused_data)
            self._frame = None

    def _broken(self) -> InrError:
        return fail("rest-bad-frame", "not whole Zstandard frames", section=self._section)


def _original(fields: Fields, entry: Any) -> Original:
    """Check one entry of the list."""
    if type(entry) is not list or len(entry) != 6:
        raise fields.error("bad-type", f"a file is six values, not {show(entry)}")
    own = Fields(
        dict(zip(("paths", "size", "sha256", "at", "slices", "reason"), entry, strict=True)), fields.section
    )
    paths = tuple(_path(fields, path) for path in own.take_list("paths", 1, MOST_PATHS))
    size = own.take_int("size", 0, LARGEST_FILE)
    sha256, at = own.take_bytes("sha256", 32), own.take_int("at", 0, size)
    numbers = own.take_list("slices", 0, LONGEST_AXIS)
    slices = tuple(own.int_of("slices", z, 0, LONGEST_AXIS - 1) for z in numbers)
    return Original(paths, size, sha256, at, slices, own.take_text("reason", 256))


def _path(fields: Fields, path: Any) -> bytes:
    """A path that stays below the folder it is taken from."""
    if type(path) is not bytes:
        raise fields.error("bad-type", "a path is not a byte string")
    if not is_safe(path):
        raise fields.error("bad-path", f"{show(path)} is not a relative path, or leads out of its folder")
    return path


def is_safe(path: bytes) -> bool:
    """Whether the path is relative, and none of its parts leads upward or nowhere."""
    return (
        0 < len(path) <= LONGEST_PATH and b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/"))
    )


def _check_once(fields: Fields, code: str, items: list[Any]) -> None:
    if len(set(items)) < len(items):
        raise fields.error(code, "a file's path or slice comes twice")
