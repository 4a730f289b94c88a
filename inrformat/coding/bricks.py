"""A volume's levels as bricks that are coded each on its own (spec, "Bricks").

A brick is one byte that says how it is coded, and then

    0   its levels as they are, u8 where the greatest level is below 256, u16 otherwise;
    1   one level, u16, that all its voxels have;
    2   three counts, u32: words, bytes of low bits, escapes; then the levels of the coarsest lattice, u16;
        the lanes' final states, u32; the words, u16; the low bits; the escapes, u8; those that are too large
        for that, u32. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from . import lanes, mixtures
from .lattice import Context, Lattice, Prediction, Shape, Span, Split, order_of_classes, roots

RAW, CONSTANT, CODED = 0, 1, 2
COUNTS = struct.Struct("<III")
LARGE = 255
"""Stands for an escape that does not fit a byte."""
PART = 1 << 13
"""Points that are predicted at a time on a CPU: what is made of them fits its cache."""
PART_GPU = 1 << 20
BRICK = (64, 128, 128)
"""Voxels (z, y, x) that a brick has at the most, as our encoder cuts them."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Levels = npt.NDArray[np.uint16]


class Model(Protocol):
    """What the coder needs of a context model; see models.context.ContextModel."""

    def predict(self, context: Context, split: Split, kind: int, span: Span) -> Prediction:
        """The distributions of the points of a context."""


@dataclass(frozen=True)
class Coder:
    """How the bricks of one volume are coded.

    order   the schedule of the lattice.
    span    the greatest level, and the step 2 E + 1 between residuals.
    model   the context model, on the device that does the work.
    """

    order: tuple[int, ...]
    span: Span
    model: Model
    device: torch.device

    def encode(self, levels: Levels) -> list[bytes]:
        """The codes of bricks of one shape (bricks, z, y, x)."""
        truth = torch.from_numpy(levels.astype(np.float32)).to(self.device)
        known = torch.zeros_like(truth)
        coarse = roots(known, self.order)
        coarse.copy_(roots(truth, self.order))
        residuals = _Residuals(self.span.step)
        for lattice, kind in order_of_classes(known, self.order):
            true = Lattice.points(truth, lattice.split, kind).long()
            values = residuals.push(true.flatten(1), self._predict(lattice, kind))
            lattice.set(kind, values.clamp_(0, self.span.greatest).view_as(true).float())
        codes = residuals.codes(_u16(coarse), lanes.lanes_for(known[0].numel()))
        plain = (self._plain(brick) for brick in levels)
        return [min(pair, key=len) for pair in zip(plain, codes, strict=True)]

    def _plain(self, levels: Levels) -> bytes:
        """The brick without an entropy code."""
        if (levels == levels.flat[0]).all():
            return bytes([CONSTANT]) + levels.flat[:1].astype("<u2").tobytes()
        return bytes([RAW]) + levels.astype(self._raw_type).tobytes()

    @property
    def _raw_type(self) -> str:
        return "u1" if self.span.greatest < 256 else "<u2"

    def decode(self, codes: Sequence[bytes], shape: Shape) -> tuple[Levels, list[int]]:
        """The levels (bricks, z, y, x) of bricks of one shape, and which of the codes are wrong."""
        levels = np.zeros((len(codes), *shape), np.uint16)
        wrong, coded = [], []
        for i, code in enumerate(codes):
            if code[:1] == bytes([CODED]):
                coded.append(i)
            elif not self._decode_plain(code, levels[i]):
                wrong.append(i)
        parsed = [(i, _Code.parse(codes[i], shape, self.order, self.span)) for i in coded]
        wrong += [i for i, parts in parsed if parts is None]
        good = [(i, parts) for i, parts in parsed if parts is not None]
        if good:
            numbers = [i for i, _ in good]
            levels[numbers], damaged = self._decode([parts for _, parts in good], shape)
            wrong += [numbers[i] for i in damaged]
        return levels, sorted(wrong)

    def _decode_plain(self, code: bytes, out: Levels) -> bool:
        """Fill in a brick that has no entropy code; False if the code is wrong."""
        kind, body = code[:1], code[1:]
        if kind == bytes([CONSTANT]) and len(body) == 2:
            out[:] = int.from_bytes(body, "little")
        elif kind == bytes([RAW]) and len(body) == out.size * np.dtype(self._raw_type).itemsize:
            out[:] = np.frombuffer(body, self._raw_type).reshape(out.shape)
        else:
            return False
        return int(out.max()) <= self.span.greatest

    def _decode(self, codes: list[_Code], shape: Shape) -> tuple[Levels, list[int]]:
        known = torch.zeros(len(codes), *shape, device=self.device)
        coarse = roots(known, self.order)
        coarse.copy_(torch.from_numpy(np.stack([c.roots for c in codes]).astype(np.float32)).view_as(coarse))
        source = _Source(codes, self.span.step, self.device)
        for lattice, kind in order_of_classes(known, self.order):
            values = source.take(self._predict(lattice, kind)).clamp_(0, self.span.greatest)
            lattice.set(kind, values.view(len(codes), *lattice.class_shape(kind)).float())
        return known.cpu().numpy().astype(np.uint16), source.wrong()

    def _predict(self, lattice: Lattice, kind: int) -> Prediction:
        """The predictions of a whole class, (bricks, n) each."""
        bricks, n = len(lattice.values), int(np.prod(lattice.class_shape(kind)))
        result = Prediction(
            *(torch.empty(bricks, n, dtype=torch.int64, device=self.device) for _ in range(3))
        )
        width = n // lattice.class_shape(kind)[0]
        for part in lattice.parts(kind, PART if self.device.type == "cpu" else PART_GPU):
            context = Context.of(lattice, kind, part, self.span)
            prediction = self.model.predict(context, lattice.split, kind, self.span)
            at = part[0], slice(part[1].start * width, part[1].stop * width)
            for name in ("centre", "table", "bits"):
                place = getattr(result, name)[at]
                place.copy_(getattr(prediction, name).view_as(place))
        return result


