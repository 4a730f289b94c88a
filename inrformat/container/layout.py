"""The bytes of a file: header, section table, sections, footer (spec/inrv.md, "The container").

    header   32 bytes      magic, version, number of sections, file length, CRC-32C of header and table
    table    n x 32 bytes  type, CRC-32C, offset, length
    sections               in table order, without a gap
    footer   32 bytes      SHA-256 of everything before it

Nothing here knows what a section means, but for a bundle's.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import google_crc32c

from ..errors import InputError, UsageError
from . import bundle
from .codes import fail, show
from .limits import DEFAULT_LIMITS, Limits

MAGIC = b"\x93INR\r\n\x1a\n"
MAJOR, MINOR = 1, 0
HEADER = struct.Struct(
    "<8sBBHIQII"
)  # magic, major, minor, reserved, sections, file length, CRC-32C, reserved
ENTRY = struct.Struct("<4sIQQQ")  # type, CRC-32C, offset, length, reserved
FOOTER_BYTES = 32
CHECKED_HEADER_BYTES = 24  # what the header's CRC covers, before the table
KINDS = {"HEAD": "volume", "MODL": "model", "FILE": "pack"}
"""What a file is, by the type of its first section."""
CHUNK = 2**20

# What transfers leave of the magic: 7 bits, Latin-1 taken for UTF-8, UTF-8's replacement character.
DAMAGED_STARTS = (b"\x13INR", b"\xc2\x93INR", b"\xef\xbf\xbdINR", MAGIC[:4])

Source = bytes | bytearray | memoryview | str | os.PathLike[str]


@dataclass(frozen=True)
class SectionInfo:
    """One entry of the section table."""

    type: str
    offset: int
    length: int
    crc: int

    @property
    def critical(self) -> bool:
        """Whether a decoder that does not know this section must refuse the file."""
        return is_critical(self.type)


@dataclass(frozen=True)
class Layout:
    """What the header and the section table say, once every rule about them has been checked."""

    major: int
    minor: int
    file_length: int
    sections: tuple[SectionInfo, ...]


def is_critical(section_type: str) -> bool:
    """Critical sections begin with an upper-case letter, ancillary ones with a lower-case letter."""
    return section_type[:1].isupper()


def build(sections: Sequence[tuple[str, bytes]]) -> bytes:
    """The file with these (type, bytes) sections, in this order; UsageError for a wrong or repeated type."""
    types = [section_type for section_type, _ in sections]
    if not types or len(set(types)) != len(types) or not all(map(_is_type, types)):
        raise UsageError(f"a file needs at least one section, each type once, of four ASCII letters: {types}")
    entries, offset = [], HEADER.size + ENTRY.size * len(sections)
    for section_type, body in sections:
        entries.append(ENTRY.pack(section_type.encode(), google_crc32c.value(body), offset, len(body), 0))
        offset += len(body)
    table = b"".join(entries)
    start = HEADER.pack(MAGIC, MAJOR, MINOR, 0, len(sections), offset + FOOTER_BYTES, 0, 0)[
        :CHECKED_HEADER_BYTES
    ]
    header = start + struct.pack("<II", google_crc32c.value(start + table), 0)
    parts = [header, table, *(body for _, body in sections)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


def parse(start: bytes, size: int, limits: Limits = DEFAULT_LIMITS) -> Layout:
    """Check the header and the section table of a file of `size` bytes.

    `start` is the file's beginning; `table_end` of the header tells how much is needed.
    """
    end = table_end(start, size, limits)
    _, major, minor, reserved, _, file_length, crc, reserved_2 = HEADER.unpack_from(start)
    if google_crc32c.value(start[:CHECKED_HEADER_BYTES] + start[HEADER.size : end]) != crc:
        raise fail("bad-header-crc", "the file's header or section table is damaged", offset=24)
    if reserved or reserved_2:
        raise fail("reserved-not-zero", "a reserved header field is not zero", offset=10 if reserved else 28)
    if size < file_length:
        raise fail("truncated", f"the file has {size} bytes of {file_length}", offset=size)
    if size > file_length:
        raise fail(
            "trailing-bytes", f"the file has {size} bytes, its header says {file_length}", offset=file_length
        )
    sections: list[SectionInfo] = []
    for at in range(HEADER.size, end, ENTRY.size):
        sections.append(_entry(start, at, limits))
    _check_places(sections, end, file_length - FOOTER_BYTES)
    return Layout(major, minor, file_length, tuple(sections))


def table_end(start: bytes, size: int, limits: Limits = DEFAULT_LIMITS) -> int:
    """Check what must be known before the section table is read; the offset at which that table ends."""
    if not start.startswith(MAGIC[: len(start)]):
        if start.startswith(DAMAGED_STARTS):
            raise fail("text-mode-damage", "the file was damaged by a text-mode or 7-bit transfer", offset=0)
        raise fail("bad-magic", "this is not an .inrv or .inrm file", offset=0)
    if len(start) < HEADER.size:
        raise fail("truncated", f"the file has only {len(start)} bytes", offset=len(start))
    _, major, minor, _, count, *_ = HEADER.unpack_from(start)
    if major != MAJOR:
        # Checked before all else: another major version may mean anything by the bytes that follow.
        raise fail(
            "unsupported-version", f"the file has format version {major}.{minor}, this reads {MAJOR}.x"
        )
    if count == 0:
        raise fail("no-sections", "the file has no section", offset=12)
    if count > limits.max_sections:
        raise fail(
            "too-many-sections", f"{count} sections, at most {limits.max_sections} are allowed", offset=12
        )
    end = HEADER.size + ENTRY.size * int(count)
    if size < end + FOOTER_BYTES:
        raise fail("truncated", f"the file has only {size} bytes, too few for its section table", offset=size)
    return end


def _entry(start: bytes, at: int, limits: Limits) -> SectionInfo:
    """Check one entry of the table on its own."""
    raw_type, crc, offset, length, reserved = ENTRY.unpack_from(start, at)
    section_type = raw_type.decode("latin-1")
    if not _is_type(section_type):
        raise fail("bad-section-type", f"{show(raw_type)} is not a section type", offset=at)
    if reserved:
        raise fail("reserved-not-zero", "a reserved field is not zero", section=section_type, offset=at + 24)
    if length > limits.max_section_bytes:
        raise fail(
            "section-too-large",
            f"a section of {length} bytes, at most {limits.max_section_bytes} are allowed",
            section=section_type,
            offset=at + 16,
        )
    return SectionInfo(section_type, offset, length, crc)


def _check_places(sections: Sequence[SectionInfo], first: int, last: int) -> None:
    """The sections fill the bytes from `first` to `last`, in order, and no type comes twice."""
    expected = first
    seen: set[str] = set()
    for number, info in enumerate(sections):
        at = HEADER.size + ENTRY.size * number
        if info.type in seen:
            raise fail("duplicate-section", "a section type comes twice", section=info.type, offset=at)
        seen.add(info.type)
        if info.offset != expected:
            message = f"the section begins at {info.offset}, not at {expected}"
            raise fail("sections-not-contiguous", message, section=info.type, offset=at + 8)
        expected += info.length
        if expected > last:
            message = f"the section ends at {expected}, past the last possible byte {last}"
            raise fail("section-out-of-bounds", message, section=info.type, offset=at + 16)
    if expected != last:
        raise fail(
            "sections-not-contiguous", f"{last - expected} bytes belong to no section", offset=expected
        )


def _is_type(text: str) -> bool:
    return bundle.TYPE.fullmatch(text) is not None


class _Bytes:
    """Random access to a file that is in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._view[offset : offset + length])

    def close(self) -> None:
        self._view.release()


