"""From an LR grid to latents: the wavelet pyramid, rounded; and the training of the latent model."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..coding import latent_code
from ..coding.latents import LARGEST_LATENT, Forecast, Places, Pyramid, inputs, to_finer, walk
from ..coding.network import CODE_BITS
from ..coding.wavelet import PATTERNS, forward, gain, halving, inverse
from ..models.integers import OUTPUTS, PARTS
from ..models.latents import SHIFTS, LatentModel
from .budget import one_of
from .context import FloatNetwork, Pool, Seen, TrainProgress, bits, learn, optimizers_of, rate_at, rounded

LIKELY = 0.62
"""A coefficient of so many steps is likely to be worth a latent that is not zero."""
BIT = 0.09
"""By how many steps a coefficient must be larger for every bit that its latent costs; measured to be the best
of 0.03, 0.06, 0.09 and 0.12 for births. Latents that are predicted are chosen as they are coded: see
coding.latent_code.worthwhile."""
ROUNDING = 0.42
"""Beyond the first, a larger latent costs a bit or two more."""
PARENT = 4
"""How many neighbours a parent counts for."""
LEAST_STEP, MOST_STEP = 1, 65535
HIDDEN = (64, 32)
PIECE = (48, 96, 96)
KEPT = 8192
"""Points of a class that are kept of each piece, at most."""
STEPS_PER_PIECE = 12
FIRST_PIECES = 24
LEAST_SHARE, MOST_SHARE = 0.003, 0.4
"""Of the range of the values: the steps that are trained on."""


Grid = tuple[npt.NDArray[np.uint16], tuple[float, float, float]]
"""Codes (z, y, x) to train on, and their spacing."""


@dataclass(frozen=True)
class Latents:
    """A grid's latents: those of the coarsest smooth points, and of (level, pattern); its coefficients."""

    pyramid: Pyramid
    smooth: Tensor
    bands: dict[tuple[int, int], Tensor]
    coefficients: Tensor

    @property
    def magnitude(self) -> float:
        """The sum of log2(1 + |latent|) over the bands; bytes go with it, about.

        From grid to grid of a volume, and from step to step, to within some per cent: on a chest CT 2.0 to
        2.2 bits each, from 60 to 320 kB on five grids; on a brain MR 1.9 to 2.8, from 60 to 170 kB.
        """
        bands = self.bands.values()
        return sum(float(torch.log2(1 + band[band != 0].abs().float()).sum()) for band in bands)

    def wanted(self, places: Places) -> Tensor:
        """See coding.latent_code.Wanted."""
        band = places.level.band(self.coefficients, places.pattern)
        return band.reshape(-1)[places.at] / self.pyramid.steps[places.which]


class Analysis:
    """The wavelet coefficients of a grid (z, y, x) of codes, in float32."""

    def __init__(self, grid: Tensor, spacing: Sequence[float]) -> None:
        self.coefficients = grid.clone().float()
        self.shape = (grid.shape[0], grid.shape[1], grid.shape[2])
        self.masks = halving(self.shape, spacing)
        self.layout = Pyramid(self.shape, self.masks, (), ())
        for level in self.layout.levels:
            forward(self.coefficients, level)

    def latents(self, step: float) -> Latents:
        """The latents that make an error of about step^2 / 12 at high rates; `step` in codes."""
        levels = self.layout.levels
        steps: dict[int, int] = {}
        bias: dict[int, int] = {}
        bands: dict[tuple[int, int], Tensor] = {}
        for number, level, pattern, which in self.layout.numbers():
            steps[which] = _whole(step / gain(levels, number, pattern))
            values = level.band(self.coefficients, pattern)
            bias[which] = 0
            if values.numel():
                coarser = {p: band for (n, p), band in bands.items() if n == number + 1}
                mask = levels[number + 1].axes if number + 1 < len(levels) else 0
                parents = _parents(coarser, pattern, mask, values.shape)
                bands[number, pattern], bias[which] = _round(values, steps[which], parents)
        smooth = self.layout.smooth(self.coefficients)
        own = _whole(step / (gain(levels, len(levels) - 1, 0) if levels else 1.0))
        own = max(own, math.ceil(float(smooth.abs().max()) / LARGEST_LATENT))
        every = [*(steps[i] for i in range(len(steps))), own]
        biases = (*(bias[i] for i in range(len(bias))), 0)
        pyramid = Pyramid(self.shape, self.masks, tuple(every), biases)
        return Latents(pyramid, torch.round(smooth / own).int(), bands, self.coefficients)

    def error(self, step: float) -> float:
        """The mean squared error that the latents of such a step make in the grid, about; in codes.

        Of those that are rounded, without a model's shifts: these and the choice by costs, as they are coded,
        change it by some tenths of a dB.
        """
        latents, total = self.latents(step), 0.0
        levels = self.layout.levels
        for number, level, pattern, which in self.layout.numbers():
            values = level.band(self.coefficients, pattern)
            if values.numel():
                wrong = latents.pyramid.value(latents.bands[number, pattern], which) - values
                total += float(wrong.square().sum(dtype=torch.float64)) * gain(levels, number, pattern) ** 2
        return total / math.prod(self.shape)


