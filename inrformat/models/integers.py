"""Networks of whole numbers, which predict distributions (spec, "Integer networks").

Weights are integers in units of 1/512, inputs and activations in [-127, 127] in units of 1/16; every sum
stays below 2^24, so float32 (or float64) matrix products are exact, in any order, on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from .. import precision
from ..coding.lattice import CONSTANT, GREATEST
from ..container.codes import fail
from ..container.headers import ModelHeader, ModelReference
from ..errors import UsageError

SCALE = 512
"""Weights are stored in units of 1 / SCALE."""
LARGEST_WEIGHT = 2047
"""Of magnitude: what float16 holds exactly."""
LARGEST_HIDDEN = 1024
"""Rows of a hidden layer, at most: so much is made for every point that is predicted."""
UNIT = 16
"""Inputs and activations are in units of 1 / UNIT."""
OUTPUTS = 3
"""Centre, spread, tails: rows of a last layer, if no more is said of it."""
EXACT = 1 << 24
PARTS = ("first", "second", "last")
"""The layers of a network."""

Weights = Mapping[str, npt.NDArray[np.int16]]


@dataclass(frozen=True)
class Network:
    """Whole numbers: first (hidden, inputs), second (hidden 2, hidden + 1), last (rows, hidden 2 + inputs).

    The second layer's last input is a constant; the first's and the last's is among the inputs.
    """

    first: torch.Tensor
    second: torch.Tensor
    last: torch.Tensor

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """(rows, n) int64 in units of 1 / (SCALE UNIT), for whole numbers (inputs, n)."""
        result = features.new_empty(len(self.last), features.shape[1], dtype=torch.float32)
        return _multiply(self.last, self.before_last(features), result).long()

    def before_last(self, features: torch.Tensor) -> torch.Tensor:
        """What the last layer reads: the second layer's activations, then the features; float32."""
        first, second = self._scaled
        n = features.shape[1]
        result = features.new_empty(self.last.shape[1], n, dtype=torch.float32)
        deep, own = result[: len(second)], result[len(second) :]
        own.copy_(features)
        hidden = result.new_empty(len(first) + 1, n)
        _activate(_multiply(first, own, hidden[:-1]))
        hidden[-1] = CONSTANT
        _activate(_multiply(second, hidden, deep))
        return result

    @cached_property
    def _scaled(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden layers in their own units: by a power of two, so sums are as exact as before."""
        return self.first / SCALE, self.second / SCALE


def _multiply(weights: torch.Tensor, values: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The product, exactly: in float32, or in float64 where float32 products may be taken in fewer bits."""
    with precision.as_written(values.device):
        if values.device.type == "cpu" and precision.full():
            return torch.mm(weights, values, out=out)
        return out.copy_(weights.double() @ values.double())


def _activate(sums: torch.Tensor) -> None:
    sums.round_().clamp_(0, GREATEST)


class IntegerModel:
    """Several networks that go together, on a device.

    kind          of the model's file.
    networks_of   the name of each network, and how many inputs it has.
    rows_of_last  how many rows a last layer may have.
    weights       int16 arrays "network.layer", for each network and the layers first, second and last.
    header, file  of the model's file, where it has one.
    """

    kind: ClassVar[str]
    networks_of: ClassVar[Mapping[str, int]]
    rows_of_last: ClassVar[tuple[int, ...]] = (OUTPUTS,)
    header: ModelHeader | None = None
    file: bytes | None = None

    def __init__(self, weights: Weights, device: torch.device | str = "cpu") -> None:
        self.weights = dict(weights)
        self.networks = tuple(
            Network(
                *(
                    torch.from_numpy(self.weights[f"{name}.{part}"].astype(np.float32)).to(device)
                    for part in PARTS
                )
            )
            for name in self.networks_of
        )

    @property
    def work(self) -> int:
        """Multiply-adds for a point, at most."""
        return max(sum(layer.numel() for layer in (n.first, n.second, n.last)) for n in self.networks)

    @property
    def reference(self) -> ModelReference:
        """What a volume names this model by."""
        if self.header is None or self.file is None:
            raise UsageError("a model must be saved to a file before a volume can refer to it")
        return ModelReference(self.header.name, self.header.version, hashlib.sha256(self.file).digest())

    def to(self, device: torch.device | str) -> Self:
        """The same model on another device."""
        return self._like(self.weights, device)

    def changed(self, weights: Weights) -> Self:
        """The same model with other weights; it keeps the reference of the file that it came from."""
        return self._like(weights, self.networks[0].first.device)

    def _like(self, weights: Weights, device: torch.device | str) -> Self:
        model = type(self)(weights, device)
        model.header, model.file = self.header, self.file
        return model

    @classmethod
    def check(cls, weights: Weights, section: str = "TENS") -> None:
        """FormatError unless these are the layers of all networks, and no sum can reach 2^24."""
        if set(weights) != {f"{name}.{part}" for name in cls.networks_of for part in PARTS}:
            raise fail("out-of-range", f"the tensors are not those of a {cls.kind} model", section=section)
        for name, inputs in cls.networks_of.items():
            first, second, last = (weights[f"{name}.{part}"] for part in PARTS)
            shapes = (first.shape[1:], second.shape[1:], last.shape[1:])
            expected = (inputs,), (len(first) + 1,), (len(second) + inputs,)
            if shapes != expected or len(last) not in cls.rows_of_last:
                raise fail("out-of-range", "a layer has the wrong shape", section=section)
            if max(len(first), len(second)) > LARGEST_HIDDEN:
                message = f"a hidden layer has more than {LARGEST_HIDDEN} rows"
                raise fail("out-of-range", message, section=section)
            for layer in (first, second, last):
                sizes = np.abs(layer.astype(np.int64))
                if sizes.max() > LARGEST_WEIGHT or sizes.sum(axis=1).max() * GREATEST >= EXACT:
                    raise fail("out-of-range", "weights are too large to be exact", section=section)
