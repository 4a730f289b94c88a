"""The wavelet pyramid of the latents: a grid from its bands, in whole numbers (spec, "The pyramid").

A level halves some axes. Along each of them the grid's points at even places become a smooth, smaller grid
and those at odd places what is missing, by the four lifting steps of the 9/7 filters (Cohen, Daubechies and
Feauveau 1992; Daubechies and Sweldens 1998), whose numbers are rounded to 1/1024. Bands stay in place: that
of pattern p at a level holds the points that are odd along the axes of p and even along the level's others.

Every value is clamped to [-2^17, 2^17] after an axis, so that no sum leaves 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..container.headers import MOST_HALVINGS

Shape = tuple[int, int, int]

STEPS = (-1624, -54, 904, 454)
"""1024 times what a step adds of both neighbours' sum: to the odd points, the even, the odd, the even."""
SMOOTH, DETAIL = 1260, 1638
"""1024 times what the even and the odd points are multiplied by before the steps are undone."""
ONE, HALF = 1024, 512
BITS = 10
LARGEST = 1 << 17
PATTERNS = (1, 2, 4, 3, 5, 6, 7)
"""The bands of a level in the order in which they are coded; bits: 4 z, 2 y, 1 x."""


@dataclass(frozen=True)
class Level:
    """One level: the axes that it halves, as bits (4 z, 2 y, 1 x), and its points' strides (z, y, x)."""

    axes: int
    strides: Shape

    @property
    def bands(self) -> tuple[int, ...]:
        """Its patterns, in the order in which they are coded."""
        return tuple(p for p in PATTERNS if p & self.axes == p)

    def points(self, grid: Tensor) -> Tensor:
        """The points of the level in a grid (z, y, x): a view."""
        z, y, x = self.strides
        return grid[::z, ::y, ::x]

    def band(self, grid: Tensor, pattern: int) -> Tensor:
        """The points of a band, a view; of the smooth ones for pattern 0."""
        cut = []
        for bit, stride in zip((4, 2, 1), self.strides, strict=True):
            cut.append(slice(stride if pattern & bit else 0, None, 2 * stride if self.axes & bit else stride))
        return grid[tuple(cut)]


def levels_of(masks: Sequence[int]) -> list[Level]:
    """The levels whose axes are `masks`, both from the finest to the coarsest."""
    levels, strides = [], [1, 1, 1]
    for axes in masks:
        levels.append(Level(axes, (strides[0], strides[1], strides[2])))
        strides = [s << (axes >> 2 - axis & 1) for axis, s in enumerate(strides)]
    return levels


def inverse(grid: Tensor, level: Level) -> None:
    """Put a level together, in place: the smooth points and the bands of an int32 grid become its points."""
    points = level.points(grid)
    for axis, bit in enumerate((4, 2, 1)):
        if level.axes & bit and points.shape[axis] > 1:
            _undo(points, axis)


def _undo(points: Tensor, axis: int) -> None:
    even, odd = _halves(points, axis)
    even.mul_(SMOOTH).add_(HALF).bitwise_right_shift_(BITS)
    odd.mul_(DETAIL).add_(HALF).bitwise_right_shift_(BITS)
    for number, target, source in ((3, even, odd), (2, odd, even), (1, even, odd), (0, odd, even)):
        sums = _neighbours(source, axis, target.shape[axis], target is odd)
        target.sub_(sums.mul_(STEPS[number]).add_(HALF).bitwise_right_shift_(BITS))
    points.clamp_(-LARGEST, LARGEST)


def forward(grid: Tensor, level: Level) -> None:
    """Take a level apart, in place: what `inverse` undoes, in float32 (or float64)."""
    points = level.points(grid)
    for axis, bit in reversed([*enumerate((4, 2, 1))]):
        if level.axes & bit and points.shape[axis] > 1:
            even, odd = _halves(points, axis)
            for number, target, source in ((0, odd, even), (1, even, odd), (2, odd, even), (3, even, odd)):
                sums = _neighbours(source, axis, target.shape[axis], target is odd)
                target.add_(sums, alpha=STEPS[number] / ONE)
            even.mul_(ONE / SMOOTH)
            odd.mul_(ONE / DETAIL)


def _halves(points: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The points at even and at odd places: views."""
    every = [slice(None)] * 3
    even, odd = every.copy(), every.copy()
    even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
    return points[tuple(even)], points[tuple(odd)]


def _neighbours(source: Tensor, axis: int, count: int, odd: bool) -> Tensor:
    """The sums of both neighbours of `count` points, which are at odd places; mirrored at the borders."""
    n = source.shape[axis]
    shape = list(source.shape)
    shape[axis] = count
    sums = source.new_empty(shape)
    # Point i lies between source points i and i + 1 if it is at an odd place, i - 1 and i otherwise.
    first, last = (0, n - 1) if odd else (1, n)
    inner = sums.narrow(axis, first, last - first)
    inner.copy_(source.narrow(axis, 0, n - 1)).add_(source.narrow(axis, 1, n - 1))
    if first:
        sums.narrow(axis, 0, 1).copy_(source.narrow(axis, 0, 1)).mul_(2)
    if last < count:
        sums.narrow(axis, count - 1, 1).copy_(source.narrow(axis, n - 1, 1)).mul_(2)
    return sums


@cache
def norms(halvings: int) -> tuple[float, float]:
    """The L2 norms, along one axis, of what a smooth point and an odd point `halvings` levels down become."""
    n = 32 << halvings
    result = []
    for place in (n // 2, n // 2 + (1 << halvings - 1)):
        line = torch.zeros(1, 1, n, dtype=torch.float64)
        line[0, 0, place] = 1.0
        for level in reversed(levels_of([1] * halvings)):
            even, odd = _halves(level.points(line), 2)
            even.mul_(SMOOTH / ONE)
            odd.mul_(DETAIL / ONE)
            for number, target, source in ((3, even, odd), (2, odd, even), (1, even, odd), (0, odd, even)):
                sums = _neighbours(source, 2, target.shape[2], target is odd)
                target.sub_(sums, alpha=STEPS[number] / ONE)
        result.append(float(line.norm()))
    return result[0], result[1]


def gain(levels: Sequence[Level], number: int, pattern: int) -> float:
    """The L2 norm of what one unit in a band becomes at the finest level."""
    total = 1.0
    for bit, stride in zip((4, 2, 1), levels[number].strides, strict=True):
        halvings = stride.bit_length() - 1
        if levels[number].axes & bit:
            total *= norms(halvings + 1)[1 if pattern & bit else 0]
        elif halvings:
            total *= norms(halvings)[0]
    return total


def halving(shape: Sequence[int], spacing: Sequence[float], least: int = 4) -> tuple[int, ...]:
    """The levels of a grid, from the finest: each halves the axes whose points lie closest.

    An axis is halved while it keeps `least` points, and waits while others are much finer in millimetres.
    """
    size, step, masks = list(shape), list(spacing), []
    for _ in range(MOST_HALVINGS):
        free = [a for a in range(3) if size[a] >= 2 * least]
        if not free:
            break
        finest = min(step[a] for a in free)
        chosen = [a for a in free if step[a] < math.sqrt(2) * 1.5 * finest]
        masks.append(sum(4 >> a for a in chosen))
        for a in chosen:
            size[a], step[a] = -(-size[a] // 2), 2 * step[a]
    return tuple(masks)