def by_latents(grid: Tensor, share: float) -> Tensor:
    """A grid (z, y, x) of values from 0 to 1 as latents of a step, a share of that range, give it back.

    By their own values: without the shifts of a model.
    """
    scale = float(1 << CODE_BITS)
    latents = Analysis(grid.cpu() * scale, (1.0, 1.0, 1.0)).latents(share * scale)
    pyramid = latents.pyramid
    out = torch.zeros(pyramid.shape, dtype=torch.int32)
    pyramid.smooth(out).copy_(pyramid.value(latents.smooth, len(pyramid.steps) - 1))
    for number, level, pattern, which in pyramid.numbers():
        if (number, pattern) in latents.bands:
            level.band(out, pattern).copy_(pyramid.value(latents.bands[number, pattern], which))
    for level in reversed(pyramid.levels):
        inverse(out, level)
    return (out / scale).to(grid.device)


def _whole(step: float) -> int:
    return max(LEAST_STEP, min(MOST_STEP, round(step)))


def _round(values: Tensor, step: int, parents: Tensor | None) -> tuple[Tensor, int]:
    """Latents of a band, and by how many 1/256 of a step their magnitudes are too large on average.

    A latent that is not zero costs the more bits, the fewer of its neighbours and parents are not.
    """
    size = values.abs() / step
    there = (size > LIKELY).float()
    near = _sum27(there) - there + 0.02
    total = 26.5
    if parents is not None:
        near[tuple(slice(0, n) for n in parents.shape)] += PARENT * parents
        total += PARENT
    cost = torch.log2((total - near).clamp_(min=0.02) / near) + 1
    latents = torch.floor(size + ROUNDING).clamp_(1, LARGEST_LATENT)
    latents[size < 0.5 + BIT * cost.clamp_(min=0)] = 0
    there = latents > 0
    bias = float((latents[there] - size[there]).mean()) if bool(there.any()) else 0.0
    return (latents * values.sign()).to(torch.int16), max(0, min(127, round(256 * bias)))


def _sum27(values: Tensor) -> Tensor:
    """Of every point and the 26 about it."""
    for axis in range(3):
        wide, n = values.clone(), values.shape[axis]
        wide.narrow(axis, 1, n - 1).add_(values.narrow(axis, 0, n - 1))
        wide.narrow(axis, 0, n - 1).add_(values.narrow(axis, 1, n - 1))
        values = wide
    return values


def _parents(coarser: dict[int, Tensor], pattern: int, mask: int, shape: torch.Size) -> Tensor | None:
    """Whether the parents of a band's points are not zero."""
    parent = coarser.get(pattern & mask)
    if parent is None:
        return None
    there = to_finer((parent != 0).float(), mask)
    z, y, x = (min(a, b) for a, b in zip(shape, there.shape, strict=True))
    return there[:z, :y, :x]


CLOSE = 0.03
"""The share by which the bytes, or the error, may miss what they are to be."""
MOST_TRIALS = 9
FIRST_STEP = 3000.0
"""In codes: where the search for a step begins."""
BYTES_PER_MAGNITUDE = 0.28
"""Of latents: before any have been coded."""
BYTES_EXPONENT, ERROR_EXPONENT = -1.2, 1.2
"""How bytes and squared error follow the step, about, until two of them are known."""


def step_for(
    measure: Callable[[float], float], target: float, exponent: float, first: float, close: float = CLOSE
) -> float:
    """The step at which `measure`, about a power of it, comes closest to the target, or close enough.

    Tried steps are kept as (log of the step, by what power of e it is too large); the next one lies on the
    line through the two that enclose the target, or where `exponent` or two on one side lead.
    """
    tried: list[tuple[float, float]] = []
    place = math.log(first)
    for _ in range(MOST_TRIALS):
        value = max(measure(math.exp(place)), 1e-30)
        tried.append((place, math.log(value / target) / exponent))
        if abs(tried[-1][1] * exponent) < close:
            break
        place = min(max(_next_place(tried), math.log(LEAST_STEP)), math.log(8 * MOST_STEP))
        if any(abs(place - t[0]) < 1e-3 for t in tried):
            break
    return math.exp(min(tried, key=lambda t: abs(t[1]))[0])


