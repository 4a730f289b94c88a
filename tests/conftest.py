"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real DICOM of shared/data, as unpack.py lays it out; skips without it."""
    folder = Path(os.environ.get("INRFORMAT_DATA") or Path.home() / ".cache" / "inrformat-data")
    if not (folder / "chest-ct").is_dir():
        pytest.skip(f"no real data in {folder}: run shared/data/unpack.py, or set INRFORMAT_DATA")
    return folder
