"""The frozen bank of integer distributions (spec section "The bank").

A symbol is an integer v in [-128, 127]. Distribution (family, j) has frequencies F[v] >= 1 that sum to 2^16:

    F[v] = 1 + floor((65536 - 256) * P(v)), and F[0] takes what is left,

where P(v) is the mass on (v - 1/2, v + 1/2) of a centred Gaussian (family 0) or Laplace (family 1)
distribution with standard deviation sigma_j = 2^((j - 12) / 4), j = 0..28: from 1/8 to 16.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FAMILIES = ("gauss", "laplace")
SCALES = 29
SYMBOLS = 256
LEAST, GREATEST = -128, 127
PRECISION = 16
TOTAL = 1 << PRECISION
SHA256 = "86c56be97d52c6961f12b342ed6a1f7c88f191f6712bf98a9ffb0c7c28ccd9e4"


def sigma(index: int) -> float:
    """The standard deviation of scale `index`."""
    return float(2.0 ** ((index - 12) / 4))


def _upper_tail(family: str, x: float) -> float:
    """The mass beyond x >= 0, in standard deviations: never as 1 - small, so that tails keep their digits."""
    if family == "gauss":
        return 0.5 * math.erfc(x / math.sqrt(2.0))
    return 0.5 * math.exp(-math.sqrt(2.0) * x)


def _frequencies(family: str, index: int) -> list[int]:
    tails = [_upper_tail(family, (v - 0.5) / sigma(index)) for v in range(1, 130)]
    masses = [upper - lower for upper, lower in pairwise(tails)]  # of v = 1..128
    side = [1 + math.floor((TOTAL - SYMBOLS) * mass) for mass in masses]
    centre = TOTAL - sum(side) - sum(side[:-1])
    return [*reversed(side), centre, *side[:-1]]


@cache
def bank() -> npt.NDArray[np.uint16]:
    """Frequencies (family, scale, symbol - LEAST), read-only.

    No product lies within 1e-4 of an integer, so every platform's double-precision erfc and exp give this
    bank; its hash is part of the format and is checked.
    """
    table = np.array([[_frequencies(f, j) for j in range(SCALES)] for f in FAMILIES], "<u2")
    if hashlib.sha256(table.tobytes()).hexdigest() != SHA256:
        raise RuntimeError("this platform's erfc and exp do not give the bank of the format")
    table.flags.writeable = False
    return table


@cache
def cumulative() -> npt.NDArray[np.int64]:
    """Where each symbol starts: the sum of the frequencies before it, in the shape of `bank`."""
    frequencies = bank().astype(np.int64)
    starts = np.cumsum(frequencies, axis=-1) - frequencies
    starts.flags.writeable = False
    return starts
