"""The sine that the format uses: a table over the turn, looked up by a 16-bit phase (spec section "Sine")."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt

PHASE_BITS = 16
"""A turn (2 pi) is 2^16 phase units; phases are taken modulo a turn."""
AMPLITUDE = 16383
"""Activations are integers in [-16383, 16383]: 15 bits, two signed int8 limbs."""
SHA256 = "f9948aa298fbb78bf11b972e5867cf2851d83825f5325caec261bcc889798fad"


@cache
def sine_table() -> npt.NDArray[np.int16]:
    """S[k] = round(16383 sin(2 pi k / 65536)) for k = 0..65535, read-only.

    No entry lies within 1e-5 of a tie, so every correct double-precision sine gives this table; its hash
    is part of the format and is checked.
    """
    phases = np.arange(1 << PHASE_BITS) * (2 * np.pi / (1 << PHASE_BITS))
    table: npt.NDArray[np.int16] = np.rint(AMPLITUDE * np.sin(phases)).astype("<i2")
    if hashlib.sha256(table.tobytes()).hexdigest() != SHA256:
        raise RuntimeError("this platform's sine does not give the table of the format")
    table.flags.writeable = False
    return table
