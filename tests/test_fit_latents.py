"""The encoder's side of latents: rounding, the search for a step, the choice of grids, training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import inrformat
from inrformat.coding import latent_code
from inrformat.coding.latents import Forecast
from inrformat.coding.mixtures import tables_of
from inrformat.coding.network import CODE_BITS
from inrformat.encode import MOST_FITS, _next_step
from inrformat.fit import latents as fit
from inrformat.fit import plan, projection
from inrformat.job import PSNR_TOLERANCE, Grid, Job
from inrformat.metrics import activity
from inrformat.models import registry
from inrformat.models.latents import LatentModel
from inrformat.models.sr import block_of
from inrformat.resample import downsample, upsample

HEAD = inrformat.head_phantom((24, 48, 40))
CODES = 1 << CODE_BITS


@pytest.fixture(scope="module")
def grid():
    values = torch.from_numpy(HEAD.data.astype(np.float32))
    return (values - values.min()) / (values.max() - values.min()) * CODES


def test_the_error_is_known_without_coding(grid):
    """`Analysis.error` goes by the bands' norms; the decoded grid has nearly that error."""
    analysis = fit.Analysis(grid, (1.0, 1.0, 1.0))
    for step in (500.0, 3000.0):
        decoded = CODES * fit.by_latents(grid / CODES, step / CODES)
        real = float((decoded - grid).square().mean())
        assert analysis.error(step) == pytest.approx(real, rel=0.15)
        assert real < step**2 / 4


def test_latents_decode_to_what_training_takes_them_for(grid):
    latents = fit.Analysis(grid, (1.0, 1.0, 1.0)).latents(2000.0)
    model = registry.load_latents(registry.SHIPPED / "latents-2.inrm")  # one without shifts
    _, _, decoded = latent_code.encode(latents.pyramid, latents.smooth, latents.bands, model)
    assert torch.equal(decoded / CODES, fit.by_latents(grid / CODES, 2000.0 / CODES))


def test_latents_are_worth_their_bits(grid):
    """Chosen by what they cost, they take less of error and bytes together than the rounded ones do."""
    model, latents = registry.default_latents(), fit.Analysis(grid, (1.0, 1.0, 1.0)).latents(2000.0)

    def loss(wanted):
        data, _, decoded = latent_code.encode(latents.pyramid, latents.smooth, latents.bands, model, wanted)
        steps = float((decoded - grid).div(2000.0).square().sum(dtype=torch.float64))
        return steps + latent_code.BIT * 8 * len(data)

    assert loss(latents.wanted) < 0.99 * loss(None)


def test_a_latent_is_the_nearest_one_less_or_none():
    sizes = torch.linspace(-40, 40, 4001)
    centre = torch.zeros(len(sizes), dtype=torch.int64)
    none = torch.zeros(3, len(sizes), dtype=torch.int16)
    for width in (0, 8, 30):
        table, low = tables_of(centre + width - 32, centre, centre, 1)
        found = latent_code.worthwhile(sizes, 0.0, Forecast(centre, table, low, none))
        nearest = torch.floor(sizes.abs() + 0.5)
        less = nearest - found.abs()
        assert ((less == 0) | (less == 1) | (found == 0)).all()
        assert (found * sizes >= 0).all()
        assert (less > 0).any()
    likely = Forecast(centre + 7, *tables_of(centre - 32, centre, centre, 1), none)
    assert (latent_code.worthwhile(sizes.abs(), 0.0, likely)[sizes.abs() > 8] >= 7).all()


def test_shifts_count_when_a_latent_is_chosen():
    """Where zero stands for 0.75 steps, a coefficient of 0.9 needs no latent; one of -0.9 all the more."""
    coefficients = torch.tensor([0.9, -0.9])
    centre = torch.zeros(2, dtype=torch.int64)
    table, low = tables_of(centre - 16, centre, centre, 1)
    shifts = torch.zeros(3, 2, dtype=torch.int16)
    assert latent_code.worthwhile(coefficients, 0.0, Forecast(centre, table, low, shifts)).tolist() == [
        1,
        -1,
    ]
    shifts[0] = 192
    assert latent_code.worthwhile(coefficients, 0.0, Forecast(centre, table, low, shifts)).tolist() == [
        0,
        -1,
    ]


