"""The context model: what a voxel is likely to be, given those that are known (spec, "The context model").

For each class of a split a network of two hidden layers reads a `Context` and says where the voxel's level
is expected, how widely it is spread, and how heavy the tails are. Weights are integers in units of 1/512,
inputs and activations in [-127, 127] in units of 1/16; every sum stays below 2^24, so float32 (or float64)
matrix products are exact, in any order, on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ..coding import integers, lattice
from ..coding.bank import FAMILIES
from ..coding.lattice import (
    CLASSES,
    EIGHTHS,
    FRACTION,
    LARGEST_TAP,
    RECIPROCAL,
    Context,
    Prediction,
    Shape,
    Span,
    Split,
    inputs,
    octaves,
)
from ..coding.mixtures import TAILS, tables_of
from ..coding.zones import Choice, Zones
from ..container.codes import fail
from .integers import LARGEST_WEIGHT, OUTPUTS, PARTS, IntegerModel, Network, Weights

NETWORKS = tuple((where, kind) for where in ("z", "y", "x", "coarse") for kind in range(len(CLASSES)))

LAYERS = tuple(f"{where}.{kind}.{part}" for where, kind in NETWORKS for part in PARTS)
"""The tensors of a model, in the order in which TUNE changes them."""
ZONED = tuple(f"{where}.{kind}.last" for where, kind in NETWORKS if where != "coarse")
"""The layers that zones may have of their own."""
MOST_SHIFT = 8
MOST_FINE = 4
MOST_SETS = 16
MOST_STACKED = 256
"""Combinations of sets that are kept, for a file may ask for thousands."""
MOST_ZONES = 255
"""Of an axis."""


def network_of(split: Split, kind: int) -> int:
    """Which of `NETWORKS` predicts a class of a split: one for each axis at the finest, one for the rest."""
    return (split.axis if split.fine else 3) * len(CLASSES) + kind


@dataclass(frozen=True)
class Centre:
    """How a network's centres are made in one volume (spec, "Linear predictors").

    fine   the weights that make its first output, the centre, are in units of 1 / (512 2^fine).
    taps   the weights of a linear predictor, which the network then corrects, for each of `lattice.taps`.
    """

    fine: int = 0
    taps: tuple[int, ...] | None = None


class ContextModel(IntegerModel):
    """The networks of a context model, on a device; tensors "where.kind.layer", for each of `NETWORKS`.

    centres   of each network, in the volume that the model is used for.
    zones     which set of last layers each part of that volume has, where there are several.
    sets      those layers, int16 (sets, 3, inputs) for each of `ZONED`, in the place of the model's.
    """

    kind = "context"
    networks_of: ClassVar = {f"{where}.{kind}": inputs(kind) for where, kind in NETWORKS}
    centres: tuple[Centre, ...] = (Centre(),) * len(NETWORKS)
    zones: Zones | None = None
    sets: Weights = MappingProxyType({})

    def taps(self, split: Split, kind: int) -> Sequence[int] | None:
        """The weights of the linear predictor of a class of a split, where it has one."""
        return self.centres[network_of(split, kind)].taps

    def predict(
        self, context: Context, split: Split, kind: int, span: Span, choice: Choice | None = None
    ) -> Prediction:
        """The distributions of the points of a context (spec, "From outputs to distributions").

        choice   which of the sets of last layers each point has, where there are several.
        """
        which = network_of(split, kind)
        if choice is None:
            outputs = self.networks[which].outputs(context.features)
        else:
            network, count = self._of_sets(which, choice.sets), len(choice.sets)
            outputs = network.outputs(context.features)
            if count > 1:
                own = choice.index.expand(1, OUTPUTS, -1)
                outputs = outputs.view(count, OUTPUTS, -1).gather(0, own)[0]
        return prediction(context, outputs, self.centres[which].fine, span)

    def _of_sets(self, which: int, sets: tuple[int, ...]) -> Network:
        """One of the networks with the last layers of some sets, one below the other."""
        network = self._stacked.get((which, sets))
        if network is None:
            before = self.networks[which]
            last = np.concatenate([self.sets[ZONED[which]][number] for number in sets])
            network = replace(before, last=torch.from_numpy(last.astype(np.float32)).to(before.last))
            if len(self._stacked) == MOST_STACKED:
                self._stacked.clear()
            self._stacked[which, sets] = network
        return network

    @cached_property
    def _stacked(self) -> dict[tuple[int, tuple[int, ...]], Network]:
        """What `_of_sets` has made: few combinations of sets lie side by side, as a rule."""
        return {}

    @property
    def work(self) -> int:
        """Multiply-adds for a point, at most."""
        sets = max((layers.size - layers[0].size for layers in self.sets.values()), default=0)
        return super().work + sets + max(len(centre.taps or ()) for centre in self.centres)

    def zoned(self, zones: Zones, sets: Weights) -> Self:
        """The same model with sets of last layers for the zones of a volume; FormatError."""
        for number in range(len(next(iter(sets.values())))):
            self.check({**self.weights, **{name: layers[number] for name, layers in sets.items()}}, "ZONE")
        model = self.changed(self.weights)
        model.zones, model.sets = zones, sets
        return model

    def centred(self, centres: Sequence[Centre]) -> Self:
        """The model as a volume with these centres begins with it: those it had are not kept."""
        weights = dict(self.weights)
        for (where, kind), centre in zip(NETWORKS, centres, strict=True):
            last = weights[f"{where}.{kind}.last"].astype(np.int64)
            last[0] = 0 if centre.taps is not None else last[0] << centre.fine
            if np.abs(last).max() > LARGEST_WEIGHT:
                raise fail("out-of-range", "weights are too large to be exact", section="PRED")
            weights[f"{where}.{kind}.last"] = last.astype(np.int16)
        self.check(weights, "PRED")
        model = self.changed(weights)
        model.centres = tuple(centres)
        return model

    def _like(self, weights: Weights, device: torch.device | str) -> Self:
        model = super()._like(weights, device)
        model.centres, model.zones, model.sets = self.centres, self.zones, self.sets
        return model


def prediction(context: Context, outputs: torch.Tensor, fine: int, span: Span) -> Prediction:
    """The integer rules that turn a network's three outputs (3, n) into a centre, a table and low bits."""
    (centre, spread, tails), device = outputs, outputs.device
    reciprocal = torch.tensor(RECIPROCAL, device=device)[context.quarter]
    # outputs / 512 are units of 1/16 of a normalised difference's unit, 2^E / GAIN: 16ths of a level.
    shift = centre * reciprocal << context.exponent
    sixteenths = context.base + (shift + (1 << 20 + fine) >> 21 + fine)
    sixteenths = sixteenths.clamp_(0, span.greatest << FRACTION)
    whole = sixteenths + 8 >> FRACTION
    width = 8 * context.exponent + torch.tensor(EIGHTHS, device=device)[context.quarter] - octaves(span.step)
    width = width + (spread + 256 >> 9)
    heavy = (tails + (1 << 11) >> 12) + TAILS // 2
    table, bits = tables_of(width, heavy, sixteenths - (whole << FRACTION), span.step)
    return Prediction(whole, table, bits)


