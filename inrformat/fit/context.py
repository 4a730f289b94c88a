"""Training a context model on volumes of one's own: `inrformat train-context` (spec, "The context model").

Pieces of the volumes, flipped, turned, rescaled and made noisier, are coded as a brick would be, some with an
error bound, by the model as it is; what every class was predicted from, and what then came, is learned from.
The loss is the number of bits, of the distributions that the format's bank rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..coding import integers, lattice
from ..coding.lattice import Context, Shape, Span
from ..coding.levels import Levels
from ..errors import InputError, UsageError
from ..models.context import NETWORKS, ContextModel, network_of
from ..models.integers import LARGEST_WEIGHT, OUTPUTS, PARTS, SCALE, UNIT, Network
from ..parallel import map_on_cores
from ..volume import Volume

HIDDEN = (96, 32)
PIECE = (32, 64, 64)
"""Voxels (z, y, x) that are cut out of a volume at a time."""
ROWS = 1 << 18
"""Points that are held for each network: the oldest make room for new ones."""
BATCH = 4096
KEPT = 4096
"""Points of a class that are kept of each piece, at most."""
STEPS_PER_PIECE = 20
FIRST_PIECES = 48
MUON_RATE, ADAM_RATE = 2e-2, 4e-3
TUNING_MUON_RATE = 1e-2
LEAST_MASS = 2.0**-32
MOST_OCTAVES = 20.0
"""By which a distribution's spread differs from the neighbours', at most: the bank has no more."""
SLACK = 2.0**-8
"""What the bank's least frequencies cost every distribution, about."""


@dataclass(frozen=True)
class TrainProgress:
    """After a step: its number, the share of the budget that is used, and bits a point, a running mean."""

    step: int
    done: float
    bits: float


class FloatNetwork(torch.nn.Module):
    """A network of the model in float, with inputs in units of 1 / UNIT; see models.context.Network."""

    def __init__(self, inputs: int, generator: torch.Generator, hidden: tuple[int, int] = HIDDEN) -> None:
        super().__init__()
        first, second = hidden
        self.first = torch.nn.Parameter(torch.randn(first, inputs, generator=generator) / inputs**0.5)
        self.second = torch.nn.Parameter(
            torch.randn(second, first + 1, generator=generator) * (2 / first) ** 0.5
        )
        last = torch.zeros(OUTPUTS, second + inputs)
        last[:, :second] = torch.randn(OUTPUTS, second, generator=generator) * 0.02
        last[1, second + inputs - lattice.FEATURES] = -0.6  # a narrow spread to begin with
        self.last = torch.nn.Parameter(last)

    def load(self, *layers: npt.NDArray[np.int16]) -> None:
        """Go on from these weights, in units of 1 / SCALE."""
        for part, weights in zip(PARTS, layers, strict=True):
            setattr(self, part, torch.nn.Parameter(torch.from_numpy(weights.astype(np.float32) / SCALE)))

    def forward(self, features: Tensor) -> Tensor:
        """(3, n) outputs for features (inputs, n)."""
        return _outputs({"first": self.first, "second": self.second, "last": self.last}, features)


