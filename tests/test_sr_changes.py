"""What a volume changes in its super-resolution model: packed and applied, and who takes no notice of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrformat
from inrformat.container import Reader
from inrformat.container.layout import build
from inrformat.decode import File
from inrformat.errors import FormatError, ModelNotFoundError
from inrformat.models import sr_changes
from inrformat.models.registry import create_model, default_model, load_model, pack_model
from inrformat.models.sr_changes import LARGEST, MOST_EXPONENT, MOST_RANK, Change

VECTORS = Path(__file__).parents[1] / "spec" / "vectors" / "valid"
ABOUT = {"name": "mine", "version": 1, "licence": "MIT", "trained_on": "nothing at all"}


def small(kind, half=False, **config):
    torch.manual_seed(0)
    made = create_model(kind, config)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return load_model(pack_model(made, **ABOUT, half=half))


MODELS = [
    small("light", channels=3, layers=2),
    small("light", half=True, channels=1, layers=1),
    small("srdensenet", blocks=2, layers=2, growth=2, maps=3),
]


def weights_of(model):
    return {name: weight.detach().numpy() for name, weight in model.named_parameters()}


def random_change(rng, shape, reach):
    rows, columns = shape[0], math.prod(shape[1:])
    rank = int(rng.integers(min(MOST_RANK, rows, columns) + 1))
    shapes = [(rows, rank), (rank, columns)] if rank else [(rows, columns)]
    parts = tuple(rng.integers(-reach, reach + 1, shape) * (rng.random(shape) < 0.5) for shape in shapes)
    return Change(int(rng.integers(MOST_EXPONENT + 1)), parts)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(MODELS),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 40, 3000, LARGEST]),
    st.sampled_from([0.2, 0.7, 1.0]),
)
def test_changes_come_back_to_the_bit(model, seed, reach, share):
    """The weight is the float32 of the float64 sum; a tensor that nothing changes stays as it is."""
    rng = np.random.default_rng(seed)
    before = weights_of(model)
    changes = {
        name: random_change(rng, weight.shape, reach)
        for name, weight in before.items()
        if rng.random() < share
    }
    tuned = sr_changes.apply(model, sr_changes.pack(model, changes))
    for name, weight in weights_of(tuned).items():
        expected = before[name]
        if name in changes:
            exponent, parts = changes[name].exponent, [part.astype(float) for part in changes[name].parts]
            added = (parts[0] @ parts[1] if len(parts) == 2 else parts[0]) / 2.0**exponent
            expected = (expected + added.reshape(expected.shape)).astype(np.float32)
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_not_changed_in_its_place(model):
    before = {name: weight.copy() for name, weight in weights_of(model).items()}
    name = next(iter(before))
    change = Change(0, (np.ones((len(before[name]), before[name].size // len(before[name])), np.int64),))
    tuned = sr_changes.apply(model, sr_changes.pack(model, {name: change}))
    assert not np.array_equal(weights_of(tuned)[name], before[name])
    assert all(np.array_equal(weight, before[key]) for key, weight in weights_of(model).items())
    assert tuned.reference == model.reference


def test_an_unchanged_model_takes_few_bytes():
    model = default_model()
    section = sr_changes.pack(model, {})
    assert len(section) < 500 < sum(p.numel() for p in model.parameters()) / 100
    assert all(
        np.array_equal(weight, weights_of(model)[name])
        for name, weight in weights_of(sr_changes.apply(model, section)).items()
    )


def test_numbers_are_bounded():
    model = MODELS[1]
    section = sr_changes.pack(model, {"gains": Change(3, (np.full((1, 9), LARGEST + 1),))})
    with pytest.raises(FormatError, match="out-of-range"):
        sr_changes.apply(model, section)


def with_section(path, **bodies):
    """A vector with other sections; None: without it."""
    with Reader(path.read_bytes()) as reader:
        sections = {info.type: reader.read(info.type) for info in reader.sections} | bodies
    return build([(name, body) for name, body in sections.items() if body is not None])


def by_lanczos(data):
    with File(data, device="cpu", use_sr=False) as file:
        return file.full().data


@pytest.mark.parametrize("name", ["sr-changes-light", "sr-changes-at-1-1-1-latents", "sr-changes-srdensenet"])
def test_who_takes_no_notice_of_changes(name):
    """The preview and Lanczos are the same with changes, with broken ones and without; the full level is not."""
    path = VECTORS / f"{name}.inrv"
    files = [path.read_bytes(), with_section(path, SRTU=b"?"), with_section(path, SRTU=None)]
    previews = [inrformat.decode(data, level="preview", device="cpu").data for data in files]
    plain = [by_lanczos(data) for data in files]
    for same in (previews, plain):
        assert np.array_equal(same[0], same[1]) and np.array_equal(same[0], same[2])
    changed, unchanged = (inrformat.decode(data, device="cpu").data for data in files[::2])
    assert not np.array_equal(changed, unchanged) and not np.array_equal(changed, plain[0])
    with pytest.raises(FormatError, match="network-truncated"):
        inrformat.decode(files[1], device="cpu")
    with pytest.raises(FormatError, match="network-truncated"):
        inrformat.verify(files[1], device="cpu")


def test_changes_to_a_model_beside_the_file(tmp_path):
    """The model is found by its hash, and changed; without it, verify says nothing and decode refuses."""
    path = VECTORS / "sr-changes-light.inrv"
    with Reader(path.read_bytes()) as reader:
        (tmp_path / "model.inrm").write_bytes(reader.read("SRMD"))
    data = with_section(path, SRMD=None)
    inrformat.verify(data, device="cpu")
    with pytest.raises(ModelNotFoundError):
        inrformat.decode(data, device="cpu")
    with File(data, device="cpu", models=[tmp_path]) as file:
        assert np.array_equal(file.full().data, inrformat.decode(path.read_bytes(), device="cpu").data)


def test_regions_are_those_of_the_changed_model():
    with File((VECTORS / "sr-changes-light.inrv").read_bytes(), device="cpu", tile=(2, 2, 2)) as file:
        whole = file.full().data.astype(float)
        part = file.region(((2, 7), (3, 9), (1, 6))).astype(float)
    assert np.abs(part - whole[2:7, 3:9, 1:6]).max() <= 1
