"""The context model: what a voxel is likely to be, given those that are known (spec, "The context model").

For each class of a split a network of two hidden layers reads a `Context` and says where the voxel's level
is expected, how widely it is spread, and how heavy the tails are. Weights are integers in units of 1/512,
inputs and activations in [-127, 127] in units of 1/16; every sum stays below 2^24, so float32 (or float64)
matrix products are exact, in any order, on every machine.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from ..coding import integers
from ..coding.bank import FAMILIES
from ..coding.lattice import CLASSES, EIGHTHS, RECIPROCAL, Context, Prediction, Span, Split, inputs, octaves
from ..coding.mixtures import TAILS, tables_of
from ..container.codes import fail
from .integers import LARGEST_WEIGHT, PARTS, IntegerModel

FRACTION = 4
"""Fractional bits of a predicted level."""
NETWORKS = tuple((where, kind) for where in ("z", "y", "x", "coarse") for kind in range(len(CLASSES)))

LAYERS = tuple(f"{where}.{kind}.{part}" for where, kind in NETWORKS for part in PARTS)
"""The tensors of a model, in the order in which TUNE changes them."""
MOST_SHIFT = 8


def network_of(split: Split, kind: int) -> int:
    """Which of `NETWORKS` predicts a class of a split: one for each axis at the finest, one for the rest."""
    return (split.axis if split.fine else 3) * len(CLASSES) + kind


class ContextModel(IntegerModel):
    """The networks of a context model, on a device; tensors "where.kind.layer", for each of `NETWORKS`."""

    kind = "context"
    networks_of: ClassVar = {f"{where}.{kind}": inputs(kind) for where, kind in NETWORKS}

    def predict(self, context: Context, split: Split, kind: int, span: Span) -> Prediction:
        """The distributions of the points of a context (spec, "From outputs to distributions")."""
        centre, spread, tails = self.networks[network_of(split, kind)].outputs(context.features).long()
        return prediction(context, centre, spread, tails, span)


def prediction(
    context: Context, centre: torch.Tensor, spread: torch.Tensor, tails: torch.Tensor, span: Span
) -> Prediction:
    """The integer rules that turn a network's three outputs into a centre, a table and low bits."""
    device = centre.device
    reciprocal = torch.tensor(RECIPROCAL, device=device)[context.quarter]
    # outputs / 512 are units of 1/16 of a normalised difference's unit, 2^E / GAIN: 16ths of a level.
    shift = centre * reciprocal << context.exponent
    sixteenths = (context.centre.long() << FRACTION) + (shift + (1 << 20) >> 21)
    sixteenths = sixteenths.clamp_(0, span.greatest << FRACTION)
    whole = sixteenths + 8 >> FRACTION
    width = 8 * context.exponent + torch.tensor(EIGHTHS, device=device)[context.quarter] - octaves(span.step)
    width = width + (spread + 256 >> 9)
    heavy = (tails + (1 << 11) >> 12) + TAILS // 2
    table, bits = tables_of(width, heavy, sixteenths - (whole << FRACTION), span.step)
    return Prediction(whole, table, bits)


def pack_changes(model: ContextModel, changed: ContextModel) -> bytes:
    """The section TUNE: what is added to the weights of `model`, layer by layer."""
    changes = [(changed.weights[name].astype(np.int64) - model.weights[name]).ravel() for name in LAYERS]
    shifts = [_shift(change) for change in changes]
    values = [change >> shift for change, shift in zip(changes, shifts, strict=True)]
    kinds = np.array([[*integers.best_level(v), s] for v, s in zip(values, shifts, strict=True)], np.uint8)
    families, levels = _kinds_of_weights(kinds, model)
    return kinds.tobytes() + integers.encode(np.concatenate(values), levels, families)


def _shift(change: npt.NDArray[np.int64]) -> int:
    """How many low bits are zero in all of a layer's changes."""
    every = int(np.bitwise_or.reduce(change))
    return (every & -every).bit_length() - 1 if every else 0


def apply_changes(model: ContextModel, data: bytes) -> ContextModel:
    """The model that a section TUNE makes of `model`; FormatError."""
    end = 3 * len(LAYERS)
    if len(data) < end:
        raise fail("network-truncated", "the section ends before its kinds do", section="TUNE")
    kinds = np.frombuffer(data, np.uint8, end).reshape(-1, 3)
    if (kinds >= [len(FAMILIES), integers.LEVELS, MOST_SHIFT + 1]).any():
        raise fail("out-of-range", "a layer's changes have an unknown family, level or shift", section="TUNE")
    families, levels = _kinds_of_weights(kinds, model)
    values = integers.decode(data[end:], levels, families, "TUNE")
    weights, at = dict(model.weights), 0
    for name, shift in zip(LAYERS, kinds[:, 2].tolist(), strict=True):
        layer = weights[name]
        total = layer + (values[at : at + layer.size] << shift).reshape(layer.shape)
        at += layer.size
        if np.abs(total).max() > LARGEST_WEIGHT:
            raise fail("out-of-range", "weights are too large to be exact", section="TUNE")
        weights[name] = total.astype(np.int16)
    model.check(weights, "TUNE")
    return model.changed(weights)


def _kinds_of_weights(
    kinds: npt.NDArray[np.uint8], model: ContextModel
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The family and the level of every weight."""
    sizes = [model.weights[name].size for name in LAYERS]
    families, levels = np.repeat(kinds[:, :2].astype(np.int64), sizes, axis=0).T
    return families, levels
