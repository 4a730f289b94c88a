"""What a volume changes in its latent model: packed and applied, and what takes notice of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrformat
from inrformat.coding import integers
from inrformat.container import Limits, build
from inrformat.decode import File
from inrformat.errors import FormatError, LimitError, ModelNotFoundError
from inrformat.fit.latents import Analysis
from inrformat.latents import write
from inrformat.models import latent_changes, registry
from inrformat.models.integers import LARGEST_WEIGHT, PARTS
from inrformat.models.latent_changes import MOST_RANK
from inrformat.models.latents import LatentModel

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))
import latent_vectors

NAMES = list(LatentModel.networks_of)
SMALL = latent_vectors.TINY
MODELS = [
    registry.load_latents(file)
    for file in (
        SMALL,
        latent_vectors.mixed_model(),
        latent_vectors.some_shifts(),
        latent_vectors.model_file(latent_vectors.random_weights(7, 20, 18, shifts=30)),
    )
]


def added(model, products):
    """The weights that the products make of a model's."""
    weights = {key: w.astype(np.int64) for key, w in model.weights.items()}
    for name, layers in products.items():
        for part, (left, right) in layers.items():
            weights[f"{name}.{part}"] = weights[f"{name}.{part}"] + left @ right
    return weights


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(MODELS),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, MOST_RANK)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 3, 8]),
)
def test_changes_come_back_to_the_bit(model, ranks, seed, reach):
    """The weights are the sums; a network that nothing changes stays as it is, and so does the model given."""
    before = {key: w.copy() for key, w in model.weights.items()}
    products = latent_vectors.random_products(model, ranks, seed, reach)
    section = latent_changes.pack(model, products)
    assert list(section[: len(NAMES)]) == [most_rank(model, name, ranks.get(name, 0)) for name in NAMES]
    tuned = latent_changes.apply(model, section)
    for key, expected in added(model, products).items():
        assert tuned.weights[key].dtype == np.int16
        np.testing.assert_array_equal(tuned.weights[key], expected)
        assert key.split(".")[0] in ranks or tuned.weights[key] is model.weights[key]
    for number, name in enumerate(NAMES):
        layer = tuned.networks[number].last
        np.testing.assert_array_equal(layer.numpy(), tuned.weights[f"{name}.last"])
    assert all(np.array_equal(w, before[key]) for key, w in model.weights.items())
    assert tuned.reference == model.reference


def most_rank(model, name, rank):
    """What is written: no more than the rows of the network's largest layer."""
    return min(rank, max(len(model.weights[f"{name}.{part}"]) for part in PARTS))


def test_a_rank_is_that_of_no_layer_but_the_largest():
    """The first layer may have fewer rows than the rank that the second is changed with."""
    model = registry.load_latents(latent_vectors.model_file(latent_vectors.random_weights(9, 2, 12)))
    products = latent_vectors.random_products(model, {"4": 7}, 9)
    assert [len(products["4"][part][1]) for part in PARTS] == [2, 7, 3]
    section = latent_changes.pack(model, products)
    assert section[2] == 7
    tuned = latent_changes.apply(model, section)
    assert all(np.array_equal(tuned.weights[key], w) for key, w in added(model, products).items())


def test_a_model_that_is_not_changed():
    """Seven zeros, and the code of nothing."""
    section = latent_changes.pack(MODELS[0], {})
    assert section == bytes(7) + integers.encode(*[np.zeros(0, np.int64)] * 3)
    tuned = latent_changes.apply(MODELS[0], section)
    assert all(np.array_equal(w, MODELS[0].weights[key]) for key, w in tuned.weights.items())


@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_are_bounded(sign):
    """A weight may become as large as a model's own, and no larger; a row of them too."""
    model = MODELS[0]
    for row, fits in (
        ([LARGEST_WEIGHT] * 64 + [132104 - 64 * LARGEST_WEIGHT], True),
        ([LARGEST_WEIGHT] * 64 + [132105 - 64 * LARGEST_WEIGHT], False),
        ([LARGEST_WEIGHT + 1], False),
        ([2**16 + LARGEST_WEIGHT], False),
    ):
        wanted = np.zeros((1, latent_vectors.inputs(1)), np.int64)
        wanted[0, : len(row)] = row
        products = {"1": latent_vectors.to_weights(model, "1", {"first": sign * wanted})}
        section = latent_changes.pack(model, products)
        if fits:
            assert np.array_equal(latent_changes.apply(model, section).weights["1.first"], sign * wanted)
        else:
            with pytest.raises(FormatError, match="out-of-range, section LATU"):
                latent_changes.apply(model, section)


