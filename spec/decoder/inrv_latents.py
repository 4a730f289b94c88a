"""The arithmetic of the latents, from the chapter "Latents" of `spec/inrv.md` alone.

Points are places (3, n) in a band; what lies outside of an array is zero or mirrored, as the chapter says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import inrv_lattice as lattice
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Shape = tuple[int, ...]
Births = tuple[Ints, Ints]

PATTERNS = (1, 2, 4, 3, 5, 6, 7)
CLASSES = (
    ((0, 0, 0), (1, 1, 1)),
    ((0, 1, 1), (1, 0, 0)),
    ((1, 0, 1), (0, 1, 0)),
    ((1, 1, 0), (0, 0, 1)),
)
AROUND = [offset for offset in product((-1, 0, 1), repeat=3) if any(offset)]
BESIDE = [offset for offset in AROUND if sum(map(abs, offset)) == 1]
CROSS = [(0, 0, 0), *BESIDE]
GREATEST_LATENT = 32767
GREATEST_VALUE = 2**17
PREVIEW = 2**21


class Damaged(Exception):  # noqa: N818
    """The section LATD does not hold the latents."""


@dataclass(frozen=True)
class Plan:
    """What the record LATN and the latent model say; a network for each pattern."""

    shape: Shape
    masks: Sequence[int]
    steps: Sequence[int]
    bias: Sequence[int]
    networks: Mapping[int, lattice.Network]


def inputs(pattern: int) -> int:
    """How many inputs a band's network has."""
    return 26 + 6 + 7 * (1 + PATTERNS.index(pattern)) + 26 + 8


def axes(mask: int) -> tuple[int, int, int]:
    """1 for each axis (z, y, x) that a mask or a pattern has, else 0."""
    return mask >> 2 & 1, mask >> 1 & 1, mask & 1


def bands(mask: int) -> list[int]:
    """The patterns of a level that halves these axes, in coding order."""
    return [pattern for pattern in PATTERNS if pattern & mask == pattern]


def strides(masks: Sequence[int]) -> Shape:
    """Between the points that are left after these levels."""
    return tuple(2 ** sum(axes(mask)[axis] for mask in masks) for axis in range(3))


def cut(points: Ints, mask: int, pattern: int) -> Ints:
    """The places of a band among the points of its level, a view; of the smooth ones for pattern 0."""
    parts = zip(axes(mask), axes(pattern), strict=True)
    return points[tuple(slice(odd, None, 1 + halved) for halved, odd in parts)]


def level_points(grid: Ints, masks: Sequence[int], number: int) -> Ints:
    """The points of a level, a view."""
    z, y, x = strides(masks[:number])
    return grid[::z, ::y, ::x]


def class_sizes(shape: Shape, masks: Sequence[int]) -> list[int]:
    """The points of every class of every band that has any, in coding order."""
    grid, result = np.broadcast_to(np.zeros((), np.int64), shape), []
    for number in reversed(range(len(masks))):
        for pattern in bands(masks[number]):
            band = cut(level_points(grid, masks, number), masks[number], pattern)
            if band.size:
                result += [sum(band[a::2, b::2, c::2].size for a, b, c in part) for part in CLASSES]
    return result


def values_of(latents: Ints, step: int, bias: int, shifts: Ints | int = 0) -> Ints:
    """What latents stand for."""
    exact = 256 * latents - bias * np.sign(latents) + shifts
    size = (abs(exact) * step + 128 >> 8).clip(0, GREATEST_VALUE)
    return np.asarray(np.sign(exact) * size, np.int64)


def magnitude(values: Ints) -> Ints:
    """Sixteenths of an octave, with the sign."""
    size = abs(values) + 1
    exponent = np.frexp(size.astype(np.float64))[1].astype(np.int64) - 1
    return np.asarray(np.sign(values) * (16 * exponent + (16 * size >> exponent) - 16).clip(0, 127))


# ---- The pyramid ----


