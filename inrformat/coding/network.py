"""The quantised SIREN and its section SIRN (spec section "The base network").

All arithmetic is on integers. A layer has weights q, biases b, a scale A, a shift S and a bias shift B. The
activation of phase p, as an input of a layer of scale A, is `activation_table(A)[p mod 2^16]`. For each row

    z = floor((sum(q a) + 2^S / 2) / 2^S) + b 2^B         every layer but the first
    z = floor((sum over axes of floor(A q c / 2^S) + 128) / 256) + b 2^B         the first, of coordinates c

In a hidden layer z is a phase: 2^16 of them make a turn. In the last layer, of one row, z is the code u of a
voxel: u / 2^16 runs from 0 at the volume's least value to 1 at its greatest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..container import records
from ..container.codes import fail
from ..container.fields import Fields
from ..container.limits import DEFAULT_LIMITS, Limits
from . import integers
from .bank import FAMILIES
from .sine import AMPLITUDE, sine_table

Ints = npt.NDArray[np.int64]

SECTION = "SIRN"
COORDINATE_BITS = 20
CODE_BITS = 16
MOST_WIDTH = 1024
MOST_SHIFT = 48
FRACTION_BITS = 8
MOST_BIAS_SHIFT = 15
HEADROOM = 1 << 52
LEAST_CODE, GREATEST_CODE = -(1 << CODE_BITS), (2 << CODE_BITS) - 1
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Layer:
    """weights (rows, inputs) and bias (rows), integers; see the module for the rest."""

    weights: Ints
    bias: Ints
    scale: int
    shift: int
    bias_shift: int


@dataclass(frozen=True)
class Network:
    """A quantised SIREN: hidden layers, then the last one. `width` rows each but the last, which has one."""

    layers: tuple[Layer, ...]

    @property
    def width(self) -> int:
        """Rows of a hidden layer."""
        return len(self.layers[0].bias)

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.layers) - 1

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return parameter_count(self.width, self.depth)


def shapes(width: int, depth: int) -> list[tuple[int, int]]:
    """(rows, inputs) of every layer of a network of three inputs and one output."""
    return [(width, 3), *[(width, width)] * (depth - 1), (1, width)]


def parameter_count(width: int, depth: int) -> int:
    """Weights and biases of a SIREN; the paper's Tables 1 to 3 have 17,153, 33,665 and 50,177."""
    return sum(rows * (inputs + 1) for rows, inputs in shapes(width, depth))


def coordinates(n: int, start: int = 0, stop: int | None = None) -> Ints:
    """Fixed-point coordinates of voxels [start, stop) of n along an axis: floor((2 i + 1 - n) 2^20 / n)."""
    i = np.arange(start, n if stop is None else stop, dtype=np.int64)
    return (2 * i + 1 - n) * (1 << COORDINATE_BITS) // n


def activation_table(scale: int) -> npt.NDArray[np.int16]:
    """floor((A S[k] + 2^13) / 2^14): the sine of amplitude A, rounded, for every phase k."""
    return (sine_table().astype(np.int64) * scale + (1 << 13) >> 14).astype(np.int16)


def pack(network: Network) -> bytes:
    """The section SIRN: length of the record (u32), record, entropy code, low bits."""
    kinds = [(integers.best_level(w.ravel()), integers.best_level(b)) for w, b in _arrays(network)]
    record = {
        "width": network.width,
        "depth": network.depth,
        "layers": [
            {
                "scale": layer.scale,
                "shift": layer.shift,
                "bias_shift": layer.bias_shift,
                "weights": list(weights),
                "biases": list(biases),
            }
            for layer, (weights, biases) in zip(network.layers, kinds, strict=True)
        ],
    }
    values = np.concatenate([part for w, b in _arrays(network) for part in (w.ravel(), b)])
    head = records.pack(record)
    spread = integers.spread(kinds, counts(network.width, network.depth))
    return _LENGTH.pack(len(head)) + head + integers.encode(values, *spread)


def unpack(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Network:
    """The network of a section SIRN; FormatError or LimitError, the latter before anything is allocated."""
    if len(data) < 4 or len(data) < 4 + _LENGTH.unpack_from(data)[0]:
        raise fail("network-truncated", "the section ends inside its record", section=SECTION)
    end = 4 + _LENGTH.unpack_from(data)[0]
    fields = Fields(records.unpack(data[4:end], limits, section=SECTION), SECTION)
    width = fields.take_int("width", 1, MOST_WIDTH)
    depth = fields.take_int("depth", 1, 2**31)
    if depth + 1 > limits.max_layers:
        raise fields.error("too-many-layers", f"{depth + 1} layers, at most {limits.max_layers} are allowed")
    count = parameter_count(width, depth)
    if count > limits.max_parameters:
        message = f"{count} parameters, at most {limits.max_parameters} are allowed"
        raise fields.error("too-many-parameters", message)
    entries = [_Entry.read(entry) for entry in fields.take_list("layers", depth + 1, depth + 1)]
    fields.done()
    kinds = [(entry.weights, entry.biases) for entry in entries]
    values = integers.decode_runs(data[end:], kinds, counts(width, depth), SECTION)
    layers, at = [], 0
    for (rows, inputs), entry in zip(shapes(width, depth), entries, strict=True):
        weights = values[at : at + rows * inputs].reshape(rows, inputs)
        bias = values[at + rows * inputs : at + rows * (inputs + 1)]
        layers.append(Layer(weights, bias, entry.scale, entry.shift, entry.bias_shift))
        at += rows * (inputs + 1)
    network = Network(tuple(layers))
    check_headroom(network)
    return network


def check_headroom(network: Network) -> None:
    """FormatError unless every sum stays below 2^52: then float64 and int64 give it to the bit."""
    for index, layer in enumerate(network.layers):
        reach = (
            sum_bound(layer) if index else int(np.abs(layer.weights).max()) * layer.scale << COORDINATE_BITS
        )
        if reach >= HEADROOM:
            raise fail("network-overflow", "a layer's sums can reach 2^52", section=SECTION)


def sum_bound(layer: Layer) -> int:
    """What the magnitude of a sum over activations cannot exceed, in any layer but the first."""
    return int(np.abs(layer.weights).sum(axis=1).max()) * layer.scale + (1 << layer.shift >> 1)


@dataclass(frozen=True)
class _Entry:
    """A layer's entry in the record; weights and biases are (family, level)."""

    scale: int
    shift: int
    bias_shift: int
    weights: tuple[int, int]
    biases: tuple[int, int]

    @classmethod
    def read(cls, record: Any) -> _Entry:
        fields = Fields(record, SECTION)
        entry = cls(
            scale=fields.take_int("scale", 1, AMPLITUDE),
            shift=fields.take_int("shift", 0, MOST_SHIFT),
            bias_shift=fields.take_int("bias_shift", 0, MOST_BIAS_SHIFT),
            weights=_kind(fields, "weights"),
            biases=_kind(fields, "biases"),
        )
        fields.done()
        return entry


def _kind(fields: Fields, key: str) -> tuple[int, int]:
    family, level = fields.take_ints(key, 2, 0, integers.LEVELS - 1)
    if family >= len(FAMILIES):
        raise fields.error("out-of-range", f"{key} names the family {family} of {len(FAMILIES)}")
    return family, level


def _arrays(network: Network) -> list[tuple[Ints, Ints]]:
    return [(layer.weights, layer.bias) for layer in network.layers]


def counts(width: int, depth: int) -> list[int]:
    """How many numbers there are of each kind, in coding order: a layer's weights, then its biases."""
    return [count for rows, inputs in shapes(width, depth) for count in (rows * inputs, rows)]
