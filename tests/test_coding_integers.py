"""Integer arrays: round trips at every level, the low bits' order, and what is refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrformat.coding import integers
from inrformat.errors import FormatError


def low(level: int) -> int:
    """The specification's k."""
    return max(0, -((28 - level) // 4)) if level > 28 else 0


def test_low_bits_of_every_level() -> None:
    assert integers.LEVELS == 93
    assert integers.low_bits(np.arange(93)).tolist() == [low(level) for level in range(93)]
    assert low(28) == 0 and low(29) == 1 and low(32) == 1 and low(33) == 2 and low(92) == 16


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    levels = draw(st.lists(st.integers(0, 92), min_size=1, max_size=50))
    values = [draw(st.integers(-128 << low(level), (128 << low(level)) - 1)) for level in levels]
    return values, levels, [draw(st.integers(0, 1)) for _ in levels]


@settings(deadline=None)
@given(arrays())
def test_round_trip(case: tuple[list[int], list[int], list[int]]) -> None:
    values, levels, families = (np.array(part) for part in case)
    code = integers.encode(values, levels, families)
    assert np.array_equal(integers.decode(code, levels, families, "SIRN"), values)
    short = [part.astype(np.int16) for part in (levels, families)]
    assert integers.encode(values, *short) == code
    assert np.array_equal(integers.decode(code, *short, "SIRN"), values)


@settings(deadline=None)
@given(arrays())
def test_the_low_bits_are_those_of_the_specification(case: tuple[list[int], list[int], list[int]]) -> None:
    values, levels, families = case
    text = "".join(
        format(v % 2 ** low(level), f"0{low(level)}b")
        for v, level in zip(values, levels, strict=True)
        if low(level)
    )
    size = -(-len(text) // 8)
    stored = int(text.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")
    code = integers.encode(np.array(values), np.array(levels), np.array(families))
    assert code[len(code) - size :] == stored
    highs = [v // 2 ** low(level) for v, level in zip(values, levels, strict=True)]
    fine = [level - 4 * low(level) for level in levels]
    assert code[: len(code) - size] == integers.encode(np.array(highs), np.array(fine), np.array(families))


def test_what_is_refused() -> None:
    levels, families = np.array([40, 41, 30]), np.array([0, 1, 0])
    code = integers.encode(np.array([7, -9, 2]), levels, families)

    def check(data: bytes, expected: str) -> None:
        with pytest.raises(FormatError) as caught:
            integers.decode(data, levels, families, "SIRN")
        assert caught.value.code == expected

    assert int(integers.low_bits(levels).sum()) == 8
    check(b"", "rans-truncated")
    check(code[:-1], "rans-truncated")
    levels = np.array([40, 40, 30])
    code = integers.encode(np.array([7, -9, 2]), levels, families)
    check(code[:-1] + bytes([code[-1] | 1]), "padding-not-zero")


@pytest.mark.parametrize("value", [1, 127, 128, 40_000, 2**21, 2**22, 3 << 21, 2**23 - 1])
def test_the_best_level_fits_every_value_of_the_format(value: int) -> None:
    for values in ([value], [-value - 1], [value, -value - 1], [value] * 9, [value, *[0] * 99]):
        array = np.array(values)
        family, level = integers.best_level(array)
        levels, families = np.full(len(array), level), np.full(len(array), family)
        code = integers.encode(array, levels, families)
        assert np.array_equal(integers.decode(code, levels, families, "SIRN"), array)


@pytest.mark.parametrize("spread", [0, 0.05, 1, 9, 80, 1000, 60_000])
def test_the_best_level_is_nearly_the_entropy(spread: float) -> None:
    """Of Gaussian values the code takes at most 3% more than it must (and the states)."""
    values = np.rint(np.random.default_rng(3).normal(0, spread, 4096)).astype(np.int64)
    family, level = integers.best_level(values)
    every = [integers.cost(values, f, t) for f in range(2) for t in range(integers.LEVELS)]
    assert integers.cost(values, family, level) == min(every)
    code = integers.encode(values, np.full(4096, level), np.full(4096, family))
    assert abs(8 * len(code) - integers.cost(values, family, level)) < 32 * 4 + 64
    if spread >= 1:
        entropy = 4096 * np.log2(spread * np.sqrt(2 * np.pi * np.e))
        assert integers.cost(values, family, level) < 1.03 * entropy + 100


def test_nothing_is_made_for_more_values_than_the_code_can_hold() -> None:
    """Of a few bytes that ask for 2^24 values."""
    values = np.array([3, -4, 0, 0, 9])
    kinds, counts = [(0, 20), (1, 41)], [2, 3]
    code = integers.encode(values, *integers.spread(kinds, counts))
    assert np.array_equal(integers.decode_runs(code, kinds, counts, "SRTU"), values)
    tracemalloc.start()
    with pytest.raises(FormatError) as caught:
        integers.decode_runs(bytes(80), kinds, [1 << 23, 1 << 23], "SRTU")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "rans-truncated" and most < 1 << 20
