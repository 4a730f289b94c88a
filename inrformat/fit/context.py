"""Training a context model on volumes of one's own: `inrformat train-context` (spec, "The context model").

Pieces of the volumes, flipped, turned, rescaled and made noisier, are coded as a brick would be, some with an
error bound, by the model as it is; what every class was predicted from, and what then came, is learned from.
The loss is the number of bits, of the distributions that the format's bank rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import hardtanh

from ..coding import lattice
from ..coding.lattice import Context, Lattice, Part, Span
from ..errors import InputError, UsageError
from ..models.context import NETWORKS, ContextModel, network_of
from ..models.integers import LARGEST_WEIGHT, OUTPUTS, PARTS, SCALE, UNIT
from ..volume import Volume
from .budget import one_of

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
LEAST_MASS = 2.0**-32
MOST_OCTAVES = 20.0
"""By which a distribution's spread differs from the neighbours', at most: the bank has no more."""
SLACK = 2.0**-8
"""What the bank's least frequencies cost every distribution, about."""


@dataclass(frozen=True)
class TrainProgress:
    """After a step: its number, the share of the budget that is used, and bits a point, a running mean.

    Of latents the bits count in what their error is worth.
    """

    step: int
    done: float
    bits: float


class FloatNetwork(torch.nn.Module):
    """A network of the model in float, with inputs in units of 1 / UNIT; see models.context.Network.

    Outputs beyond those of a distribution are zero to begin with.
    """

    def __init__(
        self,
        inputs: int,
        generator: torch.Generator,
        hidden: tuple[int, int] = HIDDEN,
        outputs: int = OUTPUTS,
    ) -> None:
        super().__init__()
        first, second = hidden
        self.first = torch.nn.Parameter(torch.randn(first, inputs, generator=generator) / inputs**0.5)
        self.second = torch.nn.Parameter(
            torch.randn(second, first + 1, generator=generator) * (2 / first) ** 0.5
        )
        last = torch.zeros(outputs, second + inputs)
        last[:OUTPUTS, :second] = torch.randn(OUTPUTS, second, generator=generator) * 0.02
        last[1, second + inputs - lattice.FEATURES] = -0.6  # a narrow spread to begin with
        self.last = torch.nn.Parameter(last)

    def load(self, *layers: npt.NDArray[np.int16]) -> None:
        """Go on from these weights, in units of 1 / SCALE."""
        for part, weights in zip(PARTS, layers, strict=True):
            setattr(self, part, torch.nn.Parameter(torch.from_numpy(weights.astype(np.float32) / SCALE)))

    def forward(self, features: Tensor) -> Tensor:
        """(outputs, n) for features (inputs, n)."""
        return outputs_of({"first": self.first, "second": self.second, "last": self.last}, features)


