"""Volume -> a DICOM series, one file per slice, Explicit VR Little Endian.

Patient, study and frame of reference come from metadata['tags'] where the source was DICOM; series and
instances get new UIDs, and refer to the instances they were made from. A volume that was stored with loss,
which the decoder says in metadata['lossy'] = {'ratio': float, ...} or the caller with `ratio`, is marked as
PS3.3 C.7.6.1.1.5 asks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from ..errors import OutputError
from ..volume import DTYPES, Array, Volume
from . import atomic_folder
from .dicom import PER_SLICE, quiet

_SINGLE_FRAME = {  # a multi-frame source is written as its single-frame counterpart
    "1.2.840.10008.5.1.4.1.1.2.1": CTImageStorage,
    "1.2.840.10008.5.1.4.1.1.2.2": CTImageStorage,
    "1.2.840.10008.5.1.4.1.1.4.1": MRImageStorage,
    "1.2.840.10008.5.1.4.1.1.4.4": MRImageStorage,
    "1.2.840.10008.5.1.4.1.1.130": PositronEmissionTomographyImageStorage,
    "1.2.840.10008.5.1.4.1.1.128.1": PositronEmissionTomographyImageStorage,
}
_LONGEST_TEXT = 1024
"""Characters of a Short Text (ST)."""
_CLASS_OF = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
_SIXTEEN_BITS = {CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage}

_REQUIRED = (  # type 2: must be there, may be empty
    "StudyDate StudyTime AccessionNumber ReferringPhysicianName PatientName PatientID PatientBirthDate "
    "PatientSex StudyID Manufacturer PositionReferenceIndicator SeriesNumber AcquisitionNumber "
    "PatientPosition"
)
_REQUIRED_OF = {
    CTImageStorage: "KVP",
    MRImageStorage: "ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoTrainLength",
    PositronEmissionTomographyImageStorage: "",
}


@dataclass(frozen=True)
class _Pixels:
    """What is written for the array: integers, their bits, and the rescale of each slice."""

    data: Array
    stored_bits: int
    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    padding: dict[int, int]  # tag -> stored value


def write_dicom_series(
    volume: Volume,
    folder: str | os.PathLike[str],
    *,
    ratio: float | None = None,
    method: str = "INRFORMAT",
    description: str | None = None,
) -> None:
    """Write a volume as IM000001.dcm, ... in the order of its slices, into a folder that is new or empty.

    ratio        compression ratio of a volume that went through lossy coding; it sets the lossy attributes.
                 When None, metadata['lossy']['ratio'] is used where it is there
    method       value for LossyImageCompressionMethod (16 characters at most)
    description  value for DerivationDescription, when lossy

    The class is the source's (enhanced ones become classic), else that of metadata['modality'], else MR.
    Voxels of 8 bits become 16 in CT, MR and PET. float32 is rescaled to 16 bits, slope and intercept with
    it: that loses up to 1/131070 of the range. Raises OutputError when the affine's in-plane axes are not
    at right angles, values are not finite, or the folder cannot be written.
    """
    with quiet():
        try:
            if ratio is None:
                ratio = _stated_ratio(volume.metadata)
            source = _source_tags(volume.metadata)
            shared = _shared(volume, source, ratio, method[:16], description)
            pixels = _pixels(volume, UID(shared.SOPClassUID))
            by_slice = _by_slice(volume)
            with atomic_folder(Path(folder)) as target:
                for k, place in enumerate(_places(volume, by_slice)):
                    dataset = _instance(shared, pixels, k)
                    dataset.ImagePositionPatient = [_ds(v) for v in place]
                    _restore_columns(dataset, by_slice, k, volume.shape[0])
                    _refer(dataset, by_slice, str(source.get("SOPClassUID", "")), k, volume.shape[0])
                    name = target / f"IM{k + 1:06d}.dcm"
                    with name.open("xb") as file:
                        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
                        file.flush()
                        os.fsync(file.fileno())
        except (OSError, OutputError):
            raise
        except (
            Exception
        ) as error:  # hostile metadata can end anywhere in pydicom, whose messages quote values
            raise OutputError(f"cannot write {folder}: {type(error).__name__} in its attributes") from None


def _stated_ratio(metadata: Mapping[str, Any]) -> float | None:
    lossy = metadata.get("lossy")
    return float(lossy["ratio"]) if isinstance(lossy, Mapping) and "ratio" in lossy else None


# --- what all slices share ------------------------------------------------------------------------


def _shared(
    volume: Volume, source: Dataset, ratio: float | None, method: str, description: str | None
) -> Dataset:
    """The data set of the series: the source's elements, with what must differ."""
    dataset = Dataset()
    dataset.update(source)
    source_class = str(dataset.get("SOPClassUID", ""))
    modality = str(volume.metadata.get("modality", "")) or str(dataset.get("Modality", ""))
    sop_class = UID(_SINGLE_FRAME.get(source_class, source_class) or _CLASS_OF.get(modality, MRImageStorage))
    now = datetime.now(UTC)
    dataset.SOPClassUID = sop_class
    dataset.Modality = str(dataset.get("Modality", "")) or (modality if modality in _CLASS_OF else "MR")
    dataset.SeriesInstanceUID = generate_uid()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = (
        now.strftime("%Y%m%d"),
        now.strftime("%H%M%S"),
    )
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not dataset.get(keyword):
            setattr(dataset, keyword, generate_uid())
    for keyword in f"{_REQUIRED} {_REQUIRED_OF.get(sop_class, '')}".split():
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    if sop_class == MRImageStorage:
        dataset.ScanningSequence = dataset.get("ScanningSequence") or "RM"
        dataset.SequenceVariant = dataset.get("SequenceVariant") or "NONE"
    if not dataset.get("ImageType"):
        dataset.ImageType = [
            "ORIGINAL" if source_class else "DERIVED",
            "PRIMARY" if source_class else "SECONDARY",
        ]
    dataset.PhotometricInterpretation = (
        "MONOCHROME1" if volume.metadata.get("photometric") == "MONOCHROME1" else "MONOCHROME2"
    )
    _place(dataset, volume)
    if ratio is not None:
        mark_lossy(dataset, ratio, method, description)
    return dataset


