"""From a volume to the bytes of a file: plan, fit, quantise, choose, write, and measure what was written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .coding import network as base_network
from .container import layout
from .container.headers import (
    FACTORS,
    LARGEST_AFFINE,
    LARGEST_ERROR,
    LARGEST_SPACING,
    LONGEST_AXIS,
    Measured,
    Promise,
    Provenance,
    VolumeHeader,
)
from .container.limits import DEFAULT_LIMITS
from .container.metadata import pack_metadata
from .decode import File, resolve_device
from .errors import EncodeError, InputError, UsageError
from .metrics import Comparison
from .metrics import psnr as decibels
from .progress import Bar
from .resample import lr_shape
from .volume import DTYPES, Array, Volume

if TYPE_CHECKING:
    import torch

    from .fit.latents import Analysis
    from .fit.train import FitResult
    from .models.context import ContextModel
    from .models.sr import SRModel

Shape = tuple[int, int, int]

RATIO_TOLERANCE = 0.05
PSNR_TOLERANCE = 0.2
LEAST_NETWORK = 120
"""Bytes below which not even the narrowest network fits."""
MOST_FITS = 6
"""How many networks are fitted, at the most, to reach a PSNR."""
DECIBELS_PER_DOUBLING = 2.0
"""How much the PSNR is expected to rise with twice the bytes, until two sizes have been measured."""
OVERSHOOT = 1.0
"""Decibels above the target up to which coarser rounding brings a network down to it."""
ERROR_GROWTH = 0.3
"""A finer grid of the same bytes is expected to be coded worse: by this power of its points."""
SAMPLE_SLABS = 4
SKETCH_VOXELS = 1 << 18
"""A lossless or bounded file of fewer voxels has no base network to speak of."""
SKETCH_BYTES, SKETCH_RATIO = 4000, 2000
"""Bytes of such a file's base network, at most; and the raw bytes over them, at least."""
SKETCH_STEPS = 300
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
    factors  how much smaller the LR grid is along (z, y, x), of 1, 2 and 4; default: measured and chosen.
    sr       "auto": the shipped super-resolution model. A model, or None. Used only where it beats Lanczos.
    embed_sr store the model in the file, so that it needs nothing else.
    context  the context model of lossless and bounded files; None: the shipped one. One of your own is stored
             in the file.
    seconds  time for the fit, instead of the preset's number of steps (then two runs differ).
    seed     same seed, device and versions: same bytes.
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
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name}= is a positive number, not {value}")
    job = _Job(_prepare(volume, fill), preset, sr, embed_sr, seconds, seed, resolve_device(device))
    factors = factors if factors is None else _check_factors(factors, job.volume.shape)
    with Bar(progress) as bar:
        if psnr is not None:
            return _reach_psnr(job, psnr, factors, bar)
        if ratio is not None:
            return _reach_ratio(job, ratio, factors, bar)
        if max_error is not None or lossless:
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
    return result


