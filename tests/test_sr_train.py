"""Training a super-resolution model, in seconds."""

import math

import numpy as np
import pytest
import torch

from inrformat import train_sr as trainer
from inrformat.errors import InputError, UsageError
from inrformat.models.light import LightSR
from inrformat.models.srdensenet import SRDenseNet
from inrformat.phantom import head_phantom
from inrformat.train_sr import TrainProgress, damage, gain_db, train_sr

TINY = {"channels": 8, "layers": 2}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def volume():
    return head_phantom((24, 64, 64), noise=2.0)


def test_training_lowers_the_loss(volume, monkeypatch):
    monkeypatch.setattr(trainer, "FACTORS", (((2, 2, 2), 1.0),))
    monkeypatch.setattr(trainer, "damage", lambda lr, _rng: lr)
    seen: list[TrainProgress] = []
    model = train_sr(
        [volume],
        config=TINY,
        steps=80,
        batch=2,
        patch=8,
        learning_rate=1e-2,
        progress=seen.append,
        validation=[volume],
    )
    assert isinstance(model, LightSR)
    assert not model.training
    assert [p.step for p in seen] == [*range(1, 81), 80]
    assert seen[-1].done == 1.0
    assert seen[-1].loss < seen[2].loss
    gains = {f: g for _, f, g in seen[-1].gains}
    assert gains[2, 2, 2] > 0.1
    assert gains[2, 2, 2] == pytest.approx(gain_db(model, volume, (2, 2, 2)))


def test_the_same_seed_gives_the_same_model(volume):
    def run(seed):
        return train_sr([volume], config=TINY, steps=3, batch=1, patch=6, seed=seed).state_dict()

    a, b, c = run(1), run(1), run(2)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_volumes_of_any_shape(volume):
    rng = np.random.default_rng(0)
    shapes = [(1, 40, 31), (3, 1, 50), (13, 17, 90), (1, 1, 1)]
    odd = [rng.integers(0, 99, shape).astype(np.uint16) for shape in shapes]
    model = train_sr([*odd, volume], config=TINY, steps=20, batch=1, patch=6)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_constant_volume_does_no_harm():
    model = train_sr([np.full((8, 16, 16), 7, np.int16)], config=TINY, steps=3, batch=1, patch=4)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_srdensenet_trains(volume):
    config = {"blocks": 1, "layers": 2, "growth": 4, "maps": 8}
    model = train_sr([volume], kind="srdensenet", config=config, steps=4, batch=1, patch=8)
    assert isinstance(model, SRDenseNet)
    assert model.reconstruction.weight.detach().abs().max() > 0


def test_going_on_from_a_model(volume):
    start = LightSR(**TINY)
    before = {k: v.clone() for k, v in start.state_dict().items()}
    model = train_sr([volume], steps=2, batch=1, patch=6, start=start)
    assert model.config == TINY
    assert all(torch.equal(v, before[k]) for k, v in start.state_dict().items())  # the start is left alone
    assert not all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_damage_is_of_a_sensible_size():
    rng = np.random.default_rng(0)
    lr = torch.rand(2, 1, 12, 13)
    rms = [float((damage(lr, rng) - lr).square().mean().sqrt()) for _ in range(200)]
    assert sum(r == 0 for r in rms) > 20
    assert 0.005 < np.median(rms) < 0.2
    assert max(rms) < 0.4


def test_wrong_calls(volume):
    with pytest.raises(UsageError, match="budget"):
        train_sr([volume])
    with pytest.raises(UsageError, match="budget"):
        train_sr([volume], steps=1, seconds=1)
    for budget in ({"steps": -1}, {"steps": 0}, *({"seconds": s} for s in (-1, 0, math.inf, math.nan))):
        with pytest.raises(UsageError, match="budget"):
            train_sr([volume], **budget)
    with pytest.raises(UsageError, match="no volume"):
        train_sr([], steps=1)
    with pytest.raises(UsageError, match="unknown kind"):
        train_sr([volume], kind="heavy", steps=1)
    with pytest.raises(InputError, match="axes"):
        train_sr([np.zeros((4, 4))], steps=1)


@pytest.mark.parametrize(
    "wrong", [{"factors": []}, {"factors": [(3, 3, 3)]}, {"factors": [(8, 8, 8)]}, {"batch": 0}, {"patch": 0}]
)
def test_what_cannot_be_trained(wrong):
    with pytest.raises(UsageError, match=r"factors= are some|at least 1"):
        train_sr([np.zeros((8, 16, 16), np.int16)], config=TINY, **{"steps": 1, **wrong})
