"""What fits of whole numbers have in common: rounding with a gradient, and the bits that the numbers take."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

LEAST_MEAN = 0.15
"""Of a tensor's magnitudes, as far as the bits of one more are concerned: about ten, then."""


def rounded(values: Tensor) -> Tensor:
    """Whole numbers whose gradient is that of the values (straight-through)."""
    return values + (values.round() - values).detach()


def bits(tensors: Iterable[Tensor]) -> Tensor:
    """What they take, up to a constant, as far as its slope goes: by Laplace, of each tensor's own mean."""
    taken: list[Tensor] = []
    for values in tensors:
        mean = values.detach().round().abs().mean().clamp(min=LEAST_MEAN)
        taken.append(values.abs().sum() / (mean * math.log(2)))
    return torch.stack(taken).sum()
