"""Section LATD: the latents of a grid as bytes (spec, "Latents").

u32 x 4   bytes of the four parts that follow
counts    for each class that has births: how many classes before it, since the last that has, have none; its
          births less one; a byte for the level of its gaps. The first two are numbers of 7-bit groups, the
          lowest first, bit 7 set if more follow
gaps      an integer array, of family 1: for each birth the quiet points before it since the last one, g if
          its latent is at least 0, -1 - g otherwise
sizes     two bytes, family and level, then an integer array: the magnitude of each birth less one
smooth    the same of the coarsest smooth points, each less the one before it
the rest  the residuals of all other latents, see coding.residuals
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..container.codes import fail
from ..container.headers import MOST_LANES
from . import integers
from .bank import FAMILIES, GREATEST, SCALES
from .latents import LARGEST_LATENT, Forecast, Model, Places, Pyramid, in_parts, walk
from .lattice import Prediction
from .residuals import Code, Residuals, Source, costs

Ints = npt.NDArray[np.int64]

SECTION = "LATD"
LENGTHS = struct.Struct("<IIII")
OFFSET = 1 << 16
"""Added to latents, so that none is below zero."""
LAPLACE = FAMILIES.index("laplace")
BITS_PER_LANE = 2048
"""A lane costs about 16."""
BIT = 0.115
"""Squared steps that a bit is worth: 2 ln 2 / 12, by which the error falls for it at high rates. Measured to
be the best of 0.07, 0.1, 0.115, 0.13 and 0.16, with 2 to 3% fewer bytes than by fit.latents alone."""

Wanted = Callable[[Places], Tensor]
"""The coefficients of points, in steps."""


@dataclass
class _Births:
    """The births of one class: gaps with the latents' signs, and magnitudes."""

    gaps: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    sizes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    level: int = 0

    @classmethod
    def of(cls, true: Ints) -> _Births:
        """Those among the latents of the quiet points."""
        at = np.flatnonzero(true)
        if not len(at):
            return cls()
        gaps = np.diff(at, prepend=-1) - 1
        level = _level(gaps)
        most = _most(level)
        fillers = gaps // (most + 1)  # births of magnitude 0, where a gap is too long for its level
        last = np.cumsum(fillers + 1) - 1
        every = np.full(int(last[-1]) + 1, most, np.int64)
        values = np.zeros_like(every)
        every[last] = gaps - fillers * (most + 1)
        values[last] = true[at]
        return cls(np.where(values < 0, -1 - every, every), np.abs(values), level)

    def place(self, count: int) -> Ints:
        """The latents of `count` quiet points; FormatError if there are not as many."""
        negative = self.gaps < 0
        at = np.cumsum(np.where(negative, -1 - self.gaps, self.gaps) + 1) - 1
        if len(at) and at[-1] >= count:
            raise fail("bad-latents", "a birth lies beyond its class", section=SECTION)
        result = np.zeros(count, np.int64)
        result[at] = np.where(negative, -self.sizes, self.sizes)
        return result


def _level(gaps: Ints) -> int:
    """The level of the array of gaps that costs least."""
    mean = float(gaps.mean())
    level = round(12 + 4 * np.log2(np.sqrt(2.0) * max(mean, 0.3)))
    return int(min(max(level, 0), integers.LEVELS - 1))


