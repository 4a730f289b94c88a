"""The base network straight from spec/inrv.md, in int64: slow, obvious, and apart from the library's ways."""

from __future__ import annotations

import math

import numpy as np

from inrformat.coding.network import Network

SINE = np.array([round(16383 * math.sin(2 * math.pi * k / 65536)) for k in range(65536)], np.int64)


def codes_of(network: Network, shape: tuple[int, ...]) -> np.ndarray:
    """The code of every point of a grid of this shape, (z, y, x)."""
    axes = [(2 * np.arange(n, dtype=np.int64) + 1 - n) * 2**20 // n for n in shape]
    c = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    first, *others = network.layers
    s = sum(first.scale * c[:, a, None] * first.weights[:, a] // 2**first.shift for a in range(3))
    z = (s + 128) // 256 + first.bias * 2**first.bias_shift
    for layer in others:
        a = (layer.scale * SINE[z % 65536] + 2**13) // 2**14
        half = 2**layer.shift // 2
        z = (a @ layer.weights.T + half) // 2**layer.shift + layer.bias * 2**layer.bias_shift
    return np.clip(z[:, 0], -65536, 131071).reshape(shape)