def pack_centres(model: ContextModel) -> bytes:
    """The section PRED: the centres of a model."""
    kinds, values = [], []
    for centre in model.centres:
        taps = np.array(centre.taps or (), np.int64)
        kinds.append((len(taps) > 0, centre.fine, *(integers.best_level(taps) if len(taps) else (0, 0))))
        values.append(taps)
    table = np.array(kinds, np.uint8)
    spread = integers.spread(table[:, 2:], [len(taps) for taps in values])
    return table.tobytes() + integers.encode(np.concatenate(values), *spread)


def apply_centres(model: ContextModel, data: bytes) -> ContextModel:
    """The model with the centres of a section PRED; FormatError."""
    end = 4 * len(NETWORKS)
    if len(data) < end:
        raise fail("network-truncated", "the section ends before its kinds do", section="PRED")
    kinds = np.frombuffer(data, np.uint8, end).reshape(-1, 4)
    if (kinds >= [2, MOST_FINE + 1, len(FAMILIES), integers.LEVELS]).any() or kinds[
        kinds[:, 0] == 0, 2:
    ].any():
        raise fail("out-of-range", "a centre has an unknown kind, precision, family or level", section="PRED")
    counts = [
        len(lattice.taps(kind)) * has for (_, kind), has in zip(NETWORKS, kinds[:, 0].tolist(), strict=True)
    ]
    values = integers.decode_runs(data[end:], kinds[:, 2:], counts, "PRED")
    if len(values) and np.abs(values).max() > LARGEST_TAP:
        raise fail("out-of-range", "a linear predictor's weights are too large to be exact", section="PRED")
    centres, at = [], 0
    for count, (has, fine, *_) in zip(counts, kinds.tolist(), strict=True):
        centres.append(Centre(fine, tuple(values[at : at + count].tolist()) if has else None))
        at += count
    return model.centred(centres)


