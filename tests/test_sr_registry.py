"""Model files: saved, loaded, found by hash; everything that is wrong with one is refused by name."""

import hashlib

import numpy as np
import pytest
import torch

from inrformat.container import layout
from inrformat.container.headers import ModelHeader, ModelReference, pack_tensors
from inrformat.container.limits import Limits
from inrformat.errors import FormatError, InputError, LimitError, ModelNotFoundError, UsageError
from inrformat.models import registry
from inrformat.models.light import LightSR
from inrformat.models.registry import FOLDERS, default_model, find_model, load_model, pack_model, save_model
from inrformat.models.srdensenet import SRDenseNet

ABOUT = {"name": "mine", "version": 3, "licence": "MIT", "trained_on": "nothing at all"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = LightSR(channels=4, layers=2)
    torch.nn.init.normal_(made.head)
    return made


def forged(model, *, config=None, tensors=None, kind="light"):
    """A model file that need not make sense; its checksums are right."""
    arrays = {k: v.numpy().astype(np.float32) for k, v in model.state_dict().items()} | (tensors or {})
    infos, body = pack_tensors({k: v for k, v in arrays.items() if v is not None})
    header = ModelHeader("mine", 1, kind, model.config if config is None else config, "MIT", "x", infos)
    return layout.build([("MODL", header.pack()), ("TENS", body)])


def test_save_and_load(model, tmp_path):
    path = tmp_path / "mine.inrm"
    saved = save_model(path, model, **ABOUT, half=False)
    loaded = load_model(path)
    assert load_model(str(path)).header == loaded.header == saved.header
    assert (loaded.header.name, loaded.header.version, loaded.header.licence) == ("mine", 3, "MIT")
    assert loaded.file == path.read_bytes() == load_model(path.read_bytes()).file
    assert loaded.reference == ModelReference("mine", 3, hashlib.sha256(path.read_bytes()).digest())
    assert not loaded.training
    weights, saved_weights = loaded.state_dict(), model.state_dict()
    assert weights.keys() == saved_weights.keys()
    assert all(torch.equal(weights[name], saved_weights[name]) for name in weights)
    lr = torch.rand(1, 9, 9, 9)  # torch may sum otherwise where gradients are wanted
    torch.testing.assert_close(loaded(lr, (2, 2, 2)), model(lr, (2, 2, 2)), rtol=0, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_float16_is_half_the_file_and_the_same_detail(model, tmp_path):
    small, large = pack_model(model, **ABOUT), pack_model(model, **ABOUT, half=False)
    assert len(small) < 0.6 * len(large)
    lr = torch.rand(1, 9, 9, 9)
    torch.testing.assert_close(load_model(small)(lr, (2, 2, 2)), model(lr, (2, 2, 2)), rtol=0.01, atol=0.01)
    assert pack_model(load_model(small), **ABOUT) == small  # nothing is lost by saving again


def test_srdensenet_round_trip():
    made = SRDenseNet(blocks=1, layers=2, growth=2, maps=4)
    loaded = load_model(pack_model(made, **ABOUT, half=False))
    assert isinstance(loaded, SRDenseNet)
    assert loaded.config == made.config
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_find_by_hash(model, tmp_path, monkeypatch):
    save_model(tmp_path / "a.inrm", model, **ABOUT)
    (tmp_path / "b.inrm").write_bytes(b"not a model")
    (tmp_path / "c.inrm").mkdir()
    reference = load_model(tmp_path / "a.inrm").reference
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(reference)
    for part in ("mine", "3", reference.sha256.hex(), FOLDERS):
        assert part in str(caught.value)
    assert find_model(reference, search=[tmp_path]).reference == reference
    monkeypatch.setenv(FOLDERS, f"/does/not/exist:{tmp_path}")
    assert find_model(reference).reference == reference
    assert find_model(default_model().reference).reference == default_model().reference


def test_a_found_model_must_have_the_hash_not_the_name(model, tmp_path):
    save_model(tmp_path / "mine.inrm", model, **ABOUT)
    with pytest.raises(ModelNotFoundError):
        find_model(ModelReference("mine", 3, bytes(32)), search=[tmp_path])


def test_a_new_model_has_no_reference(model):
    with pytest.raises(UsageError, match="save it"):
        _ = model.reference


@pytest.mark.parametrize(
    "config",
    [
        {"channels": 5, "layers": 2},
        {"channels": 4, "layers": 3},
        {"channels": 0, "layers": 2},
        {"channels": 2**30, "layers": 2},
        {"channels": 4},
        {"channels": 4, "layers": 2, "more": 1},
        {},
    ],
)
def test_a_wrong_config_is_refused(model, config):
    with pytest.raises(FormatError) as caught:
        load_model(forged(model, config=config))
    assert caught.value.section == "MODL"


def test_a_wrong_kind_is_refused(model):
    with pytest.raises(FormatError):
        load_model(forged(model, kind="srdensenet", config=SRDenseNet(1, 1, 1, 1).config))


@pytest.mark.parametrize(
    "tensors",
    [
        {"head": np.zeros((7, 7, 7, 5), np.float32)},
        {"head": np.zeros((7, 7, 28), np.float32)},
        {"head": None},
        {"more": np.zeros(1, np.float32)},
    ],
)
def test_wrong_tensors_are_refused(model, tensors):
    with pytest.raises(FormatError):
        load_model(forged(model, tensors=tensors))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model, bad):
    head = np.zeros((7, 7, 7, 4), np.float32)
    head[1, 2, 3, 0] = bad
    with pytest.raises(FormatError) as caught:
        load_model(forged(model, tensors={"head": head}))
    assert caught.value.code == "weight-not-finite"
    model.head.data[0, 0, 0, 0] = bad
    with pytest.raises(UsageError, match="finite"):
        pack_model(model, **ABOUT)


def test_damage_is_noticed(model):
    data = bytearray(pack_model(model, **ABOUT))
    for at in range(0, len(data), 97):
        damaged = bytes(data[:at]) + bytes([data[at] ^ 0x10]) + bytes(data[at + 1 :])
        with pytest.raises(FormatError):
            load_model(damaged)
    with pytest.raises(FormatError):
        load_model(bytes(data[:-1]))


def test_limits(model):
    data = pack_model(model, **ABOUT)
    for limits in (Limits(max_parameters=100), Limits(max_model_bytes=100)):
        with pytest.raises(LimitError):
            load_model(data, limits)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.inrm"):
        with pytest.raises(InputError):
            load_model(path)


def test_shipped_files_are_all_valid():
    paths = list(registry.SHIPPED.glob("*"))
    assert [p.suffix for p in paths] == [".inrm"] * len(paths)
    assert {
        registry.DEFAULT,
        registry.DEFAULT_RESTORER,
        registry.DEFAULT_CONTEXT,
        registry.DEFAULT_LATENTS,
    } <= {p.name for p in paths}
    others = {"context": registry.load_context, "latents": registry.load_latents}
    for path in paths:
        name = path.name.rpartition("-")[0]
        assert others.get(name, load_model)(path).header.name.startswith(name)
