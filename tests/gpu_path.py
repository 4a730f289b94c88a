"""What runs on a GPU, on a device that refuses what CUDA would (see pretend_gpu)."""

from __future__ import annotations

import sys
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend_gpu import pretend_gpu

import inrformat
from inrformat.coding import lanes
from inrformat.container import Reader
from inrformat.fit import latent_tuning, plan, sr_tuning
from inrformat.fit.latents import Analysis
from inrformat.models import sr_changes
from inrformat.models.registry import create_model, default_latents, default_model
from inrformat.models.sr import super_resolve
from inrformat.resample import downsample
from inrformat.train_sr import train_sr

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))
import latent_vectors

VOLUME = inrformat.head_phantom((10, 24, 20), seed=1)


@pytest.fixture(scope="module", autouse=True)
def many_lanes():
    """Many lanes, and so few steps, for every operation takes long there."""
    with pytest.MonkeyPatch.context() as patch, latent_vectors.bits_per_lane(32):
        patch.setattr(lanes, "lanes_for", lambda voxels: max(1, voxels >> 6))
        yield


@pytest.fixture
def device(monkeypatch):
    with pretend_gpu() as device:
        for name in ("encode", "decode"):
            monkeypatch.setattr(import_module(f"inrformat.{name}"), "resolve_device", torch.device)
        yield str(device)


def same_on_both(file: bytes, device: str) -> None:
    """The grid is the same everywhere; what is made of it in floating point, up to the last digit."""
    preview, full = (inrformat.decode(file, level=level, device="cpu").data for level in ("preview", "full"))
    assert np.array_equal(inrformat.decode(file, level="preview", device=device).data, preview)
    with inrformat.open(file, device=device) as there:
        part = there[3:7, 5:, 2:19]
    assert np.abs(part.astype(int) - full[3:7, 5:, 2:19]).max() <= 1


def test_latents(device, monkeypatch):
    monkeypatch.setattr(import_module("inrformat.job"), "LEAST_ADAPTED", 0)
    monkeypatch.setattr(plan.Preset, "adapting_steps", lambda preset, voxels: 3)
    how = {"ratio": 4, "factors": (1, 2, 2), "preset": "balanced"}
    file = inrformat.encode(VOLUME, device=device, progress=False, **how)
    assert inrformat.info(file).provenance.device == "pretend"
    with Reader(file) as reader:
        assert reader.has("LATD")
    same_on_both(file, device)


def test_a_latent_model_fitted_to_a_grid(device, monkeypatch):
    z, y, x = np.indices((16, 48, 48))
    rings = torch.from_numpy((30000 + 20000 * np.sin(x * y / 30) * (z > 3)).astype(np.float32))
    for name, value in (("LEAST_BYTES", 300), ("BYTES_PER_RANK", 1000), ("BATCH", 512)):
        monkeypatch.setattr(latent_tuning, name, value)
    here, there = (
        latent_tuning.tune(
            Analysis(rings.to(where), (1.0, 1.0, 1.0)).latents(1500.0),
            deepcopy(default_latents()).to(where),
            6000,
            steps=25,
            seed=0,
        )
        for where in ("cpu", device)
    )
    assert here and there == here


def test_super_resolution_fitted_to_a_volume(device):
    low, high = float(VOLUME.data.min()), float(VOLUME.data.max())
    lr = downsample(VOLUME.data, (1, 2, 2)).sub_(low).div_(high - low)
    target = sr_tuning.Target(lr.to(device), (1, 2, 2), VOLUME.data, (low, high), 50_000)
    changes = sr_tuning.tune(deepcopy(default_model()).to(device), target, 3, 0)
    changed = sr_changes.apply(default_model(), changes)
    assert not torch.equal(changed.first.weight, default_model().first.weight)


@pytest.mark.parametrize("few, target", [(0, {"lossless": True}), (lanes.MOST_LANES, {"max_error": 3})])
def test_bricks(device, monkeypatch, few, target):
    """With lanes by vector operations, and one symbol after the other."""
    monkeypatch.setattr(lanes, "FEW_LANES", few)
    file = inrformat.encode(VOLUME, device=device, progress=False, **target)
    assert file == inrformat.encode(VOLUME, device="cpu", progress=False, **target)
    back = inrformat.decode(file, device=device).data
    assert np.array_equal(back, inrformat.decode(file, device="cpu").data)


def test_a_siren(device):
    file = inrformat.encode(VOLUME, preset="paper", seconds=0.5, device=device, progress=False)
    with Reader(file) as reader:
        assert reader.has("SIRN")
    same_on_both(file, device)


@pytest.mark.parametrize(("kind", "factors"), [("light", (2, 2, 2)), ("srdensenet", (1, 4, 4))])
def test_models_of_super_resolution(device, kind, factors):
    model = train_sr([VOLUME.data], kind=kind, steps=2, batch=1, factors=[factors], device=device)
    lr = torch.rand(5, 8, 7)
    shape = [n * f for n, f in zip(lr.shape, factors, strict=True)]
    here = super_resolve(model, lr, factors, shape)
    there = super_resolve(create_model(kind, model.config), lr, factors, shape)
    assert not torch.equal(here, there)  # it has learned something
    there = super_resolve(model.to(device), lr.to(device), factors, shape)
    assert torch.allclose(there.cpu(), here, atol=1e-5)


def test_a_model_of_ones_own_stays_where_it_is(device):
    model = default_model()
    there = model.on(torch.device(device))
    assert there is not model and there.first.weight.device.type == "pretend"
    assert model.on(torch.device("cpu")) is model and model.first.weight.device.type == "cpu"


def test_it_refuses_what_cuda_would(device):
    whole = torch.ones(32, 32, dtype=torch.int8)
    there = whole.to(device)
    for wrong in (
        lambda: there + whole,
        lambda: there @ there,
        lambda: whole[there.long()],
        lambda: torch._int_mm(there[:16], there),
        lambda: torch._int_mm(there, there[:, :5]),
        lambda: there.to(torch.uint16) + 1,
        there.numpy,
    ):
        with pytest.raises((RuntimeError, TypeError)):
            wrong()
    assert torch.equal(torch._int_mm(there, there).cpu(), torch._int_mm(whole, whole))
    assert torch.equal((there[whole.long()] + 1).cpu(), whole[whole.long()] + 1)
