"""From a volume to the bytes of a file: plan, fit, quantise, choose, write, and measure what was written."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .coding import network as base_network
from .container.headers import (
    LARGEST_AFFINE,
    LARGEST_ERROR,
    LARGEST_SPACING,
    LONGEST_AXIS,
    PSNR_SLACK,
    PSNR_TOLERANCE,
    RATIO_TOLERANCE,
    LatentHeader,
    Measured,
    Promise,
)
from .container.limits import DEFAULT_LIMITS
from .decode import resolve_device
from .errors import EncodeError, InputError, UsageError
from .job import Attempt, Fitted, Grid, Job, check_factors
from .metrics import psnr as decibels
from .progress import Bar
from .volume import Volume

if TYPE_CHECKING:
    from .models.context import ContextModel
    from .models.sr import SRModel

Shape = tuple[int, int, int]

LEAST_BYTES = {"latents": 120, "siren": 380}
"""Below which nothing holds a grid."""
MOST_FITS = 6
"""How many networks are fitted, at the most, to reach a PSNR."""
MOST_CODINGS = 12
"""How many times latents are coded for one, which of a few thousand voxels follows the step in leaps."""
DECIBELS_PER_DOUBLING = 2.0
"""How much the PSNR is expected to rise with twice the bytes, until two sizes have been measured."""
DECIBELS_PER_DECADE = 12.0
"""How much the PSNR falls about when latents' steps grow tenfold, until two have been measured."""
FALLS = 3.0, 30.0
"""Within what bounds that is believed: where the reduction alone loses much it falls slowly."""
OVERSHOOT = 1.0
"""Decibels above the target up to which coarser rounding brings a network down to it."""
ERROR_GROWTH = 0.2
"""A finer grid of the same bytes is expected to be coded worse: by this power of its points."""
HOPELESS = 1.3
"""A grid is not coded where so many times the least error is expected of it: super-resolution takes more away
from finer ones."""
ROUGH = 0.1
"""By which share of their bytes grids may miss them while they are compared."""
RIVAL = 1.15
"""Grids of less than so many times the least error are rivals: a model gains up to 0.5 dB more by being
adapted to one than to another."""
FINEST_STEP = 16.0
"""In codes: by a finer step a grid's bytes leap, for steps are whole numbers. It has not room for so many."""
HOPEFUL = 2.0
"""Where every grid loses too much for a PSNR, one is tried that loses less than so many times as much."""
LEFT_TO_CODING = 0.1
"""Of the error that is allowed, what coding may make then, about."""
MISSED = 0.01
"""By which share of its bytes a file may miss them before its grid is coded once more."""
BETTER = 0.99
"""A finer grid is taken where its error is less than this part of a coarser's: it takes longer to decode."""
LEAST_TARGET = 1e-30
MOST_TARGET = {"ratio": 1e12, "psnr": 1000.0, "max_error": 1e37, "seconds": 1e9}
LARGEST_VALUE, LEAST_RANGE = 1e37, 1e-30
"""Of float32 volumes: resampling and scaling are then float32 numbers, and normal ones."""
TUNED_VOXELS = 1 << 19
"""Smaller volumes take the context model as it is."""


