"""A DICOM series (or one file, multi-frame too) -> Volume.

Three steps: `list_series` reads headers and groups them, `_in_order` puts the slices of one series in order
along their normal and checks that they make a regular grid, `_load` decodes the pixels into one array.

metadata, in plain types:
    source             'dicom'
    tags               bytes: a data set in Explicit VR Little Endian with the elements that are the same in
                       every slice; no pixels, overlays, private or huge elements (`dicom_write` reads it
                       back)
    positions          [[x, y, z], ...] in mm (LPS): one per slice, or the first and the last alone where
                       the others lie evenly between them (within 0.1 micrometre); [] when the source has
                       none
    sop_instance_uids  [str, ...] one per slice (one in all for a multi-frame file)
    per_slice          {keyword: [text, ...]} for the elements of `PER_SLICE` that change between slices
    modality, photometric, transfer_syntax    str
    bits_allocated, bits_stored, signed       int
    padding, padding_limit                    int, stored values outside the image; absent when not given
    masked             1 when bits above HighBit held something and were cleared; absent otherwise
    irregular          1 when slices are missing or unevenly spaced; absent otherwise
    left_out           how many slices `skip_unreadable` left out; absent when none
With metadata='essential' sop_instance_uids and per_slice are left out: random UIDs cost 17 bytes a slice.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.charset import convert_encodings
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..errors import InputError, UnsupportedError, UsageError
from ..positions import evenly
from ..volume import Array, Volume, spacing_of
from .bounded import inflates_beyond

FARTHEST = 1e9
"""Of a coordinate in mm, as the format holds it."""
MOST_INFLATED = 1 << 30
"""Bytes of a deflated data set."""
UNDEFINED_LENGTH = 0xFFFFFFFF
PER_SLICE = (
    "InstanceNumber",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "ContentDate",
    "ContentTime",
    "SliceLocation",
    "TriggerTime",
    "WindowCenter",
    "WindowWidth",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
)
"""Elements that may change from slice to slice and are kept as text; all have text value representations."""

MOST_ELEMENT_BYTES = 1 << 16
_GAP = 1.5  # a step of more than this many usual steps means that slices are missing
_JITTER = 0.1  # of the usual step, accepted silently
_THREADS = 4  # files are read side by side; more gains nothing on local disks


def tags_of(keywords: str) -> frozenset[int]:
    """The tags of keywords that blanks separate."""
    return frozenset(tag for keyword in keywords.split() if (tag := tag_for_keyword(keyword)) is not None)


SCAN_TAGS = tags_of(
    "SpecificCharacterSet SOPClassUID SOPInstanceUID Modality SliceThickness SpacingBetweenSlices "
    "ImagerPixelSpacing SeriesInstanceUID SeriesNumber SeriesDescription InstanceNumber "
    "ImagePositionPatient ImageOrientationPatient SamplesPerPixel PhotometricInterpretation NumberOfFrames "
    "Rows Columns PixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue "
    "PixelPaddingRangeLimit RescaleIntercept RescaleSlope SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
)

# What `tags` leaves out: what the pixels say themselves, what a new series must not repeat, and pictures.
_NOT_KEPT = tags_of(
    "SOPInstanceUID InstanceCreationDate InstanceCreationTime InstanceCreatorUID NumberOfFrames "
    "FrameIncrementPointer SmallestImagePixelValue LargestImagePixelValue SmallestPixelValueInSeries "
    "LargestPixelValueInSeries PixelPaddingValue PixelPaddingRangeLimit Rows Columns BitsAllocated "
    "BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation ImagePositionPatient "
    "IconImageSequence MACParametersSequence EncryptedAttributesSequence OriginalAttributesSequence "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionOrganizationSequence "
    "DimensionIndexSequence DimensionOrganizationType"
)


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a folder: what a user needs to choose it, and its files. Nothing of the patient."""

    uid: str
    number: str
    description: str
    modality: str
    matrix: tuple[int, int]  # (rows, columns)
    images: int
    grayscale: bool
    headers: tuple[tuple[Path, Dataset], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the series, in no particular order."""
        return tuple(path for path, _ in self.headers)

    def __str__(self) -> str:
        rows, columns = self.matrix
        text = f"series {self.number or '?'}: {self.description or 'no description'}, {self.modality or '?'}"
        return f"{text}, {self.images} images of {rows}x{columns}, UID {self.uid or 'missing'}"


@dataclass(frozen=True)
class Slice:
    """One frame: where it is and how its pixels are stored."""

    path: Path
    frame: int
    uid: str
    number: int | None
    position: Array | None  # (3,) mm, LPS
    orientation: Array | None  # (2, 3): unit vectors along a row and down a column
    pixel_spacing: tuple[float, float]  # between rows, between columns
    thickness: float  # the step, for a lone slice
    slope: float
    intercept: float
    shape: tuple[int, int]  # (rows, columns)
    allocated: int
    stored: int
    high: int
    signed: int
    photometric: str
    syntax: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the allocated bits, in native byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")


# --- reading one series ---------------------------------------------------------------------------


def read_dicom(
    path: Path,
    *,
    series: str | None = None,
    skip_unreadable: bool = False,
    allow_irregular: bool = False,
    metadata: str = "full",
) -> Volume:
    """Read one series of a folder (searched with its subfolders), or one file.

    series           SeriesInstanceUID, its unique beginning, or the series number; needed when there are
                     several
    skip_unreadable  leave broken or truncated files out. Slices that are missing for any other reason are
                     still an error; a file too broken to say where it was counts as missing
    allow_irregular  accept missing slices and uneven spacing; the affine then holds the mean step, and every
                     slice's own position is in metadata['positions']
    metadata         'full' or 'essential' (see the module)

    Slices are sorted by position along their normal. Raises InputError (nothing usable, several series,
    broken files, mixed matrix or orientation, missing slices), UsageError (no such series) or
    UnsupportedError (a compressed syntax that needs `pip install inrformat[jpeg]`).
    """
    if metadata not in ("full", "essential"):
        raise UsageError("metadata must be 'full' or 'essential'")
    with quiet():
        found, broken = _scan(path)
        if broken and not skip_unreadable:
            raise _unreadable(broken)
        chosen = _choose(found, series, path)
        slices = _describe(chosen, skip_unreadable)
        slices = _in_order(slices)
        # Before the pixels are read: a slice whose pixels are broken still says where it is, so what
        # skip_unreadable takes out of a regular grid is no surprise to its caller, and any other gap is one.
        _check_arrangement(slices, allow_irregular)
        data, loaded, failed = _load(slices)
        if failed:
            if not skip_unreadable:
                raise _unreadable(list(failed.values()))
            data, slices = _without(data, slices, set(failed))
        header = chosen.headers[0][1]
        return volume_of(data, slices, loaded, header, left_out=len(failed), full=metadata == "full")


def list_series(path: str | os.PathLike[str]) -> list[SeriesInfo]:
    """The image series in a folder, from headers alone. Files that cannot be read are left out."""
    with quiet():
        return _scan(Path(path))[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence: what pydicom warns of and logs quotes values, a patient's among them."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def _unreadable(errors: Sequence[InputError]) -> InputError:
    more = f" (and {len(errors) - 1} more unreadable files)" if len(errors) > 1 else ""
    return InputError(f"{errors[0]}{more}; skip_unreadable leaves such files out")


def _choose(found: list[SeriesInfo], series: str | None, path: Path) -> SeriesInfo:
    """The series that is asked for, or the only one of grayscale images."""
    candidates = [info for info in found if info.grayscale] or found
    if not candidates:
        raise InputError(f"{path}: no DICOM images")
    if series is None:
        if len(candidates) == 1:
            return candidates[0]
        lines = "\n".join(f"  {info}" for info in candidates)
        raise InputError(f"{path}: {len(candidates)} series; choose one with series=\n{lines}")
    wanted = str(series).strip()
    matches = [info for info in found if wanted and wanted in (info.uid, info.number)]
    matches = matches or [info for info in found if wanted and info.uid.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    lines = "\n".join(f"  {info}" for info in matches or found)
    what = "several series match" if matches else "no series matches"
    raise UsageError(f"{path}: {what} {_printable(wanted)!r}\n{lines}")


# --- scanning -------------------------------------------------------------------------------------


def _scan(path: Path) -> tuple[list[SeriesInfo], list[InputError]]:
    """Every image series under `path`, by series number, and the files that could not be read."""
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    broken: list[InputError] = []
    files = [path] if path.is_file() else _files(path)
    with ThreadPoolExecutor(_THREADS) as pool:
        for file, header in zip(files, pool.map(_header_or_error, files), strict=True):
            if isinstance(header, InputError):
                broken.append(header)
            elif header is not None:
                groups.setdefault(_text(header, "SeriesInstanceUID"), []).append((file, header))
    found = [_series_info(uid, headers) for uid, headers in groups.items()]
    return sorted(found, key=lambda info: (len(info.number), info.number, info.uid)), broken


def _files(folder: Path) -> list[Path]:
    """The regular files under a folder, sorted; links to folders are not followed, DICOMDIR is left out."""
    files, folders = [], [folder]
    for here in folders:  # grows on the way: no recursion, as folders may be nested deeper than calls
        with suppress(OSError), os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry))
                elif entry.name.upper() != "DICOMDIR":
                    files.append(Path(entry))
    return sorted(file for file in files if _is_regular(file))


def _is_regular(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode)  # a pipe would block the reader
    except OSError:
        return False


def _header_or_error(file: Path) -> Dataset | InputError | None:
    try:
        return _header(file)
    except InputError as error:
        return error


def _header(file: Path) -> Dataset | None:
    """The header of an image; None for anything that is clearly no image; InputError when it is broken."""
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
            preamble = start[128:] == b"DICM"
            if not preamble and start[:2] not in (b"\x08\x00", b"\x02\x00"):
                if file.suffix.lower() in (".dcm", ".dicom", ".ima"):
                    raise InputError(f"{file}: not a DICOM file, or cut short")
                return None
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # pydicom inflates a deflated data set whole
            if preamble and is_deflated(stream) and inflates_beyond(stream, inflater, MOST_INFLATED):
                raise InputError(f"{file}: deflated, and more than {MOST_INFLATED} bytes when inflated")
            stream.seek(0)
            header = pydicom.dcmread(
                stream, stop_before_pixels=True, force=not preamble, specific_tags=list(SCAN_TAGS)
            )
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None
    except InputError:
        raise
    except Exception as error:  # pydicom's messages may quote the patient: only the kind is told
        raise InputError(f"{file}: broken DICOM header ({type(error).__name__})") from None
    if "Rows" in header and "Columns" in header:
        return header
    meta = getattr(header, "file_meta", None) or Dataset()
    kind = _text(header, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID")
    if (kind and "Image Storage" not in UID(kind).name) or (not kind and not preamble):
        return None  # a report, a presentation state, a directory; or no DICOM after all
    raise InputError(f"{file}: the DICOM header is incomplete")


def is_deflated(stream: BinaryIO) -> bool:
    """Whether the data set of a DICOM file (with a preamble) is deflated: the stream is then at its start."""
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return _text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian


def _series_info(uid: str, headers: list[tuple[Path, Dataset]]) -> SeriesInfo:
    first = headers[0][1]
    matrices = Counter((_loose_int(h, "Rows"), _loose_int(h, "Columns")) for _, h in headers)
    return SeriesInfo(
        uid=uid,
        number=_text(first, "SeriesNumber"),
        description=_text(first, "SeriesDescription"),
        modality=_text(first, "Modality"),
        matrix=matrices.most_common(1)[0][0],
        images=sum(max(1, _loose_int(header, "NumberOfFrames")) for _, header in headers),
        grayscale=any(_loose_int(header, "SamplesPerPixel") in (0, 1) for _, header in headers),
        headers=tuple(headers),
    )


# --- single elements: anything may be missing, absurd or of a wrong type --------------------------


def _printable(text: str) -> str:
    """At most 64 characters, none of which moves a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)[:64].strip()


