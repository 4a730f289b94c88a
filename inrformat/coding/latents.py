"""The latents: whole numbers in the bands of a wavelet pyramid, and their code (spec, "Latents").

The bands of a level are coded one after the other, from the coarsest level to the finest, and the points of
a band in four classes, each at once. A point is quiet if nothing but zeros is known around it: among the 26
points about it in its band; at its place and the 6 beside it in the bands of its level that were coded
before; at its parent in the coarser level and the 6 beside that. In the coarsest level no point is quiet.
Quiet points are nearly all zero, and only those that are not ("births") are stored, by the gaps between them.
The others are predicted by a small integer network from what is known around them, and coded as residuals;
it also says where, about each of them, what was rounded is likely to lie: by a shift.

All of it is arithmetic on whole numbers: the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..parallel import alone, map_on_cores
from .lattice import CONSTANT, GREATEST, Prediction, Shape
from .wavelet import LARGEST, PATTERNS, Level, inverse, levels_of

CLASSES = (
    ((0, 0, 0), (1, 1, 1)),
    ((0, 1, 1), (1, 0, 0)),
    ((1, 0, 1), (0, 1, 0)),
    ((1, 1, 0), (0, 0, 1)),
)
"""The parities (z, y, x) of the places in a band of each class's points."""
AROUND = tuple((z, y, x) for z, y, x in product((-1, 0, 1), repeat=3) if z or y or x)
"""Offsets (z, y, x) of the 26 points about a point."""
BESIDE = tuple(o for o in AROUND if sum(map(abs, o)) == 1)
CROSS = ((0, 0, 0), *BESIDE)
CONSTANTS = 8
LARGEST_LATENT = 32767
UNIT = 16
"""Magnitudes are in units of 1/16 octave."""
FAR = 255
"""From here on magnitudes are the greatest."""
PREVIEW_POINTS = 1 << 21
"""A preview is made without the finest levels, as long as it would have more points."""
PART = 1 << 13
PART_GPU = 1 << 20


def inputs(pattern: int) -> int:
    """How many inputs the network of a band has."""
    earlier = PATTERNS.index(pattern)
    return 2 * len(AROUND) + len(BESIDE) + len(CROSS) * (1 + earlier) + CONSTANTS


@dataclass(frozen=True)
class Forecast(Prediction):
    """What a latent model says of n points: the distributions of their latents, and more.

    shifts   (3, n) int16: by how many 1/256 of a step a point stands for more than its latent, if that is
              zero, greater, or less.
    """

    shifts: Tensor

    def part(self, part: slice) -> Forecast:
        """Of some of the points."""
        return Forecast(self.centre[part], self.table[part], self.bits[part], self.shifts[:, part])

    def shift(self, latents: Tensor) -> Tensor:
        """The shifts (n) of points with these latents."""
        none, more, less = self.shifts
        return torch.where(latents == 0, none, torch.where(latents > 0, more, less))


class Model(Protocol):
    """What the coder needs of a latent model; see models.latents.LatentModel."""

    def predict(self, features: Tensor, pattern: int) -> Forecast:
        """What is likely of points with these features (inputs, n)."""


class Exchange(Protocol):
    """Where latents come from, or go to: a coder that writes knows them, one that reads gives them."""

    def quiet(self, number: int, true: Tensor) -> Tensor:
        """The latents (n) of the quiet points of a class; its number counts all classes. `true`, if known."""

    def predicted(self, places: Places, true: Tensor, forecast: Forecast) -> Tensor:
        """The latents (n) of the other points."""


@dataclass(frozen=True)
class Places:
    """Some points of a band.

    which   of a pyramid's steps is the band's own.
    at      (n) where they are in the flat band.
    """

    level: Level
    pattern: int
    which: int
    at: Tensor


