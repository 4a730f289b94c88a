"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One thread for torch, before anything imports it: tests are small, and threads that wait for each other are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real DICOM of shared/data, as unpack.py lays it out; skips without it."""
    folder = Path(os.environ.get("INRFORMAT_DATA") or Path.home() / ".cache" / "inrformat-data")
    if not (folder / "chest-ct").is_dir():
        pytest.skip(f"no real data in {folder}: run shared/data/unpack.py, or set INRFORMAT_DATA")
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An empty folder to be archived."""
    (tmp_path / "export").mkdir()
    return tmp_path / "export"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zstandard in the place of the codec, which has tests of its own; for tests of the archive."""
    import archive_factory

    from inrformat.archive import pixels

    monkeypatch.setattr(pixels, "encode_volume", archive_factory.encode_stand_in)
    monkeypatch.setattr(pixels, "decode_volume", archive_factory.decode_stand_in)