def _next_place(tried: Sequence[tuple[float, float]]) -> float:
    small, large = [t for t in tried if t[1] < 0], [t for t in tried if t[1] >= 0]
    if small and large:
        (a, below), (b, above) = max(small), min(large)
        share = min(max(-below / (above - below), 0.1), 0.9)
        return a + share * (b - a)
    (a, error), slope = min(tried, key=lambda t: abs(t[1])), 1.0
    if len(tried) > 1:
        (b, other) = tried[-2] if tried[-1][0] == a else tried[-1]
        slope = max(0.2, (error - other) / (a - b))
    return a - max(-3.0, min(3.0, error / slope))


class Recorder:
    """A model and an exchange at once, which note what the latents could be predicted from.

    model    what the latents are chosen by, for what is wanted; without it they are what is given.
    seen     (network, some of the points that it predicts).
    """

    def __init__(self, latents: Latents, model: LatentModel | None) -> None:
        self.latents, self.model = latents, model
        self.rows: list[tuple[int, Tensor, Forecast]] = []
        self.lock = threading.Lock()
        self.seen: list[tuple[int, Seen]] = []

    def keep(self, true: Tensor, forecast: Forecast) -> tuple[Tensor, Tensor]:
        """(which points of a class to note, in order; how many each of them stands for)."""
        at = torch.randperm(len(true))[:KEPT].sort().values
        return at, torch.full((len(at),), len(true) / max(len(at), 1))

    def predict(self, features: Tensor, pattern: int) -> Forecast:
        """The shifts; and where the features, and what the model makes of them, were noted."""
        count, device = features.shape[1], features.device
        nothing = torch.zeros(count, dtype=torch.int64, device=device)
        shifts = torch.zeros(SHIFTS, count, dtype=torch.int16, device=device)
        real = Forecast(nothing, nothing, nothing, shifts)
        if self.model is not None:
            real = self.model.predict(features, pattern)
        with self.lock:
            number = len(self.rows)
            self.rows.append((PATTERNS.index(pattern), features.to(torch.int8), real))
        return Forecast(nothing + number, torch.arange(count, device=device), nothing, real.shifts)

    def quiet(self, number: int, true: Tensor) -> Tensor:
        """See coding.latents.Exchange."""
        return true

    def predicted(self, places: Places, true: Tensor, forecast: Forecast) -> Tensor:
        """See coding.latents.Exchange."""
        bias, wanted = self.latents.pyramid.bias[places.which] / 256, self.latents.wanted(places)
        real = forecast
        if self.model is not None:
            real = self._real(forecast)
            true = latent_code.worthwhile(wanted, bias, real)
        keep, counts = self.keep(true, real)
        for number, here in _runs(forecast.centre[keep]):
            which, features, _ = self.rows[number]
            own = keep[here]
            came = true[own].float()
            ones = torch.ones_like(came)
            missing = wanted[own] - came + bias * came.sign()
            # Units of one step, and nothing below which there is nothing: see context.Seen.
            distribution = [ones, ones, came, ones, torch.full_like(came, 1e6)]
            targets = torch.stack([*distribution, missing, counts[here]], dim=1)
            self.seen.append((which, Seen(features[:, forecast.table[own]].T.contiguous(), targets)))
        self.rows.clear()
        return true

    def _real(self, noted: Forecast) -> Forecast:
        """What the model said of points whose forecasts are where they were noted."""
        centre, table, bits = (torch.empty_like(noted.centre) for _ in range(3))
        real = Forecast(centre, table, bits, noted.shifts)
        for number, here in _runs(noted.centre):
            for name in ("centre", "table", "bits"):
                getattr(real, name)[here] = getattr(self.rows[number][2], name)
        return real


def _runs(numbers: Tensor) -> Iterator[tuple[int, slice]]:
    """(number, where it is): parts of points are noted in any order, the points of each in theirs."""
    first, (values, counts) = 0, torch.unique_consecutive(numbers, return_counts=True)
    for number, count in zip(values.tolist(), counts.tolist(), strict=True):
        yield number, slice(first, first + count)
        first += count


