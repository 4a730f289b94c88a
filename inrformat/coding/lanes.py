"""Interleaved rANS over the mixtures, for many bricks at once (spec, "Bricks"; Duda 2013, Giesen 2014).

Symbol i of a class belongs to lane i mod L of its brick. A lane's state is an integer in [2^16, 2^32) and
lives through all classes; states are renormalised by 16-bit words, which all lanes of a brick take from one
sequence, in symbol order. Every step is one vector operation over the lanes of all bricks; where these are
few, plain integers are faster.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import cache

import torch

from . import mixtures
from .mixtures import COLUMNS, PRECISION, TOTAL

LOW = 1 << 16
"""The least state of a lane, and its state before the first symbol is pushed."""
WORD = 16
MOST_LANES = 256
FEW_LANES = 64
"""A vector operation over fewer takes longer than as many symbols one by one; on a GPU, starting it does."""


def lanes_for(voxels: int) -> int:
    """L: one lane for every 4096 voxels of a brick, at least 1 and at most 256."""
    return max(1, min(MOST_LANES, voxels >> 12))


@cache
def _bank(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(frequencies, starts, edges) of every (row, column), flat; edges: as if all rows were one."""
    frequencies = torch.from_numpy(mixtures.frequencies().astype("int64")).to(device)
    starts = torch.from_numpy(mixtures.starts()).to(device)
    edges = starts + torch.arange(len(starts), device=device)[:, None] * TOTAL
    return frequencies.view(-1), starts.view(-1), edges.view(-1).int()


@cache
def _pairs(device: torch.device) -> torch.Tensor:
    """At i + 1: the frequency of the i-th (row, column), times TOTAL, and its start."""
    frequencies, starts, _ = _bank(device)
    return torch.cat([starts[:1], frequencies << PRECISION | starts])


@cache
def _edges(table: int) -> array[int]:
    """Where each symbol of a row starts, and the end."""
    return array("l", [*mixtures.starts()[table].tolist(), TOTAL])