def _source_tags(metadata: Mapping[str, Any]) -> Dataset:
    """The data set that `dicom.read_dicom` kept; an empty one when there is none, or it is broken."""
    tags = metadata.get("tags", b"")
    if not isinstance(tags, bytes):
        return Dataset()
    try:
        source = read_dataset(BytesIO(tags), is_implicit_VR=False, is_little_endian=True)
    except Exception:
        return Dataset()
    dataset = Dataset()
    for tag in source.keys():  # noqa: SIM118 (iterating a Dataset stops at a broken element)
        try:
            dataset.add(source[tag])
        except Exception:  # noqa: S112 (one broken element must not cost the series)
            continue
    return dataset


def _place(dataset: Dataset, volume: Volume) -> None:
    """Orientation and spacing, from the affine."""
    assert volume.affine is not None
    row_step, column_step = volume.affine[:3, 1], volume.affine[:3, 2]
    rows, columns = float(np.linalg.norm(row_step)), float(np.linalg.norm(column_step))
    if min(rows, columns) <= 0 or abs(row_step @ column_step) > 1e-3 * rows * columns:
        raise OutputError("DICOM cannot hold this affine: rows and columns are not at right angles")
    dataset.ImageOrientationPatient = [_ds(v) for v in (*(column_step / columns), *(row_step / rows))]
    dataset.PixelSpacing = [_ds(rows), _ds(columns)]
    if not dataset.get("SliceThickness"):
        dataset.SliceThickness = _ds(volume.spacing[0])
    if volume.metadata.get("irregular"):
        dataset.pop("SpacingBetweenSlices", None)  # there is no one value; the positions tell
    else:
        dataset.SpacingBetweenSlices = _ds(volume.spacing[0])