@dataclass
class Seen:
    """Points of one network that were seen: what they were predicted from, and what came.

    features   (n, inputs) int8.
    targets    (n, 5) float32, in levels: the unit of the centre, the neighbours' spread, the difference of
               what came from the context's centre, the step, and what came.
    """

    features: Tensor
    targets: Tensor

    @classmethod
    def of(cls, context: Context, features: Tensor, values: Tensor, step: int, keep: Tensor) -> Seen:
        """Some of the points of a context, whose levels are `values`."""
        scale, quarter = torch.exp2(context.exponent[keep].float()), context.quarter[keep]
        unit = scale * UNIT / torch.tensor(lattice.GAIN)[quarter]
        spread = scale * torch.exp2(torch.tensor(lattice.EIGHTHS)[quarter] / 8)
        difference = (values - context.centre)[keep]
        came = values[keep].float()
        targets = torch.stack([unit, spread, difference, torch.full_like(unit, step), came], dim=1)
        return cls(features[:, keep].to(torch.int8).T.contiguous(), targets)

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(features, targets) of BATCH of the first `count` points, drawn at random; transposed."""
        at = torch.randint(count, (BATCH,), generator=generator)
        return self.features[at].T, self.targets[at].T


class Pool:
    """The newest ROWS points of one network."""

    def __init__(self, inputs: int) -> None:
        self.seen = Seen(torch.zeros(ROWS, inputs, dtype=torch.int8), torch.zeros(ROWS, 5))
        self.count = self._next = 0

    def add(self, seen: Seen) -> None:
        """Make room for these, and take them in."""
        n = len(seen.targets)
        at = (self._next + torch.arange(n)) % ROWS
        self._next = (self._next + n) % ROWS
        self.count = max(self.count, min(ROWS, self.count + n))
        self.seen.features[at], self.seen.targets[at] = seen.features, seen.targets


def bits(outputs: Tensor, targets: Tensor) -> Tensor:
    """The bits (n) that the distributions of models.context give what came: a cell of one step about it.

    targets   (5, n), in levels; see `Seen`. What came at the bottom, level 0, has all the mass below it.
    """
    unit, spread, difference, step, came = targets
    signed = torch.minimum(difference - outputs[0] * unit, came)  # the centre is no less than level 0
    error, bottom = signed.abs(), came < step / 2
    octaves = (outputs[1] * (SCALE * UNIT / 512 / 8)).clamp(-MOST_OCTAVES, MOST_OCTAVES)
    sigma = spread * torch.exp2(octaves)
    sigma = torch.maximum(sigma, step / 16)
    heavy = torch.sigmoid((outputs[2] * 2.0 - 2.0).clamp(-6.0, 1.0))
    near, far = (error - step / 2) / sigma, (error + step / 2) / sigma
    gauss = torch.special.ndtr(-near) - torch.special.ndtr(-far)
    mass = ((1 - heavy) * gauss + heavy * (_student_tail(near) - _student_tail(far))).clamp(min=0.0)
    top = -(signed + step / 2) / sigma
    below = (1 - heavy) * torch.special.ndtr(-top) + heavy * _student_tail(top)
    mass = torch.where(bottom, below, mass)
    return -torch.log2(mass * (1 - SLACK * torch.minimum(sigma / step, torch.ones(()))) + LEAST_MASS)


def _student_tail(z: Tensor) -> Tensor:
    """The mass beyond z of Student's t with two degrees of freedom, without cancellation."""
    root = torch.sqrt(2 + z * z)
    tail = 1 / (root * (root + z.abs()))
    return torch.where(z < 0, 1 - tail, tail)


def train_context(
    volumes: Sequence[Volume | npt.NDArray[Any]],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    start: ContextModel | None = None,
    augment: bool = True,
    errors: Sequence[int] = (0, 0, 0, 1, 2, 4, 8, 16),
    progress: Callable[[TrainProgress], None] | None = None,
) -> ContextModel:
    """Train a context model, on the CPU.

    volumes         (z, y, x) of whole numbers, of any shape; each counts by the square root of its voxels.
    steps, seconds  the budget, one of them; the same seed, steps and version give the same model.
    start           a model to go on from.
    augment         also learn from pieces that were rescaled, made noisier and turned.
    errors          the bounds |x - x'| that pieces are coded with; 0 is lossless.
    """
    if (steps is None) == (seconds is None):
        raise UsageError("give the budget as steps or as seconds, one of them")
    if not volumes:
        raise UsageError("there is no volume to train on")
    pieces = _Pieces([_array(v) for v in volumes], seed, augment, errors)
    generator = torch.Generator().manual_seed(seed)
    sizes = [lattice.inputs(kind) for _, kind in NETWORKS]
    networks = [FloatNetwork(size, generator) for size in sizes]
    if start is not None:
        for (where, kind), network in zip(NETWORKS, networks, strict=True):
            network.load(*(start.weights[f"{where}.{kind}.{part}"] for part in PARTS))
    pools = [Pool(size) for size in sizes]
    optimizers = [optimizers_of(n) for n in networks]
    mean, step, done, began = 0.0, 0, 0.0, time.monotonic()
    while done < 1.0:
        if step % STEPS_PER_PIECE == 0:
            model = frozen(networks)
            for _ in range(FIRST_PIECES if step == 0 else 1):
                for which, seen in pieces.look(model):
                    pools[which].add(seen)
        which = _draw(pools, generator)
        loss = learn(
            networks[which], pools[which], optimizers[which], rate_at(done, start is not None), generator
        )
        step += 1
        mean += (loss - mean) * max(0.002, 1 / step)
        done = step / steps if steps else (time.monotonic() - began) / (seconds or 1.0)
        if progress is not None:
            progress(TrainProgress(step, min(done, 1.0), mean))
    return frozen(networks)


