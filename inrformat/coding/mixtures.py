"""The bank of the lattice coder: distributions of a residual's high part (spec, "The mixtures").

Row (width i, tail j, phase p) is a mixture on the integers r in [-R, R] and an escape: with
sigma = 2^(i/8 - 4) and w = 1 / (1 + e^(6 - j)), P(r) is the mass on (r - 1/2, r + 1/2) of

    (1 - w) Gaussian(p/8, sigma) + w t2(p/8, sigma),

t2 being Student's t with two degrees of freedom. A frequency is 1 + floor((65536 - 2 R - 2) P(r)), escape has
what the two tails keep, r = 0 takes what is left.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch

WIDTHS, TAILS, PHASES = 56, 8, 9
COLUMNS = 256
ESCAPE = 0
ZERO = 128
"""The columns of the escape and of r = 0: r is in column ZERO + r."""
PRECISION = 16
TOTAL = 1 << PRECISION
MOST_BITS = 14
OCTAVE = 8
WIDEST_WHOLE = WIDTHS - OCTAVE
OFFSET = 32
"""The width of a residual whose spread is one step, before the network has its say: sigma_32 = 1."""
SHA256 = "46770ecf732a176fe5fb1b44c9b4186794303ace9d823e086bcb1059f355b4bb"


def sigma(width: int) -> float:
    """The spread of a width, in steps."""
    return float(2.0 ** (width / OCTAVE - 4))


def reach(width: int) -> int:
    """R: residuals beyond it escape."""
    return min(127, math.ceil(16 * sigma(width)) + 3)


def _cumulative(width: int, phase: int, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(2, edges) mass below each edge, Gaussian and t2; from the nearer tail, so that tails keep digits."""
    z = (edges - (phase - PHASES // 2) / 8) / sigma(width)
    gauss = np.array([0.5 * math.erfc(abs(v) / math.sqrt(2.0)) for v in z])
    root = np.sqrt(2.0 + z * z)
    student = 1.0 / (root * (root + np.abs(z)))  # 1/2 - |z| / (2 root), without cancellation
    return np.stack([gauss, student])


def _masses(width: int, phase: int) -> npt.NDArray[np.float64]:
    """(2, 2 R + 2): the mass of each r in [-R, R], then of both tails."""
    r = reach(width)
    edges = np.arange(-r, r + 2, dtype=np.float64) - 0.5
    below = (edges - (phase - PHASES // 2) / 8) < 0
    tail = _cumulative(width, phase, edges)
    # On one side of the middle the mass is a difference of tails; across it, what they leave.
    left, right = tail[:, :-1], tail[:, 1:]
    mass = np.where(below[1:], right - left, np.where(below[:-1], 1.0 - left - right, left - right))
    return np.concatenate([mass, tail[:, :1] + tail[:, -1:]], axis=1)


@cache
def frequencies() -> npt.NDArray[np.uint16]:
    """(row, column), read-only; rows are (width, tail, phase) in C order. The hash is part of the format."""
    heavy = 1.0 / (1.0 + np.array([[math.exp(6.0 - tail)] for tail in range(TAILS)]))
    bank = np.zeros((WIDTHS, PHASES, TAILS, COLUMNS), np.uint16)
    for width, phase in product(range(WIDTHS), range(PHASES)):
        r = reach(width)
        gauss, student = _masses(width, phase)
        f = 1 + np.floor((TOTAL - 2 * r - 2) * ((1.0 - heavy) * gauss + heavy * student)).astype(np.int64)
        f[:, r] += TOTAL - f.sum(axis=1)
        bank[width, phase, :, ZERO - r : ZERO + r + 1] = f[:, :-1]
        bank[width, phase, :, ESCAPE] = f[:, -1]
    result = np.ascontiguousarray(bank.swapaxes(1, 2)).reshape(-1, COLUMNS)
    if hashlib.sha256(result.astype("<u2").tobytes()).hexdigest() != SHA256:
        raise RuntimeError("this platform's erfc and exp do not give the mixtures of the format")
    result.flags.writeable = False
    return result


@cache
def starts() -> npt.NDArray[np.int64]:
    """Where each symbol of a row starts: the sum of the frequencies before it."""
    f = frequencies().astype(np.int64)
    return np.cumsum(f, axis=1) - f


def tables_of(
    width: torch.Tensor, tail: torch.Tensor, sixteenths: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows of the bank, low bits) of n distributions, all int64.

    width       spread in eighths of an octave over one step. What is wider than the bank is coded without
                its lowest bits, by a row of the bank's last octave.
    sixteenths  where the distribution's centre is, from the level that residuals are counted from, in
                sixteenths of a level.
    """
    width = (width + OFFSET).clamp_(0, WIDTHS - 1 + OCTAVE * MOST_BITS)
    bits = torch.div(width - WIDEST_WHOLE, OCTAVE, rounding_mode="floor").clamp_(min=0)
    width = width - OCTAVE * bits
    unit = step << bits
    # A residual's high part is floor(r / 2^bits + 1/2), so its cell lies half a step below its middle.
    middle = torch.where(bits > 0, sixteenths + 8 * step, sixteenths)
    phase = torch.div(middle + unit, 2 * unit, rounding_mode="floor") + PHASES // 2
    return (width * TAILS + tail.clamp(0, TAILS - 1)) * PHASES + phase, bits