def _bottoms(tables: torch.Tensor, bottoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From where to where in their rows the symbols at the bottom reach: over all below but the escape."""
    _, starts, _ = _bank(tables.device)
    rows = tables * COLUMNS
    return starts[rows + mixtures.ESCAPE + 1], starts[rows + bottoms + 1]  # the escape comes first in its row


def encode(
    classes: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], lanes: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The code of bricks' symbols: (bricks, lanes) final states, and each brick's words in reading order.

    classes   (tables, columns, bottoms), each (bricks, n) of whole numbers, in the order in which they are
              decoded. No column but the escape's is less than its bottom, which takes over the frequencies
              below it.
    """
    tables, _, _ = classes[0]
    bricks, device = len(tables), tables.device
    states = torch.full((bricks, lanes), LOW, dtype=torch.int64, device=device)
    spilled: list[tuple[torch.Tensor, torch.Tensor]] = []
    for symbols in reversed(classes):
        tables, columns, bottoms = (part.long() for part in symbols)
        flat, (low, high) = tables * COLUMNS + columns, _bottoms(tables, bottoms)
        frequencies, starts, _ = _bank(device)
        lowest = (columns == bottoms) & (columns != mixtures.ESCAPE)
        f = torch.where(lowest, high - low, frequencies[flat])
        c = torch.where(lowest, low, starts[flat])
        limits, rest = f << 32 - PRECISION, TOTAL - f
        n = f.shape[1]
        for first in range((n - 1) // lanes * lanes, -1, -lanes):
            part = slice(first, min(first + lanes, n))
            state = states[:, : part.stop - part.start]
            spill = state >= limits[:, part]
            spilled.append((state.short(), spill))  # the lowest 16 bits
            x = torch.where(spill, state >> WORD, state)
            # TOTAL (x div f) + x mod f + c
            torch.addcmul(x + c[:, part], x // f[:, part], rest[:, part], out=state)
    words = torch.cat([w for w, _ in reversed(spilled)], dim=1)
    mask = torch.cat([s for _, s in reversed(spilled)], dim=1)
    return states, [w[m].int() & 0xFFFF for w, m in zip(words, mask, strict=True)]


class Decoder:
    """Takes symbols class by class from the codes of some bricks.

    states   (bricks, lanes) int64.
    words    (bricks, most words) int64, of which `counts` (bricks) are each brick's own.
    wrong    (bricks) bool: a code that ended too early.
    """

    def __init__(self, states: torch.Tensor, words: torch.Tensor, counts: torch.Tensor) -> None:
        self._states, self._words, self._counts = states, words, counts
        self._list: list[int] | None = None
        self._used = torch.zeros_like(counts)
        self.wrong = torch.zeros_like(counts, dtype=torch.bool)

    def decode(self, tables: torch.Tensor, bottoms: torch.Tensor) -> torch.Tensor:
        """The columns (bricks, n) of a class's symbols, for the rows and bottoms that they were coded by."""
        if len(tables) == 1 and self._states.shape[1] <= FEW_LANES:
            return self._decode_few(tables, bottoms)
        _, _, edges = _bank(tables.device)
        pairs = _pairs(tables.device)
        lanes, n = self._states.shape[1], tables.shape[1]
        rows, (low, high) = (tables * TOTAL).int(), _bottoms(tables, bottoms)
        # For each step, whether there is anything at or below the bottom of some lane.
        wide = torch.nn.functional.pad((high > low).any(dim=0), (0, -n % lanes)).view(-1, lanes).any(dim=1)
        found = torch.empty_like(rows)
        last = self._words.shape[1] - 1
        for step, widened in enumerate(wide.tolist()):
            part = slice(step * lanes, min((step + 1) * lanes, n))
            x = self._states[:, : part.stop - part.start]
            slot = (x & TOTAL - 1).int()
            flat = torch.searchsorted(edges, rows[:, part] + slot, right=True, out_int32=True)
            found[:, part] = flat
            pair = pairs.take(flat.long())
            f, c = pair >> PRECISION, pair & TOTAL - 1
            if widened:
                from_, to = low[:, part], high[:, part]
                inside = (slot >= from_) & (slot < to)
                f, c = torch.where(inside, to - from_, f), torch.where(inside, from_, c)
            x = f.mul_(x >> PRECISION).add_(slot).sub_(c)
            starved = x < LOW
            taken = starved.cumsum(1)
            at = (taken + (self._used - 1)[:, None]).clamp_(0, last)
            self._states[:, : x.shape[1]] = torch.where(starved, x << WORD | self._words.gather(1, at), x)
            self._used += taken[:, -1]
        self.wrong |= self._used > self._counts
        columns = found.long() - (tables * COLUMNS + 1)
        return torch.where(columns == mixtures.ESCAPE, columns, torch.maximum(columns, bottoms))

    def _decode_few(self, tables: torch.Tensor, bottoms: torch.Tensor) -> torch.Tensor:
        """The same of one brick, one symbol after the other, on the CPU."""
        if self._list is None:
            self._list = self._words[0].tolist()
        states, words, used = self._states[0].tolist(), self._list, int(self._used[0])
        columns, lane, last = [], 0, len(words) - 1
        for table, bottom in zip(tables[0].tolist(), bottoms[0].tolist(), strict=True):
            edges, x = _edges(table), states[lane]
            slot = x & TOTAL - 1
            column = bisect_right(edges, slot) - 1
            start = edges[column]
            if column != mixtures.ESCAPE and column <= bottom:
                column, start = bottom, edges[mixtures.ESCAPE + 1]
            columns.append(column)
            x = (edges[column + 1] - start) * (x >> PRECISION) + slot - start
            if x < LOW:
                x = x << WORD | words[min(used, last)]
                used += 1
            states[lane] = x
            lane = lane + 1 if lane + 1 < len(states) else 0
        self._states[0] = torch.tensor(states)
        self._used[0] = used
        self.wrong |= self._used > self._counts
        return torch.tensor([columns], device=tables.device)

    def finish(self) -> torch.Tensor:
        """(bricks) bool: whether a brick's code was not used up, or does not end as it began."""
        return self.wrong | (self._used != self._counts) | (self._states != LOW).any(dim=1)