def encode(
    volume: Any,
    *,
    ratio: float | None = None,
    psnr: float | None = None,
    max_error: float | None = None,
    lossless: bool = False,
    preset: str = "fast",
    factors: tuple[int, int, int] | None = None,
    sr: SRModel | str | None = "auto",
    embed_sr: bool = False,
    context: ContextModel | None = None,
    seconds: float | None = None,
    seed: int = 0,
    fill: float | None = None,
    device: str = "auto",
    progress: bool | None = None,
) -> bytes:
    """The .inrv file of a volume.

    volume   array or tensor (z, y, x), or `Volume`. Integers of up to 16 bits, or float32.
    ratio    bytes of the stored values over bytes of the file, reached to within 5%.
    psnr     dB over the whole volume with its own max - min as peak, reached to within 0.2 dB.
             max_error  the greatest difference of a decoded voxel from the original, in stored units.
    lossless every voxel exact; integers only.
             At most one of the four; with none, the preset chooses the bytes.
    preset   "fast", "balanced", "best", or "paper" (its network, optimiser and factors).
    factors  how much smaller the LR grid is along (z, y, x), of 1, 2, 4 and 8; default: measured and chosen.
    sr       "auto": the shipped super-resolution model. A model, or None. Used only where it beats Lanczos,
             or where a file would miss its bytes without what it changes in the model.
    embed_sr store the model in the file, so that it needs nothing else.
    context  the context model of lossless and bounded files; None: the shipped one. One of your own is stored
             in the file.
    seconds  time for what is fitted, at most: a network, or the changes to the shipped models. Where the
             preset's steps would take longer, two runs differ. Not for lossless= and max_error=.
    seed     same seed, threads, device and versions: same bytes. (On a GPU sums may come in any order.)
    fill     the value that NaN and infinity are replaced with; None: they are refused.
    device   "auto", "cpu", "cuda", ...
    progress None: a bar on stderr, if that is a terminal.

    Raises InputError (the volume), UsageError (the call), EncodeError (a target that was not reached, with
    the best that was).
    """
    if sum(target is not None for target in (ratio, psnr, max_error)) + lossless > 1:
        raise UsageError("ratio=, psnr=, max_error= and lossless= exclude each other")
    targets = ("ratio", ratio), ("psnr", psnr), ("max_error", max_error), ("seconds", seconds)
    for name, value in targets:
        if value is not None and not LEAST_TARGET <= value <= MOST_TARGET[name]:
            raise UsageError(f"{name}= is from {LEAST_TARGET:g} to {MOST_TARGET[name]:g}, not {value}")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise UsageError(f"seed= is a whole number from 0 to 2^63 - 1, not {seed}")
    bounded = lossless or max_error is not None
    if context is not None and not bounded:
        raise UsageError("context= is for lossless= and max_error=")
    if seconds is not None and bounded:
        raise UsageError("seconds= is not for lossless= and max_error=")
    if embed_sr and (bounded or sr is None):
        raise UsageError("embed_sr= is for files with a super-resolution model, not lossless or bounded ones")
    target_device = resolve_device(device)
    from .precision import as_fitted

    with as_fitted(target_device), Bar(progress) as bar:
        job = Job(_prepare(volume, fill), preset, sr, embed_sr, seconds, seed, target_device)
        factors = factors if factors is None else check_factors(factors, job.volume.shape)
        if job.span[0] == job.span[1] and not bounded:  # it is exact in the least file that there is
            target = ("psnr", psnr) if psnr is not None else ("ratio", ratio)
            promise = None if target[1] is None else Promise(target[0], target[1])
            return job.finish(job.fit(None, None, bar), promise, bar)
        if psnr is not None:
            return _reach_psnr(job, psnr, factors, bar)
        if ratio is not None:
            return _reach_ratio(job, ratio, factors, bar)
        if bounded:
            return _reach_bound(job, max_error or 0.0, context, factors, bar)
        size = job.preset.default_bytes(job.volume.data.size) or None
        if job.latents and size is not None:
            return job.finish(_latents_of_size(job, size, factors, bar), None, bar)
        return job.finish(job.fit(size, factors, bar), None, bar)


def _prepare(volume: Any, fill: float | None) -> Volume:
    """The input as a Volume of finite values within the format's limits."""
    result = volume if isinstance(volume, Volume) else Volume(volume)
    if max(result.shape) > LONGEST_AXIS or result.data.size > DEFAULT_LIMITS.max_voxels:
        raise InputError(
            f"a volume of {' x '.join(map(str, result.shape))} voxels is over the limits: "
            f"{LONGEST_AXIS} along an axis, {DEFAULT_LIMITS.max_voxels} in all"
        )
    if max(result.spacing) > LARGEST_SPACING or np.abs(result.affine).max() > LARGEST_AFFINE:
        raise InputError(f"spacing is at most {LARGEST_SPACING:g} mm, and the affine {LARGEST_AFFINE:g}")
    if result.data.dtype.kind == "f":
        bad = sum(int(np.count_nonzero(~np.isfinite(part))) for part in result.data)
        if bad and fill is None:
            raise InputError(f"{bad} voxels are NaN or infinite; name a value for them with fill=")
        if bad and fill is not None:
            if not math.isfinite(fill):
                raise UsageError(f"fill= must be finite, not {fill}")
            result = replace(result, data=np.nan_to_num(result.data, nan=fill, posinf=fill, neginf=fill))
        low, high = float(result.data.min()), float(result.data.max())
        if not (low >= -LARGEST_VALUE and high <= LARGEST_VALUE) or 0 < high - low < LEAST_RANGE:
            raise InputError(
                f"values from {low:g} to {high:g}: float32 is worked on as far as {LARGEST_VALUE:g}, and in "
                f"ranges of at least {LEAST_RANGE:g}"
            )
    return result


