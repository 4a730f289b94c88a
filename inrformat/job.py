"""One volume on its way into a file: what may hold its LR grid, as bytes, and what those decode to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from .coding import network as base_network
from .container import layout
from .container.bundle import bundled
from .container.headers import (
    BUNDLED,
    FACTORS,
    PSNR_SLACK,
    PSNR_TOLERANCE,
    RATIO_TOLERANCE,
    Measured,
    Promise,
    Provenance,
    VolumeHeader,
)
from .container.limits import DEFAULT_LIMITS
from .container.metadata import pack_metadata
from .decode import File
from .errors import EncodeError, UsageError
from .metrics import Comparison, activity, slab_starts
from .metrics import psnr as decibels
from .positions import thinned
from .progress import Bar
from .resample import lr_shape
from .volume import DTYPES, Array, Volume

if TYPE_CHECKING:
    import torch

    from .fit.latents import Analysis
    from .fit.train import FitResult
    from .models.latents import LatentModel
    from .models.sr import SRModel

Shape = tuple[int, int, int]

SAMPLE_SLABS, SAMPLE_SLICES = 4, 8
"""The same slices, whatever the factors: their errors are compared."""
SKETCH_VOXELS = 1 << 18
"""A lossless or bounded file of fewer voxels has no preview to speak of."""
SKETCH_BYTES, SKETCH_RATIO = (400, 4000), 5000
"""Bytes of what holds such a file's preview: at least, at most; between them, the raw bytes over so many."""
LEAST_ADAPTED = 6000
"""In files of fewer bytes there is no room for changes to a model."""
SKETCH_STEPS = 300
FIRST_TUNING = 0.2
"""Of the steps in which a latent model is fitted: before a grid is corrected."""
TUNING_SHARE = 0.15
"""Of the time, where it is limited: for the latent model, once or twice; the rest is for the other."""
FURTHER = 1.25
"""How far beyond the best place a corrected grid is tried, for coding takes it some of the way back: of 1,
1.1, 1.2, 1.25 and 1.4 times a head phantom took this best (by 0.17 dB), a chest CT 1 to 1.15."""


def check_factors(factors: Sequence[int], shape: Shape) -> Shape:
    """Factors that the format has, and no larger ones than an axis has voxels."""
    if len(factors) != 3 or any(f not in FACTORS for f in factors):
        raise UsageError(f"factors= are three of {FACTORS} (z, y, x), not {factors}")
    z, y, x = (max(k for k in FACTORS if k <= f and k <= n) for f, n in zip(factors, shape, strict=True))
    return z, y, x


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What holds the LR grid, and the grid's factors.

    base      the kind of what holds it, and `sections` its bytes.
    codes     what it decodes to, where that is known.
    error     the mean squared error of the LR grid, in units of the range.
    magnitude of its latents, if it has any; see fit.latents.
    changes   the section SRTU: what it changes in the super-resolution model; empty: nothing.
    """

    factors: Shape
    base: str
    sections: tuple[tuple[str, bytes], ...]
    codes: torch.Tensor | None = None
    error: float = 0.0
    magnitude: float = 0.0
    changes: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of what holds the grid, without what is bundled, and of the changes to a model."""
        return sum(len(data) for name, data in self.sections if name not in BUNDLED) + len(self.changes)


@dataclass(frozen=True, kw_only=True)
class Fitted(Attempt):
    """A network, as it was fitted."""

    fit: FitResult

    @classmethod
    def of(cls, factors: Shape, fit: FitResult) -> Fitted:
        """Fitted to the grid of these factors."""
        section = base_network.SECTION, base_network.pack(fit.network)
        return cls(factors=factors, base="siren", sections=(section,), fit=fit)


