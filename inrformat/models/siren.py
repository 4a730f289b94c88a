"""The exact SIREN: the base network's grid of codes, the same integers on every device.

Sitzmann et al. 2020 (the paper's reference 1) gives the network, inrformat.coding.network the arithmetic.
What is here only chooses machine types in which that arithmetic is exact and fast: products of int8 limbs
summed in int32 where the weights fit, else float64, whose every partial sum stays below 2^52.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..coding.network import (
    FRACTION_BITS,
    GREATEST_CODE,
    LEAST_CODE,
    Layer,
    Network,
    activation_table,
    coordinates,
    sum_bound,
)
from ..coding.sine import PHASE_BITS

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
        ranges = box or tuple((0, n) for n in self.lr_shape)
        (z0, z1), (y0, y1), (x0, x1) = ranges
        out = torch.empty(z1 - z0, y1 - y0, x1 - x0, dtype=torch.int32, device=self.device)
        # Axes are cut so that neither the tables of an axis nor the rows of a step take much memory.
        rows = self._rows()
        nx = max(1, min(x1 - x0, rows))
        ny = min(y1 - y0, max(1, rows // nx))
        nz = max(1, rows // (nx * ny))
        for xa, xb in _cuts(x0, x1, nx):
            tx = self._table(2, xa, xb)
            for za, zb in _cuts(z0, z1, rows):
                tz = self._table(0, za, zb)
                for ya, yb in _cuts(y0, y1, ny):
                    plane = self._table(1, ya, yb)[:, None] + tx[None, :]  # (y, x, width)
                    for a, b in _cuts(0, zb - za, nz):
                        sums = (tz[a:b, None, None] + plane).flatten(0, 2)
                        part = self._evaluate(sums).reshape(b - a, yb - ya, xb - xa)
                        out[za - z0 + a : za - z0 + b, ya - y0 : yb - y0, xa - x0 : xb - x0] = part
        return out

    def _rows(self) -> int:
        return ROWS if self.device.type == "cpu" else ROWS << 6

    def _table(self, axis: int, start: int, stop: int) -> Tensor:
        table = _axis_table(self.first, axis, self.lr_shape[axis], start, stop)
        return torch.from_numpy(table).to(self.device)

    def _evaluate(self, sums: Tensor) -> Tensor:
        """(n, width) sums of the first layer, in 2^-8 of a phase -> (n) codes."""
        phase = (sums >> FRACTION_BITS) & TURN
        for layer in self.hidden:
            phase = layer(phase)
        code = (self.last(phase).long() + (1 << self.last_shift >> 1) >> self.last_shift) + self.last_bias
        return code[:, 0].clamp(LEAST_CODE, GREATEST_CODE).to(torch.int32)


def _cuts(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """[start, stop) in pieces of at most `size`."""
    return [(a, min(a + size, stop)) for a in range(start, stop, size)]


def _axis_table(layer: Layer, axis: int, n: int, start: int, stop: int) -> np.typing.NDArray[np.int32]:
    """The first layer's sums along one axis, modulo 2^24: (stop - start, width) for points of an axis of n.

    The z axis also brings bias and rounding.
    """
    table = np.outer(coordinates(n)[start:stop], layer.weights[:, axis]) * layer.scale >> layer.shift
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


class _Product:
    """The sums of one layer over the activations of its inputs: (n, inputs) phases -> (n, rows)."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        weights = torch.from_numpy(layer.weights)
        rows, inputs = weights.shape
        table = torch.from_numpy(activation_table(layer.scale)).to(device)
        small = bool(weights.abs().max() <= 127) and sum_bound(layer) < 1 << 31
        self.limbs = small and rows % 8 == 0 and inputs % 8 == 0
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