def _latents_of_size(job: Job, size: float, factors: Shape | None, bar: Bar, counted: int = 0) -> Attempt:
    """The grid of that many bytes that promises the least error at full size, and a model adapted to it.

    counted  bytes that were taken off before for an embedded model.
    """
    from .fit.latents import FIRST_STEP

    found: list[Coded] = []
    step, coding, points = FIRST_STEP, 0.0, 1
    trial = 0.0 if job.settings.seconds else job.preset.trial  # what has little time is fitted once
    for grid in job.grids(factors, job.preset.projections):
        finer = math.prod(grid.lr_shape) / points
        expected = grid.loss + coding * finer**ERROR_GROWTH
        if found and expected >= HOPELESS * min(coded.expected for coded in found):
            continue
        room = job.room(size, grid.factors, counted)
        with bar.stage("coding"):
            step, attempt = grid.of_size(room, max(step, FIRST_STEP / 30), ROUGH)
            error = job.squared_error(attempt, job.supported_model(grid.factors), sample=True)
        coded = Coded(grid, step, room, attempt, error)
        if found and not found[-1].roomy and coded.fuller(found[-1]):
            found.clear()
        elif found and not coded.close:
            continue
        if found and coded.fair > RIVAL * min(other.fair for other in found):
            break  # the finer, the worse
        coding, points = attempt.error, math.prod(grid.lr_shape)
        found = _rivals([*found, coded], trial)
    found = [_tuned(coded, bar) for coded in found]  # from which finer grids gain more
    if len(found) > 1:
        found = [_least(found, [_tried(job, coded, trial, bar).fair for coded in found])]
    return _adapted(job, found[0], bar)


def _rivals(found: list[Coded], trial: float) -> list[Coded]:
    """The best of grids, and those that may come to be better, where models are to be tried on them."""
    errors = [coded.fair for coded in found]
    if not trial:
        return [_least(found, errors)]
    return [coded for coded, error in zip(found, errors, strict=True) if error <= RIVAL * min(errors)]


def _least(found: list[Coded], errors: list[float]) -> Coded:
    """The one of the least error; a finer one only where that pays."""
    best = 0
    for i in range(1, len(found)):
        if errors[i] < BETTER * errors[best]:
            best = i
    return found[best]


def _tried(job: Job, coded: Coded, trial: float, bar: Bar) -> Coded:
    """With a model that was adapted to the grid in that share of the steps."""
    attempt = job.adapted(coded.attempt, coded.room, bar, trial)
    error = job.squared_error(attempt, job.supported_model(attempt.factors), sample=True)
    return replace(coded, attempt=attempt, error=error)


@dataclass(frozen=True)
class Coded:
    """A grid by latents of some step, of about `room` bytes; its error on a sample of slabs."""

    grid: Grid
    step: float
    room: float
    attempt: Attempt
    error: float

    @property
    def expected(self) -> float:
        """The mean squared error at full size that reduction and coding make together, about."""
        return self.grid.loss + self.attempt.error

    @property
    def fair(self) -> float:
        """The error as it would be of `room` bytes, for what coding makes of it goes with one over them."""
        share = self.attempt.error / self.expected if self.expected else 0.0
        return self.error * (1 + share * (self.attempt.size / self.room - 1))

    @property
    def close(self) -> bool:
        """Whether they take about as many."""
        return abs(math.log(self.attempt.size / self.room)) <= ROUGH

    @property
    def roomy(self) -> bool:
        """Whether the grid has room for as many."""
        return self.close and self.step >= FINEST_STEP

    def fuller(self, other: Coded) -> bool:
        """Whether it does more with them than another, which has not room for as many."""
        exhausted = not other.close and self.attempt.size < self.room
        return self.close or (exhausted and self.error < BETTER * other.error)


def _adapted(job: Job, coded: Coded, bar: Bar) -> Attempt:
    """With models adapted to it, and so many fewer bytes for the grid, which is corrected on the way."""
    attempt = job.adapted(coded.attempt, coded.room, bar)
    if not coded.close:
        return attempt
    size = coded.room - len(attempt.changes)
    grid, step, attempt = _corrected(job, coded.grid, coded.step, attempt, size, bar)
    if abs(attempt.size / coded.room - 1) > MISSED:
        with bar.stage("coding"):
            _, again = _coded_anew(grid, step, attempt, size, MISSED)
        attempt = min(attempt, again, key=lambda a: abs(a.size - coded.room))
    return attempt