def test_a_lonely_coefficient_must_be_larger():
    lonely = torch.zeros(9, 9, 9)
    lonely[4, 4, 4] = 80.0
    assert int(fit._round(lonely, 100, None)[0].abs().sum()) == 0
    crowd = torch.full((9, 9, 9), 80.0)
    assert int(fit._round(crowd, 100, None)[0].abs().sum()) == 9**3
    lonely[4, 4, 4] = 160.0
    assert int(fit._round(lonely, 100, None)[0][4, 4, 4]) == 2
    parents = torch.ones(9, 9, 9)
    lonely[4, 4, 4] = 90.0
    assert int(fit._round(lonely, 100, None)[0][4, 4, 4]) == 0
    assert int(fit._round(lonely, 100, parents)[0][4, 4, 4]) == 1


@pytest.mark.parametrize("power", [-2.0, -1.2, -0.4])
@pytest.mark.parametrize("target", [3.0, 1000.0, 4e5])
def test_the_step_is_found(power, target):
    tried = []

    def measure(step):
        tried.append(step)
        return 1e7 * step**power * (1 + 0.3 * math.sin(math.log(step)))

    step = fit.step_for(measure, target, -1.2, 3000.0)
    reachable = measure(8 * fit.MOST_STEP) < target < measure(fit.LEAST_STEP)
    assert len(tried) <= fit.MOST_TRIALS + 2
    assert not reachable or abs(math.log(measure(step) / target)) < 2 * fit.CLOSE


def test_a_target_out_of_reach_ends_at_the_border():
    assert fit.step_for(lambda step: 100.0, 1e6, -1.2, 3000.0) <= 3000.0
    assert fit.step_for(lambda step: 1e6 / step, 1e9, -1.0, 3000.0) == pytest.approx(fit.LEAST_STEP)


def test_bytes_are_met_at_once_from_what_the_last_coding_took(monkeypatch):
    """Wherever the search begins: grids are coded once, or twice, and not from step to step."""
    job = Job(inrformat.head_phantom((24, 96, 96)), "fast", None, False, None, 0, torch.device("cpu"))
    coded, attempt = [], Grid.attempt
    monkeypatch.setattr(Grid, "attempt", lambda grid, step: coded.append(step) or attempt(grid, step))
    first, *finer = job.grids(None, projections=0)
    first.of_size(3000, fit.FIRST_STEP)
    for grid in finer:
        coded.clear()
        found = grid.of_size(3000, fit.FIRST_STEP / 8)[1]
        assert abs(math.log(found.size / 3000)) < fit.CLOSE and len(coded) <= 3
        coded.clear()
        grid.of_size(3000, fit.FIRST_STEP * 8)
        assert len(coded) <= 2


def test_grids_from_the_coarsest_to_the_finest():
    assert plan.latent_factors((100, 100, 100))[0] == (4, 4, 4)
    assert plan.latent_factors((1, 512, 512)) == [(1, 4, 4), (1, 2, 2), (1, 1, 1)]
    assert plan.latent_factors((5, 6, 7)) == [(1, 1, 1)]
    for shape in ((9, 40, 700), (300, 20, 20)):
        sizes = [math.prod(k) for k in plan.latent_factors(shape)]
        assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 1


def test_projection_lessens_the_error_at_full_size():
    span = float(HEAD.data.min()), float(HEAD.data.max())
    losses = [
        plan.resampling_loss(
            HEAD.data, span, (2, 2, 2), None, torch.device("cpu"), rounds, activity(HEAD.data)
        )
        for rounds in (0, 1, 3)
    ]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 2, 2), (2, 2, 4)])
