"""A generated CT head: something to encode where no real volume may go (tests, the demo)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .volume import DTYPES, Array, Volume, default_affine

FIELD_MM = (180.0, 240.0, 240.0)
"""Edges of the field of view along (z, y, x) in mm, whatever the shape."""

# Hounsfield units, centre (z, y, x), half axes (z, y, x), turn about z in degrees; lengths in half fields.
# Later ones are painted over earlier ones. After Shepp and Logan (1974), with the tissues of a head.
_Ellipsoid = tuple[float, tuple[float, float, float], tuple[float, float, float], float]
_HEAD: tuple[_Ellipsoid, ...] = (
    (45, (0.0, 0.0, 0.0), (0.95, 0.92, 0.74), 0),  # scalp
    (-90, (0.0, 0.0, 0.0), (0.925, 0.895, 0.715), 0),  # fat under it
    (1350, (0.0, 0.0, 0.0), (0.91, 0.88, 0.70), 0),  # skull, outer table
    (550, (0.0, 0.0, 0.0), (0.892, 0.86, 0.682), 0),  # diploe
    (1350, (0.0, 0.0, 0.0), (0.87, 0.84, 0.66), 0),  # inner table
    (8, (0.0, 0.0, 0.0), (0.85, 0.82, 0.64), 0),  # cerebrospinal fluid
    (37, (0.0, 0.0, 0.0), (0.82, 0.785, 0.61), 0),  # grey matter
    (29, (0.05, 0.0, -0.27), (0.60, 0.58, 0.25), -6),  # white matter
    (29, (0.05, 0.0, 0.27), (0.60, 0.58, 0.25), 6),
    (5, (0.10, -0.05, -0.14), (0.22, 0.36, 0.075), 14),  # ventricles
    (5, (0.10, -0.05, 0.14), (0.22, 0.36, 0.075), -14),
    (5, (-0.10, 0.05, 0.0), (0.16, 0.12, 0.025), 0),
    (38, (0.05, -0.12, -0.24), (0.14, 0.14, 0.055), 20),  # deep nuclei
    (38, (0.05, -0.12, 0.24), (0.14, 0.14, 0.055), -20),
    (140, (0.06, 0.20, 0.0), (0.03, 0.03, 0.022), 0),  # a calcified pineal gland
    (70, (0.25, 0.30, 0.38), (0.10, 0.09, 0.07), 30),  # a fresh bleeding
    (20, (0.30, -0.35, -0.36), (0.14, 0.16, 0.10), -25),  # an old infarct
    (-1000, (-0.55, -0.62, 0.0), (0.16, 0.13, 0.20), 0),  # a sinus
    (1500, (-0.62, 0.10, -0.42), (0.12, 0.14, 0.10), 35),  # petrous bones
    (1500, (-0.62, 0.10, 0.42), (0.12, 0.14, 0.10), -35),
    (-1000, (-0.62, 0.10, -0.42), (0.03, 0.04, 0.025), 0),  # air in them
    (-1000, (-0.62, 0.10, 0.42), (0.03, 0.04, 0.025), 0),
)
_MOVABLE = slice(7, 17)  # the seed moves what is inside the brain


def head_phantom(
    shape: tuple[int, int, int] = (64, 128, 128),
    *,
    seed: int = 0,
    noise: float = 8.0,
    dtype: npt.DTypeLike = np.int16,
) -> Volume:
    """A head of ellipsoids in CT numbers, with soft edges, a line-pair insert and Gaussian noise.

    shape   (z, y, x) voxels; the field of view is always `FIELD_MM`
    seed    decides the noise, and moves what is inside the brain; the same seed gives the same volume
    noise   standard deviation in Hounsfield units, before rounding
    dtype   one of `volume.DTYPES`. 16 bits: stored value = HU + 1024; 8 bits: 16 HU a step; float32: HU

    Raises UsageError for a shape, type or noise that makes no volume.
    """
    kind = np.dtype(dtype)
    if len(shape) != 3 or min(shape) < 1 or kind not in DTYPES.values() or not 0 <= noise < 1e6:
        raise UsageError("head_phantom needs three positive sizes, a stored type and a noise level in HU")
    generator = np.random.default_rng(seed)
    axes = [np.linspace(1 / n - 1, 1 - 1 / n, n, dtype=np.float32) for n in shape]
    hounsfield = np.full(shape, -1000, np.float32)
    for ellipsoid in _moved(generator):
        _paint(hounsfield, axes, ellipsoid)
    _line_pairs(hounsfield, axes)
    if noise:
        hounsfield += generator.standard_normal(shape, dtype=np.float32) * np.float32(noise)
    slope, intercept = {1: (16.0, -1024.0 if kind.kind == "u" else 1024.0), 2: (1.0, -1024.0)}.get(
        kind.itemsize, (1.0, 0.0)
    )
    z, y, x = (edge / size for edge, size in zip(FIELD_MM, shape, strict=True))
    affine = default_affine((z, y, x))
    affine[:3, 3] = [(step - edge) / 2 for edge, step in zip(FIELD_MM[::-1], (x, y, z), strict=True)]
    data = _stored(hounsfield, kind, slope, intercept)
    metadata = {"source": "phantom", "modality": "CT"}
    return Volume(data, (z, y, x), affine, (slope,), (intercept,), metadata)


def _moved(generator: np.random.Generator) -> list[_Ellipsoid]:
    """The ellipsoids, those inside the brain moved by up to 0.02 and resized by up to 8 %."""
    ellipsoids = list(_HEAD)
    for k in range(*_MOVABLE.indices(len(ellipsoids))):
        value, (z, y, x), (a, b, c), turn = ellipsoids[k]
        dz, dy, dx = generator.uniform(-0.02, 0.02, 3)
        size = generator.uniform(0.92, 1.08)
        ellipsoids[k] = (value, (z + dz, y + dy, x + dx), (a * size, b * size, c * size), turn)
    return ellipsoids


def _paint(hounsfield: Array, axes: list[Array], ellipsoid: _Ellipsoid) -> None:
    """Blend an ellipsoid into the array, its edge about one voxel wide, touching its bounding box alone."""
    value, centre, half, turn = ellipsoid
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    reach = (
        half[0],
        np.hypot(half[1] * cosine, half[2] * sine),  # an ellipse that is turned in the plane y, x
        np.hypot(half[1] * sine, half[2] * cosine),
    )
    boxes, offsets = [], []
    for axis, middle, length in zip(axes, centre, reach, strict=True):
        margin = 4.0 / len(axis)  # two voxels
        inside = np.flatnonzero(np.abs(axis - middle) <= length + margin)
        if not len(inside):
            return
        boxes.append(slice(int(inside[0]), int(inside[-1]) + 1))
        offsets.append(axis[boxes[-1]] - np.float32(middle))
    z, y, x = offsets[0][:, None, None], offsets[1][:, None], offsets[2]
    along = ((y * cosine + x * sine) / half[1]).astype(np.float32)
    across = ((x * cosine - y * sine) / half[2]).astype(np.float32)
    radius = np.sqrt((z / np.float32(half[0])) ** 2 + (along**2 + across**2))
    # Distance to the surface in voxels, near enough: the smallest half axis over the finest grid.
    scale = np.float32(min(half) * max(len(axis) for axis in axes) / 2)
    weight = np.clip((1 - radius) * scale + 0.5, 0, 1)
    box = hounsfield[tuple(boxes)]
    box += weight * (np.float32(value) - box)


def _line_pairs(hounsfield: Array, axes: list[Array]) -> None:
    """Bars of 300 HU along x, at periods of 8, 4 and 2 voxels: detail that resampling must lose."""
    z, y, x = axes
    planes = np.flatnonzero(np.abs(z + 0.30) < 0.12)
    columns = np.flatnonzero(np.abs(x) < 0.22)
    if not len(planes) or not len(columns):
        return
    for row, period in ((0.18, 8), (0.26, 4), (0.34, 2)):
        rows = np.flatnonzero(np.abs(y - row) < 0.03)
        bars = columns[columns % period < period // 2]
        hounsfield[np.ix_(planes, rows, bars)] = 300


def _stored(hounsfield: Array, kind: np.dtype[Any], slope: float, intercept: float) -> Array:
    if kind.kind == "f":
        return hounsfield
    limits = np.iinfo(kind)
    values = np.rint((hounsfield - np.float32(intercept)) / np.float32(slope))
    stored: Array = np.clip(values, limits.min, limits.max).astype(kind)
    return stored