def mark_lossy(dataset: Dataset, ratio: float, method: str, description: str | None) -> None:
    """PS3.3 C.7.6.1.1.5 and C.7.6.1.1.3: what was there is kept, the new step is appended."""
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = [*_listed(dataset, "LossyImageCompressionRatio"), _ds(ratio)]
    dataset.LossyImageCompressionMethod = [*_listed(dataset, "LossyImageCompressionMethod"), method]
    image_type = _listed(dataset, "ImageType")
    dataset.ImageType = ["DERIVED", *(image_type[1:] or ["SECONDARY"])]
    step = description or f"Lossy compression ({method}), ratio {ratio:.4g}:1"
    before = "; ".join(str(part) for part in _listed(dataset, "DerivationDescription"))
    room = _LONGEST_TEXT - len(step) - 2
    dataset.DerivationDescription = (
        f"{before[:room]}; {step}" if before and room > 0 else step[:_LONGEST_TEXT]
    )
    code = code_item("113040", "Lossy Compression")
    dataset.DerivationCodeSequence = Sequence([*items_of(dataset, "DerivationCodeSequence"), code])


def _listed(dataset: Dataset, keyword: str) -> list[Any]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, float, int)) else list(value)


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is missing."""
    value = dataset.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def code_item(value: str, meaning: str) -> Dataset:
    """A code of DICOM's own scheme, as the item of a code sequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


# --- pixels ---------------------------------------------------------------------------------------


def _pixels(volume: Volume, sop_class: UID) -> _Pixels:
    """Integers of 8 or 16 bits. The source's BitsStored is kept where every value fits it."""
    data, slope, intercept = volume.data, volume.slope, volume.intercept
    if data.dtype.kind == "f":
        data, step, low = _quantised(data)
        intercept = tuple(low * s + i for s, i in zip(*_paired(slope, intercept), strict=True))
        slope = tuple(step * s for s in slope)
    elif data.dtype.itemsize == 1 and (sop_class in _SIXTEEN_BITS or data.dtype.kind == "i"):
        data = data.astype(DTYPES["u2" if data.dtype.kind == "u" else "i2"])
    low_value, high_value = int(data.min()), int(data.max())
    needed = max(high_value.bit_length(), (-low_value - 1).bit_length() if low_value < 0 else 0)
    needed = max(needed + (data.dtype.kind == "i"), 1)
    stored = volume.metadata.get("bits_stored", 0)
    usable = isinstance(stored, int) and needed <= stored <= 8 * data.dtype.itemsize
    padding = _padding(volume, data.dtype)
    return _Pixels(data, stored if usable else 8 * data.dtype.itemsize, slope, intercept, padding)


def _padding(volume: Volume, dtype: np.dtype[Any]) -> dict[int, int]:
    """Padding is in stored values; a rescaled float volume has none."""
    found = {}
    for name, tag in (("padding", 0x00280120), ("padding_limit", 0x00280121)):
        value = volume.metadata.get(name)
        if isinstance(value, int) and volume.data.dtype.kind != "f":
            limits = np.iinfo(dtype)
            if limits.min <= value <= limits.max:
                found[tag] = value
    return found


