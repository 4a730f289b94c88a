"""The context model: what a voxel is likely to be, given those that are known (spec, "The context model").

For each class of a split a network of two hidden layers reads a `Context` and says where the voxel's level
is expected, how widely it is spread, and how heavy the tails are. Weights are integers in units of 1/512,
inputs and activations in [-127, 127] in units of 1/16; every sum stays below 2^24, so float32 (or float64)
matrix products are exact, in any order, on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..coding import integers
from ..coding.bank import FAMILIES
from ..coding.lattice import (
    CLASSES,
    CONSTANT,
    EIGHTHS,
    GREATEST,
    RECIPROCAL,
    Context,
    Prediction,
    Span,
    Split,
    inputs,
    octaves,
)
from ..coding.mixtures import TAILS, tables_of
from ..container.codes import fail
from ..container.headers import ModelHeader, ModelReference
from ..errors import UsageError

SCALE = 512
"""Weights are stored in units of 1 / SCALE."""
LARGEST_WEIGHT = 2047
"""Of magnitude: what float16 holds exactly."""
LARGEST_HIDDEN = 1024
"""Rows of a hidden layer, at most: so much is made for every point that is predicted."""
UNIT = 16
"""Inputs and activations are in units of 1 / UNIT."""
OUTPUTS = 3
"""Centre, spread, tails."""
FRACTION = 4
"""Fractional bits of a predicted level."""
EXACT = 1 << 24
NETWORKS = tuple((where, kind) for where in ("z", "y", "x", "coarse") for kind in range(len(CLASSES)))


LAYERS = tuple(f"{where}.{kind}.{layer}" for where, kind in NETWORKS for layer in ("first", "second", "last"))
"""The tensors of a model, in the order in which TUNE changes them."""
MOST_SHIFT = 8


def network_of(split: Split, kind: int) -> int:
    """Which of `NETWORKS` predicts a class of a split: one for each axis at the finest, one for the rest."""
    return (split.axis if split.fine else 3) * len(CLASSES) + kind


@dataclass(frozen=True)
class Network:
    """Whole numbers: first (hidden, inputs), second (hidden 2, hidden + 1), last (3, hidden 2 + inputs).

    The second layer's last input is a constant; the first's and the last's is among the inputs.
    """

    first: torch.Tensor
    second: torch.Tensor
    last: torch.Tensor

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """(3, n) integers in units of 1 / (SCALE UNIT), for features (inputs, n)."""
        return _product(self.last, self.before_last(features))

    def before_last(self, features: torch.Tensor) -> torch.Tensor:
        """What the last layer reads: the second layer's activations, then the features."""
        n = features.shape[1]
        hidden = features.new_empty(len(self.first) + 1, n)
        _activate(_product(self.first, features), hidden[:-1])
        hidden[-1] = CONSTANT
        second = features.new_empty(self.last.shape[1], n)
        _activate(_product(self.second, hidden), second[: len(self.second)])
        second[len(self.second) :] = features
        return second


def _product(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weights @ values, exact: float64 wherever float32 products may be taken in fewer bits."""
    if values.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest":
        return weights @ values
    return (weights.double() @ values.double()).float()


def _activate(sums: torch.Tensor, out: torch.Tensor) -> None:
    torch.mul(sums, 1 / SCALE, out=out).round_().clamp_(0, GREATEST)


class ContextModel:
    """The networks of a context model, on a device.

    weights   int16 arrays "where.kind.layer", for each of `NETWORKS` and the layers first, second and last.
    header, file   of the model's file, where it has one.
    """

    header: ModelHeader | None = None
    file: bytes | None = None

    def __init__(
        self, weights: Mapping[str, npt.NDArray[np.int16]], device: torch.device | str = "cpu"
    ) -> None:
        self.weights = dict(weights)
        self.networks = tuple(
            Network(
                *(
                    torch.from_numpy(self.weights[f"{where}.{kind}.{layer}"].astype(np.float32)).to(device)
                    for layer in ("first", "second", "last")
                )
            )
            for where, kind in NETWORKS
        )

    @property
    def work(self) -> int:
        """Multiply-adds for a voxel, at most."""
        return max(sum(layer.numel() for layer in (n.first, n.second, n.last)) for n in self.networks)

    @property
    def reference(self) -> ModelReference:
        """What a volume names this model by."""
        if self.header is None or self.file is None:
            raise UsageError("a model must be saved to a file before a volume can refer to it")
        return ModelReference(self.header.name, self.header.version, hashlib.sha256(self.file).digest())

    def to(self, device: torch.device | str) -> ContextModel:
        """The same model on another device."""
        model = ContextModel(self.weights, device)
        model.header, model.file = self.header, self.file
        return model

    def changed(self, weights: Mapping[str, npt.NDArray[np.int16]]) -> ContextModel:
        """The same model with other weights; it keeps the reference of the file that it came from."""
        model = ContextModel(weights, self.networks[0].first.device)
        model.header, model.file = self.header, self.file
        return model

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
    check_weights(weights, "TUNE")
    return model.changed(weights)


def _kinds_of_weights(
    kinds: npt.NDArray[np.uint8], model: ContextModel
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The family and the level of every weight."""
    sizes = [model.weights[name].size for name in LAYERS]
    families, levels = np.repeat(kinds[:, :2].astype(np.int64), sizes, axis=0).T
    return families, levels


def check_weights(weights: Mapping[str, npt.NDArray[np.int16]], section: str = "TENS") -> None:
    """FormatError unless these are the layers of all `NETWORKS`, and no sum can reach 2^24."""
    if set(weights) != set(LAYERS):
        raise fail("out-of-range", "the tensors are not those of a context model", section=section)
    for where, kind in NETWORKS:
        first, second, last = (weights[f"{where}.{kind}.{layer}"] for layer in ("first", "second", "last"))
        shapes = (first.shape[1:], second.shape[1:], last.shape)
        if shapes != ((inputs(kind),), (len(first) + 1,), (OUTPUTS, len(second) + inputs(kind))):
            raise fail("out-of-range", "a layer has the wrong shape", section=section)
        if max(len(first), len(second)) > LARGEST_HIDDEN:
            message = f"a hidden layer has more than {LARGEST_HIDDEN} rows"
            raise fail("out-of-range", message, section=section)
        for layer in (first, second, last):
            sizes = np.abs(layer.astype(np.int64))
            if sizes.max() > LARGEST_WEIGHT or sizes.sum(axis=1).max() * GREATEST >= EXACT:
                raise fail("out-of-range", "weights are too large to be exact", section=section)