def _check_factors(factors: Sequence[int], shape: Shape) -> Shape:
    """Factors that the format has, and no larger ones than an axis has voxels."""
    if len(factors) != 3 or any(f not in FACTORS for f in factors):
        raise UsageError(f"factors= are three of {FACTORS} (z, y, x), not {factors}")
    z, y, x = (max(k for k in FACTORS if k <= f and k <= n) for f, n in zip(factors, shape, strict=True))
    return z, y, x


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """What holds the LR grid, and the grid's factors.

    base      the kind of what holds it, and `sections` its bytes.
    codes     what it decodes to, where that is known.
    error     the mean squared error that is expected at full size, in units of the range.
    """

    factors: Shape
    base: str
    sections: tuple[tuple[str, bytes], ...]
    codes: torch.Tensor | None = None
    error: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of what holds the grid."""
        return sum(len(data) for _, data in self.sections)


@dataclass(frozen=True, kw_only=True)
class _Network(_Attempt):
    """A network, as it was fitted."""

    fit: FitResult

    @classmethod
    def of(cls, factors: Shape, fit: FitResult) -> _Network:
        """Fitted to the grid of these factors."""
        section = base_network.SECTION, base_network.pack(fit.network)
        return cls(factors=factors, base="siren", sections=(section,), fit=fit)


class _Job:
    """One volume on its way into a file."""

    def __init__(
        self,
        volume: Volume,
        preset: str,
        sr: SRModel | str | None,
        embed_sr: bool,
        seconds: float | None,
        seed: int,
        device: torch.device,
    ) -> None:
        from .fit.plan import preset_of
        from .models import registry

        self.volume, self.device, self.embed_sr = volume, device, embed_sr
        self.preset_name, self.preset = preset, preset_of(preset)
        self.settings = replace(self.preset.settings, seed=seed, seconds=seconds)
        self.span = (float(volume.data.min()), float(volume.data.max()))
        if isinstance(sr, str):
            if sr != "auto":
                raise UsageError(f"sr= is a model, None or 'auto', not {sr!r}")
            sr = registry.default_model()
        self.model = sr.to(device) if sr is not None else None
        self.bricks: list[tuple[str, bytes]] = []

    @property
    def latents(self) -> bool:
        """Whether latents are to hold the LR grid."""
        return self.preset.base == "latents" and self.span[0] < self.span[1]

    def fit(
        self, size: float | None, factors: Shape | None, bar: Bar, least_psnr: float | None = None
    ) -> _Network:
        """A network of about `size` bytes (None: the preset's own), on the grid that suits it best."""
        from .fit import plan, train

        settings, data, span = self.settings, self.volume.data, self.span
        if span[0] == span[1]:
            return _Network.of((1, 1, 1), train.flat())
        if size is not None:
            width = plan.width_for(size, settings.depth)
            settings = replace(settings, width=width, target_bytes=size)
        if factors is None and self.preset.factors is not None:
            factors = _check_factors(self.preset.factors, self.volume.shape)
        if factors is None:
            with bar.stage("choosing the grid") as report:
                factors = plan.choose_factors(
                    data, span, settings, self.model, self.device, least_psnr, report
                )
        with bar.stage("fitting") as report:
            grid = plan.normalised_grid(data, span, factors, self.device)
            return _Network.of(factors, train.fit(grid, settings, self.device, report))

    def grids(self, factors: Shape | None) -> Iterator[_Grid]:
        """The LR grids that could be coded, from the coarsest to the finest."""
        from .fit import plan

        for choice in [factors] if factors else plan.latent_factors(self.volume.shape):
            yield _Grid(self, choice)

    def sketch(self, factors: Shape | None, bar: Bar) -> _Network:
        """A small network for the preview of a volume whose bricks hold the rest: quickly made, few bytes."""
        data = self.volume.data
        if data.size < SKETCH_VOXELS:
            from .fit.train import flat

            return _Network.of((1, 1, 1), flat())
        coarse = factors or _check_factors((FACTORS[2],) * 3, self.volume.shape)
        self.settings = replace(self.settings, steps=min(self.settings.steps, SKETCH_STEPS), depth=3)
        size = min(SKETCH_BYTES, data.nbytes / SKETCH_RATIO)
        return self.fit(size, coarse, bar)

    def finish(self, attempt: _Attempt, promise: Promise | None, bar: Bar) -> bytes:
        """The file, after it was decoded and measured. EncodeError where it does not keep the promise."""
        with bar.stage("verifying"):
            model = None if self.bricks else self.supported_model(attempt)
            measured = self.measure(attempt, model, promise)
            if model is not None and (measured.psnr or math.inf) <= (measured.psnr_lanczos or math.inf):
                model = None
                measured = self.measure(attempt, None, promise)
        data = self.build(attempt, model, measured)
        _check_promise(promise, measured, self.volume.data.nbytes / len(data))
        return data

    def build(self, attempt: _Attempt, model: SRModel | None, measured: Measured | None) -> bytes:
        """The bytes of a file."""
        volume, steps = self.volume, attempt.fit.steps if isinstance(attempt, _Network) else 0
        header = VolumeHeader(
            shape=volume.shape,
            dtype=next(name for name, dtype in DTYPES.items() if dtype == volume.data.dtype),
            range=self.span,
            factors=attempt.factors,
            base=attempt.base,
            spacing=volume.spacing,
            affine=tuple(volume.affine[:3].ravel().tolist()),
            slope=volume.slope,
            intercept=volume.intercept,
            sr=model.reference if model else None,
        )
        provenance = Provenance(
            software=f"inrformat {version('inrformat')}",
            preset=self.preset_name,
            seed=self.settings.seed,
            device=self.device.type,
            omega=self.settings.omega if steps else 0.0,
            steps=steps,
        )
        sections = [("HEAD", header.pack()), *attempt.sections, *self.bricks]
        if model is not None and self.embed_sr:
            sections.append(("SRMD", model.file or b""))
        metadata = {key: value for key, value in volume.metadata.items() if key != "lossy"}
        if metadata:
            sections.append(("meta", pack_metadata(metadata)))
        if measured is not None:
            sections.append(("meas", measured.pack()))
        if steps or not self.bricks:  # of a file that is nothing but bricks there is nothing to tell
            sections.append(("prov", provenance.pack()))
        return layout.build(sections)

    def open(self, attempt: _Attempt, model: SRModel | None) -> File:
        """The file as a decoder sees it."""
        data = self.build(attempt, model, None)
        return File(data, device=str(self.device), model=model, codes=attempt.codes)

    def supported_model(self, attempt: _Attempt) -> SRModel | None:
        """The super-resolution model, if it does the factors."""
        return self.model if self.model is not None and self.model.supports(attempt.factors) else None

    def best_model(self, attempt: _Attempt) -> SRModel | None:
        """The super-resolution model, if it beats Lanczos on a sample of slabs."""
        model = self.supported_model(attempt)
        if model is None:
            return None
        ours, lanczos = (self.squared_error(attempt, m, sample=True) for m in (model, None))
        return model if ours < lanczos else None

    def squared_error(self, attempt: _Attempt, model: SRModel | None, *, sample: bool = False) -> float:
        """The mean over the decoded volume, or over a sample of its slabs, in stored units."""
        total, count = 0.0, 0
        with self.open(attempt, model) as file:
            for z0, z1, slab in _sampled(file) if sample else file.slabs():
                error = slab.astype(np.float32) - self.volume.data[z0:z1]
                total += float(np.square(error, out=error).sum(dtype=np.float64))
                count += error.size
        return total / count

    def measure(self, attempt: _Attempt, model: SRModel | None, promise: Promise | None) -> Measured:
        """What the written file decodes to, against the original."""
        data, (low, high) = self.volume.data, self.span
        result = Comparison(len(data), high - low, data[0].size)
        with self.open(replace(attempt, codes=None), model) as file:
            for z0, z1, slab in file.slabs():
                result.add(z0, data[z0:z1], slab)
            lr_psnr = self.lr_psnr(file)
        lanczos = result.psnr if not self.bricks else None
        if model is not None:
            lanczos = decibels(self.squared_error(attempt, None), result.peak)
        return Measured(
            psnr=result.psnr,
            peak=result.peak,
            psnr_lanczos=lanczos,
            lr_psnr=lr_psnr,
            ssim=float(result.ssim.mean()),
            max_error=result.max_error,
            mean_error=result.absolute / result.voxels,
            worst_slice=result.worst_slice,
            worst_slice_psnr=result.worst_slice_psnr,
            promise=promise,
        )

    def lr_psnr(self, file: File) -> float | None:
        """The exact network against the Lanczos grid, dB with the volume's own range as peak."""
        from .fit.plan import normalised_grid

        if self.span[0] == self.span[1]:
            return None
        grid = normalised_grid(self.volume.data, self.span, file.header.factors, self.device)
        codes = file.codes().to(grid.device).float() / (1 << base_network.CODE_BITS)
        return decibels(float((codes - grid).double().square().mean()), 1.0)


class _Grid:
    """An LR grid on its way into latents."""

    def __init__(self, job: _Job, factors: Shape) -> None:
        self.job, self.factors = job, factors
        self.lr_shape = lr_shape(job.volume.data.shape, factors)

    @cached_property
    def loss(self) -> float:
        """What the reduction alone loses, in squared units of the range, on a sample of slabs."""
        from .fit.plan import resampling_loss

        job = self.job
        if max(self.factors) == 1:
            return 0.0
        rounds = job.preset.projections
        return resampling_loss(job.volume.data, job.span, self.factors, job.model, job.device, rounds)

    @cached_property
    def codes(self) -> torch.Tensor:
        """The grid itself, in float32."""
        from .fit.plan import normalised_grid, projected

        job = self.job
        grid = normalised_grid(job.volume.data, job.span, self.factors, job.device)
        if max(self.factors) > 1:
            model = job.model if job.model is not None and job.model.supports(self.factors) else None
            rounds = job.preset.projections
            grid = projected(grid, job.volume.data, job.span, self.factors, model, rounds)
        return grid.mul_(1 << base_network.CODE_BITS)

    @cached_property
    def analysis(self) -> Analysis:
        """Its wavelet coefficients."""
        from .fit.latents import Analysis

        spacing = [s * f for s, f in zip(self.job.volume.spacing, self.factors, strict=True)]
        return Analysis(self.codes, spacing)

    def attempt(self, step: float) -> _Attempt:
        """The grid by latents of that step."""
        from . import latents
        from .models.registry import default_latents

        model = default_latents().to(self.job.device)
        sections, codes = latents.write(self.analysis.latents(step), model)
        coding = (codes - self.codes).div_(1 << base_network.CODE_BITS).double().square_().mean()
        return _Attempt(
            factors=self.factors,
            base="latents",
            sections=tuple(sections),
            codes=codes,
            error=self.loss + float(coding),
        )

    def of_size(self, size: float, first: float) -> tuple[float, _Attempt]:
        """(step, the grid by latents of that many bytes)."""
        from .fit.latents import BYTES_EXPONENT, step_for

        attempts: dict[float, _Attempt] = {}

        def measure(step: float) -> float:
            attempts[step] = self.attempt(step)
            return attempts[step].size

        step = step_for(measure, size, BYTES_EXPONENT, first)
        step = min(attempts, key=lambda s: abs(attempts[s].size - size))
        return step, attempts[step]


def _latents_of_size(job: _Job, size: float, factors: Shape | None, bar: Bar) -> _Attempt:
    """The grid of that many bytes that promises the least error at full size."""
    from .fit.latents import FIRST_STEP
    from .fit.plan import WORTHWHILE

    best: _Attempt | None = None
    step, coding, points = FIRST_STEP, 0.0, 1
    for grid in job.grids(factors):
        finer = math.prod(grid.lr_shape) / points
        expected = grid.loss + coding * finer**ERROR_GROWTH
        if best is not None and expected >= WORTHWHILE * best.error:
            continue
        with bar.stage("coding"):
            step, attempt = grid.of_size(size, max(step, FIRST_STEP / 30))
        if best is not None and not _close(attempt.size, size):
            continue
        if best is not None and not _close(best.size, size):
            best = None  # that grid has not room for as many bytes
        coding, points = attempt.error - grid.loss, math.prod(grid.lr_shape)
        if best is None or attempt.error < best.error:
            best = attempt
    assert best is not None
    return best


def _close(size: float, target: float) -> bool:
    return abs(size / target - 1) <= RATIO_TOLERANCE


def _latents_of_error(job: _Job, target: float, factors: Shape | None, bar: Bar) -> bytes:
    """The smallest file found whose PSNR is at least the target, by at most 0.2 dB more."""
    from .fit.latents import ERROR_EXPONENT, FIRST_STEP, step_for

    aim = 10 ** (-(target + PSNR_TOLERANCE / 2) / 10)
    scale = float(1 << base_network.CODE_BITS) ** 2
    found: list[tuple[_Attempt, _Grid]] = []
    with bar.stage("coding"):
        for grid in job.grids(factors):
            if grid.loss < 0.95 * aim:
                step = step_for(grid.analysis.error, (aim - grid.loss) * scale, ERROR_EXPONENT, FIRST_STEP)
                found.append((grid.attempt(step), grid))
                if len(found) > 2 and found[-1][0].size > found[-2][0].size > found[-3][0].size:
                    break
    if not found:
        raise EncodeError(f"a PSNR of {target:g} dB was not reached with the factors {factors}")
    attempt, grid = min(found, key=lambda pair: pair[0].size)
    wanted = aim
    for _ in range(MOST_FITS):
        with bar.stage("measuring"):
            reached = _psnr(job, attempt)
        if target <= reached <= target + PSNR_TOLERANCE:
            break
        wanted *= min(8.0, aim / max(10 ** (-reached / 10), aim / 8))
        within = max(wanted - grid.loss, 0.02 * wanted)
        step = step_for(grid.analysis.error, within * scale, ERROR_EXPONENT, FIRST_STEP)
        attempt = grid.attempt(step)
    return job.finish(attempt, Promise("psnr", target), bar)


def _sampled(file: File) -> Iterator[tuple[int, int, Array]]:
    """(z0, z1, voxels) of a few slabs, evenly spread over the volume."""
    nz, ny, nx = file.shape
    depth = min(nz, 4 * file.header.factors[0])
    for start in np.unique(np.linspace(0, nz - depth, min(SAMPLE_SLABS, -(-nz // depth))).astype(int)):
        z0, z1 = int(start), int(start) + depth
        yield z0, z1, file.region(((z0, z1), (0, ny), (0, nx)))


def _reach_ratio(job: _Job, ratio: float, factors: Shape | None, bar: Bar) -> bytes:
    """A file of raw bytes / ratio, to within 5%."""
    raw = job.volume.data.nbytes
    overhead = _overhead(job)
    if raw / ratio - overhead < LEAST_NETWORK:
        best = raw / (overhead + LEAST_NETWORK)
        raise EncodeError(
            f"ratio {ratio:g} leaves {raw / ratio:.0f} bytes, and header and metadata alone take {overhead}; "
            f"a ratio of about {best:.3g} can be reached"
        )
    if job.latents:
        attempt = _latents_of_size(job, raw / ratio - overhead, factors, bar)
        return job.finish(attempt, Promise("ratio", ratio), bar)
    attempt = job.fit(raw / ratio - overhead, factors, bar)
    attempt = _trim(attempt, raw / ratio - overhead)
    return job.finish(attempt, Promise("ratio", ratio), bar)


def _overhead(job: _Job) -> int:
    """Bytes of a file apart from its base network."""
    from .fit.train import flat

    model = job.model
    measured = Measured(50.5, 1.5, 50.5, 50.5, 0.5, 1.5, 1.5, 300, 50.5, Promise("ratio", 1.5))
    attempt: _Attempt = _Network.of((1, 1, 1), flat())
    if job.latents:
        nothing = tuple((section, b"") for section in ("LATN", "LATD"))
        attempt = _Attempt(factors=(1, 1, 1), base="latents", sections=nothing)
    return len(job.build(attempt, model, measured)) - attempt.size


def _trim(attempt: _Network, size: float) -> _Network:
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
    return _Network.of(attempt.factors, fit)


def _reach_psnr(job: _Job, target: float, factors: Shape | None, bar: Bar) -> bytes:
    """The smallest file found that reaches the PSNR, by at most 0.2 dB more."""
    if job.latents:
        return _latents_of_error(job, target, factors, bar)
    size = job.preset.default_bytes(job.volume.data.size) or 4000.0
    tried: list[tuple[float, float]] = []  # log2 of the bytes, dB
    enough: tuple[float, _Network] | None = None
    for _ in range(MOST_FITS):
        attempt = job.fit(size, factors, bar, least_psnr=target)
        factors = attempt.factors
        with bar.stage("measuring"):
            reached = _psnr(job, attempt)
        tried.append((math.log2(size), reached))
        if reached >= target and (enough is None or reached < enough[0]):
            enough = reached, attempt
        if target <= reached <= target + OVERSHOOT:
            break
        size = max(LEAST_NETWORK, 2 ** _next_size(tried, target + OVERSHOOT / 2))
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


def _psnr(job: _Job, attempt: _Attempt) -> float:
    """DB of the whole volume as it would be written; infinite when exact."""
    low, high = job.span
    result = decibels(job.squared_error(attempt, job.best_model(attempt)), high - low)
    return math.inf if result is None else result


def _coarsened(job: _Job, attempt: _Network, target: float) -> _Network:
    """The same network, rounded more coarsely as long as it stays above the target: fewer bytes."""
    low, high, best = attempt.fit.noise, attempt.fit.noise * 64, attempt
    if _psnr(job, attempt) <= target + PSNR_TOLERANCE:
        return attempt
    for _ in range(10):
        noise = math.sqrt(low * high)
        trial = _Network.of(attempt.factors, attempt.fit.requantised(noise))
        reached = _psnr(job, trial)
        low, high = (noise, high) if reached >= target else (low, noise)
        if reached >= target:
            best = trial
            if reached <= target + PSNR_TOLERANCE / 2:
                break
    return best


def _reach_bound(
    job: _Job, bound: float, context: ContextModel | None, factors: Shape | None, bar: Bar
) -> bytes:
    """A file of which no voxel differs by more than `bound`; 0: lossless."""
    from . import residual
    from .coding.levels import Levels
    from .fit.context import tune
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


def _check_promise(promise: Promise | None, measured: Measured, ratio: float) -> None:
    """EncodeError unless the target was reached."""
    if promise is None:
        return
    value = promise.value
    if promise.kind == "ratio" and abs(ratio / value - 1) > RATIO_TOLERANCE:
        raise EncodeError(f"a ratio of {value:g} was not reached; the best was {ratio:.4g}")
    if promise.kind == "max_error" and measured.max_error > value:
        raise EncodeError(f"an error of {value:g} was not kept; the greatest was {measured.max_error:g}")
    if promise.kind == "psnr":
        reached = math.inf if measured.psnr is None else measured.psnr
        if not value - 0.01 <= reached <= value + PSNR_TOLERANCE:
            nearest = "exact" if reached == math.inf else f"{reached:.2f} dB"
            raise EncodeError(f"a PSNR of {value:g} dB was not reached; the nearest was {nearest}")