def _most(level: int) -> int:
    """The longest gap that fits a level."""
    return ((GREATEST + 1) << max(0, (level - SCALES + 4) // 4)) - 1


class _Writer:
    """Notes what the latents are, or chooses them by what is wanted."""

    def __init__(self, classes: int, bias: Sequence[int], wanted: Wanted | None) -> None:
        self.bias, self.wanted = bias, wanted
        self.births = [_Births() for _ in range(classes)]
        self.residuals = Residuals(1)
        self.symbols = 0

    def quiet(self, number: int, true: Tensor) -> Tensor:
        """See coding.latents.Exchange."""
        self.births[number] = _Births.of(true.cpu().numpy().astype(np.int64))
        return true

    def predicted(self, places: Places, true: Tensor, forecast: Forecast) -> Tensor:
        """See coding.latents.Exchange."""
        if self.wanted is not None:
            true = worthwhile(self.wanted(places), self.bias[places.which] / 256, forecast)
        self.symbols += len(true)
        self.residuals.push(true[None].long() + OFFSET, _batch(forecast))
        return true


class _Reader:
    """Takes the latents out of their code."""

    def __init__(self, births: list[_Births], source: Source | None) -> None:
        self.births, self.source = births, source

    def quiet(self, number: int, true: Tensor) -> Tensor:
        """See coding.latents.Exchange."""
        births, self.births[number] = self.births[number], _Births()
        return torch.from_numpy(births.place(len(true))).to(true.device)

    def predicted(self, places: Places, true: Tensor, forecast: Forecast) -> Tensor:
        """See coding.latents.Exchange."""
        if self.source is None:
            raise fail("bad-latents", "there is no code of latents that are predicted", section=SECTION)
        values = self.source.take(_batch(forecast))[0] - OFFSET
        return values.clamp_(-LARGEST_LATENT, LARGEST_LATENT)

    def check(self, finest: int) -> None:
        """FormatError unless there was enough code, and, down to level 0, all of it was used."""
        if finest:
            if self.source is not None and self.source.short():
                raise fail("bad-latents", "the code of the latents is too short", section=SECTION)
        elif any(len(b.gaps) for b in self.births) or (self.source is not None and self.source.wrong()):
            raise fail("bad-latents", "the code of the latents is not used up, or too short", section=SECTION)


def _batch(prediction: Prediction) -> Prediction:
    """As of one brick, and of latents that have the offset."""
    return Prediction(prediction.centre[None] + OFFSET, prediction.table[None], prediction.bits[None])


def worthwhile(coefficients: Tensor, bias: float, forecast: Forecast) -> Tensor:
    """The latents (n) of coefficients in steps: the nearest, one less, or none, by error and bits."""
    result = torch.empty_like(coefficients, dtype=torch.int16)

    def choose(part: slice) -> None:
        result[part] = _worthwhile(coefficients[part], bias, forecast.part(part))

    in_parts(choose, coefficients)
    return result


def _worthwhile(coefficients: Tensor, bias: float, forecast: Forecast) -> Tensor:
    nearest = torch.floor(coefficients.abs() + 0.5).clamp_(max=LARGEST_LATENT)
    best, least = torch.zeros_like(nearest), torch.full_like(nearest, math.inf)
    for size in (nearest, (nearest - 1).clamp_(min=0), torch.zeros_like(nearest)):
        choice = size * coefficients.sign()
        error = (choice - bias * choice.sign() + forecast.shift(choice) / 256 - coefficients).square_()
        loss = error.add_(costs(choice.long(), forecast), alpha=BIT)
        best = torch.where(loss < least, choice, best)
        least = torch.minimum(loss, least)
    return best.to(torch.int16)


def encode(
    pyramid: Pyramid,
    smooth: Tensor,
    bands: dict[tuple[int, int], Tensor],
    model: Model,
    wanted: Wanted | None = None,
) -> tuple[bytes, int, Tensor]:
    """(the section, how many lanes it has, the grid) of the latents; see coding.latents.walk.

    wanted   where it is given, latents that are predicted are not those of `bands`, but what it makes worth
             their bits; a model's shifts are made for latents that were chosen so.
    """
    writer = _Writer(len(pyramid.class_sizes()), pyramid.bias, wanted)
    if wanted is not None:
        bands = {key: band.clone() for key, band in bands.items()}
    grid = walk(pyramid, smooth, bands, model, writer)
    lanes = max(1, min(MOST_LANES, int(writer.residuals.bits()) // BITS_PER_LANE)) if writer.symbols else 0
    counts = _packed_counts(writer.births)
    nothing = np.zeros(0, np.int64)  # a grid without levels has no classes
    gaps = np.concatenate([nothing, *(b.gaps for b in writer.births)])
    kinds, numbers = [(LAPLACE, b.level) for b in writer.births], [len(b.gaps) for b in writer.births]
    sizes = np.concatenate([nothing, *(b.sizes for b in writer.births)]) - 1
    points = smooth.cpu().numpy().astype(np.int64).ravel()
    parts = [
        counts,
        integers.encode(gaps, *integers.spread(kinds, numbers)) if len(gaps) else b"",
        _pack_alike(sizes) if len(sizes) else b"",
        _pack_alike(np.diff(points, prepend=0)),
    ]
    rest = writer.residuals.codes(np.zeros((1, 0), np.uint16), lanes)[0]
    return LENGTHS.pack(*map(len, parts)) + b"".join(parts) + rest, lanes, grid


def decode(
    data: bytes, pyramid: Pyramid, lanes: int, model: Model, device: torch.device, finest: int = 0
) -> Tensor:
    """The grid (z, y, x), int32, of a section, or of the points of a coarser level; FormatError."""
    if len(data) < LENGTHS.size:
        raise fail("bad-latents", "the section ends before its lengths do", section=SECTION)
    lengths = LENGTHS.unpack_from(data)
    ends = np.cumsum([LENGTHS.size, *lengths]).tolist()
    if ends[-1] > len(data):
        raise fail("bad-latents", "the section ends before its parts do", section=SECTION)
    counts, gaps, sizes, points = (data[a:b] for a, b in pairwise(ends))
    births = _births(counts, gaps, sizes, pyramid.class_sizes())
    z, y, x = (-(-n // s) for n, s in zip(pyramid.shape, pyramid.strides, strict=True))
    values = np.cumsum(_unpack_alike(points, z * y * x))
    if np.abs(values).max() > LARGEST_LATENT:
        raise fail("bad-latents", "a smooth point is out of range", section=SECTION)
    smooth = torch.from_numpy(values.astype(np.int32)).to(device).view(z, y, x)
    predicted = sum(pyramid.class_sizes())
    code = Code.parse(data[ends[-1] :], 0, predicted, lanes, 0)
    if code is None:
        raise fail("bad-latents", "the code of the latents does not add up", section=SECTION)
    if not lanes and (len(code.words) or len(code.low) or len(code.escapes)):
        raise fail("bad-latents", "there is code that no lane takes", section=SECTION)
    reader = _Reader(births, Source([code], 1, device) if lanes else None)
    grid = walk(pyramid, smooth, {}, model, reader, finest)
    reader.check(finest)
    return grid


def _births(counts: bytes, gaps: bytes, sizes: bytes, classes: Sequence[int]) -> list[_Births]:
    """The births of all classes; FormatError."""
    numbers, levels = _counts(counts, classes)
    total = sum(numbers)
    if not total:
        if gaps or sizes:
            raise fail("bad-latents", "births that no class has", section=SECTION)
        return [_Births() for _ in classes]
    kinds = [(LAPLACE, level) for level in levels]
    distances = integers.decode_runs(gaps, kinds, numbers, SECTION)
    magnitudes = _unpack_alike(sizes, total) + 1
    if magnitudes.min() < 0 or magnitudes.max() > LARGEST_LATENT:
        raise fail("bad-latents", "a birth's magnitude is out of range", section=SECTION)
    ends = np.cumsum(numbers)
    return [
        _Births(distances[end - n : end], magnitudes[end - n : end])
        for n, end in zip(numbers, ends, strict=True)
    ]


def _packed_counts(births: Sequence[_Births]) -> bytes:
    out, last = [], -1
    for number, own in enumerate(births):
        if len(own.gaps):
            out.append(_varint(number - last - 1) + _varint(len(own.gaps) - 1) + bytes([own.level]))
            last = number
    return b"".join(out)


def _counts(data: bytes, classes: Sequence[int]) -> tuple[list[int], list[int]]:
    """How many births each class has, and the level of their gaps; FormatError."""
    numbers, levels = [0] * len(classes), [0] * len(classes)
    at, which = 0, -1
    while at < len(data):
        skipped, at = _number(data, at)
        births, at = _number(data, at)
        which += 1 + skipped
        level = data[at] if at < len(data) else integers.LEVELS
        at += 1
        if which >= len(classes) or births >= classes[which] or level >= integers.LEVELS:
            message = "births of no class, more than it has points, or an unknown level"
            raise fail("bad-latents", message, section=SECTION)
        numbers[which], levels[which] = births + 1, level
    return numbers, levels


def _number(data: bytes, at: int) -> tuple[int, int]:
    """(a number of 7-bit groups, where it ends); FormatError."""
    number = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        number |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise fail("bad-latents", "the counts of births do not end", section=SECTION)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _pack_alike(values: Ints) -> bytes:
    """An array of values of one family and level, which come first."""
    kind = integers.best_level(values)
    return bytes(kind) + integers.encode(values, *integers.spread(kind, [len(values)]))


def _unpack_alike(data: bytes, count: int) -> Ints:
    """What `_pack_alike` was given; FormatError."""
    if len(data) < 2 or data[0] >= len(FAMILIES) or data[1] >= integers.LEVELS:
        raise fail("bad-latents", "an array has an unknown family or level", section=SECTION)
    return integers.decode_runs(data[2:], list(data[:2]), [count], SECTION)
