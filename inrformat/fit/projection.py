"""An LR grid that comes closer at full size: corrected before it is coded, and again for what coding did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ..models.sr import SRModel, block_of, fast_dtype, spans_of, super_resolve
from ..resample import SUPPORT, Shape, downsample, upsample
from ..volume import Array

SLICES = 16
"""LR slices at a time."""
TILE: Shape = (24, 48, 48)
"""LR voxels whose error is traced back at a time: the light model keeps about 5 kB for each."""
MOST_ACTIVATIONS = 1 << 23
"""Numbers in the largest layer of a model that takes smaller tiles, as far as they help."""
LEAST_SIDE = 8


def projected(
    grid: Tensor,
    data: Array,
    span: tuple[float, float],
    factors: Shape,
    model: SRModel | None,
    rounds: int,
) -> Tensor:
    """The LR grid corrected by what its super-resolution, or Lanczos, gets wrong (Irani and Peleg 1991).

    Each round adds the error at full size, brought to the LR grid. The volume's residual is held in float32.
    """
    low, high = span
    residual = np.empty(data.shape, np.float32) if rounds else np.empty(0, np.float32)
    for _ in range(rounds):
        for z0 in range(0, len(data), SLICES * factors[0]):
            z1 = min(len(data), z0 + SLICES * factors[0])
            full = super_resolve(model, grid, factors, data.shape, z0, z1).clamp_(0, 1).cpu().numpy()
            np.subtract((data[z0:z1].astype(np.float32) - low) / (high - low), full, out=residual[z0:z1])
        grid = grid + downsample(residual, factors, grid.device)
    return grid


def corrected(
    lr: Tensor, data: Array, span: tuple[float, float], factors: Shape, model: SRModel | None
) -> Tensor:
    """The LR grid (z, y, x), 0 to 1, as it should have been coded, after it was: a step down its gradient.

    That is of half the squared error at full size, through the model and Lanczos; a step of what it is
    divided by the voxels for each of the grid's, for Lanczos keeps lengths but for that factor. Coded anew,
    the grid comes closer with the same bytes (iterative thresholding, as in Daubechies et al. 2004).
    """
    slope, (low, high) = torch.zeros_like(lr), span
    margins = [max(SUPPORT + 1, halo) for halo in (model.halo(factors) if model else (0, 0, 0))]
    tile = _tile(model, factors)
    for core in product(*(spans_of(0, n, 1, t) for n, t in zip(lr.shape, tile, strict=True))):
        region = [
            (max(0, a - m), min(n, b + m)) for (a, b), m, n in zip(core, margins, lr.shape, strict=True)
        ]
        inside = tuple(slice(a, b) for a, b in region)
        block = lr[inside].clone().requires_grad_()
        z, y, x = (min(b * f, n) - a * f for (a, b), f, n in zip(region, factors, data.shape, strict=True))
        own = [(a - first, b - first) for (a, b), (first, _) in zip(core, region, strict=True)]
        full = tuple(slice(a * f, b * f) for (a, b), f in zip(core, factors, strict=True))
        original = torch.from_numpy(data[full].astype(np.float32)).to(lr.device).sub_(low).div_(high - low)
        error = _enlarged(block, own, (z, y, x), factors, model) - original
        (part,) = torch.autograd.grad(error.square().sum() / 2, block)
        slope[inside] += part
    return lr - slope / math.prod(factors)


def _tile(model: SRModel | None, factors: Shape) -> Shape:
    """`TILE`, or what a larger model takes."""
    z, y, x = TILE
    if model is not None:
        margins = [2 * halo for halo in model.halo(factors)]
        while max(z, y, x) > LEAST_SIDE:
            if (
                model.activations((z + margins[0], y + margins[1], x + margins[2]), factors)
                <= MOST_ACTIVATIONS
            ):
                break
            z, y, x = (max(n // 2, LEAST_SIDE) for n in (z, y, x))
    return z, y, x


def _enlarged(
    lr: Tensor, core: Sequence[tuple[int, int]], shape: Shape, factors: Shape, model: SRModel | None
) -> Tensor:
    """A core of an LR block, of a volume of `shape`, at full size: as decoded, but with its gradient."""
    (z0, z1), (y0, y1), (x0, x1) = (
        (a * f, min(b * f, n)) for (a, b), f, n in zip(core, factors, shape, strict=True)
    )
    full = upsample(lr, factors, shape, z0, z1, y0=y0, y1=y1, x0=x0, x1=x1)
    if model is not None:
        block = block_of(lr, core, model.halo(factors))
        detail = model(block[None], factors, fast_dtype(lr.device))[0].nan_to_num(0.0, 0.0, 0.0)
        full = full + detail[: z1 - z0, : y1 - y0, : x1 - x0]
    return full.clamp(0, 1)
