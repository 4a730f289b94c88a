"""A latent model fitted to one grid, in few bytes (section LATU).

Each network of the model gets a change of low rank, of whole numbers from the first step on (rounded in the
forward pass, as if not in the backward one). What they cost is in the loss, beside what they save; a network
that they do not pay for stays as it is.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..coding import integers
from ..coding.latent_code import LAPLACE
from ..coding.latents import Forecast, walk
from ..coding.residuals import costs
from ..coding.wavelet import PATTERNS
from ..errors import FormatError
from ..models.integers import PARTS, SCALE
from ..models.latent_changes import MOST_RANK, Product, apply, pack, rank_of
from ..models.latents import LatentModel
from ..parallel import map_on_cores
from .budget import Budget
from .changes import bits, rounded
from .context import Seen, outputs_of
from .latents import Latents, Recorder, cost

POINTS = 1 << 20
"""Points that are noted, about, of all networks."""
PLAIN = 0.05
"""A point is noted as if it took so many bits more: most take next to none."""
BATCH = 4096
RATE, WARM = 0.8, 0.05
"""Adam's, in whole units; the share of the steps in which it is reached."""
START = 3.0
"""The second matrices begin as random numbers of this size, the first as zeros."""
WORTH = 0.5
"""Of what a grid's error is worth, for super-resolution undoes some: of 0, 0.25, 0.5 and 1 this was best."""
LEAST_BYTES = 3000
"""A network whose points take fewer has nothing to win."""
OWN_BYTES = 10
"""What the changes of a network take beside their numbers, about."""
BYTES_PER_RANK = 8000
"""So many bytes of points are worth another rank, at `STEPS`; more steps make more of one."""
STEPS = 300
PART = 1 << 16
"""Points at a time, where all are looked at."""


class _Sampler(Recorder):
    """Notes a point the likelier, the more bits it takes; `share` of the bits in all."""

    def __init__(self, latents: Latents, model: LatentModel, share: float, seed: int) -> None:
        super().__init__(latents, model)
        self.share, self.generator = share, torch.Generator().manual_seed(seed)

    def keep(self, true: Tensor, forecast: Forecast) -> tuple[Tensor, Tensor]:
        """See fit.latents.Recorder."""
        chance = (self.share * (costs(true.long(), forecast) + PLAIN)).clamp(max=1.0)
        drawn = torch.rand(len(true), generator=self.generator).to(true.device)
        at = torch.nonzero(drawn < chance)[:, 0]
        return at, 1 / chance[at]


def tune(
    latents: Latents, model: LatentModel, size: int, steps: int, seed: int, seconds: float = math.inf
) -> bytes:
    """The section LATU of a model that was fitted to these latents; none where it would not pay.

    size    bytes that the latents take now, about.
    steps, seconds  of the fits, at most.
    """
    if size < LEAST_BYTES:
        return b""
    points = math.prod(latents.pyramid.shape)
    sampler = _Sampler(latents, model, min(1.0, POINTS / (8 * size + PLAIN * points)), seed)
    bands = {key: band.clone() for key, band in latents.bands.items()}
    walk(latents.pyramid, latents.smooth, bands, sampler, sampler)

    on_cpu = model.networks[0].first.device.type == "cpu"
    at_once = min(torch.get_num_threads(), len(PATTERNS)) if on_cpu else 1
    each, stop = seconds / math.ceil(len(PATTERNS) / at_once), threading.Event()
    parts: list[list[Seen]] = [[] for _ in PATTERNS]
    for network, seen in sampler.seen:
        parts[network].append(seen)
    sampler.seen.clear()

    def fit(which: int) -> dict[str, Product]:
        if not (own := parts[which]):
            return {}
        seen = Seen.joined(own)
        own.clear()  # each point is held once
        return _fit(model, PATTERNS[which], seen, steps, seed, each, stop)

    names = [str(pattern) for pattern in PATTERNS]
    try:
        found = zip(names, (map_on_cores if on_cpu else map)(fit, range(len(PATTERNS))), strict=True)
        changes = {name: products for name, products in found if products}
    finally:
        stop.set()  # fits that are still at work were interrupted, and who did that waits for them
    return pack(model, changes) if changes else b""