def _tuned(coded: Coded, bar: Bar) -> Coded:
    """With a latent model fitted to the grid, in as many bytes; as it was, if that does not pay.

    The error on the sample is left as it was.
    """
    if not coded.close:
        return coded
    with bar.stage("tuning"):
        grid = coded.grid.tuned(coded.step, coded.attempt.size, first=True)
    if not grid.changes:
        return coded
    with bar.stage("coding"):
        step, attempt = grid.of_size(coded.room, coded.step, ROUGH)
    tuned = replace(coded, grid=grid, step=step, attempt=attempt)
    return tuned if tuned.close else coded


def _coded_anew(
    grid: Grid, step: float, attempt: Attempt, size: float, close: float | None = None
) -> tuple[float, Attempt]:
    """(step, a grid by latents of about `size` bytes), after what a like one took at a step."""
    from .fit.latents import BYTES_EXPONENT

    taken = attempt.size - len(attempt.changes)
    own_step, again = grid.of_size(size, step * (size / taken) ** (1 / BYTES_EXPONENT), close)
    return own_step, replace(again, changes=attempt.changes)


def _corrected(
    job: Job, grid: Grid, step: float, attempt: Attempt, size: float, bar: Bar
) -> tuple[Grid, float, Attempt]:
    """(the grid, its step, coded in about `size` bytes): corrected for what coding got wrong at full size.

    As it was, where that comes no closer. Then the latent model is fitted anew, if that pays.
    """

    def cost(coded: Attempt) -> float:
        return coded.size * job.sample_error(coded)

    if not job.corrections(grid.factors):
        return grid, step, attempt
    with bar.stage("correcting"):
        least = cost(attempt)
        for _ in range(job.corrections(grid.factors)):
            better: tuple[Grid, float, Attempt] | None = None
            for closer in grid.corrected(attempt):
                own_step, again = _coded_anew(closer, step, attempt, size)
                if (own := cost(again)) < least:
                    least, better = own, (closer, own_step, again)
            if better is None:
                break
            grid, step, attempt = better
    with bar.stage("tuning"):
        anew = grid.tuned(step, attempt.size - len(attempt.changes))
        if anew.changes:
            again = replace(anew.attempt(step), changes=attempt.changes)
            if cost(again) < least:
                grid, attempt = anew, again
    return grid, step, attempt


def _latents_of_error(job: Job, target: float, factors: Shape | None, bar: Bar) -> bytes:
    """The smallest file found whose PSNR is at least the target, by at most 0.2 dB more."""
    aim = 10 ** (-(target + PSNR_TOLERANCE / 2) / 10)
    scale = float(1 << base_network.CODE_BITS) ** 2
    found: list[tuple[Attempt, Grid, float]] = []
    least = math.inf
    with bar.stage("coding"):
        for grid in job.grids(factors, job.preset.projections):
            if grid.loss < 0.95 * aim:
                found.append(_of_error(grid, (aim - grid.loss) * scale))
                if len(found) > 2 and found[-1][0].size > found[-2][0].size > found[-3][0].size:
                    break
            elif grid.loss < least:
                least, closest = grid.loss, grid
        if not found and least < HOPEFUL * aim:  # an adapted model may gain as much
            found.append(_of_error(closest, LEFT_TO_CODING * aim * scale))
    if not found:
        which = f"the factors {factors}" if factors else "any grid that may be coded"
        raise EncodeError(
            f"a PSNR of {target:g} dB was not reached with {which}: "
            f"the reduction alone leaves {-10 * math.log10(least):.2f} dB"
        )
    attempt, grid, step = min(found, key=lambda pair: pair[0].size)
    with bar.stage("tuning"):
        grid = grid.tuned(step, attempt.size, first=True)
    if grid.changes:
        attempt = grid.attempt(step)
    attempt = job.adapted(attempt, attempt.size, bar)
    size = attempt.size - len(attempt.changes)
    grid, step, attempt = _corrected(job, grid, step, attempt, size, bar)
    middle, best = target + PSNR_TOLERANCE / 2, (math.inf, attempt)
    tried: list[tuple[float, float]] = []  # log10 of the step, dB reached at full size
    for _ in range(MOST_CODINGS):
        with bar.stage("measuring"):
            reached = _psnr(job, attempt)
        tried.append((math.log10(step), min(reached, 2 * middle)))  # it may be exact
        best = min(best, (abs(reached - middle), attempt), key=lambda pair: pair[0])
        if target - PSNR_SLACK <= reached <= target + PSNR_TOLERANCE:
            break
        step = 10 ** _next_step(tried, middle)
        attempt = replace(grid.attempt(step), changes=attempt.changes)
    return job.finish(best[1], Promise("psnr", target), bar)


