"""The latent model: how likely a latent is, given what is known around it (spec, "The latent model").

For each band of a level a network as those of the context model reads the inputs of coding.latents and says
what the latent is expected to be, how far it may be from that, and how heavy the tails are.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..coding.latents import inputs
from ..coding.lattice import Prediction
from ..coding.mixtures import TAILS, tables_of
from ..coding.wavelet import PATTERNS
from .integers import IntegerModel


class LatentModel(IntegerModel):
    """The networks of a latent model, on a device; tensors "band.layer", for each pattern of a band."""

    kind = "latents"
    networks_of: ClassVar = {str(pattern): inputs(pattern) for pattern in PATTERNS}

    def predict(self, features: Tensor, pattern: int) -> Prediction:
        """The distributions of latents with these inputs (inputs, n)."""
        return prediction(self.networks[PATTERNS.index(pattern)].outputs(features))


def prediction(outputs: Tensor) -> Prediction:
    """The integer rules that turn a network's three outputs (3, n) into a centre, a table and low bits."""
    centre, spread, tails = outputs
    sixteenths = centre + 256 >> 9
    whole = sixteenths + 8 >> 4
    heavy = (tails + (1 << 11) >> 12) + TAILS // 2
    table, bits = tables_of(spread + 256 >> 9, heavy, sixteenths - (whole << 4), 1)
    return Prediction(whole, table, bits)
