"""Which files of an export make volumes: headers alone are read, once, and no value of a patient is kept.

A series is split by study, series, orientation, matrix, pixel spacing and pixel format; and where slices then
share a position, by the first of `SPLITS` that tells them apart, or by their order. A file that is no part of
a volume has a reason, and goes into a pack.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..container.limits import DEFAULT_LIMITS
from ..errors import InputError
from ..io.dicom import (
    SCAN_TAGS,
    UNDEFINED_LENGTH,
    Slice,
    along_normal,
    frames_of,
    is_deflated,
    quiet,
    tags_of,
)
from .places import Place, sha256_of

SPLITS = (
    "EchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "ImageType",
    "AcquisitionNumber",
    "TriggerTime",
)
"""What tells slices at one position apart, in the order of trial."""
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
PIXEL_DATA = 0x7FE00010
DIRECTORY = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LONGEST_VOLUME = 4096
"""Slices; a longer run becomes several volumes, so that memory is bounded."""
MOST_BESIDE = 1 << 26
"""Bytes of a file that are no pixels; a series' files are read whole, those of a pack in parts."""
PACK_BYTES, PACK_FILES = 1 << 26, 4096
_TAGS = [*SCAN_TAGS, *tags_of(f"StudyInstanceUID {' '.join(SPLITS)}")]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class File:
    """A file of a job. `slices`: those of the volume that its pixels are; for the rest see `Original`."""

    paths: tuple[bytes, ...]
    size: int
    at: int = 0
    slices: tuple[int, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What becomes one object: a volume's files in the order of its slices, or files for a pack.

    shape, dtype   (z, y, x) and NumPy's name of the pixels with their byte order; None, '' for a pack.
    """

    files: tuple[File, ...]
    shape: tuple[int, int, int] | None = None
    dtype: str = ""

    @property
    def key(self) -> str:
        """The same for the same files, whatever they hold."""
        paths = sorted(path for file in self.files for path in file.paths)
        return hashlib.sha256(b"\0".join(paths)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of the files, without their copies."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Scan:
    """The jobs, the largest first, and the files that cannot be archived, each with its reason."""

    jobs: tuple[Job, ...]
    refused: tuple[tuple[bytes, str], ...]

    @property
    def files(self) -> int:
        """Files of all jobs, copies too."""
        return sum(len(file.paths) for job in self.jobs for file in job.files)


@dataclass(frozen=True)
class _Found:
    """A file that was looked at; `slices` is empty where it has a reason."""

    file: File
    uid: str = ""
    slices: tuple[Slice, ...] = ()
    group: tuple[Hashable, ...] = ()
    splits: tuple[str, ...] = ()
    big_endian: bool = False


def scan(place: Place) -> Scan:
    """Look at every file of a place."""
    found: list[_Found] = []
    refused: list[tuple[bytes, str]] = []
    with quiet():
        for path, size in place.walk():
            if isinstance(size, str):
                refused.append((path, size))
                continue
            if size > DEFAULT_LIMITS.max_section_bytes:
                refused.append((path, f"larger than {DEFAULT_LIMITS.max_section_bytes >> 30} GiB"))
                continue
            try:
                with place.open(path) as stream:
                    found.append(_examine(stream, path, size))
            except OSError as error:
                refused.append((path, f"cannot be read ({error.strerror or type(error).__name__})"))
        found = _without_copies(place, found)
    jobs: list[Job] = []
    others = [item.file for item in found if item.file.reason]
    for group in _grouped(found, lambda item: None if item.file.reason else item.group):
        for volume in _volumes(group):
            if sum(len(item.slices) for item in volume) > 1:
                jobs.append(_volume_job(volume))
            else:
                others += [replace(item.file, reason="a single image") for item in volume]
    jobs += _packs(sorted(others, key=lambda file: file.paths))
    return Scan(tuple(sorted(jobs, key=lambda job: -job.size)), tuple(refused))


# --- one file -------------------------------------------------------------------------------------


def _examine(stream: BinaryIO, path: bytes, size: int) -> _Found:
    """What a file is, from its header; OSError when it cannot be read."""
    file = File((path,), size)
    start = stream.read(132)
    preamble = start[128:] == b"DICM"
    if not preamble and start[:2] not in (b"\x08\x00", b"\x02\x00"):
        return _Found(replace(file, reason="not a DICOM file"))
    try:
        if preamble and is_deflated(stream):  # pydicom would inflate all of it
            return _Found(replace(file, reason="a deflated data set"))
        stream.seek(0)
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=not preamble, specific_tags=_TAGS)
        reason = _no_volume(header)
        if reason:
            return _Found(replace(file, reason=reason), _str(header, "SOPInstanceUID"))
        implicit, little = header.original_encoding
        at, length = _pixel_value(stream, bool(implicit), bool(little))
        slices = tuple(frames_of(Path(os.fsdecode(path)), header))
        _check_pixels(slices, at, length, size)
        file = replace(file, at=at)
        return _Found(
            file, slices[0].uid, slices, _group(header, slices, path, not little), _splits(header), not little
        )
    except InputError as error:
        return _Found(replace(file, reason=str(error)[:200]))
    except Exception as error:  # pydicom's messages quote values: only the kind is told
        if isinstance(error, OSError) and error.errno is not None:  # pydicom has some of its own
            raise
        return _Found(replace(file, reason=f"broken DICOM header ({type(error).__name__})"))


def _no_volume(header: Dataset) -> str:
    """Why an image is no part of a volume, as far as its own elements tell; '' when it may be one."""
    meta = getattr(header, "file_meta", None) or Dataset()
    syntax = UID(_str(meta, "TransferSyntaxUID") or ImplicitVRLittleEndian)
    sop_class = _str(header, "SOPClassUID") or _str(meta, "MediaStorageSOPClassUID")
    if sop_class == DIRECTORY:
        return "a DICOM directory"
    if "Rows" not in header or "Columns" not in header:
        return "not an image (a report, a presentation state, ...)"
    if syntax not in NATIVE:
        return f"compressed pixels ({syntax.name if syntax.is_transfer_syntax else 'unknown syntax'})"
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(f"{SECONDARY_CAPTURE}."):
        return "a secondary capture"
    if "LOCALIZER" in _str(header, "ImageType").upper():
        return "a localizer"
    return ""


def _pixel_value(stream: BinaryIO, implicit: bool, little: bool) -> tuple[int, int]:
    """Offset and length of the value of Pixel Data, at whose tag the stream is; InputError."""
    order = "<" if little else ">"
    at = stream.tell()
    head = stream.read(12)
    if len(head) < 12 or struct.unpack_from(f"{order}HH", head) != (PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF):
        raise InputError("no integer pixel data (the file is cut short, or holds floating-point pixels)")
    if implicit:
        return at + 8, struct.unpack_from(f"{order}I", head, 4)[0]
    if head[4:6] not in (b"OB", b"OW"):
        raise InputError("pixel data of an unusual value representation")
    return at + 12, struct.unpack_from(f"{order}I", head, 8)[0]


def _check_pixels(slices: tuple[Slice, ...], at: int, length: int, size: int) -> None:
    """InputError when the pixels are not there, or are not what the codec takes."""
    first = slices[0]
    needed = len(slices) * first.shape[0] * first.shape[1] * first.allocated // 8
    if first.allocated not in (8, 16):
        raise InputError(f"pixels of {first.allocated} bits")
    if length == UNDEFINED_LENGTH:
        raise InputError("pixel data of undefined length")
    if length < needed or at + length > size:
        raise InputError("truncated pixel data")
    if size - needed > MOST_BESIDE:
        raise InputError("too much beside its pixels")


def _group(header: Dataset, slices: tuple[Slice, ...], path: bytes, big_endian: bool) -> tuple[Hashable, ...]:
    """What the slices of one volume share. A multi-frame file is a volume of its own."""
    first = slices[0]
    if first.allocated == 8 and big_endian:
        raise InputError("pixels of 8 bits in big-endian words")
    return (
        path if len(slices) > 1 else b"",
        _str(header, "StudyInstanceUID"),
        _str(header, "SeriesInstanceUID"),
        None if first.orientation is None else tuple(first.orientation.round(3).ravel().tolist()),
        first.position is None,
        first.shape,
        tuple(round(v, 4) for v in first.pixel_spacing),
        (first.allocated, first.signed, first.photometric, big_endian),
    )


def _splits(header: Dataset) -> tuple[str, ...]:
    return tuple(_str(header, keyword) for keyword in SPLITS)


def _str(dataset: Dataset, keyword: str) -> str:
    """The element as text for comparisons; '' when it is missing or broken."""
    try:
        return str(dataset.get(keyword, ""))
    except Exception:
        return ""


# --- all files ------------------------------------------------------------------------------------


def _without_copies(place: Place, found: list[_Found]) -> list[_Found]:
    """The same with identical files of one SOP Instance UID as one file of several paths."""
    result: list[_Found] = []
    for same in _grouped(found, lambda item: (item.uid, item.file.size) if item.uid else item.file.paths):
        if len(same) == 1:
            result += same
            continue
        for copies in _grouped(same, lambda item: _digest(place, item.file.paths[0])):
            paths = tuple(path for item in copies for path in item.file.paths)
            result.append(replace(copies[0], file=replace(copies[0].file, paths=paths)))
    return result


def _digest(place: Place, path: bytes) -> bytes:
    """SHA-256 of a file; its path where it cannot be read, which is found again by its job."""
    try:
        return sha256_of(place, path)
    except OSError:
        return path


def _volumes(group: list[_Found]) -> Iterator[list[_Found]]:
    """Split until no two slices share a position; each volume in the order of its slices."""
    places = _places(group)
    shared = max(Counter(places).values())
    if shared == 1 or len(group) == 1:
        ordered = [item for _, item in sorted(zip(places, group, strict=True), key=lambda pair: pair[0])]
        for k in range(0, len(ordered), LONGEST_VOLUME):
            yield ordered[k : k + LONGEST_VOLUME]
        return
    for k in range(len(SPLITS)):
        parts = _grouped(group, lambda item, k=k: item.splits[k])  # type: ignore[misc]
        if 1 < len(parts) <= shared:  # more: it changes from slice to slice, and tells nothing
            break
    else:
        parts = _layers(group, places)
    for part in parts:
        yield from _volumes(part)


def _places(group: list[_Found]) -> list[float]:
    """Along the normal in mm, to 0.01; instance numbers where there are no positions."""
    firsts = [item.slices[0] for item in group]
    if firsts[0].position is None:
        return [float(item.number or 0) for item in firsts]
    return [round(float(v), 2) for v in along_normal(firsts)]


def _layers(group: list[_Found], places: list[float]) -> list[list[_Found]]:
    """The first slice at each position, the second ones, ..., in the order of instance numbers."""
    layers: dict[int, list[_Found]] = defaultdict(list)
    seen: Counter[float] = Counter()
    pairs = zip(places, group, strict=True)
    for where, item in sorted(pairs, key=lambda pair: (pair[1].slices[0].number or 0, pair[1].file.paths)):
        layers[seen[where]].append(item)
        seen[where] += 1
    return list(layers.values())


def _volume_job(volume: list[_Found]) -> Job:
    """The files in the order of their slices; the frames of a multi-frame file are sorted, too."""
    first = volume[0].slices[0]
    files, count = [], 0
    for item in volume:
        files.append(replace(item.file, slices=tuple(count + k for k in _ranks(item.slices))))
        count += len(item.slices)
    shape = (count, *first.shape)
    return Job(tuple(files), shape, first.dtype.newbyteorder(">" if volume[0].big_endian else "<").str)


def _ranks(slices: tuple[Slice, ...]) -> list[int]:
    """For each frame of a file its place among them, along the normal; the file's order without positions."""
    if len(slices) == 1 or any(item.position is None for item in slices):
        return list(range(len(slices)))
    order = along_normal(slices).argsort(kind="stable")
    ranks: list[int] = order.argsort().tolist()
    return ranks


def _packs(files: Iterable[File]) -> list[Job]:
    """Packs of files, small enough to be made and read again quickly.

    A pack also ends with a file whose name's hash says so. So one file more or less changes the packs near it
    alone, and not all that follow.
    """
    packs: list[list[File]] = []
    room = 0
    for file in files:
        if not packs or file.size > room or len(packs[-1]) == PACK_FILES:
            packs.append([])
            room = PACK_BYTES
        packs[-1].append(file)
        room = -1 if _ends_pack(file) else room - file.size
    return [Job(tuple(pack)) for pack in packs]


def _ends_pack(file: File) -> bool:
    """By chance, once in as many files, or bytes, as a pack holds."""
    drawn = int.from_bytes(hashlib.sha256(file.paths[0]).digest()[:8], "little") / 2**64
    return drawn < max(1 / PACK_FILES, file.size / PACK_BYTES)


def _grouped(items: Iterable[T], key: Callable[[T], K | None]) -> list[list[T]]:
    """The items by their key, in the order of first appearance; those of key None are left out."""
    groups: dict[K, list[T]] = {}
    for item in items:
        k = key(item)
        if k is not None:
            groups.setdefault(k, []).append(item)
    return list(groups.values())