@dataclass
class Seen:
    """Points of one network that were seen: what they were predicted from, and what came.

    features   (n, inputs) int8.
    targets    (n, 5) float32, in levels: the unit of the centre, the neighbours' spread, the difference of
               what came from the context's base, the step, and what came. Of latents (n, 7): the last two are
               by how much a coefficient is greater than what its latent stands for without a shift, in steps;
               and how many points this one stands for.
    """

    features: Tensor
    targets: Tensor

    @classmethod
    def of(cls, context: Context, features: Tensor, values: Tensor, step: int, keep: Tensor) -> Seen:
        """Some of the points of a context, whose levels are `values`."""
        scale, quarter = torch.exp2(context.exponent[keep].float()), context.quarter[keep]
        unit = scale * UNIT / torch.tensor(lattice.GAIN)[quarter]
        spread = scale * torch.exp2(torch.tensor(lattice.EIGHTHS)[quarter] / 8)
        difference = values[keep] - context.base[keep].float() / 2**lattice.FRACTION
        came = values[keep].float()
        targets = torch.stack([unit, spread, difference, torch.full_like(unit, step), came], dim=1)
        return cls(features[:, keep].to(torch.int8).T.contiguous(), targets)

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """All of these points."""
        return cls(torch.cat([p.features for p in parts]), torch.cat([p.targets for p in parts]))

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(features, targets) of BATCH of the first `count` points, drawn at random; transposed."""
        at = torch.randint(count, (BATCH,), generator=generator)
        return self.rows(at)

    def rows(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """(features, targets) of some points; transposed."""
        return self.features.index_select(0, at).T, self.targets.index_select(0, at).T


class Pool:
    """The newest ROWS points of one network."""

    def __init__(self, inputs: int, targets: int = 5) -> None:
        self.seen = Seen(torch.zeros(ROWS, inputs, dtype=torch.int8), torch.zeros(ROWS, targets))
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
    budget = one_of(steps, seconds)
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
    mean, step, done = 0.0, 0, 0.0
    while done < 1.0:
        if step % STEPS_PER_PIECE == 0:
            model = frozen(networks)
            for _ in range(FIRST_PIECES if step == 0 else 1):
                for which, seen in pieces.look(model):
                    pools[which].add(seen)
            if not any(pool.count for pool in pools):
                raise InputError("volumes of so few voxels have nothing to train on")
        which = _draw(pools, generator)
        loss = learn(
            networks[which], pools[which], optimizers[which], rate_at(done, start is not None), generator
        )
        step += 1
        mean += (loss - mean) * max(0.002, 1 / step)
        done = budget.used(step)
        if progress is not None:
            progress(TrainProgress(step, done, mean))
    return frozen(networks)


def learn(
    network: FloatNetwork,
    pool: Pool,
    optimizers: Sequence[torch.optim.Optimizer],
    rates: Sequence[float],
    generator: torch.Generator,
    cost: Callable[[Tensor, Tensor], Tensor] = bits,
) -> float:
    """One step of a network on points of its pool; the cost of a point: by default its bits."""
    for optimizer, rate in zip(optimizers, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
    features, targets = pool.seen.batch(pool.count, generator)
    loss = cost(network(features), targets).mean()
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


@dataclass(frozen=True)
class Look:
    """A class of a piece that is being coded: what its points are predicted from, and what they are.

    part     the points that are looked at: all of the class, or some rows of it.
    values   (n) float32 levels; those of the original, which a bound's residuals come near to.
    keep     which of the n points to learn from.
    """

    lattice: Lattice
    kind: int
    part: Part
    context: Context
    values: Tensor
    keep: Tensor
    span: Span

    @property
    def network(self) -> int:
        """Which of NETWORKS predicts the class."""
        return network_of(self.lattice.split, self.kind)

    @property
    def points(self) -> int:
        """How many the class has."""
        return math.prod(self.lattice.class_shape(self.kind))

    def taps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the points to learn from: (taps, n) and levels (n) less the centre; the spread's inverse."""
        centre = self.context.centre[self.keep]
        found = [self.lattice.neighbour(self.kind, self.part, tap) for tap in lattice.taps(self.kind)]
        neighbours = torch.stack([values.reshape(-1)[self.keep] for values in found]) - centre
        return (
            neighbours,
            self.values[self.keep] - centre,
            torch.exp2(-self.context.exponent[self.keep].float()),
        )

    def linear(self, weights: Sequence[int]) -> Tensor:
        """What a linear predictor adds to the centres of the points to learn from, in levels."""
        centre = self.context.centre
        found = lattice.linear_correction(self.lattice, self.kind, self.part, centre, weights)
        levels: Tensor = found[self.keep].float() / 2**lattice.FRACTION
        return levels

    def predicted(self, model: ContextModel) -> Tensor:
        """The levels that a model's residuals are counted from."""
        return model.predict(self.context, self.lattice.split, self.kind, self.span).centre


def observe(
    model: ContextModel,
    piece: npt.NDArray[np.float32],
    order: tuple[int, ...],
    span: Span,
    rng: np.random.Generator,
    kept: int = KEPT,
) -> Iterator[Look]:
    """Code a piece (z, y, x) of levels, class by class; `kept` points of each are to learn from.

    Where what is decoded does not depend on the model, only some rows of a class are looked at.
    """
    truth = torch.from_numpy(piece)[None]
    known = torch.zeros_like(truth)
    lattice.roots(known, order).copy_(lattice.roots(truth, order))
    for decoded, kind in lattice.order_of_classes(known, order):
        split, shape = decoded.split, decoded.class_shape(kind)
        true = Lattice.points(truth, split, kind)
        rows = shape[0] if span.step > 1 else min(shape[0], -(-kept // (shape[1] * shape[2])))
        first = int(rng.integers(0, shape[0] - rows + 1))
        part = (slice(0, 1), slice(first, first + rows))
        values = true[0, part[1]].reshape(-1)
        context = Context.of(decoded, kind, part, span, model.taps(split, kind))
        keep = torch.from_numpy(rng.permutation(len(values))[:kept])
        look = Look(decoded, kind, part, context, values, keep, span)
        yield look
        if span.step > 1:  # the decoder will know what the model makes of it
            centre = look.predicted(model)
            true = centre + torch.round((values - centre) / span.step) * span.step
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
        for at in observe(model, piece, self._order(piece.shape), span, self.rng):
            yield at.network, Seen.of(at.context, at.context.features, at.values, span.step, at.keep)

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


def outputs_of(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """What a network gives for features (n inputs), or only its last layer for what that reads."""
    x, last = features.float() / UNIT, weights["last"]
    if "first" not in weights:
        return last @ x
    most, second = lattice.GREATEST / UNIT, weights["second"]
    hidden = hardtanh(weights["first"] @ x, 0.0, most)  # its gradient takes one pass, that of clamp four
    deep = hardtanh(second[:, :-1] @ hidden + second[:, -1:] * (lattice.CONSTANT / UNIT), 0.0, most)
    return last[:, : len(second)] @ deep + last[:, len(second) :] @ x


def _array(volume: Volume | npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = volume.data if isinstance(volume, Volume) else np.asarray(volume)
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        raise InputError(
            "a volume to train on has three non-empty axes (z, y, x) and whole numbers of up to 16 bits, "
            f"this one has shape {array.shape} and type {array.dtype}"
        )
    return array
