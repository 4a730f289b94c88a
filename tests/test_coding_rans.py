"""The entropy code against the specification's pseudo-code, one symbol at a time, and against damage."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrformat.coding import rans
from inrformat.coding.bank import bank
from inrformat.errors import FormatError

FREQUENCIES = bank().reshape(58, 256).astype(int).tolist()
STARTS = (np.cumsum(bank().reshape(58, 256).astype(int), 1) - bank().reshape(58, 256)).tolist()


def lanes(n: int) -> int:
    return max(1, min(64, n // 1024))


def slow_encode(symbols: list[int], tables: list[int]) -> bytes:
    states, words = [65536] * lanes(len(symbols)), []
    for i in range(len(symbols) - 1, -1, -1):
        lane, v, t = i % len(states), symbols[i] + 128, tables[i]
        f, c, x = FREQUENCIES[t][v], STARTS[t][v], states[i % len(states)]
        if x >= 65536 * f:
            words.insert(0, x % 65536)
            x //= 65536
        states[lane] = 65536 * (x // f) + x % f + c
    return struct.pack(f"<{len(states)}I{len(words)}H", *states, *words)


def slow_decode(code: bytes, tables: list[int]) -> list[int]:
    count = lanes(len(tables))
    x = list(struct.unpack_from(f"<{count}I", code))
    words = [w for (w,) in struct.iter_unpack("<H", code[4 * count :])]
    symbols, used = [], 0
    for i, t in enumerate(tables):
        lane = i % count
        slot = x[lane] % 65536
        v = next(v for v in range(256) if STARTS[t][v] <= slot < STARTS[t][v] + FREQUENCIES[t][v])
        x[lane] = FREQUENCIES[t][v] * (x[lane] // 65536) + slot - STARTS[t][v]
        if x[lane] < 65536:
            x[lane] = 65536 * x[lane] + words[used]
            used += 1
        symbols.append(v - 128)
    assert used == len(words) and set(x) <= {65536}
    return symbols


def draw(seed: int, count: int, tables: np.ndarray) -> np.ndarray:
    """Symbols that follow their distributions, now and then one that is very unlikely."""
    rng = np.random.default_rng(seed)
    spread = 2.0 ** ((tables % 29 - 12) / 4)
    symbols = np.rint(rng.normal(0, spread)).astype(int)
    return np.where(rng.random(count) < 0.02, rng.integers(-128, 128, count), symbols).clip(-128, 127)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(0, 57)), max_size=60))
def test_the_code_is_that_of_the_pseudo_code(pairs: list[tuple[int, int]]) -> None:
    symbols, tables = [s for s, _ in pairs], [t for _, t in pairs]
    code = rans.encode(np.array(symbols, np.int64), np.array(tables, np.int64))
    assert code == slow_encode(symbols, tables)
    assert slow_decode(code, tables) == symbols
    assert rans.decode(code, np.array(tables, np.int64), "SIRN").tolist() == symbols


@pytest.mark.parametrize("count", [1023, 1024, 2047, 2048, 5000, 65535, 65536, 70001])
def test_lanes(count: int) -> None:
    tables = np.random.default_rng(count).integers(0, 58, count)
    symbols = draw(count, count, tables)
    code = rans.encode(symbols, tables)
    assert rans.lanes_for(count) == lanes(count)
    assert np.array_equal(rans.decode(code, tables, "SIRN"), symbols)
    if count <= 5000:
        assert code == slow_encode(symbols.tolist(), tables.tolist())


def test_the_code_of_these_symbols_never_changes() -> None:
    tables = np.arange(9000) % 58
    symbols = (np.arange(9000) * 7919 % 256 - 128) // (1 + (57 - tables) // 8)
    digest = hashlib.sha256(rans.encode(symbols, tables)).hexdigest()
    assert digest == "cde2b065852c7ab33883d5ff43bb68ff9d1cde443a2829d9de56113a8dd8a0ac"


def test_a_symbol_beyond_the_alphabet_is_not_coded() -> None:
    with pytest.raises(ValueError, match="alphabet"):
        rans.encode(np.array([128]), np.array([0]))


def check(code: bytes, tables: np.ndarray, expected: str) -> None:
    with pytest.raises(FormatError) as caught:
        rans.decode(code, tables, "SIRN")
    assert caught.value.code == expected


def test_what_is_refused() -> None:
    tables = np.full(3000, 20)
    code = rans.encode(draw(1, 3000, tables), tables)
    assert rans.lanes_for(3000) == 2
    check(b"", tables, "rans-truncated")
    check(code[:7], tables, "rans-truncated")
    check(code[:-1], tables, "rans-truncated")
    check(code[:-2], tables, "rans-truncated")
    check(code + b"\0\0", tables, "rans-bad-end")
    check(b"\xff\xff\0\0" + code[4:], tables, "rans-bad-state")
    check(code[:4] + b"\0\0\0\0" + code[8:], tables, "rans-bad-state")


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_a_symbol(where: int, change: int) -> None:
    tables = np.arange(300) % 58
    symbols = draw(2, 300, tables)
    code = bytearray(rans.encode(symbols, tables))
    code[where % len(code)] ^= change
    try:
        decoded = rans.decode(bytes(code), tables, "SIRN")
    except FormatError as error:
        assert error.code in ("rans-truncated", "rans-bad-end", "rans-bad-state")
    else:
        assert not np.array_equal(decoded, symbols)
        assert rans.encode(decoded, tables) == bytes(code)  # one code for one sequence
