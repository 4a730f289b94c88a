"""The public series that the benchmarks read, by the names of the README; see its section on data."""

from __future__ import annotations

import os
from pathlib import Path

import inrformat
from inrformat import Volume

DATA = Path(os.environ.get("INRFORMAT_DATA", "~/.cache/inrformat-data")).expanduser()


def load(name: str) -> Volume:
    """chest-ct (274x512x512), mr-t1-7t (384x384x274) or head-phantom-ct (140x512x512, STD BRAIN 1 mm)."""
    if name == "chest-ct":  # one of its files is cut short
        return inrformat.read(DATA / name, skip_unreadable=True, metadata="essential")
    if name == "mr-t1-7t":
        return inrformat.read(DATA / name, metadata="essential")
    if name == "head-phantom-ct":
        return inrformat.read(DATA / name, series="202", metadata="essential")
    if name == "phantom":
        return inrformat.head_phantom((96, 192, 192))
    raise SystemExit(f"unknown series {name}")