def _fit(
    model: LatentModel,
    pattern: int,
    seen: Seen,
    steps: int,
    seed: int,
    seconds: float,
    stop: threading.Event,
) -> dict[str, Product]:
    """The changes of a network's layers; none where they save less than they take."""
    layers = {part: getattr(model.networks[PATTERNS.index(pattern)], part) for part in PARTS}
    before = _total({part: layer / SCALE for part, layer in layers.items()}, seen)
    if before < 8 * LEAST_BYTES:
        return {}
    rank = round(before / (8 * BYTES_PER_RANK) * math.sqrt(steps / STEPS))
    numbers = _Numbers(layers, min(max(rank, 1), MOST_RANK), seed)
    optimizer = torch.optim.Adam(numbers.free, lr=RATE, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    points = float(seen.targets[:, -1].sum(dtype=torch.float64))
    budget, step, done = Budget(steps, seconds), 0, 0.0
    while done < 1 and not stop.is_set():
        optimizer.param_groups[0]["lr"] = RATE * min(done / WARM, 1.0) * (1 + math.cos(math.pi * done)) / 2
        at = torch.randint(len(seen.targets), (BATCH,), generator=generator).to(seen.targets.device)
        features, targets = seen.rows(at)
        taken = cost(outputs_of(numbers.weights(), features), targets, WORTH) * targets[-1]
        loss = taken.mean() * len(seen.targets) / points + bits(numbers.free) / points
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        done = budget.used(step)
    products = numbers.products()
    after = _total(numbers.weights(), seen) + 8 * OWN_BYTES
    after += sum(
        integers.cost(matrix.ravel(), *integers.best_level(matrix.ravel(), [LAPLACE]))
        for pair in products.values()
        for matrix in pair
    )
    return products if after < before and _fits(model, str(pattern), products) else {}


def _fits(model: LatentModel, name: str, products: dict[str, Product]) -> bool:
    """Whether the format holds the changed network."""
    try:
        apply(model, pack(model, {name: products}))
    except FormatError:
        return False
    return True


class _Numbers:
    """The changes of a network's layers while they are fitted: whole units, not rounded."""

    def __init__(self, layers: dict[str, Tensor], rank: int, seed: int) -> None:
        self.layers, generator = layers, torch.Generator().manual_seed(seed)
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for part, layer in layers.items():
            own = rank_of(rank, len(layer))
            left = layer.new_zeros(len(layer), own)
            right = (START * torch.randn(own, layer.shape[1], generator=generator)).to(layer)
            self.pairs[part] = left.requires_grad_(True), right.requires_grad_(True)

    @property
    def free(self) -> list[Tensor]:
        """All of them."""
        return [matrix for pair in self.pairs.values() for matrix in pair]

    def weights(self) -> dict[str, Tensor]:
        """The changed layers in float, with gradients that pass the rounding by."""
        return {
            part: (layer + rounded(self.pairs[part][0]) @ rounded(self.pairs[part][1])) / SCALE
            for part, layer in self.layers.items()
        }

    def products(self) -> dict[str, Product]:
        """The changes, rounded."""
        return {part: (_whole(left), _whole(right)) for part, (left, right) in self.pairs.items()}


def _whole(matrix: Tensor) -> npt.NDArray[np.int64]:
    return matrix.detach().nan_to_num(0).round().cpu().numpy().astype(np.int64)


def _total(weights: dict[str, Tensor], seen: Seen) -> float:
    """The bits that all points cost, by those that were noted."""
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(seen.targets), PART):
            features, targets = seen.features[first : first + PART], seen.targets[first : first + PART]
            taken = cost(outputs_of(weights, features.T), targets.T, WORTH) * targets[:, -1]
            total += float(taken.sum(dtype=torch.float64))
    return total