@pytest.mark.parametrize(
    ("section", "code"),
    [
        (b"", "network-truncated"),
        (bytes(6), "network-truncated"),
        (bytes(7), "rans-truncated"),
        (b"\x11" + bytes(5), "network-truncated"),
        (b"\x11" + bytes(11), "network-truncated"),
        (b"\x11" + bytes(12), "out-of-range"),
        (b"\1" + bytes(6) + b"\x5d" * 6, "out-of-range"),
        (b"\1" + bytes(6) + b"\x5c" * 6, "rans-truncated"),
        (bytes(7) + b"\0\0\0\0", "rans-bad-state"),
        (bytes(7) + b"\0\0\1\0\0\0", "rans-bad-end"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_section(section, code):
    """Of several rules that are broken the first counts: the length, what it announces, the code, the sums."""
    with pytest.raises(FormatError) as caught:
        latent_changes.apply(MODELS[0], section)
    assert caught.value.code == code
    assert "section LATU" in str(caught.value)


# --- files ----------------------------------------------------------------------------------------


def codes(data, **how):
    with File(data, device="cpu", **how) as file:
        return file.codes()


def outcome(data):
    """The codes of a file, or the code of its error."""
    try:
        return codes(data).tolist()
    except FormatError as error:
        return error.code


def test_latents_are_those_of_the_changed_model():
    """Without the changes, or with others, they are different or none."""
    parts = latent_vectors.changed()
    found = outcome(parts.file())
    assert isinstance(found, list)
    section = latent_vectors.changes(SMALL, {"1": 1, "6": 2}, 110)
    for other in (None, latent_changes.pack(MODELS[0], {}), section):
        assert outcome(replace(parts, latu=other).file()) != found
    assert outcome(replace(parts, latu=b"").file()) == "network-truncated"


def test_writing_gives_what_reading_finds():
    """The section goes before the latents, and only where there is one."""
    torch.manual_seed(0)
    grid = torch.rand(6, 9, 10) * 65536
    model, latu = MODELS[0], latent_vectors.changes(SMALL, {"7": 1, "3": 2}, 3)
    found = []
    for changes in (b"", latu):
        latents = Analysis(grid, (1.0, 1.0, 1.0)).latents(3000.0)
        sections, written = write(latents, model, changes)
        named = ["LATN", *(["LATU"] if changes else []), "LATD"]
        assert [name for name, _ in sections] == named
        head = replace(latent_vectors.changed().head, shape=(6, 9, 10))
        file = build([("HEAD", head.pack()), *sections, ("LATM", SMALL)])
        assert torch.equal(codes(file), written)
        assert inrformat.verify(file, device="cpu").latents["adapted"] == bool(changes)
        found.append(file)
    assert found[0] != found[1]


def test_whether_a_model_is_adapted_is_told():
    parts = latent_vectors.changed()
    about = inrformat.info(parts.file()).latents
    assert about["adapted"] is True and about["name"] == "latent-vector"
    unchanged = latent_vectors.random_parts((3, 4, 5), (7,), 1)
    assert inrformat.info(unchanged.file()).latents == {**about, "adapted": False}


def test_changes_to_a_model_beside_the_file(tmp_path):
    """The model is found by its hash, and changed; without it, verify says nothing and decode refuses."""
    parts = latent_vectors.changed()
    (tmp_path / "model.inrm").write_bytes(parts.model)
    alone = replace(parts, model=None).file()
    inrformat.verify(alone, device="cpu")
    with pytest.raises(ModelNotFoundError):
        inrformat.decode(alone, device="cpu")
    assert torch.equal(codes(alone, models=[tmp_path]), codes(parts.file()))
    broken = replace(parts, model=None, latu=b"?").file()
    inrformat.verify(broken, device="cpu")
    with pytest.raises(FormatError, match="network-truncated"):
        codes(broken, models=[tmp_path])


@pytest.mark.parametrize("latu", [b"", b"?" * 7, bytes(7)])
def test_verify_and_decode_refuse_the_same(latu):
    data = replace(latent_vectors.changed(), latu=latu).file()
    for look in (inrformat.verify, inrformat.decode):
        with pytest.raises(FormatError, match="section LATU"):
            look(data, device="cpu")
    with pytest.raises(FormatError, match="section LATU"):
        inrformat.decode(data, level="preview", device="cpu")
    assert inrformat.info(data).latents["adapted"]


def test_the_grid_is_looked_at_before_the_changes():
    data = replace(latent_vectors.changed(), latu=b"").file()
    with pytest.raises(LimitError, match="too-many-latents"):
        inrformat.decode(data, device="cpu", limits=Limits(max_latents=59))