@dataclass(frozen=True)
class Pyramid:
    """A grid as latents.

    shape   (z, y, x) of the grid.
    masks   the axes that each level halves, from the finest; see wavelet.Level.
    steps   for each level, from the finest, and each of its bands: what one unit of a latent stands for; then
            that of the coarsest level's smooth points.
    bias    by how many 1/256 of a step a latent's magnitude stands for less; of each as `steps`.
    """

    shape: Shape
    masks: tuple[int, ...]
    steps: tuple[int, ...]
    bias: tuple[int, ...]

    @property
    def levels(self) -> list[Level]:
        """From the finest to the coarsest."""
        return levels_of(self.masks)

    def numbers(self) -> Iterator[tuple[int, Level, int, int]]:
        """(level's number, level, pattern, which of `steps` is its own) of all bands as they are coded."""
        levels, starts = self.levels, np.cumsum([0, *(len(level.bands) for level in self.levels)]).tolist()
        for number in reversed(range(len(levels))):
            for i, pattern in enumerate(levels[number].bands):
                yield number, levels[number], pattern, starts[number] + i

    def class_sizes(self) -> list[int]:
        """How many points each class has, of all bands that have any, as they are coded."""
        nothing = torch.empty(self.shape, device="meta")
        shapes = [level.band(nothing, pattern).shape for _, level, pattern, _ in self.numbers()]
        return [
            sum(math.prod((n - q + 1) // 2 for n, q in zip(shape, parity, strict=True)) for parity in members)
            for shape in shapes
            if math.prod(shape)
            for members in CLASSES
        ]

    @property
    def strides(self) -> Shape:
        """Between the coarsest level's smooth points."""
        z, y, x = (1 << sum(mask >> bit & 1 for mask in self.masks) for bit in (2, 1, 0))
        return z, y, x

    @property
    def strides_of_levels(self) -> list[Shape]:
        """Between the points of each level, from the finest, and between the coarsest smooth points."""
        return [*(level.strides for level in self.levels), self.strides]

    @property
    def preview(self) -> int:
        """How many of the finest levels a preview leaves out."""
        for number, strides in enumerate(self.strides_of_levels):
            points = math.prod(-(-n // s) for n, s in zip(self.shape, strides, strict=True))
            if points <= PREVIEW_POINTS:
                return number
        return len(self.masks)

    def smooth(self, grid: Tensor) -> Tensor:
        """The coarsest smooth points of a grid: a view."""
        z, y, x = self.strides
        return grid[::z, ::y, ::x]

    def value(self, latents: Tensor, which: int, shifts: Tensor | None = None) -> Tensor:
        """What the latents of a band stand for, with their shifts, if any, in 1/256 of a step: int32."""
        step, bias = self.steps[which], self.bias[which]
        exact = (256 * latents.long()).sub_(latents.sign(), alpha=bias)
        if shifts is not None:
            exact += shifts
        size = exact.abs().mul_(step).add_(128).bitwise_right_shift_(8).clamp_(max=LARGEST)
        return size.mul_(exact.sign()).int()


def walk(
    pyramid: Pyramid,
    smooth: Tensor,
    bands: dict[tuple[int, int], Tensor],
    model: Model,
    exchange: Exchange,
    finest: int = 0,
) -> Tensor:
    """The grid (z, y, x), int32, of latents that are exchanged on the way.

    smooth   the latents of the coarsest smooth points.
    bands    (level's number, pattern) -> latents, int16: the true ones where the exchange writes, else empty;
             filled in on the way.
    finest   the level to end with: the grid is what there is of its points then.
    """
    device = smooth.device
    grid = torch.zeros(pyramid.shape, dtype=torch.int32, device=device)
    pyramid.smooth(grid).copy_(pyramid.value(smooth, len(pyramid.steps) - 1))
    coarser: tuple[int, dict[int, Tensor]] = 0, {}
    classes = 0
    for number in reversed(range(finest, len(pyramid.masks))):
        level = pyramid.levels[number]
        sizes: dict[int, Tensor] = {}
        for _, _, pattern, which in (b for b in pyramid.numbers() if b[0] == number):
            points = level.band(grid, pattern)
            if points.numel() == 0:
                continue
            context = _Band(level, number, pattern, which, points.shape, pyramid, coarser, sizes, grid)
            band = bands.setdefault(
                (number, pattern), torch.zeros(points.shape, dtype=torch.int16, device=device)
            )
            with alone():
                sizes[pattern] = context.code(band, model, exchange, classes)
            classes += len(CLASSES)
            points.copy_(pyramid.value(band, which, context.shifts))
        inverse(grid, level)
        coarser = level.axes, sizes
    z, y, x = pyramid.strides_of_levels[finest]
    return grid[::z, ::y, ::x]


def magnitude(values: Tensor) -> Tensor:
    """16 log2(1 + |v|), rounded down and straight between powers of two, at most 127; v's sign: int8."""
    return _magnitudes(values.device).take(values.clamp(-FAR, FAR).long() + FAR)


@cache
def _magnitudes(device: torch.device) -> Tensor:
    """The magnitude of v at v + FAR."""
    found = []
    for size in range(1, FAR + 2):
        exponent = size.bit_length() - 1
        found.append(min(UNIT * exponent + ((size << 4 >> exponent) - UNIT), GREATEST))
    both = [-v for v in reversed(found[1:])] + found
    return torch.tensor(both, dtype=torch.int8, device=device)


def to_finer(parents: Tensor, axes: int) -> Tensor:
    """What holds of parents, at the places of their children: each twice along the axes of their level."""
    for axis, bit in enumerate((4, 2, 1)):
        if axes & bit:
            parents = parents.repeat_interleave(2, axis)
    return parents


class _Band:
    """A band on its way: what is known of it and around it."""

    def __init__(
        self,
        level: Level,
        number: int,
        pattern: int,
        which: int,
        shape: torch.Size,
        pyramid: Pyramid,
        coarser: tuple[int, dict[int, Tensor]],
        earlier: dict[int, Tensor],
        grid: Tensor,
    ) -> None:
        self.level, self.number, self.pattern, self.which, self.shape = level, number, pattern, which, shape
        self.known = _margin(shape, grid.device)
        self.shifts = torch.zeros(shape, dtype=torch.int16, device=grid.device)
        self.earlier = earlier
        mask, parents = coarser
        self.parent_axes = mask
        self.parent = parents.get(pattern & mask)
        smooth = level.band(grid, 0)
        self.smooth = torch.nn.functional.pad(smooth[None, None].float(), (1,) * 6, mode="replicate")[
            0, 0
        ].int()
        # The magnitude of every difference: from `reach` quarter steps on it is the greatest.
        step = pyramid.steps[which]
        reach = min(2 * LARGEST, FAR * step // 4 + 1)
        every = torch.arange(-reach, reach + 1, device=grid.device)
        self.slopes = magnitude(torch.div(4 * every, step, rounding_mode="trunc"))

    def code(self, band: Tensor, model: Model, exchange: Exchange, first: int) -> Tensor:
        """Exchange the latents, class by class from number `first`; their magnitudes, with a margin."""
        flat = band.view(-1)
        still = self._still()
        every = torch.arange(len(flat), device=band.device).view(self.shape)
        for kind, members in enumerate(CLASSES):
            moving = still | _spread(self.known != 0, True)[tuple(slice(1, n + 1) for n in self.shape)]
            # One parity after the other, each in C order.
            at = torch.cat([every[a::2, b::2, c::2].reshape(-1) for a, b, c in members])
            quiet = ~moving.view(-1)[at]
            places = at[quiet]  # of none, too: it may be said to have births
            values = exchange.quiet(first + kind, flat[places])
            births = values != 0  # nothing but zeros is known as yet
            self._know(flat, places[births], values[births])
            if len(places := at[~quiet]):
                forecast = self._forecast(model, places, kind)
                own = Places(self.level, self.pattern, self.which, places)
                values = exchange.predicted(own, flat[places], forecast)
                self._know(flat, places, values)
                self.shifts.view(-1)[places] = forecast.shift(values)
        return self.known

    def _still(self) -> Tensor:
        """Where something but zeros is known in other bands; everywhere in the coarsest level."""
        if not self.parent_axes:
            return torch.ones(self.shape, dtype=torch.bool, device=self.known.device)
        result = torch.zeros(self.shape, dtype=torch.bool, device=self.known.device)
        for other in self.earlier.values():
            _paste(result, _spread(other != 0, False)[1:, 1:, 1:])
        if self.parent is not None:
            near = _spread(self.parent != 0, False)[1:, 1:, 1:]
            _paste(result, to_finer(near, self.parent_axes))
        return result

    def _know(self, flat: Tensor, places: Tensor, values: Tensor) -> None:
        flat[places] = values.to(flat.dtype)
        z, y, x = self._split(places)
        self.known[z + 1, y + 1, x + 1] = magnitude(values)

    def _split(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, ny, nx = self.shape
        rows = torch.div(places, nx, rounding_mode="floor")
        return torch.div(rows, ny, rounding_mode="floor"), rows % ny, places % nx

    def _forecast(self, model: Model, places: Tensor, kind: int) -> Forecast:
        """What is likely of points, part by part."""
        centre, table, bits = (torch.empty_like(places) for _ in range(3))
        result = Forecast(centre, table, bits, self.shifts.new_empty(3, len(places)))

        def predict(part: slice) -> None:
            forecast = model.predict(self._features(places[part], kind), self.pattern)
            for name in ("centre", "table", "bits", "shifts"):
                getattr(result, name)[..., part] = getattr(forecast, name)

        in_parts(predict, places)
        return result

    def _features(self, places: Tensor, kind: int) -> Tensor:
        """The inputs (inputs, n) of points: int8 in [-127, 127]."""
        where = self._split(places)
        out = torch.zeros(inputs(self.pattern), len(places), dtype=torch.int8, device=places.device)
        row = 0

        def gather(values: Tensor, at: Sequence[Tensor], offsets: Sequence[Shape]) -> Tensor:
            nonlocal row
            first, (_, ny, nx) = row, values.shape
            flat, base = values.view(-1), (at[0] * ny + at[1]) * nx + at[2]
            for z, y, x in offsets:
                start = ((z + 1) * ny + y + 1) * nx + x + 1
                torch.index_select(flat[start:], 0, base, out=out[row])
                row += 1
            return out[first:row]

        gather(self.known, where, AROUND)
        beside = [AROUND.index(offset) for offset in BESIDE]
        out[row : row + len(beside)] = out[beside]
        out[: len(AROUND)].abs_()
        row += len(beside)
        if self.parent is not None:
            up = [w >> 1 if self.parent_axes & bit else w for w, bit in zip(where, (4, 2, 1), strict=True)]
            gather(self.parent, up, CROSS).abs_()
        else:
            row += len(CROSS)
        for pattern in PATTERNS[: PATTERNS.index(self.pattern)]:
            if pattern in self.earlier:
                gather(self.earlier[pattern], where, CROSS).abs_()
            else:
                row += len(CROSS)
        self._slopes(where, out[row : row + len(AROUND)])
        row += len(AROUND)
        self._constants(out[row:], kind)
        return out

    def _slopes(self, where: Sequence[Tensor], out: Tensor) -> None:
        """By how many quarter steps the smooth points about a point differ from that at its own place."""
        _, ny, nx = self.smooth.shape
        flat, base = self.smooth.view(-1), (where[0] * ny + where[1]) * nx + where[2]
        reach = len(self.slopes) // 2
        own = flat[(ny + 1) * nx + 1 :].index_select(0, base).sub_(reach)
        for row, (z, y, x) in enumerate(AROUND):
            beside = flat[((z + 1) * ny + y + 1) * nx + x + 1 :].index_select(0, base)
            torch.index_select(self.slopes, 0, beside.sub_(own).clamp_(0, 2 * reach), out=out[row])

    def _constants(self, out: Tensor, kind: int) -> None:
        out[0] = CONSTANT
        if kind:
            out[kind] = CONSTANT
        out[4] = min(UNIT * self.number, GREATEST)
        for row, bit in zip((5, 6, 7), (4, 2, 1), strict=True):
            out[row] = CONSTANT * bool(self.level.axes & bit)


def in_parts(work: Callable[[slice], None], points: Tensor) -> None:
    """Do that to all points (n, ...), few at a time, for what is made of them is large; on all cores."""
    size = PART if points.device.type == "cpu" else PART_GPU
    parts = [slice(first, first + size) for first in range(0, len(points), size)]
    if points.device.type == "cpu" and len(parts) > 1:
        map_on_cores(work, parts)
    else:
        for part in parts:
            work(part)


def _margin(shape: torch.Size, device: torch.device) -> Tensor:
    """Zeros of that shape with one more before and two after along each axis."""
    return torch.zeros([n + 3 for n in shape], dtype=torch.int8, device=device)


def _spread(there: Tensor, far: bool) -> Tensor:
    """Whether something is there, or at one of the 6 points beside it, or (far) of the 26 around."""
    result = there.clone()
    for axis in range(3):
        source = result.clone() if far else there
        n = there.shape[axis]
        result.narrow(axis, 1, n - 1).logical_or_(source.narrow(axis, 0, n - 1))
        result.narrow(axis, 0, n - 1).logical_or_(source.narrow(axis, 1, n - 1))
    return result


def _paste(out: Tensor, other: Tensor) -> None:
    """Or-in what another band has at the same places, as far as it goes."""
    common = tuple(slice(0, min(a, b)) for a, b in zip(out.shape, other.shape, strict=True))
    out[common] |= other[common]
