"""A latent model fitted to one grid (fit.latent_tuning): it gains, in few bytes, through the public functions."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import inrformat
from inrformat import parallel
from inrformat.coding import latents as coding_latents
from inrformat.fit import changes, latent_tuning, plan
from inrformat.fit.latents import Analysis
from inrformat.latents import write
from inrformat.models import latent_changes
from inrformat.models.registry import default_latents

STEP, STEPS = 1500.0, 60


@pytest.fixture(autouse=True)
def small_fits(monkeypatch):
    """Fits in as few bytes and points as these grids have."""
    monkeypatch.setattr(latent_tuning, "LEAST_BYTES", 300)
    monkeypatch.setattr(latent_tuning, "BYTES_PER_RANK", 1000)
    monkeypatch.setattr(latent_tuning, "BATCH", 512)


def rings():
    """Codes (z, y, x) unlike those of any scan; a quarter of them constant."""
    z, y, x = np.indices((16, 48, 48))
    return torch.from_numpy((30000 + 20000 * np.sin(x * y / 30) * (z > 3)).astype(np.float32))


def latents(step=STEP):
    return Analysis(rings(), (1.0, 1.0, 1.0)).latents(step)


def taken(section):
    """(bytes, mean squared error) of the grid by a model with these changes."""
    sections, codes = write(latents(), default_latents(), section)
    return sum(len(body) for _, body in sections), float((codes - rings()).square().mean())


def tune(steps=STEPS, seed=0, size=6000, **how):
    return latent_tuning.tune(latents(), default_latents(), size, steps, seed, **how)


def test_a_tuned_model_takes_fewer_bytes():
    """At the same step, with its own bytes; and the grid is no worse for it."""
    section = tune()
    (before, loss), (after, error) = taken(b""), taken(section)
    assert after < 0.97 * before and error < loss
    assert 0 < len(section) < 0.1 * before
    ranks = section[: len(latent_changes.apply(default_latents(), section).networks)]
    assert sum(ranks) > 0 and max(ranks) <= latent_changes.MOST_RANK


def test_the_same_seed_gives_the_same_bytes():
    first, again, other = (tune(25, seed) for seed in (0, 0, 1))
    assert first and first == again != other


def test_the_same_bytes_by_threads_and_parts(monkeypatch):
    """Whichever thread is the first to have looked at its part of a class."""
    before, expected = torch.get_num_threads(), tune(25)
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(coding_latents, "PART", 64)
        assert [tune(25) for _ in range(2)] == [expected] * 2
    finally:
        torch.set_num_threads(before)


def test_where_it_does_not_pay_nothing_changes(monkeypatch):
    """A network is left alone whose points take few bytes, or that would take more than it saves."""
    monkeypatch.setattr(latent_tuning, "START", 300.0)
    assert tune(1) == b""
    monkeypatch.setattr(latent_tuning, "LEAST_BYTES", 10**6)
    assert tune() == b""


def test_more_bytes_and_steps_are_worth_more_ranks(monkeypatch):
    """Up to the format's own limit."""
    made = []

    class Noted(latent_tuning._Numbers):
        def __init__(self, layers, rank, seed):
            made.append(rank)
            super().__init__(layers, rank, seed)

    monkeypatch.setattr(latent_tuning, "_Numbers", Noted)
    for per_rank in (10**9, 1000, 1):
        monkeypatch.setattr(latent_tuning, "BYTES_PER_RANK", per_rank)
        tune(1)
    third = len(made) // 3
    assert set(made[:third]) == {1} and set(made[-third:]) == {latent_changes.MOST_RANK}
    assert sum(made[:third]) <= sum(made[third:-third]) < sum(made[-third:])


def test_time_is_a_bound_too():
    began = time.monotonic()
    section = tune(10**9, seconds=0.2)
    assert time.monotonic() - began < 60  # of about ten million
    if section:
        latent_changes.apply(default_latents(), section)


def test_the_latents_stay_as_they_are():
    given = latents()
    before = {key: band.clone() for key, band in given.bands.items()}
    latent_tuning.tune(given, default_latents(), 6000, 1, 0)
    assert all(torch.equal(band, before[key]) for key, band in given.bands.items())


# --- whole numbers --------------------------------------------------------------------------------


def test_rounding_has_the_gradient_of_none():
    values = torch.tensor([-1.6, -0.5, 0.4, 1.5, 7.0], requires_grad=True)
    rounded = changes.rounded(values)
    assert rounded.tolist() == [-2.0, 0.0, 0.0, 2.0, 7.0]
    (rounded * torch.arange(5.0)).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_bits_grow_with_the_numbers():
    """By those of a Laplace distribution of each tensor's own mean: numbers are dearer where others are small."""
    small, large = torch.full((40,), 1.0, requires_grad=True), torch.full((40,), -20.0, requires_grad=True)
    bits = changes.bits([small, large])
    bits.backward()
    assert float(bits.detach()) == pytest.approx(2 * 40 / math.log(2))
    torch.testing.assert_close(small.grad, torch.full((40,), 1 / math.log(2)))
    torch.testing.assert_close(large.grad, torch.full((40,), -1 / (20 * math.log(2))))


def test_bits_of_zeros_are_bounded():
    """The first number of a tensor costs about ten bits, not any number of them."""
    values = torch.full((3, 4), 0.3, requires_grad=True)
    changes.bits([values]).backward()
    dearest = 1 / (changes.LEAST_MEAN * math.log(2))
    assert values.grad.flatten().tolist() == pytest.approx([dearest] * 12)
    assert 9 < dearest < 11
    assert float(changes.bits([torch.zeros(5)])) == 0


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [{"ratio": 12.0}, {"psnr": 36.0}], ids=str)
def test_a_file_with_a_tuned_model(monkeypatch, target):
    """Closer for its bytes than without; every decoder of it says that the model is adapted."""
    volume, found = rings().numpy().astype(np.uint16), []
    for steps in (STEPS, 1):
        monkeypatch.setitem(
            plan.PRESETS, "fast", replace(plan.PRESETS["fast"], latents=steps, adapting=0, corrections=0)
        )
        data = inrformat.encode(volume, factors=(1, 1, 1), sr=None, device="cpu", progress=False, **target)
        inrformat.verify(data, original=volume, device="cpu")
        found.append(inrformat.info(data))
        monkeypatch.setattr(latent_tuning, "LEAST_BYTES", 10**6)
    tuned, plain = found
    assert tuned.latents["adapted"] and not plain.latents["adapted"]
    assert [s["type"] for s in tuned.sections].count("LATU") == 1
    dearer = 4 * math.log(tuned.bytes / plain.bytes)  # dB for e times the bytes, about
    assert tuned.measured.psnr - plain.measured.psnr > dearer + 0.05


def test_an_interrupted_fit_ends_at_once(monkeypatch):
    """Where one fit is interrupted the others, of any number of steps, do not hold the program up."""
    before, begun = torch.get_num_threads(), time.monotonic()
    first = coding_latents.inputs(1)

    def interrupted(weights, seen):
        if seen.features.shape[1] == first:
            raise KeyboardInterrupt
        return 1e9

    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(latent_tuning, "_total", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(10**9)
        torch.set_num_threads(before)
        assert parallel.map_on_cores(int, "12") == [1, 2]  # the same threads, when they are free
    finally:
        torch.set_num_threads(before)
    assert time.monotonic() - begun < 60
