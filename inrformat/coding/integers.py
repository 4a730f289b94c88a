"""Arrays of integers in few bytes (spec section "Integer arrays").

A value has a level t: how wide its distribution is, in quarter octaves. Up to level 28 it is coded as it
is, by scale t of the bank; beyond, its k = ceil((t - 28) / 4) lowest bits are stored plainly and what is
left, floor(v / 2^k), is coded by scale t - 4 k. A level is the encoder's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..container.codes import fail
from . import rans
from .bank import FAMILIES, GREATEST, LEAST, SCALES, bank

Ints = npt.NDArray[np.integer[Any]]

MOST_LOW_BITS = 16
LEVELS = SCALES + 4 * MOST_LOW_BITS
"""Levels run from 0 to LEVELS - 1."""
MOST_PER_BYTE = 2807
"""A symbol takes more than 1/350 of a bit, and the states hold no more than what is coded."""


def low_bits(levels: Ints) -> Ints:
    """k: how many low bits of a value of each level are stored plainly."""
    return np.maximum(0, (levels - (SCALES - 1) + 3) // 4)


def encode(values: Ints, levels: Ints, families: Ints) -> bytes:
    """The code of `values` (n), each at its level and of its family: entropy code, then the low bits."""
    bits = low_bits(levels).astype(np.int64)
    code = rans.encode(values >> bits, families * SCALES + levels - 4 * bits)
    return code + _pack_bits(values & ((1 << bits) - 1), bits)


def decode(data: bytes, levels: Ints, families: Ints, section: str) -> npt.NDArray[np.int64]:
    """The values that `encode` was given; FormatError for anything that it would not have written."""
    bits = low_bits(levels)
    size = -(-int(bits.sum()) // 8)
    if size > len(data):
        raise fail("rans-truncated", "the low bits are cut short", section=section)
    split = len(data) - size
    values = rans.decode(data[:split], families * SCALES + levels - 4 * bits, section)
    if size:
        values <<= bits
        values |= _unpack_bits(data[split:], bits, section)
    return values


def spread(kinds: npt.ArrayLike, counts: Sequence[int]) -> tuple[Ints, Ints]:
    """(levels, families) of the values of runs; `kinds`: each run's (family, level), `counts`: its length."""
    each = np.asarray(kinds, np.int16).reshape(-1, 2)  # a file can ask for 2^24 of them
    families, levels = np.repeat(each, counts, axis=0).T
    return levels, families


def decode_runs(
    data: bytes, kinds: npt.ArrayLike, counts: Sequence[int], section: str
) -> npt.NDArray[np.int64]:
    """`decode` for runs (see `spread`); FormatError before anything is made for more than `data` can hold."""
    if sum(counts) > MOST_PER_BYTE * len(data):
        raise fail("rans-truncated", "an array is too short for its values", section=section)
    return decode(data, *spread(kinds, counts), section)


def _bit_places(bits: Ints) -> Iterator[tuple[int, Ints, Ints]]:
    """(significance, whose bit, where it is stored): each value's bits, the most significant first."""
    ends = np.cumsum(bits, dtype=np.int64)
    for place in range(int(bits.max(initial=0))):
        owner = np.flatnonzero(bits > place)
        yield place, owner, ends[owner] - 1 - place


def _pack_bits(values: Ints, bits: Ints) -> bytes:
    stored = np.zeros(int(bits.sum()), np.uint8)
    for place, owner, where in _bit_places(bits):
        stored[where] = values[owner] >> place & 1
    return np.packbits(stored).tobytes()


def _unpack_bits(data: bytes, bits: Ints, section: str) -> Ints:
    stored = np.unpackbits(np.frombuffer(data, np.uint8))
    if stored[int(bits.sum()) :].any():
        raise fail("padding-not-zero", "the bits after the last low bit are not zero", section=section)
    values = np.zeros(len(bits), np.int64)
    for place, owner, where in _bit_places(bits):
        values[owner] |= stored[where].astype(np.int64) << place
    return values


def best_level(values: Ints, families: Sequence[int] = range(len(FAMILIES))) -> tuple[int, int]:
    """The (family, level), of some families, that codes these values in the fewest bits."""
    costs = {(f, t): cost(values, f, t) for f in families for t in _plausible(values)}
    return min(costs, key=lambda choice: costs[choice])


def cost(values: Ints, family: int, level: int) -> float:
    """Bits for `values` at one level; infinite when one of them does not fit the alphabet."""
    bits = int(low_bits(np.array([level]))[0])
    high = values >> bits
    if high.size and (high.min() < LEAST or high.max() > GREATEST):
        return np.inf
    frequencies = bank()[family, level - 4 * bits][high - LEAST]
    return float((16 - np.log2(frequencies)).sum() + bits * len(values))


def _plausible(values: Ints) -> range:
    """The levels around the values' own spread."""
    spread = float(np.sqrt(np.mean(values.astype(np.float64) ** 2))) if values.size else 0.0
    middle = round(4 * np.log2(max(spread, 1 / 8))) + 12
    high = max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0
    least = 0 if high <= GREATEST else SCALES + 4 * (high.bit_length() - 8)
    start = min(max(0, middle - 6, least - 4), LEVELS - 5)  # the last few take all that fits the format
    return range(start, min(LEVELS, max(middle + 7, least + 4)))
