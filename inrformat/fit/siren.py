"""The float SIREN that is optimised (Sitzmann et al. 2020, the paper's reference 1).

Weights are kept multiplied by omega, so that a layer is sin(W a + b): the phase in radians is what the
format quantises. Forward and backward are written out: nothing is kept but the sines and cosines, and every
product may run in reduced precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..coding.network import shapes


@dataclass
class FloatSiren:
    """Weights (rows, inputs) and biases (rows), float32, omega included in all layers but the last."""

    weights: list[Tensor]
    biases: list[Tensor]

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.weights) - 1


def initialise(
    width: int, depth: int, omega: float, extent: Tensor, generator: torch.Generator, device: torch.device
) -> FloatSiren:
    """The paper's initialisation: W ~ U(-1/n, 1/n) in the first layer, U(+-sqrt(6/n)/omega) in the others.

    `extent` (3) scales the first layer's axes: 1 is a whole axis seen as [-1, 1], less a shorter one, so that
    voxels are cubes to the network whatever the grid's shape.
    """
    weights, biases = [], []
    for layer, (rows, inputs) in enumerate(shapes(width, depth)):
        bound = 1 / inputs if layer == 0 else math.sqrt(6 / inputs) / omega
        scale = omega if layer < depth else 1.0
        w = (torch.rand(rows, inputs, generator=generator) * 2 - 1) * bound * scale
        b = (torch.rand(rows, generator=generator) * 2 - 1) * scale / math.sqrt(inputs)
        weights.append((w * extent if layer == 0 else w).to(device))
        biases.append((b if layer < depth else b * 0).to(device))
    return FloatSiren(weights, biases)


def forward(net: FloatSiren, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Values (n) at coordinates x (n, 3), and the sines and cosines of every hidden layer (n, width)."""
    phase = torch.addmm(net.biases[0], x, net.weights[0].T)  # float32: the first phases are many turns
    sines, cosines = [torch.sin(phase).to(dtype)], [torch.cos(phase).to(dtype)]
    for w, b in zip(net.weights[1:-1], net.biases[1:-1], strict=True):
        phase = torch.addmm(b.to(dtype), sines[-1], w.to(dtype).T)
        sines.append(torch.sin(phase))
        cosines.append(torch.cos(phase))
    values = (sines[-1] @ net.weights[-1][0].to(dtype)).float() + net.biases[-1]
    return values, sines, cosines


def gradients(
    net: FloatSiren, x: Tensor, target: Tensor, dtype: torch.dtype, count: int | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Mean squared error at x (n, 3), and its gradients: weights and biases of each layer in turn.

    `count`: the size of the batch that these n are a part of; the parts' errors and gradients then add up.
    """
    count = count or len(target)
    values, sines, cosines = forward(net, x, dtype)
    error = values - target
    slope = (error * (2 / count))[:, None]
    grads = [slope.sum(0), slope.to(dtype).T @ sines[-1]]  # last to first, reversed below
    back = slope.to(dtype) @ net.weights[-1].to(dtype)
    for layer in range(net.depth - 1, 0, -1):
        back = back.mul_(cosines[layer])
        grads += [back.sum(0, dtype=torch.float32), back.T @ sines[layer - 1]]
        back = back @ net.weights[layer].to(dtype)
    back = back.mul_(cosines[0]).float()
    grads += [back.sum(0), back.T @ x]
    return error.square().sum() / count, [g.float() for g in reversed(grads)]


def sensitivities(net: FloatSiren, x: Tensor) -> list[float]:
    """For each layer, the mean over weights and x of (d value / d weight)^2: what a unit of noise costs."""
    _, sines, cosines = forward(net, x, torch.float32)
    inputs = [x, *sines]
    back = torch.ones(len(x), 1, device=x.device)
    result = []
    for layer in range(net.depth, -1, -1):
        energy = back.square().sum(1) * inputs[layer].square().sum(1)
        result.append(float(energy.mean()) / net.weights[layer].numel())
        if layer:
            back = (back @ net.weights[layer]) * cosines[layer - 1]
    return result[::-1]
