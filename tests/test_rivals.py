"""Which grid is coded (encode): the one of the least error, or the one to which a model adapts best."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

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


def test_more_bytes_are_counted_against_a_grid_as_far_as_coding_makes_its_error():
    assert coded(1.0, size=1050.0).fair == pytest.approx(1.05)
    assert coded(1.0, size=1050.0, loss=1.0, coding=1.0).fair == pytest.approx(1.025)
    assert coded(1.0, size=1050.0, loss=1.0, coding=0.0).fair == pytest.approx(1.0)
    assert not coded(1.0, size=1200.0).close and coded(1.0, size=1050.0).close


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
