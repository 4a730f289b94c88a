"""The order in which a brick's voxels become known, and what each is predicted from (spec, "The lattice").

A brick is refined from a coarse lattice to the finest by splits: a split of an axis halves the lattice's
stride along it, so that between any two known points a new one appears. The new points are visited in four
classes, by the parity of their places along the other two axes, each class at once: nothing in a class
depends on the class itself.

    class   parity of the other axes (b, c)   known so far: the points of the coarser lattice, and
    0       even, even                        -
    1       odd, odd                          class 0
    2       even, odd                         classes 0, 1
    3       odd, even                         classes 0, 1, 2

All arithmetic is on integers below 2^24, held in float32, where it is exact on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch

from ..container.headers import MOST_SPLITS

Shape = tuple[int, int, int]
Offset = tuple[int, int, int]

CLASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Parity along (b, c) of the points of each class."""
SQUARED_REACH = (9, 9, 6, 6)
"""The greatest squared distance of a neighbour, by class."""
TAP_REACH = 4
"""Lattice points that a tap of a linear predictor is away, at most."""
TAP_FRACTION = 12
"""Fractional bits of a tap's weight."""
LARGEST_TAP = (1 << 15) - 1
"""Of magnitude: a tap's weight, in units of 2^-12."""
FRACTION = 4
"""Fractional bits of a predicted level."""
GAIN = (255, 209, 177, 153)
"""What normalised differences are multiplied by, by the second and third bit of their spread."""
RECIPROCAL = (257, 314, 370, 428)
"""2^16 / GAIN, rounded."""
EIGHTHS = (1, 4, 6, 7)
"""8 log2 of the middle of each quarter of an octave, rounded."""
FEATURES = 6
"""Inputs of the network besides the neighbours."""
GREATEST = 127
"""The greatest magnitude of an input and of an activation."""
CONSTANT = 64


@dataclass(frozen=True)
class Split:
    """One split: the axis, and the lattice's strides (z, y, x) after it."""

    axis: int
    strides: Shape

    @property
    def fine(self) -> bool:
        """Whether this is the axis's last split, and the others' last ones are next or done."""
        return self.strides[self.axis] == 1 and max(self.strides) <= 2


def splits_of(order: Sequence[int]) -> list[Split]:
    """The splits of a schedule, from coarse to fine: `order` names their axes (0 z, 1 y, 2 x)."""
    strides = [1 << list(order).count(axis) for axis in range(3)]
    result = []
    for axis in order:
        strides[axis] >>= 1
        result.append(Split(axis, (strides[0], strides[1], strides[2])))
    return result


def schedule(shape: Shape, spacing: Sequence[float]) -> tuple[int, ...]:
    """The order for bricks of this shape: the axis that is coarsest in millimetres is split first."""
    left = [min(MOST_SPLITS, (n - 1).bit_length()) for n in shape]
    order: list[int] = []
    while any(left):
        # Of axes that are equally coarse, z before y before x.
        axis = max(
            (a for a in range(3) if left[a]), key=lambda a: (round(spacing[a] * 2.0 ** left[a], 9), -a)
        )
        left[axis] -= 1
        order.append(axis)
    return tuple(order)


@cache
def neighbours(kind: int) -> tuple[Offset, ...]:
    """Offsets (b, c, a) of a class's neighbours in lattice points: the known ones, in lexicographic order."""
    return _known_within(kind, SQUARED_REACH[kind])


@cache
def _rows(kind: int) -> tuple[tuple[Offset, int, int], ...]:
    """A class's neighbours in rows along a: (the first one's offset, the step between them, how many)."""
    rows: dict[tuple[int, int], list[int]] = {}
    for b, c, a in neighbours(kind):
        rows.setdefault((b, c), []).append(a)
    return tuple(
        ((b, c, row[0]), row[1] - row[0] if len(row) > 1 else 1, len(row)) for (b, c), row in rows.items()
    )


