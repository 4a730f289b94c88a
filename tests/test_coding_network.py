"""Section SIRN: round trips, what is refused, and the arithmetic against the specification in plain int64."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_reference import codes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from inrformat.coding import network as base
from inrformat.coding.network import Layer, Network
from inrformat.container import Limits
from inrformat.errors import FormatError, LimitError
from inrformat.models.siren import Evaluator

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))
import make_vectors as vectors


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Any network that fits the format, from tiny weights to the headroom, at any shift."""
    width, depth = draw(st.sampled_from([1, 2, 3, 8, 16, 17])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers = []
    for index, (rows, inputs) in enumerate(base.shapes(width, depth)):
        scale = draw(st.sampled_from([1, 100, 12345, 16383]))
        most = draw(st.sampled_from([0, 1, 127, 128, 40_000, (1 << 22) - 1]))
        if index == 0:
            most = min(most, ((1 << 52) - 1) // (scale << 20))
        weights = rng.integers(-most, most + 1, (rows, inputs))
        bias = rng.integers(-(2 ** draw(st.integers(0, 22))), 2 ** draw(st.integers(0, 22)), rows)
        layers.append(Layer(weights, bias, scale, draw(st.integers(0, 48)), draw(st.integers(0, 15))))
    return Network(tuple(layers))


def same(a: Network, b: Network) -> bool:
    return all(
        np.array_equal(x.weights, y.weights)
        and np.array_equal(x.bias, y.bias)
        and (x.scale, x.shift, x.bias_shift) == (y.scale, y.shift, y.bias_shift)
        for x, y in zip(a.layers, b.layers, strict=True)
    )


@settings(deadline=None, max_examples=60)
@given(networks(), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_round_trip_and_arithmetic(network: Network, shape: tuple[int, int, int]) -> None:
    assert same(base.unpack(base.pack(network)), network)
    assert np.array_equal(Evaluator(network, shape).codes().numpy(), codes_of(network, shape))


@pytest.mark.parametrize(("width", "depth", "count"), [(128, 2, 17153), (128, 3, 33665), (128, 4, 50177)])
def test_the_papers_networks(width: int, depth: int, count: int) -> None:
    assert base.parameter_count(width, depth) == count


def test_coordinates() -> None:
    assert base.coordinates(1).tolist() == [0]
    assert base.coordinates(2).tolist() == [-(2**19), 2**19]
    assert base.coordinates(3).tolist() == [-699051, 0, 699050]  # floor, also below zero
    for n in (5, 1000, 65536):
        c = base.coordinates(n)
        assert c.min() > -(2**20) and c.max() < 2**20 and (np.diff(c) > 0).all()


def test_activation_table() -> None:
    table = base.activation_table(16383)
    assert table.min() == -16382 and table.max() == 16382
    for scale in (1, 7, 16383):
        assert np.abs(base.activation_table(scale).astype(int)).max() <= scale


def refused(data: bytes, code: str, limits: Limits | None = None) -> None:
    with pytest.raises(FormatError) as caught:
        base.unpack(data, limits or Limits())
    assert caught.value.code == code
    assert isinstance(caught.value, LimitError) == bool(limits)


SMALL = vectors.random_network(1, 8, 2)
LAYER: dict[str, Any] = {"scale": 1, "shift": 0, "bias_shift": 0, "weights": [0, 0], "biases": [0, 0]}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        *[(key, bad, "out-of-range") for key, bad in (("scale", 0), ("scale", 16384), ("shift", -1))],
        *[(key, bad, "out-of-range") for key, bad in (("shift", 49), ("bias_shift", 16), ("bias_shift", -1))],
        *[("weights", bad, "out-of-range") for bad in ([2, 0], [0, 93], [-1, 0], [0], [0, 0, 0])],
        *[("biases", bad, "bad-type") for bad in ("00", [0.0, 1.0], None, [True, 0])],
        ("scale", 1.0, "bad-type"),
        ("more", 1, "unknown-key"),
    ],
)
def test_a_layers_fields(field: str, value: Any, code: str) -> None:
    refused(vectors.base_network(SMALL, layers=[LAYER, LAYER, {**LAYER, field: value}]), code)


@pytest.mark.parametrize("key", LAYER)
def test_a_layers_missing_field(key: str) -> None:
    layer = {k: v for k, v in LAYER.items() if k != key}
    refused(vectors.base_network(SMALL, layers=[layer, LAYER, LAYER]), "missing-key")


def test_limits() -> None:
    good = base.pack(SMALL)
    assert SMALL.parameters == 113
    base.unpack(good, Limits(max_parameters=113, max_layers=3))
    refused(good, "too-many-parameters", Limits(max_parameters=112))
    refused(good, "too-many-layers", Limits(max_layers=2))


def test_headroom() -> None:
    """The first layer's products may not reach 2^52; no other layer of this format can."""
    layer = SMALL.layers[0]
    most = ((1 << 52) - 1) // (16383 << 20)
    for weight, fine in ((most, True), (-most, True), (most + 1, False), (-most - 1, False)):
        changed = Layer(np.full((8, 3), weight), layer.bias, 16383, 0, 0)
        data = base.pack(Network((changed, *SMALL.layers[1:])))
        if fine:
            base.unpack(data)
        else:
            refused(data, "network-overflow")


def test_every_cut_of_the_section_is_refused() -> None:
    good = base.pack(SMALL)
    for end in range(len(good)):
        with pytest.raises(FormatError):
            base.unpack(good[:end])
