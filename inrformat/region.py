"""Boxes and tiles, and a region as a volume of its own: its voxels, place, and what is said of its slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import InputError, UsageError
from .positions import evenly
from .volume import Array, Volume, spacing_of

Spacing = tuple[float, float, float]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

TILE = (32, 64, 64)
"""LR voxels (z, y, x) that super-resolution works on at a time, by default. More cost memory (the light model
takes about 0.5 kB of activations a voxel), fewer cost time, since what lies around a tile is computed too."""


def parse_box(text: str, shape: Sequence[int]) -> Box:
    """The box that 'z0:z1,y0:y1,x0:x1' names in a volume of this shape (z, y, x); UsageError.

    As in Python, an end may be left out, and a negative one counts from the end of its axis. Unlike there,
    an end outside the volume is an error.
    """
    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"a region is z0:z1,y0:y1,x0:x1, not {text!r}")
    z, y, x = (_ends(part, n, name) for part, n, name in zip(parts, shape, "zyx", strict=True))
    return z, y, x


def _ends(part: str, n: int, name: str) -> tuple[int, int]:
    first, colon, last = part.partition(":")
    try:
        start, stop = int(first or 0), int(last or n)
    except ValueError:
        colon = ""
    if not colon:
        raise UsageError(f"a region is z0:z1,y0:y1,x0:x1; {part!r} is no {name}0:{name}1")
    start, stop = (start + n if start < 0 else start), (stop + n if stop < 0 else stop)
    if not 0 <= start < stop <= n:
        raise UsageError(f"the region's {name} {part} is empty or not within 0:{n}")
    return start, stop


def crop(volume: Volume, box: Box) -> Volume:
    """The voxels in ((z0, z1), (y0, y1), (x0, x1)), in the same place of the patient; nothing is copied."""
    affine, spacing = volume.affine.copy(), volume.spacing
    affine[:3, 3] += affine[:3, :3] @ np.array([start for start, _ in box], float)
    (z0, z1), count = box[0], volume.shape[0]
    positions = _positions(volume.metadata.get("positions"), volume)
    if positions is not None:
        if len(positions) == count:
            own = positions[z0:z1] + affine[:3, 1:3] @ np.array([box[1][0], box[2][0]], float)
            if not evenly(positions):
                affine, spacing = _placed(affine, own, spacing)
        else:
            own = affine[:3, 3] + np.array([[0], [z1 - z0 - 1]]) * affine[:3, 0]
        positions = own
    return replace(
        volume,
        data=volume.data[tuple(slice(a, b) for a, b in box)],
        spacing=spacing,
        affine=affine,
        slope=volume.slope[z0:z1] if len(volume.slope) == count else volume.slope,
        intercept=volume.intercept[z0:z1] if len(volume.intercept) == count else volume.intercept,
        metadata=_cut_metadata(volume.metadata, positions, box, count),
    )


def _placed(affine: Array, positions: Array, spacing: Spacing) -> tuple[Array, Spacing]:
    """The affine and the spacing of slices at these positions, whose step is not that of the whole volume."""
    result = affine.copy()
    result[:3, 3] = positions[0]
    if len(positions) > 1:
        result[:3, 0] = (positions[-1] - positions[0]) / (len(positions) - 1)
    try:
        return result, (spacing_of(result)[0], *spacing[1:])
    except InputError:  # the positions make no sense
        return affine, spacing


def _cut_metadata(
    metadata: Mapping[str, Any], positions: Array | None, box: Box, count: int
) -> dict[str, Any]:
    """What `io.dicom` says slice by slice, for these slices; left out where it does not fit the volume.

    positions   those of the slices, or of the first and the last; None: they do not fit.
    """
    result, (z0, z1) = dict(metadata), box[0]
    if damaged := _cut_boxes(result.pop("damaged", []), box):
        result["damaged"] = damaged
    lists = {key: result.pop(key, None) for key in ("positions", "per_slice", "sop_instance_uids")}
    if positions is None:
        return result
    result["positions"] = positions.tolist()
    if isinstance(columns := lists["per_slice"], dict):
        result["per_slice"] = {key: _cut(values, z0, z1, count) for key, values in columns.items()}
    if (uids := lists["sop_instance_uids"]) is not None:
        result["sop_instance_uids"] = _cut(uids, z0, z1, count)
    return result


def _cut_boxes(boxes: list[list[list[int]]], box: Box) -> list[list[list[int]]]:
    """What of some boxes lies in another, in its own coordinates."""
    parts = []
    for one in boxes:
        ends = [
            [max(a, start) - start, min(b, stop) - start]
            for (a, b), (start, stop) in zip(one, box, strict=True)
        ]
        if all(a < b for a, b in ends):
            parts.append(ends)
    return parts


def _positions(positions: Any, volume: Volume) -> Array | None:
    """The positions as (n, 3), n being the number of slices or 2; None unless they are about this volume."""
    try:
        found = np.array(positions, float)
    except (TypeError, ValueError):
        return None
    if found.ndim != 2 or found.shape[1] != 3 or len(found) not in (2, volume.shape[0]):
        return None
    ends = volume.affine[:3, 3] + np.array([[0], [volume.shape[0] - 1]]) * volume.affine[:3, 0]
    return found if np.abs(found[[0, -1]] - ends).max() < 1e-2 else None


def _cut(values: Any, z0: int, z1: int, count: int) -> Any:
    return values[z0:z1] if isinstance(values, list) and len(values) == count else values
