"""Between stored values and levels, the whole numbers from 0 that the lattice codes (spec, "Levels")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..container.headers import LARGEST_LEVEL
from ..errors import UsageError

Values = npt.NDArray[Any]
Runs = tuple[tuple[int, int, int], ...]

LONGEST_GAP = 256
"""So many values in a row that do not occur get no levels: padding is far from the rest."""
RUN_BYTES = 9
"""What a run takes in the header, at most."""
FINEST = 4
"""A float volume's levels are 2 E / (2 * 4 + 1) apart, or more where that would be too many."""


@dataclass(frozen=True)
class Levels:
    """The levels of a volume: of runs (first, stride, count) of values, or on a grid (origin, pitch).

    error   by how many levels a decoded level may differ.
    range   of a grid: the least and the greatest value that a level stands for.
    """

    greatest: int
    error: int
    values: Runs | None = None
    grid: tuple[float, float] | None = None
    range: tuple[float, float] = (-math.inf, math.inf)

    @classmethod
    def of_integers(cls, data: Values, error: int) -> Levels:
        """For whole numbers: those that do not occur get no level, where that pays and nothing is lost."""
        low, high = int(data.min()), int(data.max())
        runs: Runs = ((low, 1, high - low + 1),)
        if error == 0:
            seen = np.zeros(high - low + 1, np.bool_)
            for part in data:
                seen[part.astype(np.int64) - low] = True
            used = np.flatnonzero(seen) + low
            runs = _runs(used, low, high, data.size)
        return cls(sum(count for _, _, count in runs) - 1, error, values=runs)

    @classmethod
    def of_floats(cls, data: Values, bound: float) -> Levels:
        """For float32 values that are to be decoded within `bound`; UsageError if that is too fine."""
        low, high = float(data.min()), float(data.max())
        # Half an ulp is lost by rounding to float32; half a pitch, by rounding to the grid.
        exponent = math.frexp(max(abs(low), abs(high)))[1]
        slack = bound - 2.0 ** max(exponent - 24, -149)
        for error in range(FINEST, -1, -1):
            pitch = 2 * slack / (2 * error + 1)
            if slack > 0 and (high - low) / pitch <= LARGEST_LEVEL - 1:
                greatest = math.ceil((high - low) / pitch)
                return cls(greatest, error, grid=(low, pitch), range=(low, high))
        raise UsageError(
            f"max_error={bound:g} is too small for values from {low:g} to {high:g}: "
            f"about {(high - low) / (2 * (LARGEST_LEVEL - 1)) + bound - slack:.3g} is the least"
        )

    def of(self, data: Values) -> npt.NDArray[np.uint16]:
        """The levels of stored values."""
        if self.grid is not None:
            origin, pitch = self.grid
            return np.rint((data.astype(np.float64) - origin) / pitch).astype(np.uint16)
        table = self._table
        if table[-1] - table[0] == self.greatest:
            return (data.astype(np.int32) - int(table[0])).astype(np.uint16)
        back = np.zeros(int(table[-1] - table[0]) + 1, np.uint16)
        back[table - table[0]] = np.arange(len(table))
        return back[data.astype(np.int32) - int(table[0])]

    def to_values(self, levels: npt.NDArray[np.uint16], dtype: np.dtype[Any]) -> Values:
        """The stored values of levels from 0 to `greatest`."""
        if self.grid is not None:
            origin, pitch = self.grid
            values = np.clip(origin + levels.astype(np.float64) * pitch, *self.range)
            result: Values = values.astype(dtype) + dtype.type(0)  # -0 becomes +0
            return result
        table = self._table
        if table[-1] - table[0] == self.greatest:
            return (levels.astype(np.int32) + int(table[0])).astype(dtype)
        return table.astype(dtype)[levels]

    @cached_property
    def _table(self) -> npt.NDArray[np.int64]:
        """The value of each level."""
        assert self.values is not None
        return np.concatenate([first + stride * np.arange(count) for first, stride, count in self.values])


def _runs(used: npt.NDArray[np.int64], low: int, high: int, voxels: int) -> Runs:
    """The values that get levels: those used alone, all but long gaps, or all from low to high."""
    exact = _strided(used)
    saved = voxels * math.log2((high - low + 1) / len(used)) / 8
    if len(used) <= (high - low + 1) / 2 and saved > RUN_BYTES * len(exact):
        return exact
    breaks = np.flatnonzero(np.diff(used) > LONGEST_GAP)
    if len(breaks) > 16:
        return ((low, 1, high - low + 1),)
    firsts, lasts = used[np.r_[0, breaks + 1]], used[np.r_[breaks, len(used) - 1]]
    return tuple((int(a), 1, int(b - a) + 1) for a, b in zip(firsts, lasts, strict=True))


def _strided(used: npt.NDArray[np.int64]) -> Runs:
    """Ascending values as runs of equal strides."""
    runs, first = [], 0
    strides = np.diff(used)
    ends = np.flatnonzero(np.diff(strides)) + 1  # where the stride changes
    for end in [*ends.tolist(), len(used) - 1]:
        if end < first:
            continue  # the value was the last one of the run before
        stride = int(used[end] - used[end - 1]) if end > first else 1
        runs.append((int(used[first]), stride, end - first + 1))
        first = end + 1
    return tuple(runs)