def _u16(values: torch.Tensor) -> Levels:
    return values.flatten(1).cpu().numpy().astype(np.uint16)


def _reach(tables: torch.Tensor) -> torch.Tensor:
    """R of each row of the bank: residuals beyond it escape."""
    reach = torch.tensor([mixtures.reach(w) for w in range(mixtures.WIDTHS)], device=tables.device)
    return reach[torch.div(tables, mixtures.TAILS * mixtures.PHASES, rounding_mode="floor")]


def _bottom(predicted: Prediction, step: int) -> torch.Tensor:
    """The column of the symbol of level 0, below which no level is; one below all, if it would escape."""
    residual = torch.div(step // 2 - predicted.centre, step, rounding_mode="floor")
    high = residual + (1 << predicted.bits >> 1) >> predicted.bits
    return torch.maximum(high, -_reach(predicted.table) - 1) + mixtures.ZERO


class _Residuals:
    """The residuals of bricks, on their way into codes."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._symbols: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._low: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._escapes: list[tuple[torch.Tensor, torch.Tensor]] = []

    def push(self, true: torch.Tensor, predicted: Prediction) -> torch.Tensor:
        """Add a class's residuals; the levels (bricks, n) that the decoder will have."""
        residual = torch.div(true - predicted.centre + self.step // 2, self.step, rounding_mode="floor")
        raised = residual + (1 << predicted.bits >> 1)
        high = raised >> predicted.bits
        beyond = high.abs() - _reach(predicted.table) - 1
        escaped = beyond >= 0
        columns = torch.where(escaped, mixtures.ESCAPE, high + mixtures.ZERO)
        self._symbols.append((predicted.table, columns, _bottom(predicted, self.step)))
        self._low.append((raised & (1 << predicted.bits) - 1, predicted.bits))
        self._escapes.append((escaped, 2 * beyond + (high < 0)))
        return predicted.centre + residual * self.step

    def codes(self, coarse: Levels, count: int) -> list[bytes]:
        """Each brick's code."""
        if not self._symbols:  # the brick is nothing but its coarsest lattice
            return [bytes([CODED]) + COUNTS.pack(0, 0, 0) + c.astype("<u2").tobytes() for c in coarse]
        states, words = lanes.encode(self._symbols, count)
        low, bits, escaped, beyond = (
            torch.cat(parts, dim=1)
            for parts in (*zip(*self._low, strict=True), *zip(*self._escapes, strict=True))
        )
        result = []
        for i, word in enumerate(words):
            packed = _pack(low[i], bits[i])
            escapes = beyond[i][escaped[i]].cpu().numpy()
            result.append(
                bytes([CODED])
                + COUNTS.pack(len(word), len(packed), len(escapes))
                + coarse[i].astype("<u2").tobytes()
                + states[i].cpu().numpy().astype("<u4").tobytes()
                + word.cpu().numpy().astype("<u2").tobytes()
                + packed
                + np.minimum(escapes, LARGE).astype(np.uint8).tobytes()
                + escapes[escapes >= LARGE].astype("<u4").tobytes()
            )
        return result


def _pack(low: torch.Tensor, bits: torch.Tensor) -> bytes:
    """The low bits one after the other, least significant first, in bytes that fill from their lowest bit."""
    ends = bits.cumsum(0)
    size = int(ends[-1] + 7) >> 3
    at = ends - bits
    packed = torch.zeros(size + 3, dtype=torch.int32, device=low.device)
    window = (low << (at & 7)).int()
    for byte in range(3):
        packed.index_add_(0, (at >> 3) + byte, window >> 8 * byte & 255)
    return packed[:size].to(torch.uint8).cpu().numpy().tobytes()


@dataclass(frozen=True)
class _Code:
    """The parts of a coded brick."""

    roots: npt.NDArray[np.uint16]
    states: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint16]
    low: npt.NDArray[np.uint8]
    escapes: npt.NDArray[np.int64]

    @classmethod
    def parse(cls, code: bytes, shape: Shape, order: Sequence[int], span: Span) -> _Code | None:
        """The parts, or None if they do not add up."""
        if len(code) < 1 + COUNTS.size:
            return None
        word_count, low_bytes, escapes = COUNTS.unpack_from(code, 1)
        coarse = int(np.prod([-(-n // (1 << list(order).count(axis))) for axis, n in enumerate(shape)]))
        voxels = int(np.prod(shape))
        predicted = voxels - coarse
        if max(word_count, escapes) > predicted or 8 * low_bytes > mixtures.MOST_BITS * predicted + 7:
            return None  # more than the residuals can take: nothing is allocated for it
        count = lanes.lanes_for(voxels) if predicted else 0
        sizes = [2 * coarse, 4 * count, 2 * word_count, low_bytes, escapes]
        end = 1 + COUNTS.size + sum(sizes)
        if len(code) < end:
            return None
        sizes.append(4 * code.count(LARGE, end - escapes, end))
        if len(code) != end + sizes[-1]:
            return None
        ends = np.cumsum([1 + COUNTS.size, *sizes])
        parts = [
            np.frombuffer(code, dtype, size // np.dtype(dtype).itemsize, start)
            for dtype, size, start in zip(("<u2", "<u4", "<u2", "u1", "u1", "<u4"), sizes, ends, strict=False)
        ]
        coarsest, states, words, low, small, large = parts
        right = (coarsest <= span.greatest).all() and (states >= lanes.LOW).all() and (large >= LARGE).all()
        beyond = small.astype(np.int64)
        beyond[small == LARGE] = large
        return cls(coarsest, states, words, low, beyond) if right else None


class _Source:
    """Takes the residuals of bricks out of their codes."""

    def __init__(self, codes: list[_Code], step: int, device: torch.device) -> None:
        self.step, self.device = step, device
        states = np.stack([c.states for c in codes]).astype(np.int64)
        self._words, counts = self._stack([c.words for c in codes], 1)
        self._lanes = lanes.Decoder(torch.from_numpy(states).to(device), self._words, counts)
        low, self._low_bytes = self._stack([c.low for c in codes], 3)
        self._windows = low[:, :-2] | low[:, 1:-1] << 8 | low[:, 2:] << 16
        self._escapes, self._escape_count = self._stack([c.escapes for c in codes], 1)
        self._bits = torch.zeros_like(counts)
        self._escaped = torch.zeros_like(counts)

    def _stack(
        self, arrays: Sequence[npt.NDArray[np.generic]], margin: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The arrays as rows (bricks, most + margin) int64, zero beyond each one's own, and their lengths."""
        counts = [len(a) for a in arrays]
        rows = np.zeros((len(arrays), max(counts) + margin), np.int64)
        for row, array in zip(rows, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(rows).to(self.device), torch.tensor(counts, device=self.device)

    def take(self, predicted: Prediction) -> torch.Tensor:
        """The levels (bricks, n) of a class."""
        columns = self._lanes.decode(predicted.table, _bottom(predicted, self.step))
        escaped = columns == mixtures.ESCAPE
        bits = predicted.bits
        ends = self._bits[:, None] + bits.cumsum(1)
        at = ends - bits
        window = self._windows.gather(1, (at >> 3).clamp_(max=self._windows.shape[1] - 1))
        low = window >> (at & 7) & (1 << bits) - 1
        self._bits = ends[:, -1]
        high = columns - mixtures.ZERO
        if bool(escaped.any()):
            rank = self._escaped[:, None] + escaped.cumsum(1)
            beyond = self._escapes.gather(1, (rank - 1).clamp_(0, self._escapes.shape[1] - 1))
            size = (beyond >> 1) + _reach(predicted.table) + 1
            high = torch.where(escaped, torch.where(beyond & 1 > 0, -size, size), high)
            self._escaped = rank[:, -1]
        residual = (high << bits) + low - (1 << bits >> 1)
        return predicted.centre + residual * self.step

    def wrong(self) -> list[int]:
        """Which bricks' codes were not used up exactly."""
        bad = self._lanes.finish() | (self._escaped != self._escape_count)
        bad |= (self._bits + 7 >> 3) != self._low_bytes
        rest = self._bits & 7
        last = self._windows.gather(1, (self._bits >> 3)[:, None].clamp_(max=self._windows.shape[1] - 1))[
            :, 0
        ]
        bad |= (rest > 0) & (last >> rest > 0)  # the bits after the last low bit are zero
        return [int(i) for i in bad.nonzero()[:, 0]]


def cuts(n: int, count: int) -> list[tuple[int, int]]:
    """An axis of n voxels in `count` nearly equal parts."""
    return [(i * n // count, (i + 1) * n // count) for i in range(count)]


def boxes(shape: Shape, counts: Shape) -> list[Box]:
    """The bricks of a volume, in the order of the index: along x first."""
    z, y, x = (cuts(n, k) for n, k in zip(shape, counts, strict=True))
    return list(product(z, y, x))


def counts_for(shape: Shape) -> Shape:
    """Into how many bricks our encoder cuts each axis."""
    z, y, x = (-(-n // most) for n, most in zip(shape, BRICK, strict=True))
    return z, y, x


def batches(places: Sequence[Box], numbers: Sequence[int], voxels: int) -> Iterator[list[int]]:
    """Bricks of one shape together, of about `voxels` in all."""
    groups: dict[Shape, list[int]] = {}
    for number in numbers:
        z, y, x = (b - a for a, b in places[number])
        groups.setdefault((z, y, x), []).append(number)
    for shape, members in groups.items():
        size = max(1, voxels // int(np.prod(shape)))
        for first in range(0, len(members), size):
            yield members[first : first + size]