def _of_error(grid: Grid, error: float) -> tuple[Attempt, Grid, float]:
    """(the grid coded with about that mean squared error, in codes; the grid; the step)."""
    from .fit.latents import ERROR_EXPONENT, FIRST_STEP, step_for

    step = step_for(grid.analysis.error, error, ERROR_EXPONENT, FIRST_STEP)
    return grid.attempt(step), grid, step


def _next_step(tried: list[tuple[float, float]], target: float) -> float:
    """log10 of the step to try next: between the two about the target, or as far beyond as they tell."""
    fine = max((t for t in tried if t[1] >= target), default=None)
    coarse = min((t for t in tried if t[1] < target and (fine is None or t[0] > fine[0])), default=None)
    if fine and coarse:
        share = (fine[1] - target) / (fine[1] - coarse[1])
        return fine[0] + min(max(share, 0.15), 0.85) * (coarse[0] - fine[0])
    (step, reached), *others = sorted(tried, key=lambda t: abs(t[1] - target))
    fall = (others[0][1] - reached) / (step - others[0][0]) if others else DECIBELS_PER_DECADE
    least, most = FALLS
    return step + min(max((reached - target) / min(max(fall, least), most), -0.6), 0.6)


def _reach_ratio(job: Job, ratio: float, factors: Shape | None, bar: Bar) -> bytes:
    """A file of raw bytes / ratio, to within 5%."""
    raw = job.volume.data.nbytes
    overhead, without = _overhead(job, job.models.get(True)), _overhead(job, None)
    least = LEAST_BYTES["latents" if job.latents else "siren"]
    if raw / ratio - overhead < least:
        job.models, overhead = {}, without  # there is no room for what names a model
    if raw / ratio - overhead < least:
        best = 0.99 * raw / (overhead + least)
        raise EncodeError(
            f"ratio {ratio:g} leaves {raw / ratio:.0f} bytes, and header and metadata alone take {overhead}; "
            f"a ratio of about {best:.3g} can be reached"
        )
    if job.latents:
        counted = len(job.models[True].file or b"") if job.embed_sr and True in job.models else 0
        attempt = _latents_of_size(job, raw / ratio - overhead, factors, bar, counted)
        if overhead - without > RATIO_TOLERANCE / 2 * raw / ratio and job.best_model(attempt) is None:
            job.models = {}  # it does not help, and leaves room for more
            attempt = _latents_of_size(job, raw / ratio - without, factors, bar)
        return job.finish(attempt, Promise("ratio", ratio), bar)
    attempt = job.fit(raw / ratio - overhead, factors, bar)
    attempt = _trim(attempt, raw / ratio - overhead)
    return job.finish(attempt, Promise("ratio", ratio), bar)