def undo(points: Ints, axis: int) -> None:
    """Make points along an axis out of smooth ones (even places) and what was missing (odd places)."""
    line = np.moveaxis(points, axis, -1)
    n = line.shape[-1]
    x = line.copy()
    x[..., 0::2] = 1260 * x[..., 0::2] + 512 >> 10
    x[..., 1::2] = 1638 * x[..., 1::2] + 512 >> 10
    for first, factor in ((0, 454), (1, 904), (0, -54), (1, -1624)):
        at = np.arange(first, n, 2)
        before, after = abs(at - 1), np.where(at + 1 < n, at + 1, at - 1)
        x[..., at] -= factor * (x[..., before] + x[..., after]) + 512 >> 10
    line[:] = x.clip(-GREATEST_VALUE, GREATEST_VALUE)


# ---- What a latent is predicted from ----


def look(values: Ints | None, places: Ints, offset: Sequence[int]) -> Ints:
    """The values at places (3, n) moved by an offset: zero outside of the array, or if there is none."""
    result = np.zeros(places.shape[1], np.int64)
    if values is not None:
        moved = places + np.array(offset)[:, None]
        inside = ((moved >= 0) & (moved < np.array(values.shape)[:, None])).all(axis=0)
        result[inside] = values[tuple(moved[:, inside])]
    return result


