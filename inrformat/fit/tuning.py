"""A context model fitted to one volume: linear predictors and weights of its own (sections PRED, TUNE, ZONE).

Pieces of the volume are coded by the model as a brick would be. Where a linear prediction from many
neighbours comes closer than a network does, as in what a smooth kernel or an interpolation made, the network
is given it to correct. Then each network is fitted to what was seen; its change is kept if it pays on points
that the fit has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..coding import integers, lattice
from ..coding.bricks import Box
from ..coding.lattice import Span
from ..coding.levels import Levels
from ..models.context import NETWORKS, Centre, ContextModel
from ..models.integers import EXACT, LARGEST_WEIGHT, PARTS, SCALE, Network
from ..parallel import map_on_cores
from ..volume import Volume
from . import zones
from .context import BATCH, PIECE, Look, Seen, bits, observe, outputs_of
from .zones import CHECKED, Found, read_by_last

PIECES, STEPS = 40, 300
"""Pieces of a volume that its own weights are fitted to, at least, and the steps of each fit."""
KEPT, POINTS = 8192, 1 << 19
"""Points of a class that are kept of each piece, and of all of them, at most."""
LAST_RATE, RATES = 4e-3, (2e-3, 5e-3)
"""Learning rates: of a last layer alone, and of the last (Adam) and the hidden layers (Muon) together."""
COARSE_SHIFT = 4
"""Changes of the hidden layers are multiples of 2^4 / 512: finer ones cost more than they bring."""
FINE = 3
"""Centres are fitted in units of 1 / (512 2^3): where noise is small, 1 / 512 is too coarse for them."""
PREDICTED_PIECES = 12
"""Pieces that linear predictors are fitted to."""
CLOSER = 0.7
"""Without effort, a linear predictor is tried where its error (root mean square) is at most so much of what
the mean of the nearest neighbours has: where it pays, it is about half."""
RIDGE = 1e-6
"""Of the mean square of what a predictor weighs: keeps weights small where neighbours say the same."""

Layers = dict[str, Tensor]
Looks = Iterator[Look]


def tune(model: ContextModel, volume: Volume, levels: Levels, seed: int, effort: int = 0) -> ContextModel:
    """The model with centres and weights of a volume's own, where they save more bits than they take.

    effort   0: the networks' last layers, which are linear; more: all layers, so many times as many steps.
    """
    rng = np.random.default_rng(seed)
    span = Span(levels.greatest, 2 * levels.error + 1)
    boxes = zones.cut(volume.shape)
    more = 1 + min(effort // 2, 1)
    each = more * -(-PIECES // len(boxes))
    places = [_place(box, rng) for box in boxes for _ in range(each)]
    seeds, kept = rng.integers(0, 2**32, len(places)), min(KEPT, more * POINTS // len(places))

    def look(number: int) -> Looks:
        piece = levels.of(volume.data[places[number]]).astype(np.float32)
        order = lattice.schedule((piece.shape[0], piece.shape[1], piece.shape[2]), volume.spacing)
        return observe(model, piece, order, span, np.random.default_rng(seeds[number]), kept)

    predicted = rng.permutation(len(places))[:PREDICTED_PIECES].tolist()
    sums = map_on_cores(lambda number: _normal(look(number)), predicted)
    taps = _predictors(sums, 1.0 if effort else CLOSER)
    found = map_on_cores(lambda number: _seen(model, look(number), taps), range(len(places)))
    share = volume.data.size / sum(math.prod(volume.data[place].shape) for place in places)

    def refit(which: int) -> _Fitted:
        own = [seen[which] for seen in found if which in seen]
        return _refit(model.networks[which], taps.get(which), own, share, seed, effort)

    fits = map_on_cores(refit, range(len(NETWORKS)))
    tuned = model.centred([fit.centre for fit in fits])
    weights = dict(tuned.weights)
    for (where, kind), fit in zip(NETWORKS, fits, strict=True):
        layers = {name: layer.to(torch.int16).numpy() for name, layer in fit.layers.items()}
        weights |= {f"{where}.{kind}.{name}": layer for name, layer in layers.items()}
    of_zones = [(number // each, seen) for number, seen in enumerate(found)]
    return zones.fit(model, tuned.changed(weights), volume.shape, of_zones, share, seed, effort)


def _place(box: Box, rng: np.random.Generator) -> tuple[slice, slice, slice]:
    """A piece of a box."""
    size = [min(b - a, s) for (a, b), s in zip(box, PIECE, strict=True)]
    z, y, x = (int(rng.integers(a, b - s + 1)) for (a, b), s in zip(box, size, strict=True))
    return slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2])


# ---- What is seen ----


def _normal(looks: Looks) -> dict[int, npt.NDArray[np.float64]]:
    """By network: products (taps + 1, taps + 1) of its linear predictor's taps, and of what came, the last.

    Each point weighs as the inverse of the spread about it. At coarse strides one network sees many lattices,
    and gets no predictor.
    """
    sums = {}
    for at in looks:
        if NETWORKS[at.network][0] != "coarse":
            neighbours, target, weight = at.taps()
            rows = torch.cat([neighbours, target[None]]) * weight
            sums[at.network] = (rows @ rows.T).double().numpy()
    return sums


def _predictors(
    pieces: Sequence[dict[int, npt.NDArray[np.float64]]], closer: float
) -> dict[int, tuple[int, ...]]:
    """By network: the weights of its taps, in units of 2^-12, where they come so much closer."""
    result = {}
    for which in {which for sums in pieces for which in sums}:
        total = np.sum([sums[which] for sums in pieces if which in sums], axis=0)
        gram, moment, before = total[:-1, :-1], total[-1, :-1], total[-1, -1]
        ridge = RIDGE * float(np.trace(gram)) / len(gram) + 1e-9
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), moment)
        after = before - 2 * weights @ moment + weights @ gram @ weights
        if after < closer**2 * before:
            whole = np.rint(weights * 2**lattice.TAP_FRACTION).clip(-lattice.LARGEST_TAP, lattice.LARGEST_TAP)
            result[which] = tuple(whole.astype(int).tolist())
    return result


def _seen(model: ContextModel, looks: Looks, taps: Mapping[int, tuple[int, ...]]) -> dict[int, Found]:
    """By network: what it saw of a piece; its features are preceded by what it makes of them."""
    result: dict[int, Found] = {}
    for at in looks:
        linear = torch.zeros(len(at.keep))
        if at.network in taps:
            linear = at.linear(taps[at.network])
        seen = Seen.of(at.context, at.context.features, at.values, at.span.step, at.keep)
        seen = Seen(read_by_last(model.networks[at.network], seen.features), seen.targets)
        count = at.points
        if at.network in result:  # a network of the coarse lattices has many classes of a piece
            before, added, points = result[at.network]
            seen, linear, count = Seen.joined([before, seen]), torch.cat([added, linear]), points + count
        result[at.network] = seen, linear, count
    return result


# ---- Fits ----


@dataclass(frozen=True)
class _Fitted:
    """What a network has of its own in a volume; bits: what the volume's points and all this take, about."""

    centre: Centre
    layers: Layers
    bits: float


