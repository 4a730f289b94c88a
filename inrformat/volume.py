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


@dataclass(frozen=True, eq=False)
class Volume:
    """A medical volume.

    data      (z, y, x) array in stored values (not Hounsfield), one of `DTYPES`.
    spacing   voxel spacing in mm along (z, y, x); along z it is the distance between slice planes.
    affine    4x4, index (z, y, x, 1) -> patient position in mm, LPS (DICOM's own axes).
    slope, intercept   rescale to real-world units; one entry, or one per slice.
    metadata  what the source said of itself, in plain types (str, int, float, bytes, list, dict); see `io`.
    """

    data: Array
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    affine: Array = None  # type: ignore[assignment]  # None becomes `default_affine(spacing)`
    slope: tuple[float, ...] = (1.0,)
    intercept: tuple[float, ...] = (0.0,)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = as_stored(self.data)
        object.__setattr__(self, "data", data)
        spacing = _floats(self.spacing, "spacing")
        if len(spacing) != 3 or min(spacing) <= 0:
            raise InputError(f"spacing must be three positive lengths in mm, not {self.spacing}")
        object.__setattr__(self, "spacing", spacing)
        affine = default_affine(spacing) if self.affine is None else _affine(self.affine)
        object.__setattr__(self, "affine", affine)
        for name in ("slope", "intercept"):
            values = _floats(getattr(self, name), name)
            if len(values) not in (1, data.shape[0]):
                raise InputError(f"{name} must be one finite number, or one per slice")
            object.__setattr__(self, name, values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        z, y, x = self.data.shape
        return z, y, x

    def real_values(self) -> Array:
        """Data * slope + intercept: the (z, y, x) array in real-world units (Hounsfield for CT), float32."""
        slope = np.reshape(self.slope, (-1, 1, 1)).astype(np.float32)
        intercept = np.reshape(self.intercept, (-1, 1, 1)).astype(np.float32)
        values: Array = self.data.astype(np.float32)
        values *= slope
        values += intercept
        return values


def _floats(values: Any, name: str) -> tuple[float, ...]:
    try:
        floats = tuple(float(v) for v in np.atleast_1d(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers") from error
    if not np.isfinite(floats).all():
        raise InputError(f"{name} must be finite")
    return floats


def _affine(values: Any) -> Array:
    try:
        affine = np.array(values, float)
    except (TypeError, ValueError) as error:
        raise InputError("affine must be a finite 4x4 matrix") from error
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError("affine must be a finite 4x4 matrix")
    return affine


def default_affine(spacing: tuple[float, ...]) -> Array:
    """The affine of an axis-aligned volume with its first voxel at the origin: z, y, x -> patient x, y, z."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    return affine


def spacing_of(affine: Array) -> tuple[float, float, float]:
    """The spacing (z, y, x) in mm that a 4x4 affine implies.

    y and x are the lengths of their columns; z is the distance between slice planes, which is less than the
    length of its column when the slices are sheared (gantry tilt). InputError when the axes do not span
    space.
    """
    step, row, column = np.asarray(affine, float)[:3, :3].T
    y, x = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    normal = np.cross(column, row)
    area = float(np.linalg.norm(normal))
    z = abs(float(step @ normal)) / area if area > 0 else 0.0
    if not np.isfinite((z, y, x)).all() or min(z, y, x) <= 0 or area < 1e-6 * y * x:
        raise InputError("the affine does not span three dimensions")
    return z, y, x


def as_stored(array: Any) -> Array:
    """A 3-D array in one of `DTYPES`, without copying when it already is one.

    A 2-D array becomes one slice. Wider integers are narrowed when every value fits 16 bits, float64 and
    float16 become float32. Tensors are taken as they are. Anything else: InputError.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    try:
        stored: Array = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise InputError("this is no array of numbers") from error
    if stored.ndim == 2:
        stored = stored[None]
    if stored.ndim != 3:
        raise InputError(f"a volume has three axes (z, y, x), this array has {stored.ndim}")
    if stored.size == 0:
        raise InputError(f"the volume is empty: shape {stored.shape}")
    return _stored_type(stored)


def _stored_type(array: Array) -> Array:
    """The array in one of `DTYPES`, in native byte order; InputError where none holds its values."""
    if array.dtype.kind in "iuf" and array.dtype.newbyteorder("=") in DTYPES.values():
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return array.astype(DTYPES["f4"])
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        for dtype in (DTYPES["i2"], DTYPES["u2"]):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
        raise InputError(f"integer values {low}..{high} do not fit 16 bits; give float32 instead")
    raise InputError(f"cannot store values of type {array.dtype}")
