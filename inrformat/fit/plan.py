"""What to fit: presets, how wide a network the bytes allow, and how far to reduce each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..coding.network import MOST_WIDTH, parameter_count
from ..errors import UsageError
from ..metrics import slab_starts
from ..models.sr import SRModel, super_resolve
from ..resample import Shape, downsample, lr_shape
from ..volume import Array
from .projection import SLICES, projected
from .train import HELD_VALUES, FitSettings

BITS_PER_WEIGHT = 4.8
"""What a weight takes where rounding costs about as much as the fit's own error; measured on CT and MR."""
NARROWEST = 8
SMALL = 1 << 22
"""Voxels below which a super-resolution model is adapted in fewer steps."""
SAMPLE_SLABS = 3


@dataclass(frozen=True)
class Preset:
    """Effort, and the bytes that a volume gets when nobody names a target: bytes * (voxels / 2^18)^growth.

    base     what holds the LR grid: "latents", or "siren"; `factors` are those of a SIREN's.
    projections, corrections   how often the LR grid of latents is brought closer at full size, before it is
             coded and after it was; see fit.projection.
    latents  steps in which the latent model is fitted to the volume, or none; see fit.latent_tuning.
    adapting steps in which a super-resolution model is fitted to the volume; see fit.sr_tuning.
    trial    the share of them after which grids of nearly the same error are compared; 0: before any.
    tuning   how much of a lossless or bounded file's context model is fitted to the volume; see fit.tuning.
    """

    settings: FitSettings
    bytes: float
    growth: float
    factors: Shape = (1, 1, 1)
    base: str = "latents"
    projections: int = 0
    corrections: int = 0
    latents: int = 0
    adapting: int = 0
    trial: float = 0.0
    tuning: int = 0

    def adapting_steps(self, voxels: int) -> int:
        """For a volume of so many voxels."""
        return math.ceil(self.adapting * min(1.0, voxels / SMALL))

    def default_bytes(self, voxels: int) -> float:
        """For the base network of a volume of so many voxels."""
        return float(self.bytes * (voxels / 2**18) ** self.growth)


PAPER = FitSettings(width=128, depth=4, steps=50_000, batch=1 << 16, optimiser="adam", noise=0.0)
PRESETS = {
    "fast": Preset(FitSettings(steps=1200), 4000, 0.4, latents=300, adapting=250),
    "balanced": Preset(
        FitSettings(steps=4000),
        8000,
        0.5,
        projections=2,
        corrections=2,
        latents=1500,
        adapting=2500,
        trial=0.2,
        tuning=2,
    ),
    "best": Preset(
        FitSettings(steps=40_000),
        16_000,
        0.5,
        projections=4,
        corrections=4,
        latents=6000,
        adapting=20_000,
        trial=0.1,
        tuning=10,
    ),
    "paper": Preset(PAPER, 0, 0, factors=(4, 4, 4), base="siren"),
}


def preset_of(name: str) -> Preset:
    """The preset of that name, or UsageError."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def width_for(size: float, depth: int) -> int:
    """The width, a multiple of 8, whose network takes about `size` bytes."""
    parameters = 8 * size / BITS_PER_WEIGHT
    width = math.sqrt(max(parameters, 1) / max(depth - 1, 1))
    nearest = min(range(NARROWEST, MOST_WIDTH + 1, 8), key=lambda w: abs(w - width) / w)
    while nearest > NARROWEST and parameter_count(nearest, depth) > 1.3 * parameters:
        nearest -= 8
    return nearest


def _largest_factor(n: int) -> int:
    """An axis keeps at least 8 voxels."""
    return 4 if n >= 32 else 2 if n >= 16 else 1


def latent_factors(shape: Sequence[int]) -> list[Shape]:
    """From the coarsest LR grid of latents to the finest: thick slices are reduced less, or not at all."""
    found = []
    for factors in ((4, 4, 4), (2, 4, 4), (1, 4, 4), (2, 2, 2), (1, 2, 2), (1, 1, 1)):
        z, y, x = (min(f, _largest_factor(n)) for f, n in zip(factors, shape, strict=True))
        if (z, y, x) not in found:
            found.append((z, y, x))
    return found


def normalised_grid(data: Array, span: tuple[float, float], factors: Shape, device: torch.device) -> Tensor:
    """The LR grid (z, y, x), float32, with the range `span` of the volume mapped to [0, 1]."""
    low, high = span
    if math.prod(lr_shape(data.shape, factors)) > HELD_VALUES:
        device = torch.device("cpu")
    return downsample(data, factors, device).sub_(low).div_(high - low)


def resampling_loss(
    data: Array,
    span: tuple[float, float],
    factors: Shape,
    model: SRModel | None,
    device: torch.device,
    projections: int,
    activity: Array,
) -> float:
    """Mean squared error of going down and up again, in units of the range, on a sample of slabs.

    activity   see metrics.activity.
    """
    if max(factors) == 1:
        return 0.0
    errors = []
    for start in slab_starts(activity, SAMPLE_SLABS, SLICES):
        slab = data[start : start + SLICES]
        lr = normalised_grid(slab, span, factors, device)
        original = (torch.from_numpy(slab.astype(np.float32)).to(device) - span[0]) / (span[1] - span[0])
        ways: list[SRModel | None] = [None]
        if model is not None and model.supports(factors):
            ways.append(model)
        losses = []
        for way in ways:
            own = projected(lr, slab, span, factors, way, projections)
            full = super_resolve(way, own, factors, slab.shape).clamp_(0, 1)
            losses.append(float((full - original).square().mean()))
        errors.append(min(losses))
    return float(np.mean(errors))
