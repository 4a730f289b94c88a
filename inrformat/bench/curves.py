"""Bjøntegaard's difference of bytes between two curves of bytes and PSNR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..volume import Array

Curve = Sequence[tuple[float, float]]
"""(bytes, PSNR in dB), in any order."""


def bd_rate(curve: Curve, anchor: Curve) -> tuple[float, float, float] | None:
    """How many per cent more bytes (less than 0: fewer) `curve` takes than `anchor` at the same PSNR.

    The mean of the logarithm of bytes over the PSNRs that both curves cover, each interpolated as a monotone
    piecewise cubic (PCHIP, as VCEG and MPEG take it). Points that another of the same curve beats in both are
    left out. Returns it with the covered range, (per cent, from dB, to dB); None where there is none.
    """
    (x, y), (anchor_x, anchor_y) = best(curve), best(anchor)
    if min(len(x), len(anchor_x)) < 2:
        return None
    low, high = max(x[0], anchor_x[0]), min(x[-1], anchor_x[-1])
    if low >= high:
        return None
    difference = integral(x, y, low, high) - integral(anchor_x, anchor_y, low, high)
    return 100 * float(np.expm1(difference / (high - low))), float(low), float(high)


def best(curve: Curve) -> tuple[Array, Array]:
    """PSNR, rising, and the logarithm of bytes, of the points that no other beats."""
    kept: list[tuple[float, float]] = []
    for size, psnr in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not kept or psnr > kept[-1][0]:
            kept.append((psnr, float(np.log(size))))
    x, y = np.array(kept, np.float64).reshape(-1, 2).T
    return x, y


def integral(x: Array, y: Array, low: float, high: float) -> float:
    """Of the PCHIP interpolant through (x, y), x rising, from low to high, both within x.

    By Simpson's rule between the knots, where the interpolant is one cubic, so that it is exact.
    """
    ends = np.array([low, *x[(x > low) & (x < high)], high])
    middles = (ends[:-1] + ends[1:]) / 2
    at_ends, at_middles = pchip(x, y, ends), pchip(x, y, middles)
    return float((np.diff(ends) * (at_ends[:-1] + 4 * at_middles + at_ends[1:]) / 6).sum())


def pchip(x: Array, y: Array, at: Array) -> Array:
    """The monotone piecewise cubic through (x, y), x rising, two or more (Fritsch and Butland 1984)."""
    slopes, h = _slopes(x, y), np.diff(x)
    i = np.clip(np.searchsorted(x, at, "right") - 1, 0, len(h) - 1)
    t = (at - x[i]) / h[i]
    ends = y[i] * (1 + 2 * t) * (1 - t) ** 2 + y[i + 1] * t * t * (3 - 2 * t)
    values: Array = ends + h[i] * (slopes[i] * t * (1 - t) ** 2 - slopes[i + 1] * t * t * (1 - t))
    return values


def _slopes(x: Array, y: Array) -> Array:
    """The interpolant's derivative at each knot, as scipy's PchipInterpolator has it."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    if len(d) == 1:
        return np.repeat(d, 2)
    before, after = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same = d[:-1] * d[1:] > 0
    safe = np.where(same, d[:-1], 1.0), np.where(same, d[1:], 1.0)
    inner = np.where(same, (before + after) / (before / safe[0] + after / safe[1]), 0.0)
    return np.array([_end_slope(h, d), *inner, _end_slope(h[::-1], d[::-1])])


def _end_slope(h: Array, d: Array) -> float:
    """At the first knot: three-point, held back so that the curve does not turn."""
    slope = ((2 * h[0] + h[1]) * d[0] - h[0] * d[1]) / (h[0] + h[1])
    if slope * d[0] <= 0:
        return 0.0
    return float(3 * d[0] if d[0] * d[1] <= 0 and abs(slope) > 3 * abs(d[0]) else slope)
