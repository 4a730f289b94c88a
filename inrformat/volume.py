"""Volume: an array in stored units with what is needed to put it back into the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "u1": np.dtype(np.uint8),
    "i1": np.dtype(np.int8),
    "u2": np.dtype(np.uint16),
    "i2": np.dtype(np.int16),
    "f4": np.dtype(np.float32),
}
"""The stored types, under the names that the file uses."""


@dataclass(frozen=True)
class Volume:
    """A medical volume.

    data      (z, y, x) array in stored values (not Hounsfield), one of `DTYPES`.
    spacing   voxel spacing in mm along (z, y, x).
    affine    4x4, index (z, y, x, 1) -> patient position in mm, LPS (DICOM's own axes).
    slope, intercept   rescale to real-world units; one entry, or one per slice.
    metadata  what the source said of itself, in plain types (str, int, float, bytes, list, dict); see `io`.
    """

    data: Array
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    affine: Array | None = None
    slope: tuple[float, ...] = (1.0,)
    intercept: tuple[float, ...] = (0.0,)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = as_stored(self.data)
        object.__setattr__(self, "data", data)
        spacing = tuple(float(s) for s in self.spacing)
        if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
            raise InputError(f"spacing must be three positive lengths in mm, not {self.spacing}")
        object.__setattr__(self, "spacing", spacing)
        affine = default_affine(spacing) if self.affine is None else np.array(self.affine, float)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError("affine must be a finite 4x4 matrix")
        object.__setattr__(self, "affine", affine)
        for name in ("slope", "intercept"):
            values = tuple(float(v) for v in np.atleast_1d(getattr(self, name)))
            if len(values) not in (1, data.shape[0]) or not np.isfinite(values).all():
                raise InputError(f"{name} must be one finite number, or one per slice")
            object.__setattr__(self, name, values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        z, y, x = self.data.shape
        return z, y, x


def default_affine(spacing: tuple[float, ...]) -> Array:
    """The affine of an axis-aligned volume whose first voxel is at the origin: index z, y, x -> patient x, y, z."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    return affine


def as_stored(array: Any) -> Array:
    """A 3-D array in one of `DTYPES`, without copying when it already is one.

    A 2-D array becomes one slice. Wider integers are narrowed when every value fits 16 bits, float64 and
    float16 become float32. Tensors are taken as they are. Anything else: InputError.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"a volume has three axes (z, y, x), this array has {array.ndim}")
    if array.size == 0:
        raise InputError(f"the volume is empty: shape {array.shape}")
    if array.dtype in DTYPES.values():
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        for dtype in (np.int16, np.uint16):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
        raise InputError(f"integer values {low}..{high} do not fit 16 bits; give float32 instead")
    raise InputError(f"cannot store values of type {array.dtype}")
