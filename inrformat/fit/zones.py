"""Last layers for zones of a volume (section ZONE): noise and texture are not the same everywhere in it.

A few sets of last layers are fitted, each to the zones that it serves best: zones are given to sets, sets are
fitted to their zones, and so on. All is kept only if it pays on points that no fit has seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..coding import integers, lattice
from ..coding.bricks import Box, boxes
from ..coding.lattice import Shape
from ..coding.zones import Zones
from ..models.context import MOST_ZONES, ZONED, Centre, ContextModel
from ..models.integers import EXACT, LARGEST_WEIGHT, OUTPUTS, SCALE, Network, Weights
from ..parallel import map_on_cores
from .context import BATCH, Seen, bits, outputs_of

ZONE = (32, 128, 128)
"""Voxels (z, y, x) that a zone has, at most, unless there would be more zones than MOST."""
MOST = 256
SETS = (12, 16)
"""Sets, at most, without effort and with it; there are to be more than twice as many zones."""
LEADERS = 3
"""Networks, those that predict the most points, by which zones are given to sets."""
ROUNDS, ROUND_STEPS, STEPS = 2, 100, 300
RATE = 4e-3
CHECKED = 0.2
"""The share of the points that no fit sees."""
JUDGED = 1 << 18
"""Points of a network by which sets are chosen, at most."""

Found = tuple[Seen, Tensor, int]
"""What a network's last layer reads of a piece, and what came; what its linear predictor adds to the centre
there, in levels; how many points there were."""


def cut(shape: Shape) -> list[Box]:
    """The zones of a volume, along x first."""
    return boxes(shape, _counts(shape))


def _counts(shape: Shape) -> Shape:
    size = list(ZONE)
    while True:
        z, y, x = (min(MOST_ZONES, -(-n // most)) for n, most in zip(shape, size, strict=True))
        if z * y * x <= MOST:
            return z, y, x
        longest = max(range(3), key=lambda axis: (shape[axis] / size[axis], -axis))
        size[longest] *= 2


@dataclass(frozen=True)
class _Problem:
    """A network's last layer, and the points that it reads, in no order.

    last     (3, inputs) whole numbers; units (3, 1): how many of them make 1.
    hidden   (n, inputs) int8, targets (n, 5) and zone (n) int64 of the points; see fit.context.Seen.
    points   how many there are of them in the volume.
    """

    last: Tensor
    units: Tensor
    hidden: Tensor
    targets: Tensor
    zone: Tensor
    points: float

    @classmethod
    def of(
        cls,
        network: Network,
        centre: Centre,
        again: bool,
        found: Sequence[tuple[int, Found]],
        share: float,
        seed: int,
    ) -> _Problem:
        """What a network saw: of each piece, with its zone.

        again   its hidden layers have changed since then.
        """
        seen = Seen.joined([seen for _, (seen, _, _) in found])
        linear = torch.cat([added for _, (_, added, _) in found])
        zone = torch.cat([torch.full((len(added),), number) for number, (_, added, _) in found])
        order = torch.randperm(len(zone), generator=torch.Generator().manual_seed(seed))
        targets = seen.targets[order]
        if centre.taps is not None:
            targets[:, 2] -= linear[order]
        units = SCALE * torch.tensor([[2.0**centre.fine], [1.0], [1.0]])
        hidden = seen.features[order]
        if again:
            hidden = read_by_last(network, hidden[:, len(network.second) :])
        points = share * sum(n for _, (_, _, n) in found)
        return cls(network.last, units, hidden, targets, zone[order], points)

    @property
    def _fitted(self) -> int:
        return len(self.zone) - int(CHECKED * len(self.zone))

    def fit(self, start: Tensor, given: Tensor, steps: int) -> Tensor:
        """The layers (sets, 3, inputs) after so many steps from `start`; the zones' sets are `given`."""
        weights = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([weights], betas=(0.9, 0.98))
        sets = given[self.zone[: self._fitted]]
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad(set_to_none=True)
            first = step * BATCH % max(1, self._fitted - BATCH)
            some = slice(first, min(first + BATCH, self._fitted))
            own = sets[some].expand(1, OUTPUTS, -1)
            outputs = self._outputs(weights, self.hidden[some]).gather(0, own)[0]
            torch.autograd.backward(bits(outputs, self.targets[some].T).mean())
            optimizer.step()
        return weights.detach()

    def costs(self, layers: Tensor, zones: int) -> Tensor:
        """(sets, zones) float64: the bits that each set gives each zone's points, of the volume's."""
        some = slice(0, min(self._fitted, JUDGED))
        each = self._bits(layers, some).double()
        sums = torch.zeros(len(layers), zones, dtype=torch.float64)
        sums.index_add_(1, self.zone[some], each)
        return sums * (self.points / each.shape[1])

    def change(self, layers: Tensor) -> Tensor:
        """What is added to the last layer in each set: whole numbers that the format admits."""
        change = torch.round(layers * self.units - self.last)
        least, most = -LARGEST_WEIGHT - self.last, LARGEST_WEIGHT - self.last
        return torch.maximum(torch.minimum(change, most), least)

    def gain(self, change: Tensor, given: Tensor) -> float:
        """The bits that such a change saves, less those that it takes."""
        last = self.last + change
        if last.abs().sum(dim=2).max() * lattice.GREATEST >= EXACT:
            return -math.inf
        some = slice(self._fitted, len(self.zone))
        before = self._bits((self.last / self.units)[None], some)[0].mean()
        after = self._bits(last / self.units, some).gather(0, given[self.zone[some]][None]).mean()
        values = (layer.long().numpy().ravel() for layer in change)
        taken = sum(integers.cost(v, *integers.best_level(v)) for v in values)
        return float(before - after) * self.points - taken

    def _bits(self, layers: Tensor, some: slice) -> Tensor:
        """(sets, n) that each set gives some of the points."""
        made = []
        with torch.no_grad():
            parts = (torch.split(values[some], BATCH) for values in (self.hidden, self.targets))
            for hidden, targets in zip(*parts, strict=True):
                outputs = self._outputs(layers, hidden)
                made.append(torch.stack([bits(one, targets.T) for one in outputs]))
        return torch.cat(made, dim=1)

    @staticmethod
    def _outputs(layers: Tensor, hidden: Tensor) -> Tensor:
        """(sets, 3, n)."""
        return outputs_of({"last": layers.flatten(0, 1)}, hidden.T).view(len(layers), OUTPUTS, -1)


