"""Interleaved rANS over the frozen bank (spec section "Entropy coding"; Duda 2013, Giesen 2014).

Symbol i belongs to lane i mod L. A lane's state is an integer in [2^16, 2^32); states are renormalised by
16-bit words, which all lanes take from one sequence, in symbol order. Every step is one vector operation over
the lanes, so there is no loop over symbols, only over symbols / lanes.

Libraries were looked at: their models take float probabilities, and so cannot promise the format's integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..container.codes import fail
from .bank import GREATEST, LEAST, PRECISION, SCALES, SYMBOLS, TOTAL, bank, cumulative

Ints = npt.NDArray[np.integer[Any]]

LOW = 1 << 16
"""The least state of a lane, and its state before the first symbol is pushed."""
WORD = 16
MOST_LANES = 64


def lanes_for(symbols: int) -> int:
    """L: one lane for every 1024 symbols, at least 1 and at most 64."""
    return max(1, min(MOST_LANES, symbols >> 10))


def _table_rows(tables: Ints) -> Ints:
    """Where each symbol's distribution starts in the flattened bank; `tables` are family * SCALES + scale."""
    return tables * SYMBOLS


def encode(symbols: Ints, tables: Ints) -> bytes:
    """The code of `symbols` (n, in [-128, 127]), symbol i by distribution tables[i]: states, then words.

    Little-endian: the lanes' final states as u32, then the words as u16 in the order in which they are read.
    """
    if symbols.size and not (symbols.min() >= LEAST and symbols.max() <= GREATEST):
        raise ValueError("a symbol is outside the bank's alphabet")
    count, lanes = len(symbols), lanes_for(len(symbols))
    flat = _table_rows(tables.astype(np.int64)) + symbols - LEAST
    frequency = bank().reshape(-1).astype(np.uint64)[flat]
    start = cumulative().reshape(-1).astype(np.uint64)[flat]
    state = np.full(lanes, LOW, np.uint64)
    written: list[npt.NDArray[np.uint16]] = []  # last word first
    for first in range((count - 1) // lanes * lanes, -1, -lanes):
        block = slice(first, min(first + lanes, count))
        f, c = frequency[block], start[block]
        x = state[: len(f)]
        spill = x >= f << np.uint64(32 - PRECISION)
        written.append((x[spill] & np.uint64(0xFFFF)).astype("<u2")[::-1])
        x = np.where(spill, x >> np.uint64(WORD), x)
        state[: len(f)] = (x // f << np.uint64(PRECISION)) + x % f + c
    words = np.concatenate(written)[::-1] if written else np.empty(0, "<u2")
    return state.astype("<u4").tobytes() + words.astype("<u2").tobytes()


def decode(code: bytes, tables: Ints, section: str) -> npt.NDArray[np.int64]:
    """The symbols that `encode` was given; FormatError unless the code is used up and ends as it began."""
    count, lanes = len(tables), lanes_for(len(tables))
    if len(code) < 4 * lanes or len(code) % 2:
        raise fail("rans-truncated", "the entropy code is shorter than its lanes' states", section=section)
    state = np.frombuffer(code, "<u4", lanes).astype(np.int64)
    if (state < LOW).any():  # no encoder ends there, and decoding would not be its inverse
        raise fail("rans-bad-state", "a lane's state is less than 2^16", section=section)
    words = np.frombuffer(code, "<u2", -1, 4 * lanes).astype(np.int64)
    flat_start, flat_frequency = cumulative().reshape(-1), bank().reshape(-1).astype(np.int64)
    # All distributions one after the other, so that one search finds a symbol of any of them.
    edges = (cumulative() + np.arange(flat_start.size // SYMBOLS).reshape(-1, SCALES, 1) * TOTAL).reshape(-1)
    symbols = np.empty(count, np.int64)
    used = 0
    for first in range(0, count, lanes):
        table = tables[first : first + lanes].astype(np.int64)
        x = state[: len(table)]
        slot = x & (TOTAL - 1)
        flat = np.searchsorted(edges, table * TOTAL + slot, side="right") - 1
        symbols[first : first + len(table)] = flat - _table_rows(table)
        x = flat_frequency[flat] * (x >> PRECISION) + slot - flat_start[flat]
        starved = np.flatnonzero(x < LOW)
        if used + len(starved) > len(words):
            raise fail("rans-truncated", "the entropy code ends too early", section=section)
        x[starved] = x[starved] << WORD | words[used : used + len(starved)]
        used += len(starved)
        state[: len(table)] = x
    if used != len(words) or (state != LOW).any():
        raise fail("rans-bad-end", "the entropy code does not end as it began", section=section)
    symbols += LEAST
    return symbols