@pytest.mark.parametrize("with_model", [False, True])
def test_a_correction_is_a_step_down_the_gradient(factors, with_model, monkeypatch):
    """Tile by tile it is what torch makes of the whole volume at once, in the same arithmetic."""
    monkeypatch.setattr(projection, "fast_dtype", lambda device: torch.float32)
    data = HEAD.data[:23, :41, :37]
    low, high = (float(v) for v in (data.min(), data.max()))
    model = registry.default_model() if with_model else None
    torch.manual_seed(1)
    lr = downsample(data, factors).sub_(low).div_(high - low)
    lr = (lr + 0.02 * torch.randn_like(lr)).requires_grad_()
    full = upsample(lr, factors, data.shape)
    if model is not None:
        block = block_of(lr, [(0, n) for n in lr.shape], model.halo(factors))
        full = full + model(block[None], factors)[0][tuple(slice(0, n) for n in data.shape)]
    original = torch.from_numpy((data.astype(np.float32) - low) / (high - low))
    loss = (full.clamp(0, 1) - original).square().sum() / 2
    (slope,) = torch.autograd.grad(loss, lr)
    monkeypatch.setattr(projection, "TILE", (7, 9, 20))
    found = projection.corrected(lr.detach(), data, (low, high), factors, model)
    expected = lr.detach() - slope / math.prod(factors)
    assert torch.allclose(found, expected, atol=2e-4)
    assert (expected - lr).abs().max() > 20 * 2e-4


@pytest.mark.parametrize("fall", [3.5, 12.0, 25.0])
@pytest.mark.parametrize("target", [25.0, 29.1, 31.0])
def test_the_step_of_a_psnr_is_found_however_fast_it_falls(fall, target):
    def reached(step):
        return 30 - fall * (step - 4) - (step - 4) ** 2

    tried = [(4.0, reached(4.0))]
    while abs(tried[-1][1] - target) > PSNR_TOLERANCE / 2:
        step = _next_step(tried, target)
        tried.append((step, reached(step)))
        assert len(tried) <= MOST_FITS


@pytest.mark.parametrize("target", [{"ratio": 40}, {"psnr": 33}])
def test_a_corrected_grid_is_closer_for_its_bytes(target, monkeypatch):
    """The same file but for the correction: fewer bytes, or less error."""
    found = []
    for corrections in (0, 1):
        preset = replace(plan.PRESETS["fast"], corrections=corrections, adapting=0)
        monkeypatch.setitem(plan.PRESETS, "fast", preset)
        info = inrformat.info(inrformat.encode(HEAD, factors=(1, 2, 2), **target))
        found.append((math.log(info.bytes), info.measured.psnr))
    (bytes_before, before), (bytes_after, after) = found
    assert after - before > 4 * (bytes_after - bytes_before) + 0.03  # dB for e times the bytes, about


def test_more_bytes_give_more_decibels():
    points = [inrformat.info(inrformat.encode(HEAD, ratio=ratio)) for ratio in (60, 25, 10)]
    assert [p.base for p in points] == ["latents"] * 3
    psnrs = [p.measured.psnr for p in points]
    assert psnrs == sorted(psnrs)


def test_presets():
    """The paper's has a SIREN; the others have latents."""
    fast, best = (inrformat.info(inrformat.encode(HEAD, ratio=30, preset=p)) for p in ("fast", "best"))
    assert fast.base == best.base == "latents"
    assert best.measured.psnr > fast.measured.psnr - 0.3
    assert plan.preset_of("paper").base == "siren"


def test_training_learns(grid, monkeypatch):
    monkeypatch.setattr(fit, "FIRST_PIECES", 4)
    codes = grid.clamp(0, CODES - 1).numpy().astype(np.uint16)
    model = fit.train_latents([(codes, (1.0, 1.0, 1.0))], steps=280)
    LatentModel.check(model.weights)
    assert len(model.networks[0].last) == 6
    latents = fit.Analysis(grid, (1.0, 1.0, 1.0)).latents(2000.0)
    untrained = LatentModel({key: np.zeros_like(value) for key, value in model.weights.items()})
    without = LatentModel({k: w[:3] if k.endswith("last") else w for k, w in model.weights.items()})
    sizes, errors = [], []
    for tried in (model, without, untrained):
        data, _, decoded = latent_code.encode(latents.pyramid, latents.smooth, latents.bands, tried)
        sizes.append(len(data))
        errors.append(float((decoded - grid).square().mean()))
    assert sizes[0] < sizes[2]
    assert errors[0] < errors[1] == errors[2]  # shifts bring what was rounded closer
    again = fit.train_latents([(codes, (1.0, 1.0, 1.0))], steps=70, start=without)
    assert len(again.networks[0].last) == 6
    assert again.networks[0].last[3:].any()
