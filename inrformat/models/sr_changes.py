"""What a volume changes in its super-resolution model (spec section "SRTU"): few bytes, much better.

A change is added to a tensor: whole numbers times 2^-exponent, one for each weight (rank 0), or the product
of two thin matrices of them (Hu et al. 2021, LoRA): a tensor of shape (o, ...) is taken as a matrix (o, i).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..coding import integers
from ..coding.bank import FAMILIES
from ..container.codes import fail
from ..errors import UsageError
from .sr import SRModel

SECTION = "SRTU"
MOST_RANK, MOST_EXPONENT, LARGEST = 16, 24, 32767
KIND_BYTES = 6
"""Of each tensor: rank, exponent, then family and level of the first matrix and of the second."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """Of a tensor: 2^-exponent times the matrix in `parts`, or the product of the two, (o, r) by (r, i)."""

    exponent: int
    parts: tuple[Ints, ...]

    @property
    def rank(self) -> int:
        """Columns of the first of two matrices; 0: there is one."""
        return self.parts[0].shape[1] if len(self.parts) == 2 else 0

    def sum(self) -> npt.NDArray[np.float64]:
        """What is added, in any shape of as many numbers as the tensor has."""
        product = self.parts[0].astype(np.float64)
        return math.ldexp(1.0, -self.exponent) * (product @ self.parts[1] if self.rank else product)


def pack(model: SRModel, changes: Mapping[str, Change]) -> bytes:
    """The section SRTU, of changes to some of the model's tensors."""
    kinds, values = [], []
    for name, shape in _tensors(model):
        change = changes.get(name) or Change(0, (np.zeros(math.prod(shape), np.int64),))
        parts = [part.ravel() for part in change.parts]
        chosen = [*(integers.best_level(part) for part in parts), (0, 0)][:2]
        kinds.append([change.rank, change.exponent, *chosen[0], *chosen[1]])
        values += parts
    table = np.array(kinds, np.uint8)
    spread = integers.spread(*runs(table, [shape for _, shape in _tensors(model)]))
    return table.tobytes() + integers.encode(np.concatenate(values), *spread)


def apply(model: SRModel, data: bytes) -> SRModel:
    """The model that a section SRTU makes of `model`; FormatError."""
    tensors = _tensors(model)
    end = KIND_BYTES * len(tensors)
    if len(data) < end:
        raise fail("network-truncated", "the section ends before its kinds do", section=SECTION)
    kinds = np.frombuffer(data, np.uint8, end).reshape(-1, KIND_BYTES)
    shapes = [shape for _, shape in tensors]
    _check(kinds, shapes)
    values = integers.decode_runs(data[end:], *runs(kinds, shapes), SECTION)
    if np.abs(values).max(initial=0) > LARGEST:
        raise fail("out-of-range", "a change is too large", section=SECTION)
    tuned, at = deepcopy(model), 0
    weights = dict(tuned.named_parameters())
    for (name, shape), (rank, exponent) in zip(tensors, kinds[:, :2].tolist(), strict=True):
        parts = []
        for rows, columns in _matrices(shape, rank):
            parts.append(values[at : at + rows * columns].reshape(rows, columns))
            at += rows * columns
        weight = weights[name].data
        total = weight.double().cpu() + torch.from_numpy(Change(exponent, tuple(parts)).sum()).view(shape)
        weights[name].data = total.to(weight)
    return tuned


def _tensors(model: SRModel) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes, in the order of the model's file."""
    if model.header is None:
        raise UsageError("what is changed is a model's file: save the model and load it first")
    return [(tensor.name, tensor.shape) for tensor in model.header.tensors]


def _matrices(shape: Sequence[int], rank: int) -> list[tuple[int, int]]:
    """(rows, columns) of the matrices of a change."""
    rows, columns = shape[0], math.prod(shape[1:])
    return [(rows, rank), (rank, columns)] if rank else [(rows, columns)]


def _check(kinds: npt.NDArray[np.uint8], shapes: Sequence[tuple[int, ...]]) -> None:
    """FormatError unless every tensor can be changed so; nothing takes more numbers than twice the tensor."""
    known = [MOST_RANK, MOST_EXPONENT, len(FAMILIES) - 1, integers.LEVELS - 1]
    if (kinds > [*known, *known[2:]]).any():
        message = "a change has an unknown rank, exponent, family or level"
        raise fail("out-of-range", message, section=SECTION)
    for (rank, _, _, _, family, level), shape in zip(kinds.tolist(), shapes, strict=True):
        if rank > min(shape[0], math.prod(shape[1:])) or (not rank and (family or level)):
            message = "a change has a rank that its tensor has not, or a second matrix without a rank"
            raise fail("out-of-range", message, section=SECTION)


def runs(
    kinds: npt.NDArray[np.uint8], shapes: Sequence[tuple[int, ...]]
) -> tuple[list[list[int]], list[int]]:
    """The (family, level) of every matrix, and how many numbers it has."""
    each, counts = [], []
    for kind, shape in zip(kinds.tolist(), shapes, strict=True):
        for part, (rows, columns) in enumerate(_matrices(shape, kind[0])):
            each.append(kind[2 + 2 * part : 4 + 2 * part])
            counts.append(rows * columns)
    return each, counts