class Job:
    """One volume on its way into a file."""

    models: dict[bool, SRModel]
    """Super-resolution, by whether the grid is smaller than the volume; if not, it undoes what coding did."""

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
        from .fit.latents import BYTES_PER_MAGNITUDE
        from .fit.plan import preset_of
        from .models import registry

        self.volume, self.device, self.embed_sr = volume, device, embed_sr
        self.preset_name, self.preset = preset, preset_of(preset)
        self.settings = replace(self.preset.settings, seed=seed, seconds=seconds)
        self.span = (float(volume.data.min()), float(volume.data.max()))
        if isinstance(sr, str):
            if sr != "auto":
                raise UsageError(f"sr= is a model, None or 'auto', not {sr!r}")
            enlarging, restoring = registry.default_model(), registry.default_restorer()
            self.models = {True: enlarging.to(device), False: restoring.to(device)}
        else:
            self.models = {} if sr is None else dict.fromkeys((True, False), sr.on(device))
        self.bricks: list[tuple[str, bytes]] = []
        self.bytes_per_magnitude = BYTES_PER_MAGNITUDE

    @property
    def latents(self) -> bool:
        """Whether latents are to hold the LR grid."""
        return self.preset.base == "latents" and self.span[0] < self.span[1]

    def fit(self, size: float | None, factors: Shape | None, bar: Bar) -> Fitted:
        """A network of about `size` bytes, on the grid of the factors; None: those of the preset."""
        from .fit import plan, train

        settings, data, span = self.settings, self.volume.data, self.span
        if span[0] == span[1]:
            return Fitted.of((1, 1, 1), train.flat())
        if size is not None:
            width = plan.width_for(size, settings.depth)
            settings = replace(settings, width=width, target_bytes=size)
        factors = factors or check_factors(self.preset.factors, self.volume.shape)
        with bar.stage("fitting") as report:
            grid = plan.normalised_grid(data, span, factors, self.device)
            return Fitted.of(factors, train.fit(grid, settings, self.device, report))

    def grids(self, factors: Shape | None, projections: int) -> Iterator[Grid]:
        """The LR grids that could be coded, from the coarsest to the finest."""
        from .fit import plan

        shape, most = self.volume.shape, DEFAULT_LIMITS.max_latents
        choices = [factors] if factors else plan.latent_factors(shape)
        there = [choice for choice in choices if math.prod(lr_shape(shape, choice)) <= most]
        if not there:
            raise EncodeError(f"no grid of at most {most} latents has the factors {choices[0]}")
        yield from (Grid(self, choice, projections) for choice in there)

    def sketch(self, factors: Shape | None, bar: Bar) -> Attempt:
        """A coarse grid for the preview of a volume whose bricks hold the rest: quickly made, few bytes."""
        from .coding.latents import PREVIEW_POINTS
        from .fit.latents import FIRST_STEP
        from .fit.train import flat

        data = self.volume.data
        if data.size < SKETCH_VOXELS or self.span[0] == self.span[1]:
            return Fitted.of((1, 1, 1), flat())
        factor = FACTORS[2] if data.size <= FACTORS[2] ** 3 * PREVIEW_POINTS else FACTORS[3]
        coarse = factors or check_factors((factor,) * 3, self.volume.shape)
        least, most = SKETCH_BYTES
        size = min(max(data.nbytes / SKETCH_RATIO, least), most)
        if self.latents:
            with bar.stage("sketching"):
                return next(self.grids(coarse, projections=0)).of_size(size, FIRST_STEP)[1]
        self.settings = replace(self.settings, steps=min(self.settings.steps, SKETCH_STEPS), depth=3)
        return self.fit(size, coarse, bar)

    def finish(self, attempt: Attempt, promise: Promise | None, bar: Bar) -> bytes:
        """The file, after it was decoded and measured. EncodeError where it does not keep the promise."""
        with bar.stage("verifying"):
            model = None if self.bricks else self.supported_model(attempt.factors)
            measured = self.measure(attempt, model, promise)
            if model is None:
                return self._kept(attempt, None, measured)
            helps = (measured.psnr or math.inf) > (measured.psnr_lanczos or math.inf)
            missed: list[EncodeError] = []
            for way in (model, None) if helps else (None, model):  # of the better, where both do
                figures = measured if way is model else self.measure(attempt, None, promise)
                try:
                    return self._kept(attempt, way, figures)
                except EncodeError as error:  # it may be too small without changes, or too good
                    missed.append(error)
            raise missed[0]

    def _kept(self, attempt: Attempt, model: SRModel | None, measured: Measured) -> bytes:
        """The file. EncodeError where it does not keep its promise."""
        data = self.build(attempt, model, measured)
        check_promise(measured.promise, measured, self.volume.data.nbytes / len(data))
        return data

    def build(self, attempt: Attempt, model: SRModel | None, measured: Measured | None) -> bytes:
        """The bytes of a file."""
        from .models.sr_changes import SECTION

        volume, steps = self.volume, attempt.fit.steps if isinstance(attempt, Fitted) else 0
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
        if model is not None and attempt.changes:
            sections.append((SECTION, attempt.changes))
        metadata = {key: value for key, value in volume.metadata.items() if key not in ("lossy", "damaged")}
        if metadata:
            sections.append(("meta", pack_metadata(thinned(metadata, volume.shape[0]))))
        if measured is not None:
            sections.append(("meas", measured.pack()))
        if steps or attempt.base == "latents" or not self.bricks:  # of bricks alone there is nothing to tell
            sections.append(("prov", provenance.pack()))
        return layout.build(bundled(sections, BUNDLED))

    def open(self, attempt: Attempt, model: SRModel | None) -> File:
        """The file as a decoder sees it."""
        data = self.build(attempt, model, None)
        return File(data, device=str(self.device), model=model, codes=attempt.codes)

    @cached_property
    def latent_model(self) -> LatentModel:
        """The shipped latent model, on the device."""
        from .models.registry import default_latents

        return default_latents().to(self.device)

    def supported_model(self, factors: Shape) -> SRModel | None:
        """The super-resolution model that does the factors, if there is one."""
        model = self.models.get(max(factors) > 1)
        return model if model is not None and model.supports(factors) else None

    def corrections(self, factors: Shape) -> int:
        """How often a grid of these factors is corrected after it was coded; see fit.projection.corrected."""
        model = self.supported_model(factors)
        return 0 if model is not None and model.whole_slices else self.preset.corrections

    def room(self, size: float, factors: Shape, counted: int) -> float:
        """What is left for such a grid of `size` bytes, of which `counted` are off for an embedded model.

        More, where the model of these factors is smaller.
        """
        model = self.supported_model(factors) if counted else None
        return size + counted - len(model.file or b"" if model else b"")

    def adapted(self, attempt: Attempt, size: float, bar: Bar, share: float = 1.0) -> Attempt:
        """With a super-resolution model fitted to the volume, if the preset and `size` (bytes) allow it.

        share   of the preset's steps.
        """
        from .fit import sr_tuning

        model = self.supported_model(attempt.factors)
        if model is None or model.whole_slices or not self.preset.adapting or size < LEAST_ADAPTED:
            return attempt
        with bar.stage("adapting"):
            with self.open(attempt, None) as file:
                lr = file.codes().to(self.device).float() / (1 << base_network.CODE_BITS)
            target = sr_tuning.Target(lr, attempt.factors, self.volume.data, self.span, size)
            steps = math.ceil(share * self.preset.adapting_steps(self.volume.data.size))
            seconds = (1 - 2 * TUNING_SHARE) * (self.settings.seconds or math.inf)
            changes = sr_tuning.tune(model, target, steps, self.settings.seed, bar.set, seconds)
            adapted = replace(attempt, changes=changes)
            before = self.sample_error(attempt)
            after = self.squared_error(adapted, model, sample=True)
        worthwhile = before * (1 - sr_tuning.WORTH * len(changes) / size)
        return adapted if after < worthwhile else attempt

    def best_model(self, attempt: Attempt) -> SRModel | None:
        """The super-resolution model, if it beats Lanczos on a sample of slabs."""
        model = self.supported_model(attempt.factors)
        if model is None:
            return None
        ours, lanczos = (self.squared_error(attempt, m, sample=True) for m in (model, None))
        return model if ours < lanczos else None

    def sample_error(self, attempt: Attempt) -> float:
        """The mean squared error on a sample of slabs, in stored units; of Lanczos where it has less."""
        ways = {self.supported_model(attempt.factors), None}
        return min(self.squared_error(attempt, model, sample=True) for model in ways)

    @cached_property
    def activity(self) -> Array:
        """See metrics.activity."""
        return activity(self.volume.data)

    def _sampled(self, file: File) -> Iterator[tuple[int, int, Array]]:
        """(z0, z1, voxels) of a few slabs."""
        nz, ny, nx = file.shape
        for z0 in slab_starts(self.activity, SAMPLE_SLABS, SAMPLE_SLICES):
            z1 = min(z0 + SAMPLE_SLICES, nz)
            yield z0, z1, file.region(((z0, z1), (0, ny), (0, nx)))

    def squared_error(self, attempt: Attempt, model: SRModel | None, *, sample: bool = False) -> float:
        """The mean over the decoded volume, or over a sample of its slabs, in stored units."""
        total, count = 0.0, 0
        with self.open(attempt, model) as file:
            for z0, z1, slab in self._sampled(file) if sample else file.slabs():
                kind = np.float64 if slab.dtype.kind == "f" else np.float32
                error = slab.astype(kind) - self.volume.data[z0:z1]
                total += float(np.square(error, out=error).sum(dtype=np.float64))
                count += error.size
        return total / count

    def measure(self, attempt: Attempt, model: SRModel | None, promise: Promise | None) -> Measured:
        """What the written file decodes to, against the original."""
        data = self.volume.data
        result = Comparison(len(data), self.span, data[0].size)
        with self.open(replace(attempt, codes=None), model) as file:
            for z0, z1, slab in file.slabs():
                result.add(z0, data[z0:z1], slab)
            lr_psnr = self.lr_psnr(file)
        lanczos = result.psnr if not self.bricks else None
        if model is not None:
            lanczos = decibels(self.squared_error(attempt, None), result.peak)
        return Measured(
            psnr=_single(result.psnr),
            peak=result.peak,
            psnr_lanczos=_single(lanczos),
            lr_psnr=_single(lr_psnr),
            ssim=float(np.float32(result.ssim.mean())),
            max_error=result.max_error,
            mean_error=float(np.float32(result.absolute / result.voxels)),
            worst_slice=result.worst_slice,
            worst_slice_psnr=_single(result.worst_slice_psnr),
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


class Grid:
    """An LR grid on its way into latents, corrected so many times (fit.projection.projected).

    changes   the section LATU: what it changes in the latent model; empty: nothing.
    """

    def __init__(self, job: Job, factors: Shape, projections: int, changes: bytes = b"") -> None:
        self.job, self.factors, self.projections, self.changes = job, factors, projections, changes
        self.lr_shape = lr_shape(job.volume.data.shape, factors)

    @cached_property
    def loss(self) -> float:
        """What the reduction alone loses, in squared units of the range, on a sample of slabs."""
        from .fit.plan import resampling_loss

        job = self.job
        model = job.supported_model(self.factors)
        data, span = job.volume.data, job.span
        return resampling_loss(data, span, self.factors, model, job.device, self.projections, job.activity)

    @cached_property
    def codes(self) -> torch.Tensor:
        """The grid itself, in float32."""
        from .fit.plan import normalised_grid
        from .fit.projection import projected

        job = self.job
        grid = normalised_grid(job.volume.data, job.span, self.factors, job.device)
        grid = grid.to(job.device)  # of any size: with the models
        if max(self.factors) > 1:
            model = job.supported_model(self.factors)
            grid = projected(grid, job.volume.data, job.span, self.factors, model, self.projections)
        return grid.mul_(1 << base_network.CODE_BITS)

    @cached_property
    def analysis(self) -> Analysis:
        """Its wavelet coefficients."""
        from .fit.latents import Analysis

        spacing = [s * f for s, f in zip(self.job.volume.spacing, self.factors, strict=True)]
        return Analysis(self.codes, spacing)

    def corrected(self, attempt: Attempt) -> Iterator[Grid]:
        """The grid after it was coded so, corrected for what that got wrong at full size; and a bit further.

        None at all, if there is nothing between the grid and the full size.
        """
        from .fit.projection import corrected
        from .models.sr_changes import apply

        job = self.job
        base = job.best_model(attempt)
        if base is None and max(self.factors) == 1:
            return
        model = apply(base, attempt.changes) if base is not None and attempt.changes else base
        assert attempt.codes is not None
        scale = 1 << base_network.CODE_BITS
        lr = attempt.codes.float().div_(scale)
        change = corrected(lr, job.volume.data, job.span, self.factors, model).sub_(lr)

        def moved(share: float) -> torch.Tensor:
            return (lr + share * change).mul_(scale)

        def loss(share: float) -> float:
            there = replace(attempt, codes=moved(share).round_().int())
            return job.squared_error(there, base, sample=True)

        best = _least(loss(0.0), loss(0.5), loss(1.0))
        for share in (best, FURTHER * best):
            grid = Grid(job, self.factors, self.projections, self.changes)
            grid.codes = moved(share)
            yield grid

    def tuned(self, step: float, size: int, *, first: bool = False) -> Grid:
        """The grid with a latent model fitted to its latents of that step, which take about `size` bytes.

        first   in fewer steps, where it is to be fitted anew when the grid has been corrected.
        """
        from .fit import latent_tuning

        if not self.job.preset.latents:
            return self
        job, latents = self.job, self.analysis.latents(step)
        seconds = TUNING_SHARE * (job.settings.seconds or math.inf)
        share = FIRST_TUNING if first and job.corrections(self.factors) else 1.0
        steps, seed = math.ceil(share * job.preset.latents), job.settings.seed
        changes = latent_tuning.tune(latents, job.latent_model, size, steps, seed, seconds)
        grid = copy(self)
        grid.changes = changes
        return grid

    def attempt(self, step: float) -> Attempt:
        """The grid by latents of that step."""
        from . import latents

        own = self.analysis.latents(step)
        sections, codes = latents.write(own, self.job.latent_model, self.changes)
        coding = (codes - self.codes).div_(1 << base_network.CODE_BITS).double().square_().mean()
        return Attempt(
            factors=self.factors,
            base="latents",
            sections=tuple(sections),
            codes=codes,
            error=float(coding),
            magnitude=own.magnitude,
        )

    def of_size(self, size: float, first: float, close: float | None = None) -> tuple[float, Attempt]:
        """(step, the grid by latents of about that many bytes); see fit.latents.step_for.

        The search begins where latents as costly as those that were coded last would take that many.
        """
        from .fit.latents import BYTES_EXPONENT, CLOSE, step_for

        job = self.job
        best: list[tuple[float, Attempt]] = []  # one: each holds a grid

        def expect(step: float) -> float:
            return job.bytes_per_magnitude * self.analysis.latents(step).magnitude

        def measure(step: float) -> float:
            attempt = self.attempt(step)
            job.bytes_per_magnitude = attempt.size / max(attempt.magnitude, 1.0)
            if not best or abs(attempt.size - size) < abs(best[0][1].size - size):
                best[:] = [(step, attempt)]
            return attempt.size

        first = step_for(expect, size, BYTES_EXPONENT, first)
        step_for(measure, size, BYTES_EXPONENT, first, close or CLOSE)
        return best[0]


def _single(figure: float | None) -> float | None:
    """A figure to float32, which is exact enough, and shorter in a file."""
    return None if figure is None else float(np.float32(figure))


def _least(start: float, middle: float, end: float) -> float:
    """Where from 0 to 1 the parabola through the values at 0, 1/2 and 1 is least."""
    bend = 2 * (start - 2 * middle + end)
    if bend <= 0:
        return float(end < start)
    return min(max((start - end + bend) / (2 * bend), 0.0), 1.0)


def check_promise(promise: Promise | None, measured: Measured, ratio: float) -> None:
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
        if not value - PSNR_SLACK <= reached <= value + PSNR_TOLERANCE:
            nearest = "exact" if reached == math.inf else f"{reached:.2f} dB"
            raise EncodeError(f"a PSNR of {value:g} dB was not reached; the nearest was {nearest}")
