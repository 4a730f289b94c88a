"""The public series that the benchmarks read, by the names of the README; see its section on data."""

from __future__ import annotations

import os
from pathlib import Path

import inrformat
from inrformat import Volume

DATA = Path(os.environ.get("INRFORMAT_DATA", "~/.cache/inrformat-data")).expanduser()


HOW: dict[str, tuple[str, dict[str, object]]] = {
    "chest-ct": ("chest-ct", {"skip_unreadable": True}),  # one of its files is cut short
    "mr-t1-7t": ("mr-t1-7t", {}),
    "head-phantom-ct": ("head-phantom-ct", {"series": "202"}),
    "brain-mr-memprage": ("brain-mr", {"series": "5", "allow_irregular": True}),  # each misses one slice
    "brain-mr-fse": ("brain-mr", {"series": "6", "allow_irregular": True}),
}
"""The folder of each series, and what reading it takes."""


def load(name: str) -> Volume:
    """One of the series in HOW: chest-ct (274x512x512), mr-t1-7t (384x384x274), head-phantom-ct (140x512x512)..."""
    if name == "phantom":
        return inrformat.head_phantom((96, 192, 192))
    if name not in HOW:
        raise SystemExit(f"unknown series {name}")
    folder, keywords = HOW[name]
    return inrformat.read(DATA / folder, metadata="essential", **keywords)