@dataclass(frozen=True)
class _Problem:
    """A network with a centre, and the points that it is to be fitted to.

    seen     what the network reads of them, and what came.
    hidden   (n, inputs of the last layer) int8: the same for the last layer alone.
    points   how many there are of them in the volume.

    The points are in no order: a fit may take them one after another.
    """

    network: Network
    centre: Centre
    seen: Seen
    hidden: Tensor
    points: float

    def layer(self, name: str) -> Tensor:
        """A layer before the fit, in whole units."""
        layer: Tensor = getattr(self.network, name)
        if name != "last":
            return layer
        row = layer[:1] * 0 if self.centre.taps is not None else layer[:1] * 2**self.centre.fine
        return torch.cat([row, layer[1:]])

    def units(self, name: str) -> Tensor:
        """How many units of a layer's rows make 1."""
        fine = 2.0 ** (self.centre.fine if name == "last" else 0)
        return SCALE * torch.tensor([[fine]] + [[1.0]] * (len(self.layer(name)) - 1))

    def untouched(self) -> _Fitted:
        """The network as it is; a centre without taps is then no finer than it was."""
        taken = self._bits({"last": self.layer("last") / self.units("last")}, self.hidden)
        return _Fitted(Centre(), {}, taken)

    def fit(self, names: Sequence[str], steps: int, rates: Sequence[float]) -> _Fitted:
        """Fit some layers, the last one or all; rates are Adam's, for the last, and Muon's."""
        features = self.hidden if len(names) == 1 else self.seen.features
        targets = self.seen.targets
        weights = {name: torch.nn.Parameter(self.layer(name) / self.units(name)) for name in names}
        optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam([weights["last"]], betas=(0.9, 0.98))]
        if len(names) > 1:
            hidden = [weights[name] for name in names if name != "last"]
            optimizers.append(torch.optim.Muon(hidden, weight_decay=0.0))
        for step in range(steps):
            rate = (1 + math.cos(math.pi * step / steps)) / 2
            for optimizer, full in zip(optimizers, rates, strict=False):
                optimizer.param_groups[0]["lr"] = rate * full
                optimizer.zero_grad(set_to_none=True)
            first = step * BATCH % max(1, self._fitted - BATCH)
            x, y = (part[first : min(first + BATCH, self._fitted)].T for part in (features, targets))
            torch.autograd.backward(bits(outputs_of(weights, x), y).mean())
            for optimizer in optimizers:
                optimizer.step()
        changes = {name: self._change(name, weights[name].detach()) for name in names}
        layers = {name: self.layer(name) + change for name, change in changes.items()}
        taken = self._bits({name: layer / self.units(name) for name, layer in layers.items()}, features)
        if any(layer.abs().sum(dim=1).max() * lattice.GREATEST >= EXACT for layer in layers.values()):
            taken = math.inf
        taps = np.array(self.centre.taps or (), np.int64)
        own = [taps, *(change.long().numpy().ravel() // _step(name) for name, change in changes.items())]
        taken += sum(integers.cost(values, *integers.best_level(values)) for values in own if len(values))
        return _Fitted(self.centre, layers, taken)

    @property
    def _fitted(self) -> int:
        """How many points are fitted to: the first ones. The others are to measure on."""
        return len(self.seen.targets) - int(CHECKED * len(self.seen.targets))

    def _bits(self, weights: Layers, features: Tensor) -> float:
        """What the volume's points take, by the points that are to measure on."""
        with torch.no_grad():
            outputs = outputs_of(weights, features[self._fitted :].T)
            return float(bits(outputs, self.seen.targets[self._fitted :].T).mean()) * self.points

    def _change(self, name: str, after: Tensor) -> Tensor:
        """The change of a layer that its section can hold, in whole units."""
        before, step = self.layer(name), _step(name)
        change = torch.round((after * self.units(name) - before) / step)
        least, most = (-LARGEST_WEIGHT - before) / step, (LARGEST_WEIGHT - before) / step
        return torch.maximum(torch.minimum(change, most.floor()), least.ceil()) * step


def _step(name: str) -> int:
    return 1 if name == "last" else 1 << COARSE_SHIFT


def _refit(
    network: Network,
    taps: tuple[int, ...] | None,
    found: Sequence[Found],
    share: float,
    seed: int,
    effort: int,
) -> _Fitted:
    """What of its own makes a network take the fewest bits in all."""
    if not found:
        return _Fitted(Centre(), {}, 0.0)
    seen = Seen.joined([seen for seen, _, _ in found])
    linear = torch.cat([added for _, added, _ in found])
    order = torch.randperm(len(linear), generator=torch.Generator().manual_seed(seed))
    hidden, targets = seen.features[order], seen.targets[order]
    features = hidden[:, len(network.second) :]
    points, fine = share * sum(count for _, _, count in found), _finest(network.last[0])
    problems = [_Problem(network, Centre(fine), Seen(features, targets), hidden, points)]
    if taps is not None:
        corrected = targets - linear[order, None] * torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
        seen = Seen(features, corrected)
        problems.append(_Problem(network, Centre(fine, taps), seen, hidden, points))
    fits = [problem.fit(("last",), STEPS, [LAST_RATE]) for problem in problems]
    best = min(range(len(fits)), key=lambda i: fits[i].bits)
    candidates = [problems[0].untouched(), fits[best]]
    if effort:
        candidates.append(problems[best].fit(PARTS, STEPS * effort, RATES))
    return min(candidates, key=lambda fit: fit.bits)


def _finest(row: Tensor) -> int:
    """By how many bits the weights of a centre may be finer: they are bounded, and fits need room."""
    largest, total = max(1.0, float(row.abs().max())), max(1.0, float(row.abs().sum()))
    room = min(LARGEST_WEIGHT / largest, EXACT / lattice.GREATEST / 2 / total)
    return max(0, min(FINE, math.floor(math.log2(room))))