def _text(dataset: Dataset, keyword: str) -> str:
    """The element as clean text; '' when it is missing or broken."""
    try:
        value = dataset.get(keyword)
        return "" if value is None else _printable(str(value))
    except Exception:
        return ""


def _loose_int(dataset: Dataset, keyword: str) -> int:
    """The element as an integer; 0 when it is missing or broken."""
    try:
        return int(dataset.get(keyword) or 0)
    except Exception:
        return 0


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers; None when the element is missing or empty, else InputError."""
    try:
        value = dataset.get(keyword)
        if value is None or (isinstance(value, (str, bytes, Sequence)) and len(value) == 0):
            return None
        numbers = tuple(float(v) for v in np.atleast_1d(value))
    except Exception:
        raise InputError(f"{keyword} is not a number") from None
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{keyword} must be {count} finite number{'s' * (count > 1)}")
    return numbers


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    numbers = _numbers(dataset, keyword, 1)
    return default if numbers is None else numbers[0]


def _integer(dataset: Dataset, keyword: str, low: int, high: int, default: int | None = None) -> int:
    """An integer within low..high; `default` when it is missing, InputError when there is none."""
    numbers = _numbers(dataset, keyword, 1)
    if numbers is None:
        if default is None:
            raise InputError(f"{keyword} is missing")
        return default
    if not numbers[0].is_integer() or not low <= numbers[0] <= high:
        raise InputError(f"{keyword} is not within {low}..{high}")
    return int(numbers[0])


# --- from headers to slices -----------------------------------------------------------------------


def _describe(info: SeriesInfo, skip_unreadable: bool) -> list[Slice]:
    """Every frame of the series. InputError names the first file that cannot be used."""
    slices: list[Slice] = []
    errors: list[InputError] = []
    for path, header in info.headers:
        try:
            slices += frames_of(path, header)
        except InputError as error:
            errors.append(InputError(f"{path}: {error}"))
        except Exception as error:  # an element of an unknown or wrong kind can end anywhere in pydicom
            errors.append(InputError(f"{path}: broken DICOM header ({type(error).__name__})"))
    if not slices:
        raise errors[0]
    if errors and not skip_unreadable:
        raise _unreadable(errors)
    return slices


def frames_of(path: Path, header: Dataset) -> list[Slice]:
    """The frames that one file holds."""
    pixels = _pixel_format(path, header)
    count = _integer(header, "NumberOfFrames", 1, 1 << 20, 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if not groups and count > 1:
        raise InputError(f"{count} frames without a position each; give single-frame or enhanced CT/MR files")
    if not groups:
        return [_placed(pixels, header)]
    if len(groups) != count:
        raise InputError(f"{count} frames, but positions for {len(groups)}")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return [
        replace(_placed(pixels, _flat(header, shared, own)), frame=frame) for frame, own in enumerate(groups)
    ]


def _flat(header: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    """What a classic header would hold for one frame of a multi-frame file."""
    flat = Dataset()
    for macro in (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    ):
        items = own.get(macro) or shared.get(macro) or []
        if len(items):
            flat.update(items[0])
    for keyword in ("SOPInstanceUID", "InstanceNumber"):
        if keyword in header:
            flat[keyword] = header[keyword]
    return flat


def _pixel_format(path: Path, header: Dataset) -> Slice:
    """How the pixels are stored; InputError for colour, one-bit and other formats that are no volume."""
    photometric = _text(header, "PhotometricInterpretation")
    if _integer(header, "SamplesPerPixel", 0, 255, 1) != 1 or photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
        "",
    ):
        raise InputError(f"not a grayscale image ({photometric or 'colour'})")
    allocated = _integer(header, "BitsAllocated", 1, 64)
    if allocated not in (8, 16, 32):
        raise InputError(f"{allocated} bits allocated for a pixel; 8, 16 and 32 can be read")
    stored = _integer(header, "BitsStored", 1, allocated, allocated)
    meta = getattr(header, "file_meta", None) or Dataset()
    return Slice(
        path=path,
        frame=0,
        uid=_text(header, "SOPInstanceUID"),
        number=None,
        position=None,
        orientation=None,
        pixel_spacing=(1.0, 1.0),
        thickness=1.0,
        slope=1.0,
        intercept=0.0,
        shape=(_integer(header, "Rows", 1, 65535), _integer(header, "Columns", 1, 65535)),
        allocated=allocated,
        stored=stored,
        high=_integer(header, "HighBit", stored - 1, allocated - 1, stored - 1),
        signed=_integer(header, "PixelRepresentation", 0, 1, 0),
        photometric=photometric or "MONOCHROME2",
        syntax=_text(meta, "TransferSyntaxUID") or str(ImplicitVRLittleEndian),
    )


def _placed(pixels: Slice, header: Dataset) -> Slice:
    """The same with its place in the patient and its rescale. InputError when they are absurd."""
    position = _numbers(header, "ImagePositionPatient", 3)
    spacing = _numbers(header, "PixelSpacing", 2) or _numbers(header, "ImagerPixelSpacing", 2) or (1.0, 1.0)
    if min(spacing) <= 0:
        raise InputError("PixelSpacing must be positive")
    thickness = _number(header, "SpacingBetweenSlices", 0.0) or _number(header, "SliceThickness", 0.0)
    orientation = _orientation(header)
    if position is not None and orientation is None:
        raise InputError("it has a position but no ImageOrientationPatient")
    if position is not None and max(map(abs, position)) > FARTHEST:
        raise InputError(f"ImagePositionPatient is beyond {FARTHEST:g} mm")
    slope = _number(header, "RescaleSlope", 1.0)
    if slope == 0:
        raise InputError("RescaleSlope is 0")
    return replace(
        pixels,
        number=_integer(header, "InstanceNumber", -(1 << 31), 1 << 31, -1)
        if "InstanceNumber" in header
        else None,
        position=None if position is None else np.array(position),
        orientation=orientation,
        pixel_spacing=(spacing[0], spacing[1]),
        thickness=abs(thickness) or 1.0,
        slope=slope,
        intercept=_number(header, "RescaleIntercept", 0.0),
    )


def _orientation(header: Dataset) -> Array | None:
    """(2, 3) unit vectors at right angles, or None. InputError when they are not."""
    values = _numbers(header, "ImageOrientationPatient", 6)
    if values is None:
        return None
    axes = np.reshape(values, (2, 3))
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(axes[0] @ axes[1]) > 1e-2:
        raise InputError("ImageOrientationPatient is not two unit vectors at right angles")
    unit: Array = axes / lengths[:, None]
    return unit


# --- order and geometry ---------------------------------------------------------------------------


def along_normal(slices: Sequence[Slice]) -> Array:
    """(n,) positions in mm along the normal of the first slice; all slices must have a position."""
    orientation = slices[0].orientation
    assert orientation is not None
    positions = np.array([item.position for item in slices])
    distances: Array = positions @ np.cross(*orientation)
    return distances


def _in_order(slices: list[Slice]) -> list[Slice]:
    """Sorted along the normal; by InstanceNumber where no slice has a position. InputError when mixed."""
    first = slices[0]
    for item in slices:
        if item.shape != first.shape:
            raise InputError(
                f"{item.path}: {item.shape[0]}x{item.shape[1]} pixels, {first.path.name} has "
                f"{first.shape[0]}x{first.shape[1]}; a volume needs one matrix"
            )
        if (item.dtype, item.photometric) != (first.dtype, first.photometric):
            raise InputError(f"{item.path}: its pixel format differs from that of {first.path.name}")
        if max(np.abs(np.subtract(item.pixel_spacing, first.pixel_spacing))) > 1e-3 * max(
            first.pixel_spacing
        ):
            raise InputError(f"{item.path}: its pixel spacing differs from that of {first.path.name}")
        if (item.position is None) != (first.position is None):
            raise InputError(f"{item.path}: some slices have a position and some have none")
        if item.orientation is None or first.orientation is None:
            continue
        if np.abs(item.orientation - first.orientation).max() > 1e-3:
            raise InputError(f"{item.path}: its orientation differs from that of {first.path.name}")
    if len(slices) == 1:
        return slices
    if first.position is not None:
        order = np.argsort(along_normal(slices), kind="stable")
        return [slices[k] for k in order]
    numbers = [item.number for item in slices]
    if None in numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"{first.path.parent}: slices with neither positions nor unique instance numbers")
    return sorted(slices, key=lambda item: item.number or 0)


def _check_arrangement(slices: Sequence[Slice], allow_irregular: bool) -> None:
    """InputError when slices share a position, are missing, or lie unevenly or off their line."""
    if len(slices) < 2 or slices[0].position is None:
        return
    where = slices[0].path.parent
    distances = along_normal(slices)
    steps = np.diff(distances)
    if steps.min() < 1e-3:
        k = int(steps.argmin())
        raise InputError(
            f"{where}: {int((steps < 1e-3).sum()) + 1} slices share a position with another, the first are "
            f"{slices[k].path.name} and {slices[k + 1].path.name} (several time points or echoes?)"
        )
    problem = _irregularity(slices, distances)
    if problem and not allow_irregular:
        raise InputError(f"{where}: {problem}; allow_irregular accepts the series as it is")


def _irregularity(slices: Sequence[Slice], distances: Array) -> str | None:
    """What is irregular in the arrangement, in words; None when nothing is."""
    steps = np.diff(distances)
    usual = float(np.median(steps))
    if usual <= 0:
        return "several slices at most positions"
    gaps = np.flatnonzero(steps > _GAP * usual)
    if len(gaps):
        counts = [max(1, round(steps[k] / usual) - 1) for k in gaps]
        places = ", ".join(
            f"{n} after slice {k + 1} at {distances[k]:.2f} mm"
            for n, k in zip(counts[:3], gaps[:3], strict=True)
        )
        more = ", ..." if len(gaps) > 3 else ""
        missing = f"{sum(counts)} missing slice{'s' * (sum(counts) > 1)}"
        return f"{missing} ({places}{more}; usual step {usual:.4g} mm)"
    if np.abs(steps - usual).max() > _JITTER * usual:
        return f"uneven spacing: steps from {steps.min():.4g} to {steps.max():.4g} mm"
    positions = np.array([item.position for item in slices])
    along = ((distances - distances[0]) / (distances[-1] - distances[0]))[:, None]
    off = np.linalg.norm(positions - positions[0] - along * (positions[-1] - positions[0]), axis=1).max()
    if off > max(_JITTER * usual, 0.5 * min(slices[0].pixel_spacing)):
        return f"the slices are shifted against each other, by up to {off:.4g} mm"
    return None


def _affine(slices: Sequence[Slice]) -> Array:
    """Index (z, y, x, 1) -> LPS mm. Column z is the mean step, first slice to last, shear included."""
    first, last = slices[0], slices[-1]
    orientation = first.orientation if first.orientation is not None else np.eye(3)[:2]
    affine = np.eye(4)
    affine[:3, 0] = np.cross(*orientation) * first.thickness
    affine[:3, 1] = orientation[1] * first.pixel_spacing[0]
    affine[:3, 2] = orientation[0] * first.pixel_spacing[1]
    if first.position is not None and last.position is not None:
        affine[:3, 3] = first.position
        if len(slices) > 1:
            affine[:3, 0] = (last.position - first.position) / (len(slices) - 1)
    return affine


# --- pixels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """What the metadata needs of one file."""

    dataset: Dataset  # without pixels
    raw: dict[
        int, Any
    ]  # the elements that `tags` may hold, in a form that can be compared without converting it
    texts: dict[str, str]  # the elements of `PER_SLICE`
    masked: bool


def _load(slices: Sequence[Slice]) -> tuple[Array, list[Loaded], dict[int, InputError]]:
    """Decode every slice into one (z, y, x) array, file by file.

    Returns the array, what the metadata needs of each file that could be read, in order, and the slices
    that could not, by index.
    """
    _check_decoders(slices)
    first = slices[0]
    try:
        data = np.empty((len(slices), *first.shape), first.dtype)
    except (MemoryError, ValueError):
        raise InputError(
            f"{len(slices)} slices of {first.shape[0]}x{first.shape[1]} do not fit memory"
        ) from None
    files: dict[Path, list[int]] = {}
    for index, item in enumerate(slices):
        files.setdefault(item.path, []).append(index)

    def load(indices: list[int]) -> Loaded | InputError:
        try:
            return _load_file([slices[k] for k in indices], indices, data)
        except InputError as error:
            return InputError(str(error))  # without the traceback, whose frames would keep the array alive

    loaded: list[Loaded] = []
    failed: dict[int, InputError] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for indices, result in zip(files.values(), pool.map(load, files.values()), strict=True):
            if isinstance(result, InputError):
                failed.update(dict.fromkeys(indices, result))
            else:
                loaded.append(result)
    return data, loaded, failed


def _check_decoders(slices: Sequence[Slice]) -> None:
    for syntax in sorted({item.syntax for item in slices}):
        name = UID(syntax).name
        try:
            decoder = None if UID(syntax) in _NATIVE else get_decoder(UID(syntax))
        except NotImplementedError:
            raise UnsupportedError(f"pixels in {name} cannot be decoded") from None
        if decoder is not None and not decoder.is_available:
            raise UnsupportedError(f"pixels in {name} need a decoder: pip install inrformat[jpeg]")


_NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}


def _load_file(slices: list[Slice], indices: list[int], data: Array) -> Loaded:
    """Decode the frames of one file into `data[indices]`, and take what the metadata needs."""
    path = slices[0].path
    try:
        dataset = pydicom.dcmread(path, force=True)
        masked = False
        for item, index, frame in zip(slices, indices, _decoded(dataset, slices), strict=True):
            masked |= place_frame(frame, item, data[index])
        del dataset.PixelData
        return loaded_of(dataset, masked)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a Rust decoder's panic is no Exception; messages may quote the patient
        raise InputError(f"{path}: its pixel data cannot be decoded ({type(error).__name__})") from None


def loaded_of(dataset: Dataset, masked: bool = False) -> Loaded:
    """What the metadata needs of a data set without pixels."""
    return Loaded(dataset, _kept(dataset), _texts(dataset), masked)


def _decoded(dataset: Dataset, slices: list[Slice]) -> Iterator[Array]:
    """The wanted frames of a file, in the order of `slices`."""
    if "PixelData" not in dataset:
        raise InputError("no integer pixel data (the file is cut short, or holds floating-point pixels)")
    item = slices[0]
    if UID(item.syntax) in _NATIVE:
        element = dataset.get_item("PixelData")
        if getattr(element, "length", 0) == UNDEFINED_LENGTH or getattr(
            element, "is_undefined_length", False
        ):
            raise InputError("pixel data of undefined length, which are no plain pixels")
        raw = element.value
        rows, columns = item.shape
        frame_bytes = rows * columns * item.dtype.itemsize
        count = max(_loose_int(dataset, "NumberOfFrames"), 1)
        if len(raw) < frame_bytes * count:
            raise InputError(
                f"cut short: {len(raw)} of {frame_bytes * count} bytes of pixel data "
                f"({frame_bytes * count - len(raw)} missing)"
            )
        pixels = np.frombuffer(raw, item.dtype.newbyteorder("<"), count * rows * columns)
        frames = pixels.reshape(count, rows, columns)
        yield from (frames[k.frame] for k in slices)
    else:
        yield from iter_pixels(dataset, indices=[k.frame for k in slices], raw=True)


def place_frame(frame: Array, item: Slice, out: Array) -> bool:
    """Copy a decoded frame into `out` (y, x) and clear all but the stored bits. True when that changed it."""
    frame = np.asarray(frame)
    if frame.shape != out.shape or frame.dtype.kind not in "iu":
        raise InputError(f"decoded to an array of shape {frame.shape}, not {out.shape}")
    out[...] = frame  # a decoder may give a wider type: checked against the stored bits below
    if frame.dtype.itemsize > out.itemsize and not np.array_equal(out, frame):
        raise InputError("decoded values do not fit the allocated bits")
    if item.high + 1 > item.stored:
        out >>= item.high + 1 - item.stored
    if item.stored == item.allocated:
        return False
    span = 1 << item.stored
    low, high = (-span // 2, span // 2 - 1) if item.signed else (0, span - 1)
    if low <= int(out.min()) and int(out.max()) <= high:
        return False
    if item.signed:
        out <<= item.allocated - item.stored
        out >>= item.allocated - item.stored  # an arithmetic shift brings the sign back
    else:
        out &= out.dtype.type(span - 1)
    return True


def _without(data: Array, slices: list[Slice], failed: set[int]) -> tuple[Array, list[Slice]]:
    """The array and the slices without the failed ones; the others move up in place, no copy is made."""
    good = [k for k in range(len(slices)) if k not in failed]
    if not good:
        raise InputError(f"{slices[0].path.parent}: no slice of the series can be read")
    for to, k in enumerate(good):
        if to != k:
            data[to] = data[k]
    return data[: len(good)], [slices[k] for k in good]


# --- metadata -------------------------------------------------------------------------------------


def _kept(dataset: Dataset) -> dict[int, Any]:
    """The elements that `tags` may hold: raw bytes by tag, or the element where pydicom has parsed it."""
    kept: dict[int, Any] = {}
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset converts every element)
        group = tag >> 16
        if tag.is_private or not tag & 0xFFFF or tag in _NOT_KEPT or not 0x0008 <= group < 0x5000:
            continue
        element = dataset.get_item(tag)
        value = element.value if isinstance(element, RawDataElement) else element
        if not isinstance(value, bytes) or len(value) <= MOST_ELEMENT_BYTES:
            kept[int(tag)] = value
    return kept


def _texts(dataset: Dataset) -> dict[str, str]:
    """The elements of `PER_SLICE` that the file has, as their text."""
    texts = {}
    for keyword in PER_SLICE:
        element = dataset.get_item(keyword)
        if element is not None and isinstance(element.value, bytes):
            text = element.value.decode("ascii", "replace").strip(" \0")
            texts[keyword] = text if len(text) <= 64 and text.isprintable() else ""
    return texts


def volume_of(
    data: Array, slices: list[Slice], loaded: list[Loaded], header: Dataset, *, left_out: int, full: bool
) -> Volume:
    """Put the parts together; `header` is one of the series, `full` is metadata='full'."""
    first, affine = slices[0], _affine(slices)
    common = loaded[0].raw
    for other in loaded[1:]:
        common = {tag: value for tag, value in common.items() if tag in other.raw and other.raw[tag] == value}
    metadata: dict[str, Any] = {
        "source": "dicom",
        "tags": _encoded(loaded[0].dataset, sorted(common), first.signed),
        "positions": _positions(slices),
        "modality": _text(header, "Modality"),
        "photometric": first.photometric,
        "transfer_syntax": first.syntax,
        "bits_allocated": first.allocated,
        "bits_stored": max(item.stored for item in slices),
        "signed": first.signed,
        **_padding(header, first),
    }
    if any(file.masked for file in loaded):
        metadata["masked"] = 1
    if len(slices) > 1 and first.position is not None and _irregularity(slices, along_normal(slices)):
        metadata["irregular"] = 1
    if left_out:
        metadata["left_out"] = left_out
    if full:
        metadata["sop_instance_uids"] = list(dict.fromkeys(item.uid for item in slices))
        metadata["per_slice"] = _varying([file.texts for file in loaded], len(slices))
    try:
        return Volume(
            data,
            spacing_of(affine),
            affine,
            _one_or_all([item.slope for item in slices]),
            _one_or_all([item.intercept for item in slices]),
            metadata,
        )
    except InputError as error:
        raise InputError(f"{first.path.parent}: {error}") from None


def _positions(slices: Sequence[Slice]) -> list[list[float]]:
    """One [x, y, z] per slice; the first and the last alone where the others lie evenly between them."""
    if slices[0].position is None:
        return []
    positions = np.array([item.position for item in slices])
    if evenly(positions):
        positions = positions[[0, -1]]
    listed: list[list[float]] = positions.tolist()
    return listed


def _varying(texts: list[dict[str, str]], slices: int) -> dict[str, list[str]]:
    """The columns of `PER_SLICE` that change; nothing for a multi-frame file, which has one value for all."""
    columns = {}
    for keyword in PER_SLICE:
        column = [own.get(keyword, "") for own in texts]
        if len(column) == slices and len(set(column)) > 1:
            columns[keyword] = column
    return columns


def _one_or_all(values: list[float]) -> tuple[float, ...]:
    return tuple(values) if len(set(values)) > 1 else (values[0],)


def _padding(header: Dataset, pixels: Slice) -> dict[str, int]:
    """PixelPaddingValue and its limit as stored values, whatever the value representation they came with."""
    found = {}
    for name, keyword in (("padding", "PixelPaddingValue"), ("padding_limit", "PixelPaddingRangeLimit")):
        try:
            value = header.get(keyword)
            if isinstance(value, bytes) and len(value) == 2:  # implicit VR does not say whether it is signed
                value = int.from_bytes(value, "little")
            value = int(value) & ((1 << pixels.allocated) - 1)
        except Exception:  # noqa: S112 (a broken padding value is as good as none)
            continue
        if pixels.signed and value >> (pixels.allocated - 1):
            value -= 1 << pixels.allocated
        found[name] = value
    return found


def _encoded(dataset: Dataset, tags: list[int], signed: int) -> bytes:
    """The elements `tags` in Explicit VR Little Endian; those that cannot be written are left out."""
    try:
        encodings = convert_encodings(dataset.get("SpecificCharacterSet", "iso8859"))
    except Exception:
        encodings = ["iso8859"]
    chunks = []
    for tag in tags:
        chunk = DicomBytesIO()
        chunk.is_little_endian, chunk.is_implicit_VR = True, False
        try:
            element = correct_ambiguous_vr(_lone(dataset[tag], signed), True)[tag]
            write_data_element(chunk, element, encodings)
        except Exception:  # noqa: S112 (one broken element must not cost the series)
            continue
        value = chunk.getvalue()
        if len(value) <= MOST_ELEMENT_BYTES:
            chunks.append(value)
    return b"".join(chunks)


def _lone(element: Any, signed: int) -> Dataset:
    """A data set with one element, and what decides between signed and unsigned value representations."""
    lone = Dataset()
    lone.PixelRepresentation = signed
    lone.add(element)
    return lone