def _paired(
    slope: tuple[float, ...], intercept: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = max(len(slope), len(intercept))
    return (slope * count if len(slope) == 1 else slope), (
        intercept * count if len(intercept) == 1 else intercept
    )


def _quantised(data: Array) -> tuple[Array, float, float]:
    """From float to uint16 with the step and the lowest value: data is about low + step * result."""
    low, high = float(data.min()), float(data.max())
    if not np.isfinite((low, high)).all():
        raise OutputError("DICOM cannot hold NaN or infinity")
    step = (high - low) / 65535 or 1.0
    return np.rint((data.astype(np.float64) - low) / step).astype(np.uint16), step, low


# --- one slice ------------------------------------------------------------------------------------


def _instance(shared: Dataset, pixels: _Pixels, k: int) -> Dataset:
    """Slice `k` with its pixels and file meta information, without its place."""
    dataset = Dataset()
    dataset.update(shared)
    dataset.SOPInstanceUID = generate_uid()
    dataset.InstanceNumber = k + 1
    dataset.RescaleSlope = _ds(pixels.slope[k if len(pixels.slope) > 1 else 0])
    dataset.RescaleIntercept = _ds(pixels.intercept[k if len(pixels.intercept) > 1 else 0])
    if "RescaleType" not in dataset:
        dataset.RescaleType = "HU" if dataset.Modality == "CT" else "US"
    frame = pixels.data[k]
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = frame.shape
    dataset.BitsAllocated = 8 * frame.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = pixels.stored_bits, pixels.stored_bits - 1
    dataset.PixelRepresentation = int(frame.dtype.kind == "i")
    for keyword, value in pixels.padding.items():
        dataset.add_new(keyword, "SS" if dataset.PixelRepresentation else "US", value)
    raw = frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = raw + bytes(len(raw) % 2)
    dataset["PixelData"].VR = "OB" if frame.dtype.itemsize == 1 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _by_slice(volume: Volume) -> Mapping[str, Any]:
    """The metadata, if what it says slice by slice is about these slices and not those before a crop."""
    positions = volume.metadata.get("positions")
    if volume.metadata.get("source") != "dicom" or not isinstance(positions, list) or not positions:
        return {}
    try:
        ends = np.array([positions[0], positions[-1]], float)
    except (TypeError, ValueError):
        return {}
    count = volume.shape[0]
    if ends.shape != (2, 3) or len(positions) not in (1, 2, count):
        return {}
    assert volume.affine is not None
    first, step = volume.affine[:3, 3], volume.affine[:3, 0]
    same = np.abs(ends - [first, first + (count - 1) * step]).max() < 1e-2
    return volume.metadata if same else {}


def _places(volume: Volume, by_slice: Mapping[str, Any]) -> Array:
    """(n, 3) positions in mm, LPS: the source's own where there is one per slice, else the affine's."""
    positions = by_slice.get("positions", [])
    if len(positions) == volume.shape[0]:
        return np.array(positions, float)
    assert volume.affine is not None
    places: Array = volume.affine[:3, 3] + np.arange(volume.shape[0])[:, None] * volume.affine[:3, 0]
    return places


def _restore_columns(dataset: Dataset, metadata: Mapping[str, Any], k: int, count: int) -> None:
    """Put back what changed from slice to slice (see `dicom.PER_SLICE`), InstanceNumber apart.

    Not of a preview: columns of more slices are not about these.
    """
    columns = metadata.get("per_slice")
    if not isinstance(columns, Mapping):
        return
    for keyword in PER_SLICE:
        texts = columns.get(keyword)
        if keyword == "InstanceNumber" or not isinstance(texts, list) or len(texts) != count:
            continue
        try:
            setattr(dataset, keyword, str(texts[k]).split("\\"))
        except Exception:  # noqa: S112 (a value that is not valid any more is left out)
            continue


def _refer(dataset: Dataset, metadata: Mapping[str, Any], source_class: str, k: int, count: int) -> None:
    """SourceImageSequence: the instance that this slice was made from."""
    uids = metadata.get("sop_instance_uids")
    if not isinstance(uids, list) or len(uids) not in (1, count) or not source_class:
        return
    uid = UID(str(uids[k] if len(uids) == count else uids[0]))
    if not uid.is_valid:
        return
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source_class, uid
    if len(uids) != count:
        item.ReferencedFrameNumber = k + 1
    if dataset.get("LossyImageCompression") == "01":
        item.PurposeOfReferenceCodeSequence = Sequence([code_item("121320", "Uncompressed predecessor")])
    dataset.SourceImageSequence = Sequence([item])


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters, as near as that allows, without rounding noise."""
    text = f"{float(value):.13g}"
    return text if len(text) <= 16 else pydicom.valuerep.format_number_as_ds(float(value))