def learn(
    network: FloatNetwork,
    pool: Pool,
    optimizers: Sequence[torch.optim.Optimizer],
    rates: Sequence[float],
    generator: torch.Generator,
) -> float:
    """One step of a network on points of its pool; the bits of a point."""
    for optimizer, rate in zip(optimizers, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
    features, targets = pool.seen.batch(pool.count, generator)
    loss = bits(network(features), targets).mean()
    torch.autograd.backward(loss)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def optimizers_of(network: FloatNetwork) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the hidden layers, Adam for the last one."""
    muon = torch.optim.Muon([network.first, network.second], lr=MUON_RATE, weight_decay=0.0)
    return muon, torch.optim.Adam([network.last], lr=ADAM_RATE, betas=(0.9, 0.98))


def rate_at(done: float, again: bool) -> tuple[float, float]:
    """Both optimisers' learning rates when that share of the budget is used; lower on a trained model."""
    rate = min(1.0, 0.05 + done / 0.02) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
    rate *= 0.3 if again else 1.0
    return rate * MUON_RATE, rate * ADAM_RATE


def _draw(pools: list[Pool], generator: torch.Generator) -> int:
    """A network, by how many points it has; each of the coarse ones and of z often enough."""
    weights = torch.tensor([float(p.count > 0) * (0.5 + p.count / ROWS) for p in pools])
    return int(torch.multinomial(weights, 1, generator=generator))


def frozen(networks: Sequence[FloatNetwork]) -> ContextModel:
    """The integer model that these networks round to."""
    weights: dict[str, npt.NDArray[np.int16]] = {}
    for (where, kind), network in zip(NETWORKS, networks, strict=True):
        weights |= {f"{where}.{kind}.{part}": rounded(getattr(network, part)) for part in PARTS}
    return ContextModel(weights)


def rounded(layer: Tensor) -> npt.NDArray[np.int16]:
    """A layer in whole units of 1 / SCALE."""
    values = torch.round(layer.detach() * SCALE).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    result: npt.NDArray[np.int16] = values.to(torch.int16).numpy()
    return result


def observe(
    model: ContextModel,
    piece: npt.NDArray[np.float32],
    order: tuple[int, ...],
    span: Span,
    rng: np.random.Generator,
) -> Iterator[tuple[int, Context, Tensor, Tensor]]:
    """Code a piece (z, y, x) of levels: (network, context, levels, which of its points to keep), by class."""
    truth = torch.from_numpy(piece)[None]
    known = torch.zeros_like(truth)
    lattice.roots(known, order).copy_(lattice.roots(truth, order))
    for decoded, kind in lattice.order_of_classes(known, order):
        split, shape = decoded.split, decoded.class_shape(kind)
        true = lattice.Lattice.points(truth, split, kind)[0].reshape(-1)
        context = Context.of(decoded, kind, (slice(0, 1), slice(0, shape[0])), span)
        keep = torch.from_numpy(rng.permutation(len(true))[:KEPT])
        yield network_of(split, kind), context, true, keep
        if span.step > 1:  # the decoder will know what the model makes of it
            centre = model.predict(context, split, kind, span).centre
            true = centre + torch.round((true - centre) / span.step) * span.step
        decoded.set(kind, true.clamp(0, span.greatest).view(1, *shape).float())


class _Pieces:
    """Pieces of the volumes, and what their coding teaches."""

    def __init__(
        self, volumes: Sequence[npt.NDArray[Any]], seed: int, augment: bool, errors: Sequence[int]
    ) -> None:
        self.volumes, self.augment, self.errors = volumes, augment, errors
        self.ranges = [(int(v.min()), int(v.max())) for v in volumes]
        weights = np.sqrt([v.size for v in volumes])
        self.weights = weights / weights.sum()
        self.rng = np.random.default_rng(seed)

    def look(self, model: ContextModel) -> Iterator[tuple[int, Seen]]:
        """Code one piece by the model as it is."""
        piece, greatest = self._piece()
        span = Span(greatest, 2 * int(self.rng.choice(self.errors)) + 1)
        for which, context, true, keep in observe(model, piece, self._order(piece.shape), span, self.rng):
            yield which, Seen.of(context, context.features, true, span.step, keep)

    def _order(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A schedule: mostly of cubic voxels, now and then of thick slices."""
        thick = float(2.0 ** self.rng.choice([0, 0, 1, 2, 3]))
        return lattice.schedule((shape[0], shape[1], shape[2]), (thick, 1.0, 1.0))

    def _piece(self) -> tuple[npt.NDArray[np.float32], int]:
        """Levels of a piece, and the greatest level that its volume would have."""
        rng = self.rng
        which = int(rng.choice(len(self.volumes), p=self.weights))
        volume, (low, high) = self.volumes[which], self.ranges[which]
        zoom = [1, 1, 1]
        if self.augment and rng.random() < 0.15:
            zoom = [int(rng.choice([1, 2])), 2, 2]
        size = [min(n, s * k) for n, s, k in zip(volume.shape, PIECE, zoom, strict=True)]
        at = [int(rng.integers(0, n - s + 1)) for n, s in zip(volume.shape, size, strict=True)]
        z, y, x = (slice(a, a + s) for a, s in zip(at, size, strict=True))
        piece = volume[z, y, x].astype(np.float32) - low
        greatest = float(high - low)
        if zoom != [1, 1, 1]:
            piece = _shrink(piece, zoom)
        if self.augment:
            piece = piece.transpose(0, 2, 1) if rng.random() < 0.5 else piece
            piece = piece[tuple(slice(None, None, int(rng.choice([-1, 1]))) for _ in range(3))]
            if rng.random() < 0.3:
                scale = min(float(2.0 ** rng.uniform(-2, 2)), 65535 / max(greatest, 1.0))
                piece, greatest = piece * scale, greatest * scale
                piece = piece + rng.random(piece.shape, dtype=np.float32) * max(scale - 1, 0)
            if rng.random() < 0.15:
                piece = piece + rng.normal(0, 2.0 ** rng.uniform(-1, 5), piece.shape).astype(np.float32)
        greatest = math.ceil(greatest)
        return np.ascontiguousarray(np.clip(np.rint(piece), 0, greatest)), greatest


def _shrink(piece: npt.NDArray[np.float32], zoom: Sequence[int]) -> npt.NDArray[np.float32]:
    """The means of blocks of `zoom` voxels."""
    shape = [n // k for n, k in zip(piece.shape, zoom, strict=True)]
    if 0 in shape:
        return piece
    cut = piece[tuple(slice(0, n * k) for n, k in zip(shape, zoom, strict=True))]
    z, y, x = shape
    mean: npt.NDArray[np.float32] = cut.reshape(z, zoom[0], y, zoom[1], x, zoom[2]).mean(
        (1, 3, 5), dtype=np.float32
    )
    return mean


TUNING_PIECES, TUNING_STEPS = 40, 300
"""Pieces of a volume that its own last layers are fitted to, and the steps of each."""
CHECKED = 0.2
"""The share of the points that tuning does not see, but is measured on."""
COARSE_SHIFT = 2
"""Changes of the hidden layers are multiples of 2^2 / 512: they need no more precision."""


def tune(model: ContextModel, volume: Volume, levels: Levels, seed: int, effort: int = 0) -> ContextModel:
    """The model with weights of a volume's own, where they save more bits than they take.

    Pieces of the volume are coded by the model. Each network's last layer, which is linear, is fitted to what
    was seen; with some effort its other layers too, `effort` times as many steps. Networks are changed one by
    one, each if it pays on points that its fit has not seen.
    """
    rng = np.random.default_rng(seed)
    span = Span(levels.greatest, 2 * levels.error + 1)
    places = [_place(volume.shape, rng) for _ in range(TUNING_PIECES * (1 + min(effort, 2)))]
    seeds = rng.integers(0, 2**32, len(places))

    def look(number: int) -> list[tuple[int, Seen]]:
        piece = levels.of(volume.data[places[number]]).astype(np.float32)
        order = lattice.schedule((piece.shape[0], piece.shape[1], piece.shape[2]), volume.spacing)
        found = []
        own = np.random.default_rng(seeds[number])
        for which, context, true, keep in observe(model, piece, order, span, own):
            features = context.features if effort else model.networks[which].before_last(context.features)
            found.append((which, Seen.of(context, features, true, span.step, keep)))
        return found

    seen = [pair for pairs in map_on_cores(look, range(len(places))) for pair in pairs]
    share = volume.data.size / sum(math.prod(volume.data[place].shape) for place in places)

    def refit(which: int) -> dict[str, npt.NDArray[np.int16]]:
        own = [s for number, s in seen if number == which]
        return _refit(model.networks[which], own, share, seed, effort) if own else {}

    changed = dict(model.weights)
    for (where, kind), layers in zip(NETWORKS, map_on_cores(refit, range(len(NETWORKS))), strict=True):
        changed |= {f"{where}.{kind}.{layer}": weights for layer, weights in layers.items()}
    return model.changed(changed)


def _place(shape: Shape, rng: np.random.Generator) -> tuple[slice, slice, slice]:
    size = [min(n, s) for n, s in zip(shape, PIECE, strict=True)]
    z, y, x = (int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True))
    return slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2])


def _refit(
    network: Network, seen: Sequence[Seen], share: float, seed: int, effort: int
) -> dict[str, npt.NDArray[np.int16]]:
    """The layers of a network that were fitted to what was seen; none if they are not worth their bits."""
    generator = torch.Generator().manual_seed(seed)
    features, targets = (torch.cat([getattr(s, name) for s in seen]) for name in ("features", "targets"))
    shuffled = torch.randperm(len(targets), generator=generator)
    every = Seen(features[shuffled], targets[shuffled])
    fitted = len(targets) - int(CHECKED * len(targets))
    names = ("first", "second", "last") if effort else ("last",)
    before = {name: getattr(network, name) / SCALE for name in names}
    weights = {name: torch.nn.Parameter(value.clone()) for name, value in before.items()}
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam([weights["last"]], betas=(0.9, 0.98))]
    if effort:
        hidden = [weights["first"], weights["second"]]
        optimizers.append(torch.optim.Muon(hidden, weight_decay=0.0))
    steps = TUNING_STEPS * max(effort, 1)
    for step in range(steps):
        rate = (1 + math.cos(math.pi * step / steps)) / 2
        for optimizer, full in zip(optimizers, (ADAM_RATE, TUNING_MUON_RATE), strict=False):
            optimizer.param_groups[0]["lr"] = rate * full
            optimizer.zero_grad(set_to_none=True)
        x, y = every.batch(fitted, generator)
        torch.autograd.backward(bits(_outputs(weights, x), y).mean())
        for optimizer in optimizers:
            optimizer.step()
    x, y = every.features[fitted:].T, every.targets[fitted:].T
    changes = {name: _whole_change(before[name], weights[name].detach(), name) for name in names}
    after = {name: before[name] + changes[name] / SCALE for name in names}
    with torch.no_grad():
        saved = float((bits(_outputs(before, x), y) - bits(_outputs(after, x), y)).mean())
    if saved * len(targets) * share < sum(_cost(change) for change in changes.values()):
        return {}
    return {name: torch.round(after[name] * SCALE).to(torch.int16).numpy() for name in names}


def _outputs(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """What a network gives for features (n inputs), or only its last layer for what that reads."""
    x = features.float() / UNIT
    if "first" in weights:
        most = lattice.GREATEST / UNIT
        hidden = (weights["first"] @ x).clamp(0, most)
        constant = torch.full_like(hidden[:1], lattice.CONSTANT / UNIT)
        x = torch.cat([(weights["second"] @ torch.cat([hidden, constant])).clamp(0, most), x])
    return weights["last"] @ x


def _whole_change(before: Tensor, after: Tensor, name: str) -> Tensor:
    """The change of a layer in whole units that its section can hold."""
    shift = 0 if name == "last" else COARSE_SHIFT
    change = torch.round((after - before) * SCALE / 2**shift) * 2**shift
    least = (-LARGEST_WEIGHT - before * SCALE) / 2**shift
    most = (LARGEST_WEIGHT - before * SCALE) / 2**shift
    return torch.maximum(torch.minimum(change, most.floor() * 2**shift), least.ceil() * 2**shift)


def _cost(change: Tensor) -> float:
    """Bits that a layer's change takes."""
    values = change.numpy().astype(np.int64).ravel() // (1 << COARSE_SHIFT if (change % 4 == 0).all() else 1)
    return integers.cost(values, *integers.best_level(values))


def _array(volume: Volume | npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = volume.data if isinstance(volume, Volume) else np.asarray(volume)
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        raise InputError(
            "a volume to train on has three non-empty axes (z, y, x) and whole numbers of up to 16 bits, "
            f"this one has shape {array.shape} and type {array.dtype}"
        )
    return array
