"""Quantisation steps: how finely each layer is rounded, and the exact network that rounding gives.

The steps of all layers follow from one number, the *noise* that a rounded weight may cause in the output:
layer l of sensitivity s_l has the step noise / sqrt(s_l). At equal cost per weight no bit could be better
spent elsewhere (reverse water-filling), so one number trades bytes against decibels. Steps for each row were
measured too: they would save 0.08 bits of 5 a weight, less what they cost to store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..coding import integers
from ..coding.network import (
    CODE_BITS,
    COORDINATE_BITS,
    FRACTION_BITS,
    MOST_BIAS_SHIFT,
    MOST_SHIFT,
    Layer,
    Network,
)
from ..coding.sine import AMPLITUDE, PHASE_BITS
from .siren import FloatSiren

PHASE = (1 << PHASE_BITS) / (2 * math.pi)
"""Phase units in a radian."""
UNITY = AMPLITUDE / (AMPLITUDE + 1)
"""The amplitude of an activation table of scale A is A * UNITY."""
MOST_WEIGHT = (1 << 15) - 1


@dataclass(frozen=True)
class LayerSteps:
    """One layer's scale, shift and bias shift in the format, and the float steps that they stand for."""

    scale: int
    shift: int
    bias_shift: int
    weight: float
    bias: float


def layer_steps(net: FloatSiren, sensitivity: Sequence[float], noise: float) -> list[LayerSteps]:
    """The steps of every layer for this noise (in units of the output, [-1, 1] is the whole range)."""
    return [_steps(net, index, noise / math.sqrt(max(s, 1e-30))) for index, s in enumerate(sensitivity)]


def _steps(net: FloatSiren, index: int, step: float) -> LayerSteps:
    step = max(step, float(net.weights[index].abs().max()) / MOST_WEIGHT, 1e-9)
    last = index == net.depth
    unit = 1 / (1 << CODE_BITS - 1) if last else 1 / PHASE  # of z: in a code, or in a phase
    if index == 0:
        gain, input_bits = unit / (1 << FRACTION_BITS), COORDINATE_BITS  # step = A 2^(20 - S) gain
    else:
        gain, input_bits = unit * UNITY, 0  # step = A 2^-S gain
    shift = math.floor(math.log2(AMPLITUDE * gain / step)) + input_bits
    shift = min(max(shift, 0), MOST_SHIFT)
    scale = min(max(round(step / gain * 2.0 ** (shift - input_bits)), 1), AMPLITUDE)
    weight = scale * gain * 2.0 ** (input_bits - shift)
    bias_shift = min(max(math.floor(math.log2(max(0.7 * weight / unit, 1))), 0), MOST_BIAS_SHIFT)
    return LayerSteps(scale, shift, bias_shift, weight, unit * 2**bias_shift)


def rounded(net: FloatSiren, steps: Sequence[LayerSteps]) -> FloatSiren:
    """The network whose parameters are the nearest multiples of their steps."""
    return FloatSiren(
        [torch.round(w / s.weight).mul_(s.weight) for w, s in zip(net.weights, steps, strict=True)],
        [torch.round(b / s.bias).mul_(s.bias) for b, s in zip(net.biases, steps, strict=True)],
    )


def to_network(net: FloatSiren, steps: Sequence[LayerSteps]) -> Network:
    """The exact network of `rounded(net, steps)`: phases of biases are taken into one turn."""
    layers = []
    for index, (w, b, s) in enumerate(zip(net.weights, net.biases, steps, strict=True)):
        bias = _ints(b, s.bias)
        if index < net.depth:
            half = 1 << PHASE_BITS - 1 - s.bias_shift
            bias = (bias + half) % (2 * half) - half
        else:  # the output runs over [-1, 1], the codes over [0, 2^16]
            bias = bias + ((1 << CODE_BITS - 1) >> s.bias_shift)
        layers.append(Layer(_ints(w, s.weight), bias, s.scale, s.shift, s.bias_shift))
    return Network(tuple(layers))


def _ints(values: torch.Tensor, step: float) -> npt.NDArray[np.int64]:
    result: npt.NDArray[np.int64] = torch.round(values / step).cpu().numpy().astype(np.int64)
    return result


def estimated_bytes(network: Network) -> float:
    """The size of the network's entropy code, without coding it."""
    bits = 0.0
    for layer in network.layers:
        for values in (layer.weights.ravel(), layer.bias):
            bits += integers.cost(values, *integers.best_level(values))
    return bits / 8


def noise_for_bytes(net: FloatSiren, sensitivity: Sequence[float], target: float) -> float:
    """The noise at which the network takes `target` bytes, by bisection; the nearest that can be had."""
    low, high = 1e-7, 1.0
    for _ in range(24):
        middle = math.sqrt(low * high)
        steps = layer_steps(net, sensitivity, middle)
        if estimated_bytes(to_network(net, steps)) > target:
            low = middle
        else:
            high = middle
    return high
