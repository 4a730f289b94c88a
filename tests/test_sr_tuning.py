"""Super-resolution adapted to one volume (fit.sr_tuning): it gains, in few bytes, through the public functions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import inrformat
from inrformat import job
from inrformat.errors import EncodeError, UsageError
from inrformat.fit import plan, sr_tuning
from inrformat.fit.latents import by_latents
from inrformat.job import Grid
from inrformat.models import sr_changes
from inrformat.models.registry import create_model, default_model, default_restorer, load_model, pack_model
from inrformat.models.sr import super_resolve
from inrformat.resample import downsample

STEPS = 40


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch):
    """On blocks as small as these volumes deserve."""
    monkeypatch.setattr(sr_tuning, "BLOCK_WORK", 3e8)


def coded(factors, share):
    """(volume, its LR grid as coding gives it back)"""
    volume = inrformat.head_phantom((24, 64, 60)).data
    low, high = float(volume.min()), float(volume.max())
    lr = by_latents(downsample(volume, factors).sub_(low).div_(high - low), share)
    return volume, lr, (low, high)


def psnr(model, lr, factors, volume, span):
    low, high = span
    full = super_resolve(model, lr, factors, volume.shape).clamp_(0, 1).numpy()
    error = full - (volume.astype(np.float32) - low) / (high - low)
    return -10 * math.log10(float(np.square(error).mean()))


@pytest.mark.parametrize(
    ("factors", "share"), [((1, 2, 2), 0.1), ((2, 2, 2), 0.2), ((1, 1, 1), 0.3)], ids=str
)
def test_an_adapted_model_comes_closer(factors, share):
    volume, lr, span = coded(factors, share)
    model = default_restorer() if max(factors) == 1 else default_model()
    changes = sr_tuning.tune(model, sr_tuning.Target(lr, factors, volume, span, 50_000), STEPS, 0)
    adapted = sr_changes.apply(model, changes)
    assert len(changes) < 5_000
    before, after = (psnr(m, lr, factors, volume, span) for m in (model, adapted))
    assert after > before + 0.3


def test_the_same_seed_gives_the_same_bytes():
    volume, lr, span = coded((2, 2, 2), 0.2)
    target = sr_tuning.Target(lr, (2, 2, 2), volume, span, 50_000)
    first, again, other = (sr_tuning.tune(default_model(), target, 5, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_where_bytes_are_dear_nearly_nothing_changes():
    volume, lr, span = coded((2, 2, 2), 0.2)
    target = sr_tuning.Target(lr, (2, 2, 2), volume, span, 500)
    changes = sr_tuning.tune(default_model(), target, STEPS, 0)
    assert len(changes) < 300  # of 124 thousand weights


@pytest.fixture
def eager(monkeypatch):
    """Presets that adapt models of small volumes too, in few steps, and take a small gain."""
    quick = replace(plan.PRESETS["fast"], latents=1, adapting=STEPS)
    monkeypatch.setitem(plan.PRESETS, "fast", quick)
    monkeypatch.setattr(plan, "SMALL", 1)
    monkeypatch.setattr(sr_tuning, "WORTH", 0.05)
    monkeypatch.setattr("inrformat.job.LEAST_ADAPTED", 100)


@pytest.mark.parametrize("target", [{"ratio": 12.0}, {"psnr": 29.0, "embed_sr": True}], ids=str)
def test_a_file_with_an_adapted_model(eager, target):
    volume = inrformat.head_phantom((24, 96, 90))
    data = inrformat.encode(volume, factors=(1, 2, 2), progress=False, **target)
    found = inrformat.info(data)
    assert found.sr["adapted"]
    assert found.measured.psnr > found.measured.psnr_lanczos
    inrformat.verify(data, original=volume)
    plain = inrformat.open(data, use_sr=False).full()
    assert not np.array_equal(plain.data, inrformat.decode(data).data)


def test_a_grid_is_corrected_through_the_adapted_model(eager, monkeypatch):
    """The same file but for the correction: closer for its bytes."""
    volume, found, changes = inrformat.head_phantom((24, 96, 90)), [], []

    def noted(grid, attempt, own=Grid.corrected):
        changes.append(attempt.changes)
        return own(grid, attempt)

    monkeypatch.setattr(Grid, "corrected", noted)
    for corrections in (0, 1):
        monkeypatch.setitem(plan.PRESETS, "fast", replace(plan.PRESETS["fast"], corrections=corrections))
        data = inrformat.encode(volume, factors=(1, 2, 2), ratio=12, progress=False)
        inrformat.verify(data, original=volume)
        found.append(inrformat.info(data))
    assert len(changes) == 1 and changes[0]
    before, after = found
    assert after.sr["adapted"]
    dearer = 4 * math.log(after.bytes / before.bytes)  # dB for e times the bytes, about
    assert after.measured.psnr - before.measured.psnr > dearer + 0.03


def test_without_super_resolution_nothing_is_adapted(eager):
    volume = inrformat.head_phantom((24, 64, 60))
    found = inrformat.info(inrformat.encode(volume, ratio=40, sr=None, progress=False))
    assert found.sr is None
    assert all(section["type"] != "SRTU" for section in found.sections)


def test_a_model_without_a_file_is_refused(eager):
    with pytest.raises(UsageError, match="save"):
        inrformat.encode(
            inrformat.head_phantom((24, 64, 60)), psnr=29, sr=create_model("light"), progress=False
        )


def test_a_model_that_works_on_whole_slices_stays_as_it_is(eager):
    torch.manual_seed(0)
    model = create_model("srdensenet", {"blocks": 1, "layers": 2, "growth": 4, "maps": 8})
    model = load_model(pack_model(model, name="x", version=1, licence="none", trained_on="nothing"))
    data = inrformat.encode(
        inrformat.head_phantom((8, 64, 64)), ratio=40, sr=model, factors=(1, 4, 4), progress=False
    )
    assert all(section["type"] != "SRTU" for section in inrformat.info(data).sections)


def test_a_model_without_which_a_file_would_be_too_small_stays(monkeypatch):
    """It may lose to Lanczos on the whole, though it won on the slabs that were looked at."""
    measure, check, refused = job.Job.measure, job.check_promise, []

    def losing(self, attempt, model, promise):
        found = measure(self, attempt, model, promise)
        return found if model is None else replace(found, psnr_lanczos=found.psnr + 1)

    def strict(promise, measured, ratio):
        if measured.psnr == measured.psnr_lanczos:  # of the file without the model
            refused.append(ratio)
            raise EncodeError("too small")
        check(promise, measured, ratio)

    monkeypatch.setattr(job.Job, "measure", losing)
    monkeypatch.setattr(job, "check_promise", strict)
    volume = inrformat.head_phantom((40, 96, 96), seed=1, noise=8)
    found = inrformat.info(inrformat.encode(volume, ratio=60, progress=False))
    (without,) = refused
    assert found.sr["adapted"] and found.ratio == pytest.approx(60, rel=job.RATIO_TOLERANCE)
    assert found.ratio < without
