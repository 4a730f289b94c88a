"""The exact SIREN: the base network's grid of codes, the same integers on every device.

Sitzmann et al. 2020 (the paper's reference 1) gives the network, inrformat.coding.network the arithmetic.
What is here only chooses machine types in which that arithmetic is exact and fast: products of int8 limbs
summed in int32 where the weights fit, else float64, whose every partial sum stays below 2^52.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ..coding.network import (
    FRACTION_BITS,
    GREATEST_CODE,
    LEAST_CODE,
    Ints,
    Layer,
    Network,
    activation_table,
    coordinates,
    sum_bound,
)
from ..coding.sine import PHASE_BITS
from ..parallel import map_on_cores

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

ROWS = 1 << 12
"""Voxels that are evaluated at a time; at width 128 a step's arrays then fit the cache of a core."""
TURN = (1 << PHASE_BITS) - 1
LIMB = 7
"""Bits of the low limb of an activation: a = 128 high + low, both int8."""


class Evaluator:
    """A network on a device, ready to be evaluated on any box of its grid."""

    def __init__(self, network: Network, lr_shape: Sequence[int], device: str | torch.device = "cpu") -> None:
        self.lr_shape = tuple(lr_shape)
        self.device = torch.device(device)
        self.first = network.layers[0]
        *hidden, last = network.layers[1:]
        self.hidden = [_Hidden(layer, self.device) for layer in hidden]
        self.last = _Product(last, self.device)
        self.last_shift = last.shift
        self.last_bias = int(last.bias[0]) << last.bias_shift

    def codes(self, box: Box | None = None) -> Tensor:
        """The codes u in a box ((z0, z1), (y0, y1), (x0, x1)) of the grid, or all of it: int32 (z, y, x)."""
        start, stop = zip(*(box or [(0, n) for n in self.lr_shape]), strict=True)
        size = [b - a for a, b in zip(start, stop, strict=True)]
        out = torch.empty(size, dtype=torch.int32, device=self.device)
        rows = ROWS if self.device.type == "cpu" else ROWS << 6
        nx = max(1, min(size[2], rows))
        ny = max(1, min(size[1], rows // nx))
        pieces = [_cuts(n, step) for n, step in zip(size, (max(1, rows // (nx * ny)), ny, nx), strict=True)]

        def fill(piece: tuple[tuple[int, int], ...]) -> None:
            tables = [self._table(i, start[i] + a, start[i] + b) for i, (a, b) in enumerate(piece)]
            sums = tables[0][:, None, None] + tables[1][:, None] + tables[2]  # (z, y, x, width)
            codes = self._evaluate(sums.flatten(0, 2))
            out[tuple(slice(a, b) for a, b in piece)] = codes.reshape(sums.shape[:3])

        if self.device.type == "cpu":
            map_on_cores(fill, list(product(*pieces)))
        else:
            for piece in product(*pieces):
                fill(piece)
        return out

    def _table(self, axis: int, start: int, stop: int) -> Tensor:
        table = _axis_table(self.first, axis, coordinates(self.lr_shape[axis], start, stop))
        return torch.from_numpy(table).to(self.device)

    def _evaluate(self, sums: Tensor) -> Tensor:
        """(n, width) sums of the first layer, in 2^-8 of a phase -> (n) codes."""
        phase = (sums >> FRACTION_BITS) & TURN
        for layer in self.hidden:
            phase = layer(phase)
        code = (self.last(phase).long() + (1 << self.last_shift >> 1) >> self.last_shift) + self.last_bias
        return code[:, 0].clamp(LEAST_CODE, GREATEST_CODE).to(torch.int32)


def _cuts(size: int, step: int) -> list[tuple[int, int]]:
    """[0, size) in pieces of at most `step`."""
    return [(a, min(a + step, size)) for a in range(0, size, step)]


def _axis_table(layer: Layer, axis: int, places: Ints) -> np.typing.NDArray[np.int32]:
    """The first layer's sums along one axis, modulo 2^24: (n, width) for n coordinates.

    The z axis also brings bias and rounding.
    """
    table = np.outer(places, layer.weights[:, axis]) * layer.scale >> layer.shift
    if axis == 0:
        table += (layer.bias << layer.bias_shift + FRACTION_BITS) + (1 << FRACTION_BITS >> 1)
    return (table & (1 << PHASE_BITS + FRACTION_BITS) - 1).astype(np.int32)


class _Hidden:
    """A hidden layer: (n, inputs) phases -> (n, rows) phases, int32 in [0, 2^16)."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        self.product = _Product(layer, device)
        self.shift = layer.shift
        # Phases count modulo a turn, so up to a shift of 16 an int32 may wrap around unharmed.
        self.dtype = torch.int32 if self.product.limbs and layer.shift <= 16 else torch.int64
        # int64 may wrap around too: a shift is at most 48.
        offset = ((layer.bias << layer.bias_shift & TURN) << layer.shift) + (1 << layer.shift >> 1)
        self.offset = torch.from_numpy(offset).to(device, self.dtype)

    def __call__(self, phase: Tensor) -> Tensor:
        sums = self.product(phase).to(self.dtype)
        return sums.add_(self.offset).bitwise_right_shift_(self.shift).bitwise_and_(TURN).to(torch.int32)


@cache
def multiplies_bytes(device: torch.device) -> bool:
    """Whether products of bytes are exact there: CPUs have been known to add two of them in 16 bits."""
    most = torch.full((32, 64), 127, dtype=torch.int8, device=device)
    try:
        sums = [torch._int_mm(part, most.T.contiguous()) for part in (most, -most)]
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return all(bool((s.abs() == 64 * 127**2).all()) for s in sums)


class _Product:
    """The sums of one layer over the activations of its inputs: (n, inputs) phases -> (n, rows)."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        weights = torch.from_numpy(layer.weights)
        rows, inputs = weights.shape
        table = torch.from_numpy(activation_table(layer.scale)).to(device)
        small = bool(weights.abs().max() <= 127) and sum_bound(layer) < 1 << 31
        self.limbs = small and rows % 8 == 0 and inputs % 8 == 0 and multiplies_bytes(device)
        if self.limbs:
            self.weights = weights.T.contiguous().to(device, torch.int8)
            self.tables = [(table >> LIMB).to(torch.int8), (table & (1 << LIMB) - 1).to(torch.int8)]
        else:
            self.weights = weights.T.contiguous().to(device, torch.float64)
            self.tables = [table.double()]

    def __call__(self, phase: Tensor) -> Tensor:
        """int32 when `limbs`, else int64."""
        inputs = [table.index_select(0, phase.flatten()).reshape(phase.shape) for table in self.tables]
        if not self.limbs:
            return (inputs[0] @ self.weights).long()
        if len(phase) <= 16:  # the CUDA kernel wants more rows
            inputs = [torch.nn.functional.pad(limb, (0, 0, 0, 32 - len(phase))) for limb in inputs]
        high, low = (torch._int_mm(limb, self.weights) for limb in inputs)
        return high.bitwise_left_shift_(LIMB).add_(low)[: len(phase)]
