"""Residuals in codes: their high parts by rANS, low bits plainly, escapes apart (spec, "Bricks").

A code is three counts, u32: words, bytes of low bits, escapes; then the coarsest values, u16; the lanes'
final states, u32; the words, u16; the low bits; the escapes, u8; those that are too large for that, u32. All
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from . import lanes, mixtures
from .lattice import Prediction

COUNTS = struct.Struct("<III")
LARGE = 255
"""Stands for an escape that does not fit a byte."""

Coarsest = npt.NDArray[np.uint16]


def _reach(tables: torch.Tensor) -> torch.Tensor:
    """R of each row of the bank: residuals beyond it escape."""
    return _reaches(tables.device).take(tables)


@cache
def _reaches(device: torch.device) -> torch.Tensor:
    """Of every row."""
    reach = torch.tensor([mixtures.reach(w) for w in range(mixtures.WIDTHS)], device=device)
    return reach.repeat_interleave(mixtures.TAILS * mixtures.PHASES)


def _bottom(predicted: Prediction, step: int) -> torch.Tensor:
    """The column of the symbol of level 0, below which no level is; one below all, if it would escape."""
    residual = torch.div(step // 2 - predicted.centre, step, rounding_mode="floor")
    high = residual + (1 << predicted.bits >> 1) >> predicted.bits
    return torch.maximum(high, -_reach(predicted.table) - 1) + mixtures.ZERO


def costs(true: torch.Tensor, predicted: Prediction) -> torch.Tensor:
    """The bits (n) that whole numbers would take as they are predicted, about."""
    residual = true - predicted.centre
    high = residual + (1 << predicted.bits >> 1) >> predicted.bits
    column = torch.where(high.abs() > _reach(predicted.table), mixtures.ESCAPE, high + mixtures.ZERO)
    return _bits(true.device).take(predicted.table * mixtures.COLUMNS + column) + predicted.bits


@cache
def _bits(device: torch.device) -> torch.Tensor:
    """Of every symbol of every row of the bank, float32; an escape takes a byte more."""
    frequencies = np.maximum(mixtures.frequencies(), 1).astype(np.float32)
    bits = mixtures.PRECISION - np.log2(frequencies)
    bits[:, mixtures.ESCAPE] += 8
    return torch.from_numpy(bits).to(device)


class Residuals:
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
        # Kept until all classes are known: in as few bytes as they fit.
        self._symbols.append(
            (predicted.table.short(), columns.short(), _bottom(predicted, self.step).short())
        )
        self._low.append(((raised & (1 << predicted.bits) - 1).short(), predicted.bits.to(torch.uint8)))
        self._escapes.append((escaped, (2 * beyond + (high < 0)).int()))
        return predicted.centre + residual * self.step

    def bits(self) -> float:
        """What the high parts take, about."""
        frequencies = mixtures.frequencies()
        return sum(
            float((mixtures.PRECISION - np.log2(frequencies[t.cpu().numpy(), c.cpu().numpy()])).sum())
            for t, c, _ in self._symbols
        )

    def codes(self, coarse: Coarsest, count: int) -> list[bytes]:
        """Each brick's code, by so many lanes."""
        if not self._symbols:  # the brick is nothing but its coarsest lattice
            return [COUNTS.pack(0, 0, 0) + c.astype("<u2").tobytes() for c in coarse]
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
                COUNTS.pack(len(word), len(packed), len(escapes))
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
    ends = bits.cumsum(0, dtype=torch.int64)
    size = int(ends[-1] + 7) >> 3
    at = ends - bits
    packed = torch.zeros(size + 3, dtype=torch.int32, device=low.device)
    window = low.int() << (at & 7).int()
    for byte in range(3):
        packed.index_add_(0, (at >> 3) + byte, window >> 8 * byte & 255)
    return packed[:size].to(torch.uint8).cpu().numpy().tobytes()


@dataclass(frozen=True)
class Code:
    """The parts of a code."""

    roots: npt.NDArray[np.uint16]
    states: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint16]
    low: npt.NDArray[np.uint8]
    escapes: npt.NDArray[np.int64]

    @classmethod
    def parse(cls, code: bytes, coarse: int, predicted: int, count: int, greatest: int) -> Code | None:
        """The parts of a code of so many coarsest values, residuals and lanes; None if it is none."""
        if len(code) < COUNTS.size:
            return None
        word_count, low_bytes, escapes = COUNTS.unpack_from(code)
        if max(word_count, escapes) > predicted or 8 * low_bytes > mixtures.MOST_BITS * predicted + 7:
            return None  # more than the residuals can take: nothing is allocated for it
        sizes = [2 * coarse, 4 * count, 2 * word_count, low_bytes, escapes]
        end = COUNTS.size + sum(sizes)
        if len(code) < end:
            return None
        sizes.append(4 * code.count(LARGE, end - escapes, end))
        if len(code) != end + sizes[-1]:
            return None
        ends = np.cumsum([COUNTS.size, *sizes])
        parts = [
            np.frombuffer(code, dtype, size // np.dtype(dtype).itemsize, start)
            for dtype, size, start in zip(("<u2", "<u4", "<u2", "u1", "u1", "<u4"), sizes, ends, strict=False)
        ]
        coarsest, states, words, low, small, large = parts
        right = (coarsest <= greatest).all() and (states >= lanes.LOW).all() and (large >= LARGE).all()
        beyond = small.astype(np.int64)
        beyond[small == LARGE] = large
        return cls(coarsest, states, words, low, beyond) if right else None


class Source:
    """Takes the residuals of bricks out of their codes."""

    def __init__(self, codes: list[Code], step: int, device: torch.device) -> None:
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

    def short(self) -> list[int]:
        """Which bricks' codes ended before what was taken of them."""
        bad = self._lanes.wrong | (self._escaped > self._escape_count)
        bad |= (self._bits + 7 >> 3) > self._low_bytes
        return [int(i) for i in bad.nonzero()[:, 0]]

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
