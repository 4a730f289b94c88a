"""Small DICOM series made in code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
PATIENT = "Muster^Erika"


def oblique() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Two unit vectors at right angles that are parallel to no axis."""
    row = np.array([0.9, 0.3, -0.3])
    row /= np.linalg.norm(row)
    column = np.cross([0.2, -0.1, 0.97], row)
    column /= np.linalg.norm(column)
    return tuple(row.tolist()), tuple(column.tolist())


def volume_array(shape: tuple[int, int, int] = (5, 6, 7), dtype: Any = np.int16, seed: int = 0) -> np.ndarray:
    low, high = {"u": (0, 200), "i": (-100, 100)}[np.dtype(dtype).kind]
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def base_dataset(array: np.ndarray, *, bits_stored: int | None = None) -> Dataset:
    """What every slice of a series shares, pixels described but not given."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = MRImageStorage if array.dtype.kind == "i" else CTImageStorage
    dataset.Modality = "MR" if array.dtype.kind == "i" else "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName, dataset.PatientID = PATIENT, "secret-17"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240102", "101112", "9"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.SeriesNumber, dataset.SeriesDescription = 3, "a test"
    dataset.SliceThickness = "2.5"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = array.shape[1:]
    dataset.BitsAllocated = 8 * array.dtype.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    return dataset


def make_series(
    folder: Path,
    array: np.ndarray,
    *,
    orientation: Any = AXIAL,
    origin: Any = (-10.0, 20.0, 30.0),
    step: Any = None,
    positions: Any = None,
    spacing: tuple[float, float] = (0.8, 0.6),
    syntax: str = ExplicitVRLittleEndian,
    bits_stored: int | None = None,
    reverse_files: bool = False,
    compress: str | None = None,
    edit: Callable[[Dataset, int], None] | None = None,
) -> list[Path]:
    """Write (z, y, x) `array` as one file per slice; `edit(dataset, k)` may spoil or extend slice k.

    Slices lie at origin + k * step; the step is 2.5 mm along the normal unless it is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if step is None:
        step = 2.5 * np.cross(*orientation)
    if positions is None:
        positions = np.array(origin) + np.arange(len(array))[:, None] * np.array(step)
    shared = base_dataset(array, bits_stored=bits_stored)
    paths = []
    for k, frame in enumerate(array):
        dataset = Dataset()
        dataset.update(shared)
        dataset.SOPInstanceUID, dataset.InstanceNumber = generate_uid(), k + 1
        dataset.ImageOrientationPatient = [f"{v:.12f}"[:16] for axis in orientation for v in axis]
        dataset.ImagePositionPatient = [f"{v:.10f}"[:16] for v in positions[k]]
        dataset.PixelSpacing = list(spacing)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        dataset.PixelData = frame.astype(frame.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = (
            "OB" if frame.dtype.itemsize == 1 and syntax != ImplicitVRLittleEndian else "OW"
        )
        if len(dataset.PixelData) % 2:
            dataset.PixelData += b"\0"
        if edit:
            edit(dataset, k)
        if compress:
            dataset.compress(compress)
        number = len(array) - k if reverse_files else k + 1
        paths.append(folder / f"slice{number:03d}.dcm")
        pydicom.dcmwrite(paths[-1], dataset, enforce_file_format=True)
    return paths


def make_enhanced(path: Path, array: np.ndarray, positions: Any, orientation: Any = AXIAL) -> Dataset:
    """One multi-frame Enhanced CT file whose frames lie at `positions`, in the order of the array."""
    dataset = base_dataset(array)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    dataset.InstanceNumber, dataset.NumberOfFrames = 1, len(array)
    shared, measures, place, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 2.5
    place.ImageOrientationPatient = [v for axis in orientation for v in axis]
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -7
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([place])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for position in positions:
        frame, where = Dataset(), Dataset()
        where.ImagePositionPatient = list(position)
        frame.PlanePositionSequence = Sequence([where])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.PixelData = array.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


def expected_affine(
    orientation: Any = AXIAL,
    origin: Any = (-10.0, 20.0, 30.0),
    step: Any = None,
    spacing: tuple[float, float] = (0.8, 0.6),
) -> np.ndarray:
    """Index (z, y, x, 1) -> LPS of what `make_series` writes."""
    affine = np.eye(4)
    affine[:3, 0] = 2.5 * np.cross(*orientation) if step is None else step
    affine[:3, 1] = np.array(orientation[1]) * spacing[0]
    affine[:3, 2] = np.array(orientation[0]) * spacing[1]
    affine[:3, 3] = origin
    return affine