def _overhead(job: Job, model: SRModel | None) -> int:
    """Bytes of a file of this model but its base network, about: what its bundle takes is not known yet."""
    from .coding.wavelet import halving
    from .fit.train import flat
    from .resample import lr_shape

    a, b, c, d, e, f = (float(np.float32(math.sqrt(n))) for n in (2, 3, 5, 6, 7, 8))
    measured = Measured(a, 997.0, b, c, d, 499.0, e, 300, f, Promise("ratio", 700.0))
    attempt: Attempt = Fitted.of((1, 1, 1), flat())
    if job.latents:
        masks = halving(lr_shape(job.volume.shape, (2, 2, 2)), job.volume.spacing)
        bands = sum((1 << mask.bit_count()) - 1 for mask in masks) + 1
        steps = tuple(2999 - number // 3 for number in range(bands))
        header = LatentHeader(masks, steps, (0,) * bands, 99, job.latent_model.reference)
        sections = (header.SECTION, header.pack()), ("LATD", b"")
        attempt = Attempt(factors=(1, 1, 1), base="latents", sections=sections)
    return len(job.build(attempt, model, measured)) - attempt.size


def _trim(attempt: Fitted, size: float) -> Fitted:
    """The network rounded anew where the fit's own rounding missed `size` bytes."""
    from .fit import quantise

    fit, aim = attempt.fit, size
    for _ in range(4):
        now = len(base_network.pack(fit.network))
        if abs(now - size) <= RATIO_TOLERANCE / 4 * size:
            break
        aim *= size / now
        noise = quantise.noise_for_bytes(fit.float_net, fit.sensitivity, aim)
        fit = fit.requantised(noise)
    return Fitted.of(attempt.factors, fit)


def _reach_psnr(job: Job, target: float, factors: Shape | None, bar: Bar) -> bytes:
    """The smallest file found that reaches the PSNR, by at most 0.2 dB more."""
    if job.latents:
        return _latents_of_error(job, target, factors, bar)
    size = job.preset.default_bytes(job.volume.data.size) or 4000.0
    if job.settings.seconds:
        job.settings = replace(job.settings, seconds=job.settings.seconds / MOST_FITS)
    tried: list[tuple[float, float]] = []  # log2 of the bytes, dB
    enough: tuple[float, Fitted] | None = None
    for _ in range(MOST_FITS):
        attempt = job.fit(size, factors, bar)
        factors = attempt.factors
        with bar.stage("measuring"):
            reached = _psnr(job, attempt)
        tried.append((math.log2(size), reached))
        if reached >= target and (enough is None or reached < enough[0]):
            enough = reached, attempt
        if target <= reached <= target + OVERSHOOT:
            break
        size = max(LEAST_BYTES["siren"], 2 ** _next_size(tried, target + OVERSHOOT / 2))
    if enough is None:
        size, best = max(tried, key=lambda t: t[1])
        raise EncodeError(
            f"a PSNR of {target:g} dB was not reached; the best was {best:.2f} dB with {2**size:.0f} bytes"
        )
    with bar.stage("measuring"):
        attempt = _coarsened(job, enough[1], target)
    return job.finish(attempt, Promise("psnr", target), bar)


def _next_size(tried: list[tuple[float, float]], target: float) -> float:
    """log2 of the bytes to try next: on the line through the two attempts that are closest to the target."""
    nearest = sorted(tried, key=lambda t: abs(t[1] - target))[:2]
    (size, reached), slope = nearest[0], 1 / DECIBELS_PER_DOUBLING
    if len(nearest) == 2 and (nearest[0][1] - nearest[1][1]) * (nearest[0][0] - nearest[1][0]) > 0:
        slope = (nearest[0][0] - nearest[1][0]) / (nearest[0][1] - nearest[1][1])
    return size + max(-2.0, min(2.0, slope * (target - reached)))


def _psnr(job: Job, attempt: Attempt) -> float:
    """DB of the whole volume as it would be written; infinite when exact."""
    low, high = job.span
    result = decibels(job.squared_error(attempt, job.best_model(attempt)), high - low)
    return math.inf if result is None else result


def _coarsened(job: Job, attempt: Fitted, target: float) -> Fitted:
    """The same network, rounded more coarsely as long as it stays above the target: fewer bytes."""
    low, high, best = attempt.fit.noise, attempt.fit.noise * 64, attempt
    if _psnr(job, attempt) <= target + PSNR_TOLERANCE:
        return attempt
    for _ in range(10):
        noise = math.sqrt(low * high)
        trial = Fitted.of(attempt.factors, attempt.fit.requantised(noise))
        reached = _psnr(job, trial)
        low, high = (noise, high) if reached >= target else (low, noise)
        if reached >= target:
            best = trial
            if reached <= target + PSNR_TOLERANCE / 2:
                break
    return best


def _reach_bound(
    job: Job, bound: float, context: ContextModel | None, factors: Shape | None, bar: Bar
) -> bytes:
    """A file of which no voxel differs by more than `bound`; 0: lossless."""
    from . import residual
    from .coding.levels import Levels
    from .fit.tuning import tune
    from .models.registry import default_context

    data = job.volume.data
    if data.dtype.kind == "f":
        if bound == 0.0:
            raise InputError("lossless= is for integers of up to 16 bits; for float32 there is max_error=")
        levels = Levels.of_floats(data, bound)
    else:
        levels = Levels.of_integers(data, int(min(bound, LARGEST_ERROR)))
    attempt = job.sketch(factors, bar)
    model, tuned = context or default_context(), None
    if data.size >= TUNED_VOXELS:
        with bar.stage("tuning"):
            tuned = tune(model, job.volume, levels, job.settings.seed, job.preset.tuning)
    with bar.stage("coding"):
        embed = context is not None
        job.bricks = residual.write(job.volume, levels, model, job.device, bar.set, tuned=tuned, embed=embed)
    return job.finish(attempt, Promise("max_error", bound), bar)
