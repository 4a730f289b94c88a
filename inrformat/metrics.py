"""How far a reconstruction is from its original, gathered slab by slab in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .volume import Array

SSIM_WINDOW = 7
CHUNK_VOXELS = 1 << 19
"""Voxels that are compared at a time: what fits the caches is several times faster than a whole slab."""
MISSED = 0.25
"""Slabs with less than this share of the mean variance miss most of a volume."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def psnr(mse: float, peak: float) -> float | None:
    """Equation (2) of the paper, dB; None where the error, or the peak, is zero."""
    return 10 * math.log10(peak * peak / mse) if mse > 0 and peak > 0 else None


def ssim_of_slices(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of each slice (n), a and b float32 (n, y, x) scaled to a peak of 1.

    Wang et al. 2004 with the uniform 7x7 window and the sample covariance of scikit-image's default, over the
    places where the whole window fits. Slices narrower than 7 take the largest odd window that fits.
    """
    wy, wx = (min(SSIM_WINDOW, n - 1 + n % 2) for n in a.shape[1:])
    count = wy * wx
    ma, mb, squares, product = (_box_mean(m, wy, wx) for m in (a, b, (a * a).addcmul_(b, b), a * b))
    unbiased = count / max(count - 1, 1)
    mean_squares, mean_product = (ma * ma).addcmul_(mb, mb), ma * mb
    variances = (squares - mean_squares).mul_(unbiased)
    covariance = (product - mean_product).mul_(unbiased)
    score = (2 * mean_product + SSIM_C1).mul_(2 * covariance + SSIM_C2)
    score /= (mean_squares + SSIM_C1).mul_(variances + SSIM_C2)
    return score.flatten(1).mean(1)


def _box_mean(x: Tensor, wy: int, wx: int) -> Tensor:
    """The mean over every wy x wx window of each slice: (n, y, x) -> (n, y - wy + 1, x - wx + 1)."""
    for axis, w in ((1, wy), (2, wx)):
        size = x.shape[axis] - w + 1
        total = x.narrow(axis, 0, size).clone()
        for shift in range(1, w):
            total += x.narrow(axis, shift, size)
        x = total
    return x.div_(wy * wx)


@dataclass
class Comparison:
    """Errors of a volume of `slices` slices, in stored units. `span`: the range of the original."""

    slices: int
    span: tuple[float, float]
    voxels_per_slice: int
    squared: npt.NDArray[np.float64] = field(init=False)
    ssim: npt.NDArray[np.float64] = field(init=False)
    absolute: float = 0.0
    max_error: float = 0.0

    def __post_init__(self) -> None:
        self.squared, self.ssim = np.zeros(self.slices), np.ones(self.slices)

    def add(self, z0: int, original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> None:
        """Take in the slices from z0 on, of both (n, y, x)."""
        step = max(1, CHUNK_VOXELS // self.voxels_per_slice)
        for i in range(0, len(original), step):
            self._add(z0 + i, original[i : i + step], decoded[i : i + step])

    def _add(self, z0: int, original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> None:
        if np.array_equal(original, decoded):
            return
        # Squares of float32 values may be beyond float32; those of whole numbers of 16 bits are not.
        kind = torch.float64 if original.dtype.kind == "f" else torch.float32
        a, b = (torch.from_numpy(values.astype(np.float32)).to(kind) for values in (original, decoded))
        error = b - a
        z1 = z0 + len(a)
        self.squared[z0:z1] = error.square().sum((1, 2), dtype=torch.float64).numpy()
        self.absolute += float(error.abs().sum(dtype=torch.float64))
        self.max_error = max(self.max_error, float(error.abs().max()))
        if self.peak > 0:
            a, b = (values.sub_(self.span[0]).div_(self.peak).float() for values in (a, b))
            self.ssim[z0:z1] = ssim_of_slices(a, b).numpy()

    @property
    def peak(self) -> float:
        """The range of the original's values."""
        return self.span[1] - self.span[0]

    @property
    def voxels(self) -> int:
        """Voxels of the volume."""
        return self.slices * self.voxels_per_slice

    @property
    def psnr(self) -> float | None:
        """Over the whole volume."""
        return psnr(float(self.squared.sum()) / self.voxels, self.peak)

    @property
    def worst_slice(self) -> int:
        """The slice of the greatest squared error."""
        return int(self.squared.argmax())

    @property
    def worst_slice_psnr(self) -> float | None:
        """Its PSNR, with the volume's peak."""
        return psnr(float(self.squared.max()) / self.voxels_per_slice, self.peak)


def activity(volume: Array) -> Array:
    """What there is to see in each slice of (z, y, x): its variance."""
    return np.array([part.var(dtype=np.float64) for part in volume])


def slab_starts(activity: Array, slabs: int, depth: int) -> list[int]:
    """Where slabs of `depth` slices begin, or one of all slices where they are fewer, to measure errors on.

    They are evenly spread. Where that misses most of what there is to see, each is the liveliest of its part.
    """
    count = len(activity)
    depth = min(depth, count)
    starts = np.linspace(0, count - depth, min(slabs, -(-count // depth))).astype(int)
    lively = np.convolve(activity, np.full(depth, 1 / depth), "valid")  # of the slab from each slice on
    if lively[starts].mean() < MISSED * lively.mean():
        parts = np.array_split(np.arange(len(lively)), len(starts))
        starts = np.array([part[lively[part].argmax()] for part in parts if len(part)])
    return [int(start) for start in np.unique(starts)]