def look(
    grid: Tensor, spacing: Sequence[float], step: float, model: LatentModel | None = None
) -> list[tuple[int, Seen]]:
    """(network, what it could have learned) from coding a grid of codes, by a model's costs if any."""
    latents = Analysis(grid, spacing).latents(step)
    recorder = Recorder(latents, model)
    walk(latents.pyramid, latents.smooth, latents.bands, recorder, recorder)
    return recorder.seen


def train_latents(
    grids: Sequence[Grid],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    start: LatentModel | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
) -> LatentModel:
    """Train a latent model on the CPU, on grids (z, y, x) of codes with their spacing.

    steps, seconds  the budget, one of them.
    start   a model to go on from: latents are then chosen by what they cost in what it has become, as an
            encoder does.
    """
    budget = one_of(steps, seconds)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    pieces = _Pieces(grids, seed)
    rows = OUTPUTS + SHIFTS
    networks = [FloatNetwork(inputs(p), generator, HIDDEN, rows) for p in PATTERNS]
    if start is not None:
        for name, network in zip(LatentModel.networks_of, networks, strict=True):
            first, second, last = (start.weights[f"{name}.{part}"] for part in PARTS)
            network.load(first, second, np.pad(last, ((0, rows - len(last)), (0, 0))))
    pools = [Pool(inputs(p), 7) for p in PATTERNS]
    optimizers = [optimizers_of(n) for n in networks]
    mean, step, done = 0.0, 0, 0.0
    worker = ThreadPoolExecutor(1)
    try:  # the next piece is coded while the last ones are learned
        following = [worker.submit(pieces.look, start) for _ in range(FIRST_PIECES)]
        while done < 1.0:
            if step % STEPS_PER_PIECE == 0:
                for found in following:
                    for which, seen in found.result():
                        pools[which].add(seen)
                following = [worker.submit(pieces.look, start and _frozen(networks))]
            which = step % len(networks)
            rates = rate_at(done, start is not None)
            loss = learn(networks[which], pools[which], optimizers[which], rates, generator, cost)
            step += 1
            mean += (loss - mean) * max(0.002, 1 / step)
            done = budget.used(step)
            if progress is not None:
                progress(TrainProgress(step, done, mean))
    finally:
        worker.shutdown(cancel_futures=True)
    return _frozen(networks)


def _frozen(networks: Sequence[FloatNetwork]) -> LatentModel:
    """The integer model that these networks round to."""
    layers: dict[str, npt.NDArray[np.int16]] = {}
    for name, network in zip(LatentModel.networks_of, networks, strict=True):
        layers |= {f"{name}.{part}": rounded(getattr(network, part)) for part in PARTS}
    return LatentModel(layers)


def cost(outputs: Tensor, targets: Tensor, worth: float = 1.0) -> Tensor:
    """What points (n) cost, in bits: those of their latents, and those that their squared error is worth.

    worth   a share of what it is worth where the grid is all that counts.
    """
    came, missing = targets[2], targets[5]
    none, more, less = outputs[OUTPUTS:]
    shift = torch.where(came == 0, none, torch.where(came > 0, more, less))
    error = (missing - shift).square()
    return bits(outputs[:OUTPUTS], targets[:5]) + worth / latent_code.BIT * error


class _Pieces:
    """Pieces of grids, and what their coding teaches; larger grids are seen more often, by their root."""

    def __init__(self, grids: Sequence[Grid], seed: int) -> None:
        self.grids, self.rng = grids, np.random.default_rng(seed)
        weights = np.sqrt([grid.size for grid, _ in grids])
        self.weights = weights / weights.sum()

    def look(self, model: LatentModel | None) -> list[tuple[int, Seen]]:
        """Code one piece, by a step of any usual size, and a model's costs if any."""
        rng = self.rng
        grid, spacing = self.grids[int(rng.choice(len(self.grids), p=self.weights))]
        share = float(np.exp(rng.uniform(math.log(LEAST_SHARE), math.log(MOST_SHARE))))
        return look(_piece(grid, rng), spacing, share * (1 << CODE_BITS), model)


def _piece(grid: npt.NDArray[np.uint16], rng: np.random.Generator) -> Tensor:
    size = [min(n, s) for n, s in zip(grid.shape, PIECE, strict=True)]
    at = [int(rng.integers(0, n - s + 1)) for n, s in zip(grid.shape, size, strict=True)]
    piece = grid[tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))].astype(np.float32)
    piece = piece[tuple(slice(None, None, int(rng.choice([-1, 1]))) for _ in range(3))]
    return torch.from_numpy(np.ascontiguousarray(piece))
