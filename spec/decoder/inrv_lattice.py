"""The arithmetic of the bricks, from the chapter "Lossless and bounded volumes" of `spec/inrv.md` alone.

One brick at a time, by the specification's formulas; a class is gathered, predicted and decoded at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Shape = tuple[int, ...]
Offset = tuple[int, int, int]
Network = tuple[Floats, Floats, Floats]

RAW, CONSTANT, CODED = 0, 1, 2
CLASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
FARTHEST = (9, 9, 6, 6)
GAIN = np.array([255, 209, 177, 153])
RECIPROCAL = np.array([257, 314, 370, 428])
EIGHTHS = np.array([1, 4, 6, 7])
POINTS = 2**15
"""So many points are predicted at a time."""


class Damaged(Exception):  # noqa: N818
    """The code of a brick is not whole."""


@dataclass(frozen=True)
class Centre:
    """A network's f, and the weights of its linear predictor, where it has one."""

    fine: int
    taps: Ints | None


@dataclass(frozen=True)
class Zones:
    """Which set each zone of a volume of that shape has, and the last layers of each set by network."""

    shape: Shape
    sets: Ints
    lasts: Sequence[Sequence[Floats]]

    def of(self, points: Ints) -> Ints:
        """The sets of points (3, n) of the volume, z, y, x."""
        pairs = zip(points, self.shape, self.sets.shape, strict=True)
        starts = [(at, [i * n // k for i in range(k)]) for at, n, k in pairs]
        z, y, x = (np.searchsorted(begins, at, "right") - 1 for at, begins in starts)
        return np.asarray(self.sets[z, y, x])


@dataclass(frozen=True)
class Plan:
    """What all bricks of a volume share; the networks are in the order (z, y, x, coarse) by class."""

    greatest: int
    error: int
    order: Sequence[int]
    networks: Sequence[Network]
    centres: Sequence[Centre]
    zones: Zones | None

    @property
    def step(self) -> int:
        """Levels between the values that a residual can take."""
        return 2 * self.error + 1


# ---- The mixtures ----


@cache
def mixtures() -> tuple[Ints, Ints]:
    """Frequencies and starts [row, column]; column 0 is the escape, column 128 + r is the symbol r."""
    rows = np.zeros((56, 8, 9, 256), np.int64)
    heavy = np.array([1 / (1 + math.exp(6 - tail)) for tail in range(8)])[:, None]

    def tails(z: Floats) -> Floats:
        """The mass beyond z >= 0 of the Gaussian and of t2, without cancellation."""
        root = np.sqrt(2 + z * z)
        return np.stack([[math.erfc(v / math.sqrt(2)) / 2 for v in z], 1 / (root * (root + z))])

    for i, p in product(range(56), range(9)):
        sigma = 2.0 ** (i / 8 - 4)
        r = reach(i)
        edges = (np.arange(-r, r + 2) - 0.5 - (p - 4) / 8) / sigma
        beyond, low, high = tails(abs(edges)), edges[:-1], edges[1:]
        mass = abs(beyond[:, 1:] - beyond[:, :-1])
        mass = np.where((low < 0) & (high >= 0), 1 - beyond[:, 1:] - beyond[:, :-1], mass)
        gauss, student = np.concatenate([beyond[:, :1] + beyond[:, -1:], mass], axis=1)
        counts = 1 + np.floor((65536 - 2 * r - 2) * ((1 - heavy) * gauss + heavy * student))
        counts[:, r + 1] += 65536 - counts.sum(axis=1)
        rows[i, :, p, 0] = counts[:, 0]
        rows[i, :, p, 128 - r : 129 + r] = counts[:, 1:]
    table = rows.reshape(-1, 256)
    digest = "46770ecf732a176fe5fb1b44c9b4186794303ace9d823e086bcb1059f355b4bb"
    if hashlib.sha256(table.astype("<u2").tobytes()).hexdigest() != digest:
        raise ArithmeticError("this machine's erfc or exp does not give the specification's mixtures")
    return table, np.cumsum(table, axis=1) - table


def reach(width: int) -> int:
    """R of a width: greater residuals escape."""
    return int(min(127, math.ceil(16 * 2.0 ** (width / 8 - 4)) + 3))


# ---- The lattice ----


@cache
def neighbours(kind: int) -> tuple[Offset, ...]:
    """The offsets (b, c, a) that a class is predicted from."""
    return known_within(kind, FARTHEST[kind])


@cache
def taps(kind: int) -> tuple[Offset, ...]:
    """The offsets (b, c, a) that a linear predictor of a class weighs."""
    return known_within(kind, 16)


def known_within(kind: int, squared: int) -> tuple[Offset, ...]:
    """The offsets of what is known before a class, up to a squared distance, in lexicographic order."""
    pb, pc = CLASSES[kind]
    known = [((qb - pb) % 2, (qc - pc) % 2) for qb, qc in CLASSES[:kind]]
    return tuple(
        (b, c, a)
        for b, c, a in product(range(-4, 5), repeat=3)
        if b * b + c * c + a * a <= squared and (a % 2 == 1 or (b % 2, c % 2) in known)
    )


def octaves(step: int) -> int:
    """8 log2(step), rounded."""
    return int(step**16).bit_length() // 2


@dataclass(frozen=True)
class Context:
    """What n points are predicted from: inputs (m, n); base, E and q (n)."""

    inputs: Ints
    base: Ints
    exponent: Ints
    quarter: Ints


def context(
    grid: Ints, points: Ints, kind: int, axis: int, stride: int, plan: Plan, weights: Ints | None
) -> Context:
    """The context of some points (3, n) of a class in a grid (b, c, a); weights of a linear predictor."""
    last = np.array(grid.shape)[:, None] - 1

    def at(offset: Offset) -> Ints:
        b, c, a = (points + np.array(offset)[:, None]).clip(0, last)
        return np.asarray(grid[b, c, a])

    both = at((0, 0, -1)) + at((0, 0, 1))
    if kind < 2:
        centre = (both + 1) // 2
    else:
        cross = at((-1, 0, 0)) + at((1, 0, 0)) + at((0, -1, 0)) + at((0, 1, 0))
        centre = (2 * both + cross + 4) // 8
    offsets = neighbours(kind)
    differences = np.stack([at(offset) for offset in offsets]) - centre
    near = [max(map(abs, offset)) == 1 for offset in offsets]
    spread = plan.step + abs(differences[near]).sum(axis=0)
    exponent = np.frexp(spread)[1].astype(np.int64) - 1  # floor(log2), exactly
    quarter = (spread << 2 >> exponent) - 4
    scaled = np.rint(differences * GAIN[quarter] / 2.0**exponent).astype(np.int64).clip(-127, 127)
    further = np.empty((6, len(centre)), np.int64)
    further[0] = 64
    further[1] = (8 * exponent + EIGHTHS[quarter] - octaves(plan.step) - 64).clip(-127, 127)
    further[2] = centre >> max(0, plan.greatest.bit_length() - 7)
    further[3] = 16 * (stride.bit_length() - 1)
    further[4], further[5] = 64 * (axis == 0), 64 * (axis == 1)
    base = 16 * centre
    if weights is not None:
        pairs = zip(weights, taps(kind), strict=True)
        base += sum(weight * (at(tap) - centre) for weight, tap in pairs) + 128 >> 8
    return Context(np.concatenate([scaled, further]), base, exponent, quarter)


def outputs(network: Network, inputs: Ints) -> Ints:
    """The outputs (3 or 6, n): float64 products are exact, all sums are below 2^24."""
    first, second, last = network
    x = inputs.astype(np.float64)
    h = np.rint(first @ x / 512).clip(0, 127)
    h = np.rint(second @ np.concatenate([h, np.full((1, x.shape[1]), 64.0)]) / 512).clip(0, 127)
    return np.asarray(last @ np.concatenate([h, x]), np.int64)


def distributions(found: Context, out: Ints, fine: int, plan: Plan) -> tuple[Ints, Ints, Ints]:
    """The level, the row of the mixtures and the number of low bits of each point."""
    shift = out[0] * RECIPROCAL[found.quarter] << found.exponent
    sixteenths = (found.base + (shift + 2 ** (20 + fine) >> 21 + fine)).clip(0, 16 * plan.greatest)
    level = sixteenths + 8 >> 4
    width = 8 * found.exponent + EIGHTHS[found.quarter] - octaves(plan.step) + (out[1] + 256 >> 9)
    return level, *rows(sixteenths - 16 * level, width, out[2], plan.step)


def rows(fraction: Ints, width: Ints, tails: Ints, step: int) -> tuple[Ints, Ints]:
    """The row of the mixtures and the number of low bits, by f, i' before 32 is added, and o_2."""
    width = (width + 32).clip(0, 167)
    bits = ((width - 48) // 8).clip(0)
    tail = ((tails + 2048 >> 12) + 4).clip(0, 7)
    unit = step << bits
    middle = fraction + np.where(bits > 0, 8 * step, 0)
    phase = (middle + unit) // (2 * unit) + 4
    return ((width - 8 * bits) * 8 + tail) * 9 + phase, bits


# ---- A brick's code ----


class Source:
    """The residuals of one brick, taken class by class."""

    def __init__(
        self, states: NDArray[Any], words: NDArray[Any], low: NDArray[Any], escapes: NDArray[Any]
    ) -> None:
        self.states, self.words = states.astype(np.int64), words.astype(np.int64)
        self.low = np.unpackbits(low, bitorder="little").astype(np.int64)
        self.escapes = escapes
        self.word = self.bit = self.escape = 0

    def columns(self, rows: Ints, bottoms: Ints) -> Ints:
        """One symbol for each row of the mixtures, all lanes at once; those up to a bottom are one."""
        frequencies, starts = mixtures()
        result = np.empty(len(rows), np.int64)
        for first in range(0, len(rows), len(self.states)):
            row = rows[first : first + len(self.states)]
            x = self.states[: len(row)]
            slot = x & 65535
            column = (starts[row] <= slot[:, None]).sum(axis=1) - 1
            bottom = bottoms[first : first + len(row)]
            column = np.where(column == 0, 0, np.maximum(column, bottom))
            start = np.where((column == bottom) & (column > 0), frequencies[row, 0], starts[row, column])
            frequency = starts[row, column] + frequencies[row, column] - start
            x = frequency * (x >> 16) + slot - start
            hungry = np.flatnonzero(x < 65536)
            words = self.words[self.word : self.word + len(hungry)]
            if len(words) < len(hungry):
                raise Damaged("words")
            x[hungry] = x[hungry] << 16 | words
            self.word += len(hungry)
            self.states[: len(row)] = x
            result[first : first + len(row)] = column
        return result

    def residuals(self, level: Ints, rows: Ints, bits: Ints, step: int) -> Ints:
        """The residuals of a class, counted from `level`."""
        reaches = np.array([reach(width) for width in range(56)])[rows // 72]
        bottoms = (step // 2 - level) // step + (1 << bits >> 1) >> bits
        columns = self.columns(rows, np.maximum(bottoms, -reaches - 1) + 128)
        places = self.bit + np.cumsum(bits) - bits
        self.bit += int(bits.sum())
        if self.bit > len(self.low):
            raise Damaged("low bits")
        low = np.zeros(len(rows), np.int64)
        for j in range(int(bits.max())):
            some = bits > j
            low[some] |= self.low[places[some] + j] << j
        symbols, escaped = columns - 128, columns == 0
        taken = self.escapes[self.escape : self.escape + int(escaped.sum())]
        if len(taken) < escaped.sum():
            raise Damaged("escapes")
        self.escape += len(taken)
        beyond = reaches[escaped] + 1 + taken // 2
        symbols[escaped] = np.where(taken % 2, -beyond, beyond)
        return (symbols << bits) + low - (1 << bits >> 1)

    def end(self) -> None:
        """All is used up, and the coder is where it began."""
        whole = self.word == len(self.words) and self.escape == len(self.escapes)
        whole &= (self.states == 65536).all() and (self.bit + 7) // 8 * 8 == len(self.low)
        if not whole or self.low[self.bit :].any():
            raise Damaged("end")


def decode_brick(code: bytes, shape: Shape, origin: Shape, plan: Plan) -> Ints:
    """The levels of a brick that begins there in the volume; Damaged."""
    if not code or code[0] > CODED:
        raise Damaged("kind")
    if code[0] == CODED:
        levels = decode_lattice(code[1:], shape, origin, plan)
    else:
        size = 1 if code[0] == RAW and plan.greatest < 256 else 2
        count = math.prod(shape) if code[0] == RAW else 1
        if len(code) != 1 + size * count:
            raise Damaged("length")
        values = np.frombuffer(code, f"<u{size}", offset=1).astype(np.int64)
        levels = values.reshape(shape) if code[0] == RAW else np.full(shape, values[0])
    if levels.max() > plan.greatest:
        raise Damaged("level")
    return levels


def read_code(body: bytes, roots: int, lanes: int, greatest: int) -> tuple[Ints, Source]:
    """The roots and the residuals of a code, from its three counts on; Damaged."""
    if len(body) < 12:
        raise Damaged("counts")
    words, low, escapes = (int(n) for n in np.frombuffer(body, "<u4", 3))
    parts, end = [], 12
    for kind, count in (("<u2", roots), ("<u4", lanes), ("<u2", words), ("u1", low), ("u1", escapes)):
        size = count * np.dtype(kind).itemsize
        if size > len(body) - end:
            raise Damaged("counts")
        parts.append(np.frombuffer(body, kind, count, end))
        end += size
    beyond = parts[4].astype(np.int64)
    large = beyond == 255
    if len(body) != end + 4 * large.sum():
        raise Damaged("escapes")
    beyond[large] = np.frombuffer(body, "<u4", offset=end)
    if (parts[0] > greatest).any() or (parts[1] < 65536).any() or (beyond[large] < 255).any():
        raise Damaged("roots, states or escapes")
    return parts[0].astype(np.int64), Source(parts[1], parts[2], parts[3], beyond)


def decode_lattice(body: bytes, shape: Shape, origin: Shape, plan: Plan) -> Ints:
    """The levels of a coded brick, all bytes after the kind given."""
    strides = [2 ** list(plan.order).count(axis) for axis in range(3)]
    brick = np.zeros(shape, np.int64)
    roots = brick[:: strides[0], :: strides[1], :: strides[2]]
    lanes = 0 if roots.size == brick.size else max(1, min(256, brick.size // 4096))
    coarsest, source = read_code(body, roots.size, lanes, plan.greatest)
    roots[:] = coarsest.reshape(roots.shape)
    for axis in plan.order:
        strides[axis] //= 2
        view = np.moveaxis(brick[:: strides[0], :: strides[1], :: strides[2]], axis, 2)
        if view.shape[2] > 1:
            decode_split(view, axis, strides, origin, source, plan)
    source.end()
    return brick


def to_zyx(points: Ints, axis: int) -> Ints:
    """Points (b, c, a) of a split of an axis in the order z, y, x."""
    b, c, a = points
    return np.stack([(a, b, c), (b, a, c), (b, c, a)][axis])


def decode_split(
    view: Ints, axis: int, strides: Sequence[int], origin: Shape, source: Source, plan: Plan
) -> None:
    """Fill in the points at odd places along the last axis of a lattice (b, c, a)."""
    grid = view.copy()
    left, right = grid[..., 0:-1:2], grid[..., 2::2]
    both = right.shape[2]
    grid[..., 1::2] = left
    grid[..., 1 : 2 * both : 2] = (left[..., :both] + right + 1) // 2
    fine = strides[axis] == 1 and max(strides) <= 2
    for kind, (pb, pc) in enumerate(CLASSES):
        target = grid[pb::2, pc::2, 1::2]
        if not target.size:
            continue
        which = 4 * (axis if fine else 3) + kind
        network, centre = plan.networks[which], plan.centres[which]
        places = np.stack(np.unravel_index(np.arange(target.size), target.shape))
        places = 2 * places + np.array([pb, pc, 1])[:, None]
        made = []
        for start in range(0, target.size, POINTS):
            some = places[:, start : start + POINTS]
            found = context(grid, some, kind, axis, strides[axis], plan, centre.taps)
            out = outputs(network, found.inputs)
            if fine and plan.zones is not None:
                volume = np.array(origin)[:, None] + np.array(strides)[:, None] * to_zyx(some, axis)
                sets = plan.zones.of(volume)
                for number in np.unique(sets):
                    own = (*network[:2], plan.zones.lasts[number][which])
                    out[:, sets == number] = outputs(own, found.inputs[:, sets == number])
            made.append(distributions(found, out, centre.fine, plan))
        level, rows, bits = (np.concatenate(part) for part in zip(*made, strict=True))
        values = (level + source.residuals(level, rows, bits, plan.step) * plan.step).clip(0, plan.greatest)
        target[:] = values.reshape(target.shape)
        view[pb::2, pc::2, 1::2] = target
