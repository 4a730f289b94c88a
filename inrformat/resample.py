"""Separable Lanczos resampling between a volume (HR) and its low-resolution (LR) grid.

Source: equation (1) of Sheibanifard & Yu 2023, L(x) = sinc(x) sinc(x/a) for |x| < a, a = 3;
spec section "LR grid".

Geometry, per axis, with an integer factor f:

- the LR grid has ceil(n / f) voxels; LR voxel j covers the HR voxels [j f, (j + 1) f) as far as they exist;
- the scale is exactly f, never n / n_lr: the centre of LR voxel j lies at HR coordinate (j + 0.5) f - 0.5;
- down: the kernel is stretched by f (antialiased); up: the kernel is on the LR grid (interpolation);
- at a border the kernel is cut off and the weights that are left are scaled to sum to one (as Pillow does);
- f = 1 is the identity.

Everything is a product with a small dense matrix per axis, in float32. This is the purely lossy end of a
decoder, so its tolerance is that of float32 sums: results agree between devices, and between ways to cut the
volume into slabs, to 1e-6 of the largest magnitude in the grid (while torch's float32 matmul precision is
left at "highest").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import precision
from .errors import UsageError
from .volume import Volume

SUPPORT = 3  # the `a` of equation (1)
SLAB_BYTES = 32 << 20  # float32 bytes of HR voxels that `downsample` holds at a time (one slice at least)
ROWS = 512  # rows of a matrix that are multiplied at a time: the matrices are banded, this skips their zeros

Shape = tuple[int, int, int]


def lanczos(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Equation (1): the Lanczos kernel, any shape."""
    kernel: npt.NDArray[np.float64] = np.where(np.abs(x) < SUPPORT, np.sinc(x) * np.sinc(x / SUPPORT), 0.0)
    return kernel


def check_factors(factors: Sequence[int]) -> Shape:
    """`factors` as three ints, or UsageError."""
    if len(factors) != 3 or any(int(f) != f or f < 1 for f in factors):
        raise UsageError(f"factors must be three whole numbers of at least 1 (z, y, x), not {factors}")
    return int(factors[0]), int(factors[1]), int(factors[2])


def lr_shape(shape: Sequence[int], factors: Sequence[int]) -> Shape:
    """Shape (z, y, x) of the LR grid of a volume of `shape`: ceil(n / f) per axis."""
    z, y, x = (ceil(n / f) for n, f in zip(shape, check_factors(factors), strict=True))
    return z, y, x


@lru_cache(maxsize=64)
def lanczos_matrix(n: int, f: int, *, up: bool) -> npt.NDArray[np.float64]:
    """The resampling of one axis of n HR voxels by factor f: dense, read-only, rows sum to one.

    Its shape is (ceil(n / f), n) for going down, (n, ceil(n / f)) for going up.
    """
    hr = np.arange(n, dtype=np.float64)
    lr = (np.arange(ceil(n / f)) + 0.5) * f - 0.5  # LR centres in HR coordinates
    distance = (lr[None, :] - hr[:, None] if up else hr[None, :] - lr[:, None]) / f
    matrix = np.eye(n) if f == 1 else lanczos(distance)
    matrix /= matrix.sum(axis=1, keepdims=True)
    matrix.flags.writeable = False
    return matrix


@lru_cache(maxsize=64)
def _band(n: int, f: int, up: bool, start: int, stop: int) -> tuple[int, npt.NDArray[np.float32]]:
    """Rows [start, stop) of `lanczos_matrix(n, f, up=up)`, from the first column that they use to the last.

    Only that band is ever made: an axis can have 65536 voxels, and its matrix then 17 GB.
    """
    if up:
        lo, hi = max(0, start // f - SUPPORT - 1), min(ceil(n / f), (stop - 1) // f + SUPPORT + 2)
    else:
        lo, hi = max(0, (start - SUPPORT - 1) * f), min(n, (stop + SUPPORT + 1) * f)
    rows, columns = np.arange(start, stop)[:, None], np.arange(lo, hi)[None, :]
    hr, lr = (rows, columns) if up else (columns, rows)
    weights = lanczos(np.abs(hr - ((lr + 0.5) * f - 0.5)) / f) if f > 1 else (rows == columns).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    band = weights.astype(np.float32)
    band.flags.writeable = False
    return lo, band


def _apply(n: int, f: int, up: bool, span: tuple[int, int], x: Tensor, axis: int) -> Tensor:
    """Axis `axis` of x (z, y, x) resampled: rows `span` of `lanczos_matrix(n, f, up=up)` times that axis."""
    with precision.as_written(x.device):
        return _product(n, f, up, span, x, axis)


def _product(n: int, f: int, up: bool, span: tuple[int, int], x: Tensor, axis: int) -> Tensor:
    parts, dtype = [], x.dtype
    if x.device.type != "cpu" and not precision.full():
        x = x.double()
    for start in range(*span, ROWS):
        lo, band = _band(n, f, up, start, min(start + ROWS, span[1]))
        weights = torch.tensor(band, device=x.device, dtype=x.dtype)
        piece = x.narrow(axis, lo, band.shape[1])
        if axis == 0:
            parts.append((weights @ piece.flatten(1)).reshape(len(band), *x.shape[1:]))
        elif axis == 1:
            parts.append(weights @ piece)  # batched over z
        else:
            parts.append(piece @ weights.T)
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)).to(dtype)


