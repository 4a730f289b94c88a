"""The decoder of spec/decoder, written from the specification alone, agrees with the vectors and the library."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import inrformat

SPEC = Path(__file__).parents[1] / "spec"
PROGRAM = SPEC / "decoder" / "inrv_decoder.py"
VECTORS = SPEC / "vectors"

# Vectors that break a second rule too, and the code that this decoder finds first.
SEVERAL_RULES: dict[str, set[str]] = {
    "invalid/model-a-path.inrv": {"record-not-canonical"},  # the keys of `sr` are not sorted
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inrv_decoder", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["inrv_decoder"] = module
    spec.loader.exec_module(module)
    return module


second = load()


def vectors(kind: str) -> dict[str, Any]:
    """The manifest's entries; empty without a manifest, which test_vectors_are_there reports."""
    manifest = VECTORS / "manifest.json"
    entries: dict[str, Any] = json.loads(manifest.read_text())[kind] if manifest.is_file() else {}
    return entries


def test_vectors_are_there() -> None:
    assert len(vectors("valid")) >= 70
    assert len(vectors("invalid")) >= 80
    listed = {VECTORS / name for kind in ("valid", "invalid") for name in vectors(kind)}
    assert listed == {path for kind in ("valid", "invalid") for path in (VECTORS / kind).iterdir()}


def test_it_shares_no_code() -> None:
    imports = set(re.findall(r"^\s*(?:from|import) (\w+)", PROGRAM.read_text(), re.MULTILINE))
    assert imports - sys.stdlib_module_names == {"numpy", "zstandard"}


def bounds(file: Any, model: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest volume that the specification allows."""
    header = file.header
    values, detail = second.full_values(file, model)
    tolerance = (1e-5 + 0.02 * detail) * (header.high - header.low)
    tolerance += 2**-23 * max(abs(header.low), abs(header.high))
    return second.store(values - tolerance, header), second.store(values + tolerance, header)


@pytest.mark.parametrize("name", vectors("valid"))
def test_valid_vector(name: str) -> None:
    entry, data = vectors("valid")[name], (VECTORS / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    file = second.read_file(data)
    header = file.header

    preview = second.preview(file)
    assert list(preview.shape) == entry["preview"]["shape"]
    assert preview.dtype == np.dtype(entry["preview"]["dtype"])
    assert hashlib.sha256(preview.tobytes()).hexdigest() == entry["preview"]["sha256"]

    values, detail = second.full_values(file)
    values = values.clip(header.low, header.high)
    full = entry["full"]
    tolerance = (1e-5 + 0.02 * detail) * (header.high - header.low)
    tolerance += 2**-23 * max(abs(header.low), abs(header.high))
    assert list(values.shape) == full["shape"]
    assert full["tolerance"] == pytest.approx(tolerance, rel=1e-4, abs=0)
    # Both are computed to much more than the tolerance; a model's detail in the manifest to float32.
    slack = tolerance * (1e-3 if detail else 1e-6)
    np.testing.assert_allclose(values.ravel()[full["at"]], full["values"], rtol=0, atol=slack)
    np.testing.assert_allclose(values.mean(), full["mean"], rtol=0, atol=slack)


@pytest.mark.parametrize("name", vectors("valid"))
def test_library_is_within_the_tolerance(name: str) -> None:
    data = (VECTORS / name).read_bytes()
    least, greatest = bounds(second.read_file(data))
    volume = inrformat.decode(data, device="cpu").data
    assert volume.dtype == least.dtype
    assert volume.shape == least.shape
    assert np.all(volume >= least)
    assert np.all(volume <= greatest)


@pytest.mark.parametrize("name", vectors("invalid"))
def test_invalid_vector(name: str) -> None:
    entry, data = vectors("invalid")[name], (VECTORS / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    limits = second.Limits(**entry["limits"])
    with pytest.raises(second.InvalidFile) as caught:
        if name.endswith(".inrm"):
            second.read_model(data, limits)
        else:
            second.full(second.read_file(data, limits))
    assert caught.value.code in {entry["code"]} | SEVERAL_RULES.get(name, set())


@pytest.mark.parametrize(
    ("dtype", "shape", "factors"),
    [
        ("u1", (6, 10, 12), None),
        ("i1", (5, 9, 11), (1, 2, 2)),
        ("u2", (6, 10, 12), (2, 2, 2)),
        ("i2", (1, 17, 13), (1, 4, 4)),
        ("i2", (9, 8, 7), (8, 1, 4)),
        ("f4", (6, 10, 12), (1, 1, 1)),
        ("f4", (3, 7, 20), (2, 4, 8)),
    ],
)
def test_fresh_file(dtype: str, shape: tuple[int, ...], factors: tuple[int, ...] | None) -> None:
    rng = np.random.default_rng([ord(c) for c in dtype] + list(shape))
    smooth = np.cumsum(rng.standard_normal(shape), axis=-1)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    if dtype == "f4":
        array = (smooth * 3e3 - 1e3).astype(dtype)
    else:
        info = np.iinfo(dtype)
        array = np.rint(info.min + smooth * (float(info.max) - info.min)).astype(dtype)
    data = inrformat.encode(
        array, seconds=1, sr=None, factors=factors, seed=int(rng.integers(1000)), device="cpu", progress=False
    )
    file = second.read_file(data)
    preview = inrformat.decode(data, level="preview", device="cpu").data
    own = second.preview(file)
    assert own.dtype == preview.dtype == np.dtype(dtype)
    assert own.shape == preview.shape
    assert own.tobytes() == preview.tobytes()

    least, greatest = bounds(file)
    volume = inrformat.decode(data, device="cpu").data
    assert volume.shape == shape
    assert np.all((least <= volume) & (volume <= greatest))


def test_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    for level, shape in (("preview", (1, 2, 2)), ("full", (1, 2, 3))):
        command = [sys.executable, PROGRAM, VECTORS / "valid/example.inrv", out, "--level", level]
        subprocess.run(command, check=True)
        assert np.load(out).shape == shape
    command = [sys.executable, PROGRAM, VECTORS / "invalid/file-hash.inrv", tmp_path / "none.npy"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "InvalidFile: bad-file-hash\n"
    assert not (tmp_path / "none.npy").exists()


def test_model_from_a_file(tmp_path: Path) -> None:
    sections = second.read_container(
        (VECTORS / "valid/model-light.inrv").read_bytes(), "HEAD", second.Limits()
    )
    (tmp_path / "model.inrm").write_bytes(sections["SRMD"])
    file = second.read_file((VECTORS / "valid/model-light.inrv").read_bytes())
    bare = second.File(**{**vars(file), "model": None})
    with pytest.raises(second.ModelNotFound):
        second.full(bare)
    model = second.read_model((tmp_path / "model.inrm").read_bytes(), second.Limits())
    np.testing.assert_array_equal(second.full(bare, model), second.full(file))
