"""Training a super-resolution model on volumes of one's own: `inrformat train-sr` (paper, section 3.4).

Each step cuts blocks out of one volume, brings them to the LR grid with our Lanczos, damages that grid as
coding would (the decoder's LR grid comes from a fitted network: what it lost looks like a smooth error),
and asks the model for the original. The loss is the squared error, since PSNR is the measure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import cos, pi
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .errors import InputError, UsageError
from .fit.budget import Budget, one_of
from .fit.latents import by_latents
from .models.registry import create_model
from .models.sr import SRModel, fast_dtype, super_resolve
from .resample import Shape, downsample, lanczos_matrix
from .volume import Volume

FACTORS: tuple[tuple[Shape, float], ...] = (
    ((4, 4, 4), 3.0),
    ((2, 4, 4), 2.0),
    ((1, 4, 4), 2.5),
    ((2, 2, 2), 3.0),
    ((1, 2, 2), 2.5),
    ((4, 2, 2), 0.75),
    ((4, 1, 1), 0.75),
    ((2, 1, 1), 0.75),
    ((1, 2, 4), 0.75),
    ((1, 1, 1), 1.0),
)
"""Which factors are trained how often; one time in five their order is random, so that every mix comes up."""

EMA = 0.998
LEAST_SHARE, MOST_SHARE = 0.01, 0.3
"""Of the range of the values: the steps of the latents that LR grids are damaged by."""
LEAST_WHOLE, MOST_WHOLE = 0.03, 0.5
"""The same at full size, (1, 1, 1), where there is nothing but damage to learn."""


@dataclass(frozen=True)
class TrainProgress:
    """After a step: its number, the share of the budget that is used, and the loss.

    loss   squared error over that of Lanczos, a running mean: below 1 is a gain.
    gains  after the last step, the gain over Lanczos in dB for each validation volume and factor.
    """

    step: int
    done: float
    loss: float
    gains: tuple[tuple[int, Shape, float], ...] = ()


def train_sr(
    volumes: Sequence[Volume | npt.NDArray[Any]],
    *,
    kind: str = "light",
    config: dict[str, int] | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    factors: Sequence[Shape] | None = None,
    start: SRModel | None = None,
    learning_rate: float = 2e-3,
    batch: int = 4,
    patch: int = 20,
    progress: Callable[[TrainProgress], None] | None = None,
    validation: Sequence[Volume | npt.NDArray[Any]] = (),
) -> SRModel:
    """Train a model of this `kind` ("light" or "srdensenet") and return it, on the CPU, in eval mode.

    volumes     (z, y, x) of any shapes, one slice included; each is normalised to its own range.
    config      the model's numbers, where they should not be the defaults.
    steps, seconds   the budget, one of them; the same seed, steps, device and version give the same model.
    factors     which to train, all alike; default: FACTORS, as far as the model supports them.
    start       a model to go on from, instead of a new one.
    patch       LR voxels per axis that a block predicts.
    validation  volumes to measure at the end (never trained on): see TrainProgress.gains.
    """
    budget = one_of(steps, seconds)
    if min(batch, patch) < 1:
        raise UsageError(f"batch= and patch= are at least 1, not {batch} and {patch}")
    arrays = [_array(v) for v in volumes]
    ranges = [(float(a.min()), float(a.max())) for a in arrays]
    if not arrays:
        raise UsageError("there is no volume to train on")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = deepcopy(start) if start is not None else create_model(kind, config)
    choices = _choices(model, factors)

    def draw() -> Lesson:
        which = _pick(rng, [a.size**0.5 for a in arrays])
        chosen = _factors(model, choices, rng)
        hr = _blocks(arrays[which], ranges[which], chosen, model, patch, batch, rng)
        with torch.no_grad():
            lr, lanczos, target = _pair(hr.to(device), chosen, model.halo(chosen), rng)
        return Lesson((which, chosen), chosen, lr, target - lanczos)

    last: list[TrainProgress] = []

    def report(now: TrainProgress) -> None:
        last[:] = [now]
        if progress is not None:
            progress(now)

    average = learn(model, draw, budget, device=device, rate=learning_rate, progress=report)
    if progress is not None and validation:
        gains = tuple(
            (i, f, gain_db(average, v, f))
            for i, v in enumerate(validation)
            for f in ((4, 4, 4), (1, 4, 4), (2, 2, 2), (1, 2, 2))
            if average.supports(f)
        )
        progress(replace(last[0], done=1.0, gains=gains))
    return average


@dataclass(frozen=True)
class Lesson:
    """What a step learns from.

    key      what counts as one: errors are relative to what Lanczos gets wrong there, on average.
    lr       LR blocks (b, z, y, x) with their halo.
    lacking  (b, z fz, y fy, x fx): what Lanczos lacks; as far as it goes, where the model gives more.
    """

    key: Hashable
    factors: Shape
    lr: Tensor
    lacking: Tensor


def learn(
    model: SRModel,
    draw: Callable[[], Lesson],
    budget: Budget,
    *,
    device: str | torch.device = "cpu",
    rate: float = 2e-3,
    progress: Callable[[TrainProgress], None] | None = None,
) -> SRModel:
    """Train a model on what `draw` gives; return the mean of its late weights, on the CPU, in eval mode."""
    model.header = model.file = None  # it is another model from now on
    model = model.to(device).train().requires_grad_(True)
    average = deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4, betas=(0.9, 0.99))
    dtype = fast_dtype(device)
    scales: dict[Hashable, float] = {}
    means = np.zeros(2)  # of the errors, model's and Lanczos's
    step, done = 0, 0.0
    while done < 1.0:
        share = min(1.0, 0.05 + done / 0.02) * (0.01 + 0.99 * (1 + cos(pi * done)) / 2)  # warm up, cosine
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        lesson = draw()
        lacking = lesson.lacking
        detail = model(lesson.lr, lesson.factors, dtype)[tuple(slice(0, n) for n in lacking.shape)]
        error = (detail - lacking).square().mean()
        # every volume and factor counts alike: the error relative to that of Lanczos there, on average
        before = max(float(lacking.square().mean()), 1e-12)
        scales[lesson.key] = 0.9 * scales.get(lesson.key, before) + 0.1 * before
        loss = error / scales[lesson.key]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(EMA, step / (step + 9))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        means += (np.array([float(loss.detach()), before / scales[lesson.key]]) - means) * max(0.01, 1 / step)
        done = budget.used(step)
        if progress is not None:
            progress(TrainProgress(step, done, float(means[0] / means[1])))
    return average.cpu()


def gain_db(model: SRModel, volume: Volume | npt.NDArray[Any], factors: Shape) -> float:
    """How many dB of PSNR the model gains over Lanczos on a volume, from an undamaged LR grid."""
    array = _array(volume)
    low, high = float(array.min()), float(array.max())
    lr = (downsample(array, factors) - low) / max(high - low, 1e-30)
    errors = [0.0, 0.0]
    for z0 in range(0, array.shape[0], 64):
        z1 = min(z0 + 64, array.shape[0])
        truth = (torch.from_numpy(array[z0:z1].astype(np.float32)) - low) / max(high - low, 1e-30)
        for i, m in enumerate((None, model)):
            full = super_resolve(m, lr, factors, array.shape, z0, z1).clamp_(0, 1)
            errors[i] += float((full - truth).square().sum(dtype=torch.float64))
    return float(10 * np.log10(max(errors[0], 1e-30) / max(errors[1], 1e-30)))


def _array(volume: Volume | npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = volume.data if isinstance(volume, Volume) else np.asarray(volume)
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"a volume has three non-empty axes (z, y, x), this one has shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("a volume to train on has NaN or infinity")
    return array


def _pick(rng: np.random.Generator, weights: Sequence[float]) -> int:
    return int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))


def _choices(model: SRModel, factors: Sequence[Shape] | None) -> list[tuple[Shape, float]]:
    """What is trained, and how often."""
    if factors is not None:
        if not factors or not all(model.supports(choice) for choice in factors):
            raise UsageError(f"factors= are some that the model does, not {list(factors)}")
        return [(choice, 1.0) for choice in factors]
    return [(choice, weight) for choice, weight in FACTORS if model.supports(choice)]


def _factors(model: SRModel, choices: Sequence[tuple[Shape, float]], rng: np.random.Generator) -> Shape:
    """One of the choices, drawn by its weight; now and then along other axes."""
    factors = choices[_pick(rng, [weight for _, weight in choices])][0]
    z, y, x = (factors[i] for i in rng.permutation(3)) if rng.random() < 0.2 else factors
    return (z, y, x) if model.supports((z, y, x)) else factors


def _blocks(
    volume: npt.NDArray[Any],
    limits: tuple[float, float],
    factors: Shape,
    model: SRModel,
    patch: int,
    count: int,
    rng: np.random.Generator,
) -> Tensor:
    """`count` blocks (b, z, y, x) float32 of one volume, normalised to its range and augmented.

    Along each axis a block holds the patch and its halo, or the whole axis where that is shorter.
    """
    low, high = limits
    mixed = not model.whole_slices and rng.random() < 0.5
    view = volume.transpose(rng.permutation(3) if mixed else [0, *(1 + rng.permutation(2))])
    sizes = zip(view.shape, model.halo(factors), factors, strict=True)
    size = [min(n, (patch + 2 * h) * f) for n, h, f in sizes]
    # half the resolution on some axes is a new volume: sharper edges, finer texture
    zoom = [
        2 if rng.random() < 0.2 and n >= 2 * s and n > 1 else 1 for n, s in zip(view.shape, size, strict=True)
    ]
    blocks = []
    for _ in range(count):
        best: npt.NDArray[Any] | None = None
        for _ in range(2):  # of two places the one with more in it
            at = [int(rng.integers(0, n - s * k + 1)) for n, s, k in zip(view.shape, size, zoom, strict=True)]
            place = tuple(slice(a, a + s * k) for a, s, k in zip(at, size, zoom, strict=True))
            if best is None or view[place][::2, ::2, ::2].std() > best[::2, ::2, ::2].std():
                best = view[place]
        assert best is not None
        block = downsample(best, zoom)
        flips = [axis for axis in range(3) if rng.random() < 0.5]
        blocks.append(block.flip(flips) if flips else block)
    x = (torch.stack(blocks) - low) / max(high - low, 1e-30)
    if rng.random() < 0.25:  # another contrast
        x = x.clamp(0, 1).pow(float(np.exp(rng.uniform(-0.6, 0.6))))
    if rng.random() < 0.3:  # another noise level
        x = x + torch.randn(x.shape) * float(10 ** rng.uniform(-3, -1.5))
    return x


def _pair(hr: Tensor, factors: Shape, halo: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """From HR blocks (b, z, y, x): what the model gets, what Lanczos makes of that, and what it should be.

    The LR blocks come with their halo; the others are cut to what the model predicts from that.
    """
    lr = hr
    for axis, f in enumerate(factors, start=1):
        lr = along(lr, lanczos_matrix(hr.shape[axis], f, up=False), axis)
    lr = damage(lr, rng) if max(factors) > 1 else _by_latents(lr, LEAST_WHOLE, MOST_WHOLE, rng)
    lanczos = lr
    inside, padding = [slice(None)], []
    for axis, (f, h) in enumerate(zip(factors, halo, strict=True), start=1):
        n = hr.shape[axis]
        lanczos = along(lanczos, lanczos_matrix(n, f, up=True), axis)
        # spend some of the block as halo, where there is enough; now and then take its ends for a border
        cut = lr.shape[axis] > 2 * h + 4 and rng.random() < 0.9
        inside.append(slice(h * f, (lr.shape[axis] - h) * f) if cut else slice(0, n))
        padding.append(0 if cut else h)
    pads = [p for p in reversed(padding) for _ in range(2)]
    lr = functional.pad(lr[:, None], pads, mode="replicate")[:, 0]
    return lr, lanczos[tuple(inside)], hr[tuple(inside)]


def along(x: Tensor, matrix: npt.NDArray[np.float64], axis: int) -> Tensor:
    """The product of a matrix (m, n) with an axis of x that is n long."""
    weights = torch.from_numpy(matrix.astype(np.float32)).to(x.device)
    return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


def damage(lr: Tensor, rng: np.random.Generator) -> Tensor:
    """LR blocks (b, z, y, x) as a coder might give them back: intact, by latents, or as a network would."""
    kind = rng.random()
    if kind < 0.15:
        return lr
    if kind < 0.75:
        return _by_latents(lr, LEAST_SHARE, MOST_SHARE, rng)
    axes = [axis for axis in (1, 2, 3) if lr.shape[axis] > 1]
    out = lr
    if rng.random() < 0.25:
        sigma = rng.uniform(0.2, 0.7)
        for axis in axes:
            out = along(out, _blur(lr.shape[axis], sigma), axis)
    if rng.random() < 0.7:  # the small coefficients of a transform are lost: 32 to 47 dB on real LR grids
        bases = [_cosines(lr.shape[axis]) for axis in axes]
        for axis, basis in zip(axes, bases, strict=True):
            out = along(out, basis, axis)
        out = torch.where(out.abs() < 10 ** rng.uniform(-2.1, -0.95), 0.0, out)
        for axis, basis in zip(axes, bases, strict=True):
            out = along(out, basis.T, axis)
    if rng.random() < 0.4:
        noise = torch.randn(lr.shape, device=lr.device)
        sigma = rng.uniform(0.0, 1.2)
        for axis in axes:
            if sigma > 0.2:
                noise = along(noise, _blur(lr.shape[axis], sigma), axis)
        noise = noise / noise.std().clamp_min(1e-6)
        out = out + noise * float(10 ** rng.uniform(-2.6, -1.6))
    return out


def _by_latents(lr: Tensor, least: float, most: float, rng: np.random.Generator) -> Tensor:
    """LR blocks as latents give them back whose step is from `least` to `most` of the range."""
    share = float(np.exp(rng.uniform(np.log(least), np.log(most))))
    return torch.stack([by_latents(block, share) for block in lr])


def _blur(n: int, sigma: float) -> npt.NDArray[np.float64]:
    """A Gaussian blur of n samples, as a matrix (n, n); its rows sum to one."""
    index = np.arange(n)
    weights = np.exp(-0.5 * ((index[:, None] - index[None, :]) / sigma) ** 2)
    matrix: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return matrix


def _cosines(n: int) -> npt.NDArray[np.float64]:
    """The orthonormal DCT-II of n samples, as a matrix (n, n)."""
    index = np.arange(n)
    matrix: npt.NDArray[np.float64] = (
        np.cos(pi * index[:, None] * (index[None, :] + 0.5) / n) * (2 / n) ** 0.5
    )
    matrix[0] *= 0.5**0.5
    return matrix