@cache
def taps(kind: int) -> tuple[Offset, ...]:
    """Offsets of the neighbours that a linear predictor of a class weighs: more, and farther ones."""
    return _known_within(kind, TAP_REACH**2)


def _known_within(kind: int, squared: int) -> tuple[Offset, ...]:
    pb, pc = CLASSES[kind]
    earlier = {((pb + qb) % 2, (pc + qc) % 2) for qb, qc in CLASSES[:kind]}
    reach = range(-math.isqrt(squared), math.isqrt(squared) + 1)
    return tuple(
        (b, c, a)
        for b, c, a in product(reach, repeat=3)
        if b * b + c * c + a * a <= squared and (a % 2 or (b % 2, c % 2) in earlier)
    )


@cache
def nearest(kind: int) -> tuple[int, ...]:
    """Which of `neighbours` lie in the 3 x 3 x 3 cube: the spread is taken over them."""
    return tuple(i for i, offset in enumerate(neighbours(kind)) if max(map(abs, offset)) == 1)


@cache
def _nearest(kind: int, device: torch.device) -> torch.Tensor:
    return torch.tensor(nearest(kind), device=device)


def inputs(kind: int) -> int:
    """How many inputs the network of a class has."""
    return len(neighbours(kind)) + FEATURES


class Lattice:
    """The lattice of a batch of bricks after one split, in the order (brick, b, c, a), a the split axis.

    values   (bricks, b, c, a) float32 levels: a view into the bricks themselves. Points along a at even
             places are known; those at odd places become known class by class.
    """

    def __init__(self, bricks: torch.Tensor, split: Split) -> None:
        z, y, x = split.strides
        self.split = split
        self.values = bricks[:, ::z, ::y, ::x].movedim(1 + split.axis, 3)
        self._pad()

    def _pad(self) -> None:
        """The lattice with a margin; points not known yet are the mean of the two known ones beside them."""
        count, nb, nc, na = self.values.shape
        r = TAP_REACH
        padded = self.values.new_empty(count, nb + 2 * r, nc + 2 * r, na + 2 * r)
        inner = padded[:, r : r + nb, r : r + nc, r : r + na]
        inner.copy_(self.values)
        left = inner[..., 0 : na - 1 : 2]
        right = inner[..., 2::2]
        odd = inner[..., 1::2]
        both = right.shape[3]
        odd[..., :both] = torch.floor((left[..., :both] + right + 1) * 0.5)
        odd[..., both:] = left[..., both:]
        self._inner, self._padded = inner, padded
        self._edges()

    def _edges(self) -> None:
        """Fill the margin with the values at the edge."""
        r, whole = TAP_REACH, self._padded
        for axis in (3, 2, 1):
            n = whole.shape[axis]
            whole.narrow(axis, 0, r).copy_(whole.narrow(axis, r, 1).expand_as(whole.narrow(axis, 0, r)))
            whole.narrow(axis, n - r, r).copy_(
                whole.narrow(axis, n - r - 1, 1).expand_as(whole.narrow(axis, n - r, r))
            )

    def class_shape(self, kind: int) -> Shape:
        """(b, c, a) points of a class in each brick."""
        _, nb, nc, na = self.values.shape
        pb, pc = CLASSES[kind]
        return (nb - pb + 1) // 2, (nc - pc + 1) // 2, na // 2

    def set(self, kind: int, values: torch.Tensor) -> None:
        """The class's points (bricks, b, c, a) become known."""
        pb, pc = CLASSES[kind]
        self.values[:, pb::2, pc::2, 1::2] = values
        self._inner[:, pb::2, pc::2, 1::2] = values
        self._edges()

    @staticmethod
    def points(bricks: torch.Tensor, split: Split, kind: int) -> torch.Tensor:
        """The points (bricks, b, c, a) that a class of a split has in known bricks: a view."""
        z, y, x = split.strides
        pb, pc = CLASSES[kind]
        return bricks[:, ::z, ::y, ::x].movedim(1 + split.axis, 3)[:, pb::2, pc::2, 1::2]

    def neighbour(self, kind: int, part: Part, offset: Offset) -> torch.Tensor:
        """The neighbour at an offset of the points of a part of a class (bricks, b, c, a): a strided view."""
        pb, pc = CLASSES[kind]
        _, mc, ma = self.class_shape(kind)
        bricks, rows = part
        b, c, a = (TAP_REACH + p + o for p, o in zip((pb, pc, 1), offset, strict=True))
        first, last = b + 2 * rows.start, b + 2 * rows.stop - 1
        return self._padded[bricks, first:last:2, c : c + 2 * mc - 1 : 2, a : a + 2 * ma - 1 : 2]

    def gather(self, kind: int, part: Part, out: torch.Tensor) -> None:
        """All `neighbours` of the points of a part of a class: (neighbours, bricks, b, c, a)."""
        bricks, rows = part
        sn, sb, sc, sa = self._padded.stride()
        pb, pc = CLASSES[kind]
        first = 0
        for offset, step, count in _rows(kind):
            b, c, a = (TAP_REACH + p + o for p, o in zip((pb, pc, 1), offset, strict=True))
            start = bricks.start * sn + (b + 2 * rows.start) * sb + c * sc + a * sa
            shape = (count, *out.shape[1:])
            strides = (step * sa, sn, 2 * sb, 2 * sc, 2 * sa)
            out[first : first + count] = self._padded.as_strided(shape, strides, start)
            first += count

    def parts(self, kind: int, most: int) -> Iterator[Part]:
        """A class of all bricks in parts of about `most` points, so that what is made of them stays small."""
        count = len(self.values)
        rows, mc, ma = self.class_shape(kind)
        together = max(1, most // (rows * mc * ma))
        step = max(1, most // (mc * ma)) if together == 1 else rows
        for first in range(0, count, together):
            for row in range(0, rows, step):
                yield slice(first, min(first + together, count)), slice(row, min(row + step, rows))


Part = tuple[slice, slice]
"""Some bricks, and some rows (along b) of their points of a class."""


@dataclass(frozen=True)
class Span:
    """What is the same for all points of a volume: the greatest level, and the step between residuals."""

    greatest: int
    step: int


@dataclass
class Context:
    """What a run of n points of one class is predicted from.

    features   (inputs, n) float32 integers in [-127, 127].
    centre     (n) the level about which the neighbours are taken.
    base       (n) int64 sixteenths of a level: what the network corrects. The centre, or a linear prediction.
    exponent   (n) int64 E and quarter (n) int64 q: the neighbours' spread is about (4 + q + 1/2) 2^(E - 2).
    """

    features: torch.Tensor
    centre: torch.Tensor
    base: torch.Tensor
    exponent: torch.Tensor
    quarter: torch.Tensor

    @classmethod
    def of(
        cls, lattice: Lattice, kind: int, part: Part, span: Span, weights: Sequence[int] | None = None
    ) -> Context:
        """Gather the neighbours, subtract the centre, divide by the spread (spec, "Contexts").

        weights   of a linear predictor, for each of `taps`, where the class has one.
        """
        offsets = neighbours(kind)
        bricks, rows = part
        shape = (bricks.stop - bricks.start, rows.stop - rows.start, *lattice.class_shape(kind)[1:])
        features = lattice.values.new_empty(len(offsets) + FEATURES, *shape)
        lattice.gather(kind, part, features[: len(offsets)])
        features = features.view(len(features), -1)
        near = {offset: features[i] for i, offset in enumerate(offsets) if sum(map(abs, offset)) == 1}
        centre = near[0, 0, -1] + near[0, 0, 1]
        if kind < 2:
            centre = torch.floor((centre + 1) * 0.5)
        else:
            beside = near[-1, 0, 0] + near[1, 0, 0] + near[0, -1, 0] + near[0, 1, 0]
            centre = torch.floor((2 * centre + beside + 4) * 0.125)
        differences = features[: len(offsets)]
        differences -= centre
        near_by = differences.index_select(0, _nearest(kind, centre.device))
        spread = near_by.abs_().sum(dim=0).add_(span.step)
        mantissa, exponent = torch.frexp(spread)
        exponent = exponent.long() - 1
        quarter = (mantissa * 8).long() - 4
        differences *= _gains(centre.device)[4 * exponent + quarter]
        differences.round_().clamp_(-GREATEST, GREATEST)
        _constants(features[len(offsets) :], lattice.split, centre, exponent, quarter, span)
        base = centre.long() << FRACTION
        if weights is not None:
            base += linear_correction(lattice, kind, part, centre, weights)
        return cls(features, centre, base, exponent, quarter)


def linear_correction(
    lattice: Lattice, kind: int, part: Part, centre: torch.Tensor, weights: Sequence[int]
) -> torch.Tensor:
    """What a linear predictor adds to the centre (n): int64 sixteenths of a level.

    All sums are whole numbers below 2^53, which float64 holds exactly.
    """
    bricks, rows = part
    shape = (bricks.stop - bricks.start, rows.stop - rows.start, *lattice.class_shape(kind)[1:])
    total = centre.double().mul_(-sum(weights)).view(shape)
    for offset, weight in zip(taps(kind), weights, strict=True):
        if weight:
            total.add_(lattice.neighbour(kind, part, offset), alpha=weight)
    low = TAP_FRACTION - FRACTION
    return total.view(-1).long() + (1 << low - 1) >> low


@dataclass(frozen=True)
class Prediction:
    """What a context model says of n points.

    centre   int64 levels: where the residual is counted from.
    table    int64: the distribution of the residual's high part, a row of mixtures.frequencies.
    bits     int64: how many low bits of the residual are stored plainly.
    """

    centre: torch.Tensor
    table: torch.Tensor
    bits: torch.Tensor


@cache
def _gains(device: torch.device) -> torch.Tensor:
    """GAIN[q] / 2^E at 4 E + q; exact, which a power on the device need not be."""
    every = [gain * 2.0**-e for e in range(24) for gain in GAIN]
    return torch.tensor(every, dtype=torch.float32, device=device)


def _constants(
    out: torch.Tensor,
    split: Split,
    centre: torch.Tensor,
    exponent: torch.Tensor,
    quarter: torch.Tensor,
    span: Span,
) -> None:
    """The inputs besides the neighbours: a constant, spread, level, stride and axis."""
    eighths = 8 * exponent + torch.tensor(EIGHTHS, device=centre.device)[quarter] - octaves(span.step)
    out[0] = CONSTANT
    out[1] = (eighths - 64).clamp_(-GREATEST, GREATEST)
    out[2] = torch.floor(centre * 2.0 ** -max(0, span.greatest.bit_length() - 7))
    out[3] = 16 * (split.strides[split.axis].bit_length() - 1)
    out[4] = CONSTANT * (split.axis == 0)
    out[5] = CONSTANT * (split.axis == 1)


@cache
def octaves(step: int) -> int:
    """8 log2(step), rounded: in whole numbers, so that every machine agrees."""
    # The greatest k with 2^(2k - 1) <= step^16.
    power: int = step**16
    return power.bit_length() // 2


def order_of_classes(bricks: torch.Tensor, order: Sequence[int]) -> Iterator[tuple[Lattice, int]]:
    """Every (lattice, class) that has points, from the coarsest to the finest."""
    for split in splits_of(order):
        if bricks.shape[1 + split.axis] <= split.strides[split.axis]:
            continue  # the split makes no new point
        lattice = Lattice(bricks, split)
        for kind in range(len(CLASSES)):
            if all(lattice.class_shape(kind)):
                yield lattice, kind


def roots(bricks: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The points of the coarsest lattice (bricks, z, y, x): a view. They are stored as they are."""
    z, y, x = (1 << list(order).count(axis) for axis in range(3))
    return bricks[:, ::z, ::y, ::x]