def pack_changes(model: ContextModel, changed: ContextModel) -> bytes:
    """The section TUNE: what is added to the weights of `model`, layer by layer."""
    changes = [(changed.weights[name].astype(np.int64) - model.weights[name]).ravel() for name in LAYERS]
    shifts = [_shift(change) for change in changes]
    values = [change >> shift for change, shift in zip(changes, shifts, strict=True)]
    kinds = np.array([[*integers.best_level(v), s] for v, s in zip(values, shifts, strict=True)], np.uint8)
    spread = integers.spread(kinds[:, :2], [len(own) for own in values])
    return kinds.tobytes() + integers.encode(np.concatenate(values), *spread)


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
    sizes = [model.weights[name].size for name in LAYERS]
    values = integers.decode_runs(data[end:], kinds[:, :2], sizes, "TUNE")
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


def pack_zones(model: ContextModel) -> bytes:
    """The section ZONE: the zones of a model, and what is added to its last layers in each set."""
    assert model.zones is not None
    sets = model.zones.sets
    count = len(model.sets[ZONED[0]])
    changes = [
        (model.sets[name][number].astype(np.int64) - model.weights[name]).ravel()
        for number in range(count)
        for name in ZONED
    ]
    kinds = np.array([integers.best_level(change) for change in changes], np.uint8)
    spread = integers.spread(kinds, [len(change) for change in changes])
    head = bytes([count, *sets.shape]) + sets.tobytes() + kinds.tobytes()
    return head + integers.encode(np.concatenate(changes), *spread)


def apply_zones(model: ContextModel, data: bytes, shape: Shape) -> ContextModel:
    """The model with the zones of a section ZONE, of a volume of that shape; FormatError."""
    if len(data) < 4:
        raise fail("network-truncated", "the section ends before its counts do", section="ZONE")
    count, *axes = data[:4]
    if not 2 <= count <= MOST_SETS or not all(1 <= k <= n for k, n in zip(axes, shape, strict=True)):
        raise fail("out-of-range", "the section has no such number of sets or of zones", section="ZONE")
    first = 4 + int(np.prod(axes))
    end = first + 2 * count * len(ZONED)
    if len(data) < end:
        raise fail("network-truncated", "the section ends before its kinds do", section="ZONE")
    sets = np.frombuffer(data, np.uint8, first - 4, 4).reshape(axes)
    kinds = np.frombuffer(data, np.uint8, end - first, first).reshape(-1, 2)
    if sets.max() >= count or (kinds >= [len(FAMILIES), integers.LEVELS]).any():
        raise fail("out-of-range", "a zone or a layer has an unknown set, family or level", section="ZONE")
    before = [model.weights[name].astype(np.int64) for name in ZONED]
    sizes = [layer.size for layer in before] * count
    values = np.split(integers.decode_runs(data[end:], kinds, sizes, "ZONE"), np.cumsum(sizes)[:-1])
    layers = {}
    for number, (name, layer) in enumerate(zip(ZONED, before, strict=True)):
        every = layer + np.stack([change.reshape(layer.shape) for change in values[number :: len(ZONED)]])
        if np.abs(every).max() > LARGEST_WEIGHT:
            raise fail("out-of-range", "weights are too large to be exact", section="ZONE")
        layers[name] = every.astype(np.int16)
    return model.zoned(Zones(shape, sets), layers)
