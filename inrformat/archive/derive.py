"""The files of a lossy series: the originals' headers around the decoded pixels, marked as what they are.

PS3.3 C.7.6.1.1.5 (lossy compression) and C.12.4.1.1 (source images): new instances in a new series, which say
that they were compressed with loss, how far, and from what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from ..container.headers import LatticeHeader, Measured, VolumeHeader
from ..errors import InputError, PromiseError
from ..io.dicom import quiet
from ..io.dicom_write import code_item, items_of, mark_lossy

if TYPE_CHECKING:
    from .manifest import Entry
    from .objects import Opened

METHOD = "INRFORMAT"
_UNTRUE = (
    "SmallestImagePixelValue LargestImagePixelValue SmallestPixelValueInSeries LargestPixelValueInSeries "
    "MACParametersSequence DigitalSignaturesSequence"
)
"""What the originals say of their pixels, or sign, and does not hold any more."""


def derived(found: Opened, entry: Entry, use_sr: bool) -> Iterator[tuple[bytes, bytes, str, str]]:
    """Path and bytes of each file, the original's SOP Instance UID and the new one."""
    volume = found.volume(use_sr)
    ratio = volume.data.nbytes / entry.bytes_out
    description = f"Lossy compression ({METHOD}), ratio {ratio:.4g}:1, {_way(found, use_sr)}"
    for file, pieces in found.rebuilt(volume.data):
        with quiet():
            try:
                dataset = pydicom.dcmread(BytesIO(b"".join(pieces)), force=True)
                old = str(dataset.get("SOPInstanceUID", ""))
                _derive(dataset, entry.sha256, ratio, description)
                data = BytesIO()
                pydicom.dcmwrite(data, dataset, enforce_file_format=True)
            except Exception as error:  # pydicom's messages quote values
                raise PromiseError(f"a header cannot be written again ({type(error).__name__})") from None
        for path in file.paths:
            yield path, data.getvalue(), old, str(dataset.SOPInstanceUID)


@dataclass(frozen=True)
class Rewritten:
    """Of a header that can be written again: its SOP Instance UID; the bits of a pixel, and the highest."""

    uid: str
    bits: tuple[int, int]


def rewritten(header: bytes) -> Rewritten:
    """What the header of a derived instance rests on; InputError where it could not be written."""
    with quiet():
        try:
            dataset = pydicom.dcmread(BytesIO(header), stop_before_pixels=True, force=True)
            result = Rewritten(str(dataset.SOPInstanceUID), (int(dataset.BitsStored), int(dataset.HighBit)))
            complete = bool(result.uid and dataset.SOPClassUID)
            _derive(dataset, "", 1.0, "")
            pydicom.dcmwrite(BytesIO(), dataset, enforce_file_format=True)
        except Exception as error:  # pydicom's messages quote values
            raise InputError(f"a header could not be written again ({type(error).__name__})") from None
    if not complete:
        raise InputError("a header without SOP Class UID or SOP Instance UID is kept exact")
    return result


def _way(found: Opened, use_sr: bool) -> str:
    """How the values came about, for DerivationDescription."""
    if found.reader.has(LatticeHeader.SECTION):
        error = Measured.unpack(found.reader.read(Measured.SECTION)).max_error
        return f"no stored value off by more than {error:g}"
    model = VolumeHeader.unpack(found.reader.read("HEAD")).sr if use_sr else None
    if model is None:
        return "brought to full size by Lanczos interpolation"
    return (
        f"brought to full size by the super-resolution network {model.name} {model.version}: "
        "detail that is likely, not measured"
    )


def _derive(dataset: Dataset, sha256: str, ratio: float, description: str) -> None:
    """Turn an original with other pixels into an instance of its own.

    sha256   of the object that the pixels are in: the UIDs are made of it, the same every time.
    """
    old = str(dataset.get("SOPInstanceUID", ""))
    mark_lossy(dataset, ratio, METHOD, description)
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = dataset.SOPClassUID, old
    source.PurposeOfReferenceCodeSequence = Sequence([code_item("121320", "Uncompressed predecessor")])
    dataset.SourceImageSequence = Sequence([*items_of(dataset, "SourceImageSequence"), source])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[sha256, old])
    series = str(dataset.get("SeriesInstanceUID", ""))
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[sha256, series])
    for keyword in _UNTRUE.split():
        dataset.pop(keyword, None)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