def downsample(
    volume: Volume | npt.NDArray[Any] | Tensor, factors: Sequence[int], device: str | torch.device = "cpu"
) -> Tensor:
    """The LR grid of a volume (z, y, x) of any real type: float32, `lr_shape(...)`, in the volume's units.

    Works slab by slab along z: beyond the result it holds a few `SLAB_BYTES`, never the volume as float.
    """
    array: Any = volume.data if isinstance(volume, Volume) else volume
    if array.ndim != 3 or 0 in array.shape:
        raise UsageError(f"a volume of three non-empty axes is needed, not {tuple(array.shape)}")
    nz, ny, nx = (int(n) for n in array.shape)
    fz, fy, fx = check_factors(factors)
    lr = torch.zeros(lr_shape((nz, ny, nx), factors), dtype=torch.float32, device=device)
    step = max(1, SLAB_BYTES // (4 * ny * nx))
    for z0 in range(0, nz, step):
        part = array[z0 : z0 + step]
        if isinstance(part, Tensor):
            slab = part.to(device=device, dtype=torch.float32)
        else:
            slab = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)).to(device)
        if fx > 1:
            slab = _apply(nx, fx, False, (0, lr.shape[2]), slab, 2)
        if fy > 1:
            slab = _apply(ny, fy, False, (0, lr.shape[1]), slab, 1)
        if fz > 1:  # every LR slice that these HR slices reach gets their share
            z1 = z0 + len(slab)
            for lo in range(max(0, z0 // fz - SUPPORT - 1), min(len(lr), z1 // fz + SUPPORT + 2), ROWS):
                hi = min(lo + ROWS, len(lr), z1 // fz + SUPPORT + 2)
                first, band = _band(nz, fz, False, lo, hi)
                a, b = max(first, z0), min(first + band.shape[1], z1)
                weights = torch.tensor(band[:, a - first : b - first], device=device)
                lr[lo:hi] += (weights @ slab[a - z0 : b - z0].flatten(1)).reshape(hi - lo, *lr.shape[1:])
        else:
            lr[z0 : z0 + step] = slab
    return lr


def upsample(
    lr: Tensor,
    factors: Sequence[int],
    shape: Sequence[int],
    z0: int = 0,
    z1: int | None = None,
    *,
    y0: int = 0,
    y1: int | None = None,
    x0: int = 0,
    x1: int | None = None,
) -> Tensor:
    """The region [z0:z1, y0:y1, x0:x1] of the volume of `shape`, interpolated from `lr`: float32.

    Only the LR voxels that the region needs are read. Any way to cut a volume into regions gives the same
    values to within 1e-6 of the largest magnitude in `lr`.
    """
    nz, ny, nx = shape
    if tuple(lr.shape) != lr_shape(shape, factors):
        raise UsageError(f"an LR grid {tuple(lr.shape)} is not that of {tuple(shape)} by {tuple(factors)}")
    box = ((z0, nz if z1 is None else z1), (y0, ny if y1 is None else y1), (x0, nx if x1 is None else x1))
    if any(not 0 <= a < b <= n for (a, b), n in zip(box, shape, strict=True)):
        raise UsageError(f"the region {box} is empty or outside a volume of shape {tuple(shape)}")
    out = lr.to(torch.float32)
    axes = list(enumerate(zip(shape, check_factors(factors), box, strict=True)))
    for axis, (_, f, (a, b)) in axes:  # the axes that are only cut come first: less to interpolate
        if f == 1:
            out = out.narrow(axis, a, b - a)
    for axis, (n, f, (a, b)) in axes:
        if f > 1:
            out = _apply(n, f, True, (a, b), out, axis)
    return out.contiguous()
