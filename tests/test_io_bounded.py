"""How large compressed data become, without inflating all of them at once."""

from __future__ import annotations

import bz2
import io
import tracemalloc
import zlib

import numpy as np
import pytest

from inrformat.io.bounded import PART, inflates_beyond

KINDS = {"zlib": (zlib.compress, zlib.decompressobj), "bz2": (bz2.compress, bz2.BZ2Decompressor)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 1000, PART - 1, PART, PART + 1, 3 * PART, 5 * PART + 17])
def test_exactly_what_is_beyond(kind, size):
    compress, inflater = KINDS[kind]
    for values in (bytes(size), np.random.default_rng(0).bytes(size)):
        data = compress(values)
        assert not inflates_beyond(io.BytesIO(data), inflater(), size)
        assert not size or inflates_beyond(io.BytesIO(data), inflater(), size - 1)
        assert not inflates_beyond(io.BytesIO(data[: len(data) // 2]), inflater(), size)  # cut short


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_takes_no_memory(kind):
    compress, inflater = KINDS[kind]
    data = compress(bytes(128 * PART))
    tracemalloc.start()
    try:
        assert inflates_beyond(io.BytesIO(data), inflater(), 100 * PART)
        assert tracemalloc.get_traced_memory()[1] < 8 * PART
    finally:
        tracemalloc.stop()