@dataclass(frozen=True)
class Band:
    """A band on its way; all arrays but `smooth` are magnitudes.

    known    what is known of it.
    earlier  pattern -> the bands of its level that were coded before.
    parent   that of the coarser level, and the axes which that level halves; None: it has none.
    smooth   the level's smooth points.
    """

    plan: Plan
    number: int
    pattern: int
    step: int
    known: Ints
    earlier: Mapping[int, Ints]
    parent: Ints | None
    halved: int
    smooth: Ints

    def above(self, places: Ints) -> Ints:
        """The parents' places."""
        return np.asarray(places >> np.array(axes(self.halved))[:, None], np.int64)

    def quiet(self, places: Ints) -> NDArray[np.bool_]:
        """Whether nothing but zeros is known around."""
        result = np.full(places.shape[1], self.halved > 0)
        for offset in AROUND:
            result &= look(self.known, places, offset) == 0
        for offset in CROSS:
            result &= look(self.parent, self.above(places), offset) == 0
            for other in self.earlier.values():
                result &= look(other, places, offset) == 0
        return result

    def features(self, places: Ints, kind: int) -> Ints:
        """The network's inputs."""
        rows = [abs(look(self.known, places, offset)) for offset in AROUND]
        rows += [look(self.known, places, offset) for offset in BESIDE]
        rows += [abs(look(self.parent, self.above(places), offset)) for offset in CROSS]
        for pattern in PATTERNS[: PATTERNS.index(self.pattern)]:
            rows += [abs(look(self.earlier.get(pattern), places, offset)) for offset in CROSS]
        last, own = np.array(self.smooth.shape)[:, None] - 1, self.smooth[tuple(places)]
        for offset in AROUND:
            there = (places + np.array(offset)[:, None]).clip(0, last)
            change = self.smooth[tuple(there)] - own
            rows.append(np.sign(change) * magnitude(4 * abs(change) // self.step))
        constants = [64, *(64 * (kind == k) for k in (1, 2, 3)), min(16 * self.number, 127)]
        constants += [64 * bit for bit in axes(self.plan.masks[self.number])]
        rows += [np.full(places.shape[1], constant) for constant in constants]
        return np.stack(rows)

    def distributions(self, places: Ints, kind: int) -> tuple[Ints, Ints, Ints, Ints]:
        """The centre, the row of the mixtures, the number of low bits and three shifts of each point."""
        made = []
        for start in range(0, places.shape[1], lattice.POINTS):
            features = self.features(places[:, start : start + lattice.POINTS], kind)
            out = lattice.outputs(self.plan.networks[self.pattern], features)
            sixteenths = out[0] + 256 >> 9
            centre = sixteenths + 8 >> 4
            width = out[1] + 256 >> 9
            shifts = (out[3:] + 16 >> 5).clip(-255, 255) if len(out) > 3 else 0 * out
            made.append((centre, *lattice.rows(sixteenths - 16 * centre, width, out[2], 1), shifts))
        centre, rows, bits, shifts = (np.concatenate(part, axis=-1) for part in zip(*made, strict=True))
        return centre, rows, bits, shifts


def decode_band(
    shape: Shape, band: Band, births: Sequence[Births], source: lattice.Source | None
) -> tuple[Ints, Ints]:
    """The latents of a band, whose magnitudes become known, and their shifts."""
    latents, moves = np.zeros((2, *shape), np.int64)
    for kind, parities in enumerate(CLASSES):
        every = np.stack(np.unravel_index(np.arange(latents.size), shape))
        parts = [every[:, (every % 2 == np.array(parity)[:, None]).all(axis=0)] for parity in parities]
        places = np.concatenate(parts, axis=1)
        quiet = band.quiet(places)
        silent, others = places[:, quiet], places[:, ~quiet]
        born = place(births[kind], silent.shape[1])
        latents[tuple(silent)] = born
        band.known[tuple(silent)] = magnitude(born)
        if others.size:
            if source is None:
                raise Damaged("no lanes")
            centre, rows, bits, shifts = band.distributions(others, kind)
            came = centre + source.residuals(centre + 65536, rows, bits, 1)
            came = came.clip(-GREATEST_LATENT, GREATEST_LATENT)
            latents[tuple(others)] = came
            band.known[tuple(others)] = magnitude(came)
            moves[tuple(others)] = np.choose(np.sign(came) % 3, shifts)
    return latents, moves


def place(births: Births, count: int) -> Ints:
    """The latents of so many quiet points."""
    gaps, sizes = births
    latents, at = np.zeros(count, np.int64), -1
    for gap, size in zip(gaps.tolist(), sizes.tolist(), strict=True):
        at += 1 + (gap if gap >= 0 else -1 - gap)
        if at >= count:
            raise Damaged("births")
        latents[at] = size if gap >= 0 else -size
    return latents


def finest_of_preview(shape: Shape, masks: Sequence[int]) -> int:
    """The level that a preview of a grid ends with."""
    for number in range(len(masks)):
        if math.prod(-(-n // s) for n, s in zip(shape, strides(masks[:number]), strict=True)) <= PREVIEW:
            return number
    return len(masks)


def decode(
    plan: Plan, smooth: Ints, births: Sequence[Births], code: bytes, lanes: int, finest: int = 0
) -> Ints:
    """The codes of a grid, by its coarsest smooth latents, the births of each class and the rest; Damaged.

    finest   the level to end with: the codes of its points.
    """
    try:
        _, source = lattice.read_code(code, 0, lanes, 0)
        grid = np.zeros(plan.shape, np.int64)
        z, y, x = strides(plan.masks)
        coarsest = grid[::z, ::y, ::x]
        coarsest[:] = values_of(smooth.reshape(coarsest.shape), plan.steps[-1], plan.bias[-1])
        decode_levels(plan, grid, births, source if lanes else None, finest)
        if finest == 0:
            source.end()
    except lattice.Damaged as error:
        raise Damaged(str(error)) from error
    z, y, x = strides(plan.masks[:finest])
    return grid[::z, ::y, ::x].clip(-65536, 131071)


def decode_levels(
    plan: Plan, grid: Ints, births: Sequence[Births], source: lattice.Source | None, finest: int
) -> None:
    """Fill in a grid that has its coarsest smooth points, from the coarsest level to the finest."""
    halved, parents, taken = 0, dict[int, Ints](), 0
    starts = np.cumsum([0, *(len(bands(mask)) for mask in plan.masks)]).tolist()
    for number in reversed(range(finest, len(plan.masks))):
        mask = plan.masks[number]
        points = level_points(grid, plan.masks, number)
        known: dict[int, Ints] = {}
        for which, pattern in enumerate(bands(mask), starts[number]):
            there, step = cut(points, mask, pattern), plan.steps[which]
            if not there.size:
                continue
            own, parent = np.zeros(there.shape, np.int64), parents.get(pattern & halved)
            smooth = cut(points, mask, 0).copy()
            band = Band(plan, number, pattern, step, own, dict(known), parent, halved, smooth)
            latents, shifts = decode_band(there.shape, band, births[taken : taken + 4], source)
            taken += 4
            there[:] = values_of(latents, step, plan.bias[which], shifts)
            known[pattern] = own
        for axis, bit in enumerate(axes(mask)):
            if bit and points.shape[axis] > 1:
                undo(points, axis)
        halved, parents = mask, known
