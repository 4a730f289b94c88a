"""The sine and the bank: exact values, exact hashes, and how far every entry is from the next."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from inrformat.coding import bank, sine


def test_the_sine_is_the_nearest_integer_with_room_to_spare() -> None:
    table = sine.sine_table()
    exact = 16383 * np.sin(2 * np.pi * np.arange(65536) / 65536)
    assert hashlib.sha256(table.astype("<i2").tobytes()).hexdigest() == sine.SHA256
    assert np.abs(table - exact).max() < 0.5 - 1.6e-5  # the margin that the specification states
    assert np.array_equal(table[32768:], -table[:32768])
    assert not table.flags.writeable


def test_the_bank_is_that_of_the_formula_with_room_to_spare() -> None:
    """Written out from the specification, one number at a time."""
    closest = 1.0
    for family in range(2):
        for scale in range(29):
            deviation = 2.0 ** ((scale - 12) / 4)

            def tail(x: float, family: int = family, deviation: float = deviation) -> float:
                x /= deviation
                return math.erfc(x / math.sqrt(2)) / 2 if family == 0 else math.exp(-math.sqrt(2) * x) / 2

            frequencies = {}
            for v in range(1, 129):
                product = 65280 * (tail(v - 0.5) - tail(v + 0.5))
                if product >= 0.5:
                    closest = min(closest, abs(product - round(product)))
                frequencies[-v] = frequencies[v] = 1 + math.floor(product)
            del frequencies[128]
            frequencies[0] = 65536 - sum(frequencies.values())
            assert [frequencies[v] for v in range(-128, 128)] == bank.bank()[family, scale].tolist()
    assert closest > 2.8e-4


def test_every_distribution_is_one() -> None:
    table = bank.bank().astype(int)
    assert hashlib.sha256(table.astype("<u2").tobytes()).hexdigest() == bank.SHA256
    assert table.min() == 1
    assert (table.sum(-1) == 65536).all()
    assert np.array_equal(bank.cumulative() + table, np.cumsum(table, -1))
    assert not bank.bank().flags.writeable and not bank.cumulative().flags.writeable
