"""The latent model: how likely a latent is, given what is known around it (spec, "The latent model").

For each band of a level a network as those of the context model reads the inputs of coding.latents and says
what the latent is expected to be, how far it may be from that, and how heavy the tails are; and, if it has
three outputs more, where what was rounded is likely to lie, about a zero, a greater and a lesser latent.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..coding.latents import Forecast, inputs
from ..coding.mixtures import TAILS, tables_of
from ..coding.wavelet import PATTERNS
from .integers import OUTPUTS, IntegerModel

SHIFTS = 3
"""Outputs besides the distribution: of a zero, a greater, a lesser latent."""
LARGEST_SHIFT = 255
"""In 1/256 of a step."""


class LatentModel(IntegerModel):
    """The networks of a latent model, on a device; tensors "band.layer", for each pattern of a band."""

    kind = "latents"
    networks_of: ClassVar = {str(pattern): inputs(pattern) for pattern in PATTERNS}
    rows_of_last: ClassVar = (OUTPUTS, OUTPUTS + SHIFTS)

    def predict(self, features: Tensor, pattern: int) -> Forecast:
        """What is likely of points with these inputs (inputs, n)."""
        return forecast(self.networks[PATTERNS.index(pattern)].outputs(features))


def forecast(outputs: Tensor) -> Forecast:
    """The integer rules that turn a network's outputs (3 or 6, n) into distributions and shifts."""
    centre, spread, tails = outputs[:OUTPUTS]
    sixteenths = centre + 256 >> 9
    whole = sixteenths + 8 >> 4
    heavy = (tails + (1 << 11) >> 12) + TAILS // 2
    table, bits = tables_of(spread + 256 >> 9, heavy, sixteenths - (whole << 4), 1)
    shifts = torch.zeros(SHIFTS, len(whole), dtype=torch.int16, device=outputs.device)
    if len(outputs) > OUTPUTS:
        shifts += (outputs[OUTPUTS:] + 16 >> 5).clamp_(-LARGEST_SHIFT, LARGEST_SHIFT)
    return Forecast(whole, table, bits, shifts)
