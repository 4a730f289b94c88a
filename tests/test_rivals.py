"""Which grid is coded (encode): the one of the least error, or the one to which a model adapts best."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import inrformat
from inrformat.fit import plan

encoding = sys.modules[inrformat.encode.__module__]
VOLUME = (24, 64, 60)


def coded(error, size=1000.0, loss=0.0, coding=1.0):
    """A grid of that error on a sample, `loss` of it by reduction and `coding` by coding."""
    return encoding.Coded(
        SimpleNamespace(loss=loss), 1.0, 1000.0, SimpleNamespace(error=coding, size=size), error
    )


def test_without_trials_the_best_grid_stays_alone():
    coarse, fine = coded(1.0), coded(0.995)
    assert encoding._rivals([coarse, fine], 0.0) == [coarse]  # half a per cent does not pay
    finer = coded(0.98)
    assert encoding._rivals([coarse, finer], 0.0) == [finer]


def test_rivals_are_grids_of_nearly_the_least_error():
    coarse, fine, finest = coded(1.1), coded(1.0), coded(1.2)
    assert encoding._rivals([coarse, fine, finest], 0.2) == [coarse, fine]
    exact = coded(0.0)
    assert encoding._rivals([coarse, exact], 0.2) == [exact]


def test_more_bytes_are_counted_against_a_grid_as_far_as_coding_makes_its_error():
    assert coded(1.0, size=1050.0).fair == pytest.approx(1.05)
    assert coded(1.0, size=1050.0, loss=1.0, coding=1.0).fair == pytest.approx(1.025)
    assert coded(1.0, size=1050.0, loss=1.0, coding=0.0).fair == pytest.approx(1.0)
    assert not coded(1.0, size=1200.0).close and coded(1.0, size=1050.0).close


class Grids:
    """A job whose grids have these (points, loss by reduction, by coding, error at full size), and a step and bytes
    if they matter; notes the coded, and those that are to get latent models of their own."""

    settings, preset = SimpleNamespace(seconds=None), SimpleNamespace(trial=0.0, projections=0)

    def __init__(self, *grids):
        self.all, self.coded, self.tuned = grids, [], []

    def grids(self, factors, projections):
        for points, loss, coding, error, *rest in self.all:
            step, size = (*rest, *(None, 1000.0)[len(rest) :])
            attempt = SimpleNamespace(size=size, error=coding, whole=error, points=points)

            def of_size(size, first, close, attempt=attempt, step=step):
                self.coded.append(attempt.points)
                return step or first, attempt

            def tuned(step, size, *, first, points=points):
                self.tuned.append(points)
                return SimpleNamespace(changes=b"")

            yield SimpleNamespace(factors=None, lr_shape=(points,), loss=loss, of_size=of_size, tuned=tuned)

    def room(self, size, factors, counted):
        return size

    def supported_model(self, factors):
        return None

    def squared_error(self, attempt, model, sample):
        return attempt.whole


def taken(monkeypatch, *grids):
    """(the points of the grid that is taken, of those that were coded)."""
    monkeypatch.setattr(encoding, "_adapted", lambda job, coded, bar: coded.attempt.points)
    job, bar = Grids(*grids), SimpleNamespace(stage=lambda name: nullcontext())
    return encoding._latents_of_size(job, 1000.0, None, bar), job.coded


def test_a_finer_grid_is_tried_though_it_promises_no_more(monkeypatch):
    """Super-resolution may take more of its error away; but not where far too much is expected of it."""
    coarse, finer = (100, 4.0, 8.0, 10.0), (200, 1.0, 12.0, 8.0)
    assert taken(monkeypatch, coarse, finer) == (200, [100, 200])
    assert taken(monkeypatch, coarse, (200, 7.0, 12.0, 8.0)) == (100, [100])


def test_where_a_finer_grid_is_much_worse_none_is_tried_that_is_finer_still(monkeypatch):
    coarse, finest = (100, 4.0, 8.0, 10.0), (400, 0.0, 12.0, 1.0)
    assert taken(monkeypatch, coarse, (200, 1.0, 12.0, 12.0), finest) == (100, [100, 200])
    assert taken(monkeypatch, coarse, (200, 1.0, 12.0, 11.0), finest) == (400, [100, 200, 400])


def test_a_grid_whose_steps_are_too_fine_for_the_bytes_is_left_out(monkeypatch):
    """Whatever it promises; unless there is no finer one."""
    leaping, finer = (100, 4.0, 8.0, 10.0, 3.0), (200, 4.0, 8.0, 12.0)
    assert taken(monkeypatch, leaping, finer) == (200, [100, 200])
    assert taken(monkeypatch, leaping) == (100, [100])


def test_where_no_grid_fills_its_bytes_the_best_is_taken(monkeypatch):
    coarse = (100, 4.0, 0.0, 10.0, 1.0, 300.0)
    for loss, error, size, points in (
        (0.0, 0.0, 600.0, 200),
        (3.0, 10.0, 600.0, 100),  # it does no more
        (0.0, 0.0, 2000.0, 100),  # it takes too many
        (3.0, 11.0, 1000.0, 200),  # which it fills
    ):
        assert taken(monkeypatch, coarse, (200, loss, 0.0, error, 99.0, size)) == (points, [100, 200])


def test_a_volume_of_next_to_nothing_is_exact():
    volume = np.zeros((16, 48, 48), np.int16)
    volume[5:7, 20:23, 30:33] = 1000
    found = inrformat.info(inrformat.encode(volume, progress=False))
    assert found.measured.psnr is None and found.bytes < 3000


@pytest.mark.parametrize("again", [1005.0, 1100.0])
def test_of_two_codings_the_closer_one_is_kept(monkeypatch, again):
    """Where steps are fine, bytes leap, and a search may end further away than it began."""
    before, after = (SimpleNamespace(size=size, changes=b"") for size in (1020.0, again))
    job = SimpleNamespace(adapted=lambda attempt, room, bar: attempt)
    monkeypatch.setattr(encoding, "_corrected", lambda job, grid, step, *rest: (grid, step, before))
    monkeypatch.setattr(encoding, "_coded_anew", lambda grid, step, *rest: (step, after))
    whole = replace(coded(1.0), attempt=before)
    kept = encoding._adapted(job, whole, SimpleNamespace(stage=lambda name: nullcontext()))
    assert kept is (after if again < 1020 else before)


def test_a_correction_is_tried_further_though_the_nearer_one_does_not_pay(monkeypatch):
    """Coding takes some of it back, and a coding that is a bit too large may lose by a hair."""
    grids = [
        SimpleNamespace(factors=None, tuned=lambda *rest: SimpleNamespace(changes=b"")) for _ in range(3)
    ]
    before, near, far = (SimpleNamespace(size=1000, changes=b"", error=error) for error in (10.0, 10.1, 8.0))
    coded = dict(zip(map(id, grids[1:]), (near, far), strict=True))
    grids[0].corrected = lambda attempt: iter(grids[1:])
    monkeypatch.setattr(encoding, "_coded_anew", lambda grid, step, *rest: (step, coded[id(grid)]))
    job = SimpleNamespace(corrections=lambda factors: 1, sample_error=lambda attempt: attempt.error)
    bar = SimpleNamespace(stage=lambda name: nullcontext())
    grid, _, attempt = encoding._corrected(job, grids[0], 1.0, before, 1000.0, bar)
    assert grid is grids[2] and attempt is far


def test_rivals_have_their_latent_models_before_they_are_compared(monkeypatch):
    """Finer grids gain more from them."""
    compared = []

    def tried(job, coded, trial, bar):
        assert job.tuned == [100, 200]
        compared.append(coded.attempt.points)
        return replace(coded, error={100: 9.0, 200: 7.0}[coded.attempt.points])

    monkeypatch.setattr(Grids, "preset", SimpleNamespace(trial=0.2, projections=0))
    monkeypatch.setattr(encoding, "_tried", tried)
    assert taken(monkeypatch, (100, 4.0, 8.0, 8.0), (200, 1.0, 12.0, 8.5)) == (200, [100, 200])
    assert compared == [100, 200]


def test_the_grid_is_taken_to_which_a_model_adapts_best(monkeypatch):
    """Whichever that is said to be."""
    monkeypatch.setattr(encoding, "RIVAL", 10.0)
    monkeypatch.setattr(encoding, "HOPELESS", 10.0)
    quick = replace(plan.PRESETS["balanced"], adapting=4, trial=0.5, projections=0, corrections=0)
    monkeypatch.setitem(plan.PRESETS, "balanced", quick)
    volume, tried = inrformat.head_phantom(VOLUME), []

    def wished(job, coded, trial, bar):
        tried.append(coded.grid.factors)
        return replace(coded, error=float(coded.grid.factors != wish))

    monkeypatch.setattr(encoding, "_tried", wished)
    inrformat.encode(volume, ratio=50, preset="balanced", seconds=60, progress=False)
    assert not tried  # what has little time is fitted once
    for wish in ((1, 2, 2), (2, 2, 2)):
        data = inrformat.encode(volume, ratio=50, preset="balanced", progress=False)
        assert inrformat.info(data).factors == wish
        inrformat.verify(data, original=volume)
    assert {(1, 2, 2), (2, 2, 2)} <= set(tried)