def read_by_last(network: Network, features: Tensor) -> Tensor:
    """(n, inputs of the last layer) int8, for features (n, inputs) int8."""
    parts = [network.before_last(some.T.contiguous()).T for some in torch.split(features, BATCH)]
    return torch.cat([part.to(torch.int8) for part in parts])


def fit(
    before: ContextModel,
    model: ContextModel,
    shape: Shape,
    found: Sequence[tuple[int, Mapping[int, Found]]],
    share: float,
    seed: int,
    effort: int = 0,
) -> ContextModel:
    """The model with sets of last layers for the zones of a volume of that shape, where they pay.

    before  the model that coded the pieces.
    model   as the volume has it, without zones.
    found   of each piece its zone, and what each network of the former saw of it.
    share   by how much the volume is larger than the pieces.
    effort  more than 0: more sets, of more steps.
    """
    counts = _counts(shape)
    zones = int(np.prod(counts))
    most, steps = SETS[effort > 0], STEPS * (1 + (effort > 0))
    if zones <= 2 * most:
        return model

    def problem(which: int) -> _Problem | None:
        own = [(zone, seen[which]) for zone, seen in found if which in seen]
        old, new = before.networks[which], model.networks[which]
        again = not (torch.equal(old.first, new.first) and torch.equal(old.second, new.second))
        return _Problem.of(new, model.centres[which], again, own, share, seed) if own else None

    problems = map_on_cores(problem, range(len(ZONED)))
    whole = [p for p in problems if p is not None]
    leaders = sorted(whole, key=lambda p: -p.points)[:LEADERS]
    given, promising = _divide(leaders, zones, most)
    if not promising:
        return model
    sets = int(given.max()) + 1

    def changed(p: _Problem | None) -> tuple[Tensor, float]:
        none = torch.zeros(sets, OUTPUTS, 1)
        if p is None:
            return none, 0.0
        change = p.change(p.fit((p.last / p.units).expand(sets, -1, -1), given, steps))
        gain = p.gain(change, given)
        return (change, gain) if gain > 0 else (none, 0.0)

    changes = map_on_cores(changed, problems)
    if sum(gain for _, gain in changes) <= 8 * zones:
        return model
    layers: Weights = {
        name: (model.networks[which].last + change).to(torch.int16).numpy()
        for which, (name, (change, _)) in enumerate(zip(ZONED, changes, strict=True))
    }
    return model.zoned(Zones(shape, given.view(counts).to(torch.uint8).numpy()), layers)


def _divide(leaders: Sequence[_Problem], zones: int, most: int) -> tuple[Tensor, bool]:
    """To which set each zone is given, (zones) int64; whether that seems to pay."""
    given = _by_spread(leaders, zones, most)
    starts = [(p.last / p.units).expand(most, -1, -1) for p in leaders]

    def turn(number: int) -> tuple[Tensor, Tensor]:
        layers = leaders[number].fit(starts[number], given, ROUND_STEPS)
        return layers, leaders[number].costs(layers, zones)

    for _ in range(ROUNDS):
        turns = map_on_cores(turn, range(len(leaders)))
        starts = [layers for layers, _ in turns]
        given = torch.stack([costs for _, costs in turns]).sum(dim=0).argmin(dim=0)
    used, numbers = torch.unique(given, return_inverse=True)
    gains = [p.gain(p.change(layers[used]), numbers) for p, layers in zip(leaders, starts, strict=True)]
    return numbers, len(used) > 1 and sum(gains) > 0


def _by_spread(leaders: Sequence[_Problem], zones: int, most: int) -> Tensor:
    """(zones) int64: as many zones in each set, by how widely neighbours are spread there."""
    sums, counts = torch.zeros(zones), torch.zeros(zones)
    for p in leaders:
        sums.index_add_(0, p.zone, torch.log2(p.targets[:, 1]))
        counts.index_add_(0, p.zone, torch.ones(len(p.zone)))
    mean = sums / counts.clamp(min=1)
    return torch.argsort(torch.argsort(mean, stable=True), stable=True) * most // zones