class _File:
    """Random access to a file on disk. Not a memory map: that would die of SIGBUS if the file shrank."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = (
            path,
            threading.Lock(),
        )  # the lock keeps seek and read together across threads
        try:
            if not path.is_file():  # before open(), which would wait for ever on a named pipe
                raise InputError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise InputError(f"cannot open {path}: {error}") from error

    def read(self, offset: int, length: int) -> bytes:
        try:
            with self._lock:
                self._file.seek(offset)
                return self._file.read(length)
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error}") from error

    def close(self) -> None:
        self._file.close()


class _Access(Protocol):
    size: int

    def read(self, offset: int, length: int) -> bytes: ...

    def close(self) -> None: ...


class Reader:
    """A file whose header and section table are right; a section is read, and checked, when it is asked for.

    `source` is the file's bytes, or its path. Opening reads the header, the table and, where the first
    section is one, the bundle: what it holds is read as sections are. Usable from several threads.
    Raises FormatError, LimitError, UnsupportedError (another major version, an unknown dictionary) and
    InputError (the file cannot be opened or read).
    """

    def __init__(self, source: Source, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._source: _Access
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._source = _Bytes(source)
        else:
            self._source = _File(Path(source))
        try:
            start = self._source.read(0, HEADER.size)
            start += self._source.read(HEADER.size, table_end(start, self._source.size, limits) - HEADER.size)
            self.layout = parse(start, self._source.size, limits)
            self._by_type = {info.type: info for info in self.layout.sections}
            self._bundled = self._open_bundle()
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the reader cannot be used any more."""
        self._source.close()

    def _open_bundle(self) -> dict[str, bytes]:
        """What the bundle holds, if the file begins with one."""
        first = self.layout.sections[0]
        if first.type != bundle.SECTION:
            return {}
        found = bundle.unbundled(self._checked(first))
        for name, body in found.items():
            if name in self._by_type:
                message = "a section is in the bundle and beside it"
                raise fail("duplicate-section", message, section=name, offset=first.offset)
            self._by_type[name] = SectionInfo(name, first.offset, len(body), google_crc32c.value(body))
        return found

    @property
    def sections(self) -> tuple[SectionInfo, ...]:
        """The section table, in file order."""
        return self.layout.sections

    @property
    def bundled(self) -> tuple[str, ...]:
        """The types of the sections in the bundle, if the file begins with one."""
        return tuple(self._bundled)

    @property
    def types(self) -> tuple[str, ...]:
        """Of all sections, those in the bundle in its place."""
        rest = self.sections[1:] if self._bundled else self.sections
        return (*self._bundled, *(info.type for info in rest))

    @property
    def kind(self) -> str:
        """`volume`, `model` or `pack`, told by the first section; FormatError for anything else."""
        first = self.types[0]
        if first not in KINDS:
            raise fail("bad-first-section", "the first section is none of HEAD, MODL, FILE", section=first)
        return KINDS[first]

    def has(self, section_type: str) -> bool:
        """Whether the file has this section."""
        return section_type in self._by_type

    def info(self, section_type: str) -> SectionInfo:
        """The section's entry in the table, or what it would be; FormatError when the file has none."""
        if section_type not in self._by_type:
            raise fail("missing-section", f"the file has no section {section_type}", section=section_type)
        return self._by_type[section_type]

    def read(self, section_type: str) -> bytes:
        """The section's bytes, after its CRC-32C has been checked."""
        if section_type in self._bundled:
            return self._bundled[section_type]
        return self._checked(self.info(section_type))

    def _checked(self, info: SectionInfo) -> bytes:
        """The bytes of a section of the table, after its CRC-32C has been checked."""
        body = self._exactly(info.offset, info.length)
        if google_crc32c.value(body) != info.crc:
            raise fail("bad-section-crc", "the section is damaged", section=info.type, offset=info.offset)
        return body

    def read_part(self, section_type: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` of the section, NOT checked: the part needs a check of its own."""
        info = self.info(section_type)
        if not 0 <= start <= start + length <= info.length:
            message = f"bytes {start} to {start + length} of a section of {info.length} bytes"
            raise fail("part-out-of-bounds", message, section=info.type)
        if section_type in self._bundled:
            return self._bundled[section_type][start : start + length]
        return self._exactly(info.offset + start, length)

    def check_known(self, critical_known: Collection[str]) -> None:
        """Refuse the file when it has a critical section whose type is not among these."""
        for info in map(self.info, self.types):
            if info.critical and info.type not in critical_known:
                message = "this decoder does not know a section that it would need"
                raise fail("unknown-critical-section", message, section=info.type, offset=info.offset)

    def check_all(self) -> None:
        """Check every section's CRC-32C and the file's SHA-256, in bounded memory."""
        digest = hashlib.sha256()
        for chunk in self._chunks(0, self.sections[0].offset):
            digest.update(chunk)
        damaged: SectionInfo | None = None
        for info in self.sections:
            crc = 0
            for chunk in self._chunks(info.offset, info.length):
                crc = google_crc32c.extend(crc, chunk)
                digest.update(chunk)
            if crc != info.crc and damaged is None:
                damaged = info
        if damaged is not None:  # said first, because it says where
            raise fail(
                "bad-section-crc", "the section is damaged", section=damaged.type, offset=damaged.offset
            )
        footer = self.layout.file_length - FOOTER_BYTES
        if digest.digest() != self._exactly(footer, FOOTER_BYTES):
            raise fail("bad-file-hash", "the file's SHA-256 does not match its bytes", offset=footer)

    def _chunks(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            chunk = self._exactly(offset, min(CHUNK, end - offset))
            offset += len(chunk)
            yield chunk

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._source.read(offset, length)
        if len(data) != length:
            raise fail("truncated", "the file became shorter while it was read", offset=offset + len(data))
        return data
