"""spec/vectors/: every valid file decodes to what the manifest says, every invalid one gives its error."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inrformat
from inrformat.container import CODES, Limits
from inrformat.container.layout import MAJOR, MINOR
from inrformat.decode import File
from inrformat.errors import InrError
from inrformat.models.registry import load_model

SPEC = Path(__file__).parents[1] / "spec"
FOLDER = SPEC / "vectors"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
VALID, INVALID = MANIFEST["valid"], MANIFEST["invalid"]
PUBLISHED = "2d45527200c1dbf08a6ffcd81efd5c003b324d0ba9bf7c5adfea35cd05bcb804"
"""Of the names, files and previews of the first valid vectors of version 1.0."""
PUBLISHED_LATTICE = "9345a10ee3a64a8f90857f579ad50b671d8662859355fa0f111be9a831f3a94f"
"""Of those of lossless and bounded volumes, with their full levels."""
PUBLISHED_PREDICTORS = "0a4dada7dfcb59d35121fbe4b9934149d0a852d9d905ca194e4f9a3bb6d8f76b"
PUBLISHED_ZONES = "139c4cb6b9e6ea48fde68bc7cfc3c5201b5e1525a214ac97ca3838df930da08d"
PUBLISHED_PREVIEW = "b2e1aec18be2d098cac61d15141fd5da062e25e2eaadee29c5bd1ff3bb9cd870"
PUBLISHED_LATENTS = "baf2eb31e996bc0ee04510d211d1a0412fe474745c96249f5aa2311ed6133a56"
"""Of those of latents, with their full levels where these are exact."""
PUBLISHED_SHIFTS = "e81c84e5a0dd4df62eb87b814faed5ab991dc039d50d057010ea7d7564e7d088"
PUBLISHED_LATENT_CHANGES = "63eb8c6dabaf9a6f7e16e67963a25a13aefeff02ad1376b8a9ee931f9ce8425e"
PUBLISHED_SR = "1b7af4ca1a64b5f5bb6c59106baf5da2568cd57d3a6e0170d3797afc9f7baaab"
"""Of those of super-resolution at (1, 1, 1), and of changes to its model."""
PUBLISHED_BUNDLE = "54424d5749ef595cb30df75dec8e2c2eed1f0780ce5e93242ac528e17c1fa8b3"


def read(path: str) -> bytes:
    return (FOLDER / path).read_bytes()


def read_all(path: str, data: bytes, limits: Limits) -> None:
    """Everything that a decoder does with a file; the first error is the one that counts."""
    if path.endswith(".inrm"):
        load_model(data, limits)
        return
    inrformat.verify(data, device="cpu", limits=limits)
    inrformat.info(data, limits=limits)
    inrformat.decode(data, level="preview", device="cpu", limits=limits)
    inrformat.decode(data, device="cpu", limits=limits)


@pytest.fixture(scope="module")
def imported() -> None:
    """All that decoding imports, so that what a file costs is not counted with it."""
    for path in ("invalid/model-work.inrv", "invalid/lattice-work.inrv"):
        with pytest.raises(InrError):
            read_all(path, read(path), Limits(**INVALID[path]["limits"]))


def test_the_folder_holds_the_files_of_the_manifest_and_no_other() -> None:
    there = {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.is_file()} - {"manifest.json"}
    assert there == VALID.keys() | INVALID.keys()
    for path, entry in {**VALID, **INVALID}.items():
        assert hashlib.sha256(read(path)).hexdigest() == entry["sha256"], path


def test_the_vectors_are_small() -> None:
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 3.8 * 10**6


def test_files_of_version_1_decode_for_ever() -> None:
    """A published vector never changes and is never taken away. New ones are appended here by their own line."""
    assert (MAJOR, MINOR) == (1, 0), "a new version keeps the vectors of the old one: extend this test"
    first, bundle, lattice, predictors, zones, latents, shifts, changes, preview, sr = (
        hashlib.sha256() for _ in range(10)
    )
    for path, entry in sorted(VALID.items()):
        line = f"{path} {entry['sha256']} {entry['preview']['sha256']}"
        if path.startswith("valid/lattice-pred"):
            predictors.update(f"{line} {entry['full']['sha256']}\n".encode())
        elif path.startswith("valid/lattice-zones"):
            zones.update(f"{line} {entry['full']['sha256']}\n".encode())
        elif path.startswith("valid/lattice-"):
            lattice.update(f"{line} {entry['full']['sha256']}\n".encode())
        elif path == "valid/latents-preview.inrv":
            preview.update(f"{line}\n".encode())
        elif path.startswith("valid/latents-shifts"):
            shifts.update(f"{line} {entry['full'].get('sha256', '')}\n".encode())
        elif path.startswith("valid/latents-changes"):
            changes.update(f"{line}\n".encode())
        elif path.startswith("valid/latents-"):
            latents.update(f"{line} {entry['full'].get('sha256', '')}\n".encode())
        elif path.startswith("valid/bundle-"):
            bundle.update(f"{line}\n".encode())
        elif path.startswith("valid/sr-"):
            sr.update(f"{line}\n".encode())
        else:
            first.update(f"{line}\n".encode())
    assert first.hexdigest() == PUBLISHED, first.hexdigest()
    assert lattice.hexdigest() == PUBLISHED_LATTICE, lattice.hexdigest()
    assert predictors.hexdigest() == PUBLISHED_PREDICTORS, predictors.hexdigest()
    assert zones.hexdigest() == PUBLISHED_ZONES, zones.hexdigest()
    assert latents.hexdigest() == PUBLISHED_LATENTS, latents.hexdigest()
    assert shifts.hexdigest() == PUBLISHED_SHIFTS, shifts.hexdigest()
    assert changes.hexdigest() == PUBLISHED_LATENT_CHANGES, changes.hexdigest()
    assert preview.hexdigest() == PUBLISHED_PREVIEW, preview.hexdigest()
    assert sr.hexdigest() == PUBLISHED_SR, sr.hexdigest()
    assert bundle.hexdigest() == PUBLISHED_BUNDLE, bundle.hexdigest()


@pytest.mark.parametrize("path", VALID)
def test_valid(path: str) -> None:
    expected, data = VALID[path], read(path)
    inrformat.verify(data, device="cpu")
    with File(data, device="cpu") as file:
        preview = file.preview().data
        assert list(preview.shape) == expected["preview"]["shape"]
        assert file.header.dtype == expected["preview"]["dtype"]
        little = preview.astype(preview.dtype.newbyteorder("<"))
        assert hashlib.sha256(little.tobytes()).hexdigest() == expected["preview"]["sha256"]
        full, want = file.full().data, expected["full"]
        assert list(full.shape) == want["shape"] and full.dtype == preview.dtype
        if "sha256" in want:
            little = full.astype(full.dtype.newbyteorder("<"))
            assert hashlib.sha256(little.tobytes()).hexdigest() == want["sha256"]
            return
        rounding = 0.5 if full.dtype.kind != "f" else 0.0
        error = np.abs(full.ravel()[want["at"]].astype(float) - want["values"])
        assert error.max() <= want["tolerance"] + rounding
        mean = (full.astype(float) / full.size).sum()
        assert abs(mean - want["mean"]) <= want["tolerance"] + rounding


@pytest.mark.parametrize("path", INVALID)
def test_invalid(path: str, imported: None) -> None:
    expected, data = INVALID[path], read(path)
    tracemalloc.start()
    try:
        with pytest.raises(InrError) as caught:
            read_all(path, data, Limits(**expected["limits"]))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert type(caught.value).__name__ == expected["error"]
    assert f"[{expected['code']}" in str(caught.value)
    assert str(caught.value).isprintable() and str(caught.value).isascii()


@pytest.mark.parametrize("path", [path for path, entry in INVALID.items() if entry["limits"]])
def test_a_limit_refuses_only_what_is_beyond_it(path: str) -> None:
    read_all(path, read(path), Limits())


def test_every_code_has_a_file_or_a_reason() -> None:
    codes = {entry["code"] for entry in INVALID.values()}
    assert codes | MANIFEST["codes_without_a_file"].keys() == CODES.keys()


def test_the_specification_names_the_files_of_every_code() -> None:
    """The last column of the table of errors; `python spec/make_vectors.py --table` prints the table."""
    text = (SPEC / "inrv.md").read_text()
    for code in CODES:
        row = re.search(rf"^\| `{code}` \|.*\|([^|]*)\|$", text, re.MULTILINE)
        assert row, code
        names = {Path(path).name.split(".inr")[0] for path, entry in INVALID.items() if entry["code"] == code}
        assert set(re.findall(r"[^\s,]+", row[1])) - {"-"} == names


@pytest.mark.slow
def test_the_generator_makes_these_files() -> None:
    """On purpose only: the generator without --accept writes nothing."""
    before = {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")}
    result = subprocess.run(
        [sys.executable, SPEC / "make_vectors.py"], capture_output=True, text=True, check=False
    )
    assert {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")} == before
    changed = [line for line in result.stdout.splitlines() if line.startswith(("new", "gone"))]
    assert changed == [], result.stdout + result.stderr
