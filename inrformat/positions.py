"""The positions of a source's slices as a file keeps them: those alone between which the others lie evenly.

`metadata["positions"]` has [x, y, z] in mm for every slice, or for the first and the last alone where the
others lie evenly between them (see `io.dicom`). Where slices are missing here and there, a file keeps the
ends of each even stretch, and their numbers in "position_slices".
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

POSITIONS, SLICES = "positions", "position_slices"
EVEN = 1e-4
"""By how many mm, along an axis, a slice may be off its even place."""

Places = npt.NDArray[np.float64]


def evenly(positions: Places) -> bool:
    """Whether all positions (n, 3) lie evenly between the first and the last."""
    return bool(np.abs(positions - np.linspace(positions[0], positions[-1], len(positions))).max() < EVEN)


def thinned(metadata: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Metadata of a volume of `count` slices as a file keeps it; "position_slices" is the file's own name."""
    result = {key: value for key, value in metadata.items() if key != SLICES}
    positions = _places(metadata.get(POSITIONS))
    if positions is None or len(positions) != count or count < 3:
        return result
    ends = _ends(positions)
    if len(ends) < len(positions):
        result[POSITIONS], result[SLICES] = positions[ends].tolist(), ends
    return result


def filled(metadata: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Metadata of a volume of `count` slices as before `thinned`; what makes no sense stays as it is."""
    result = dict(metadata)
    ends, positions = metadata.get(SLICES), _places(metadata.get(POSITIONS))
    if not isinstance(ends, list) or positions is None or len(positions) != len(ends):
        return result
    if not all(type(i) is int for i in ends) or [ends[0], ends[-1]] != [0, count - 1]:
        return result
    if any(b <= a for a, b in pairwise(ends)):
        return result
    every = np.stack([np.interp(np.arange(count), ends, column) for column in positions.T], axis=1)
    result[POSITIONS] = every.tolist()
    del result[SLICES]
    return result


def _places(positions: Any) -> Places | None:
    """Positions as (n, 3), n > 0; None if they are none."""
    if not isinstance(positions, list) or not positions or not all(_is_place(row) for row in positions):
        return None
    try:
        found = np.array(positions, np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return found if np.isfinite(found).all() else None


def _is_place(row: Any) -> bool:
    """Whether it is three numbers: anything else would have NumPy make an array of who knows what."""
    return isinstance(row, list | tuple) and len(row) == 3 and all(type(v) in (int, float) for v in row)


def _ends(positions: Places) -> list[int]:
    """The slices, first and last among them, between which the others lie evenly; few, by a greedy search."""
    ends, last = [0], len(positions) - 1
    while ends[-1] < last:
        start = ends[-1]
        reach, beyond = start + 1, min(start + 2, last)  # an even stretch; one that may be longer
        step = 1
        while reach < last and evenly(positions[start : beyond + 1]):
            reach, step = beyond, 2 * step
            beyond = min(reach + step, last)
        while beyond - reach > 1:
            middle = (reach + beyond) // 2
            if evenly(positions[start : middle + 1]):
                reach = middle
            else:
                beyond = middle
        ends.append(reach)
    return ends
