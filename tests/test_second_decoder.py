"""The decoder of spec/decoder, written from the specification alone, agrees with the vectors and the library."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
import unittest.mock
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))
import latent_vectors
import make_vectors
import sr_vectors

import inrformat
import inrformat.fit.latent_tuning
import inrformat.fit.plan
import inrformat.fit.tuning
from inrformat import fit
from inrformat.coding import bricks, latents
from inrformat.coding.lattice import taps
from inrformat.coding.zones import Zones
from inrformat.models import registry
from inrformat.models.context import LAYERS, NETWORKS, ZONED, Centre

SPEC = Path(__file__).parents[1] / "spec"
PROGRAM = SPEC / "decoder" / "inrv_decoder.py"
ARITHMETIC = SPEC / "decoder" / "inrv_lattice.py"
LATENTS = SPEC / "decoder" / "inrv_latents.py"
VECTORS = SPEC / "vectors"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inrv_decoder", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["inrv_decoder"] = module
    spec.loader.exec_module(module)
    return module


second = load()
SHIPPED_CONTEXT, SHIPPED_LATENTS = (
    second.read_model((registry.SHIPPED / name).read_bytes(), second.Limits())
    for name in (registry.DEFAULT_CONTEXT, registry.DEFAULT_LATENTS)
)


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
    for path, own in (
        (PROGRAM, {"zstandard", "inrv_lattice", "inrv_latents"}),
        (ARITHMETIC, set()),
        (LATENTS, {"inrv_lattice"}),
    ):
        imports = set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        assert imports - sys.stdlib_module_names == {"numpy"} | own


def bounds(file: Any, model: Any = None, latent_model: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest volume that the specification allows."""
    if file.bricks is not None:
        volume = second.full(file, model)
        return volume, volume
    header = file.header
    values, detail = second.full_values(file, model, latent_model)
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

    full = entry["full"]
    if "sha256" in full:
        volume = second.full(file)
        assert list(volume.shape) == full["shape"]
        assert hashlib.sha256(volume.tobytes()).hexdigest() == full["sha256"]
        return
    values, detail = second.full_values(file)
    values = values.clip(header.low, header.high)
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
            file = second.read_file(data, limits)
            second.preview(file)
            second.full(file)
    assert caught.value.code == entry["code"]


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
        array,
        preset="paper",
        seconds=1,
        sr=None,
        factors=factors,
        seed=int(rng.integers(1000)),
        device="cpu",
        progress=False,
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


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (1, 4, 4), (4, 4, 2)])
def test_fresh_file_with_auto_sr(factors: tuple[int, ...]) -> None:
    """The encoder embeds the shipped model where that is better than Lanczos."""
    rng = np.random.default_rng(list(factors))
    array = np.rint(np.cumsum(rng.standard_normal((7, 18, 21)), axis=-1) * 100).astype("i2")
    data = inrformat.encode(array, sr="auto", embed_sr=True, factors=factors, device="cpu", progress=False)
    file = second.read_file(data)
    assert (file.model is None) == (file.header.sr is None)
    assert file.model is not None or factors != (2, 2, 2)  # of these it is better there
    own = second.preview(file, SHIPPED_LATENTS)
    preview = inrformat.decode(data, level="preview", device="cpu").data
    assert own.tobytes() == preview.tobytes()
    least, greatest = bounds(file, None, SHIPPED_LATENTS)
    volume = inrformat.decode(data, device="cpu").data
    assert np.all((least <= volume) & (volume <= greatest))


def assert_same_full_level(data: bytes, own_context: Any = None) -> np.ndarray:
    """Both decoders give the same bytes; the volume."""
    volume = inrformat.decode(data, device="cpu").data
    own = second.full(second.read_file(data), own_context)
    assert own.dtype == volume.dtype
    assert own.shape == volume.shape
    assert own.tobytes() == volume.tobytes()
    return volume


def smooth(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A random walk over about a fifth of the type's range, with noise."""
    walk = sum(np.cumsum(rng.standard_normal(shape), axis=axis) for axis in range(3))
    if dtype == "f4":
        return (walk * 30 - 1000 / 3).astype(dtype)
    info = np.iinfo(dtype)
    middle, width = (info.max + info.min) / 2, float(info.max) - info.min
    return np.rint(middle + width / 10 * walk / walk.std()).clip(info.min, info.max).astype(dtype)


@pytest.mark.parametrize("bound", [0, 0.6, 1, 7, 300])
@pytest.mark.parametrize(
    ("dtype", "shape", "spacing"),
    [
        ("u1", (13, 17, 19), (1.0, 1.0, 1.0)),
        ("i1", (1, 40, 33), (5.0, 1.0, 1.0)),
        ("u2", (9, 31, 20), (5.0, 0.7, 0.7)),
        ("i2", (70, 3, 7), (0.5, 2.0, 1.0)),
        ("i2", (1, 1, 257), (1.0, 1.0, 1.0)),
        ("i2", (2, 130, 9), (8.0, 0.5, 4.0)),
        ("f4", (11, 20, 12), (3.0, 1.0, 1.0)),
    ],
)
def test_fresh_lossless_and_bounded_file(dtype: str, shape: Any, spacing: Any, bound: float) -> None:
    rng = np.random.default_rng([ord(c) for c in dtype] + list(shape) + [int(bound)])
    array = smooth(rng, dtype, shape)
    if dtype == "f4" and bound == 0:
        bound = 0.25
    how = {"max_error": bound} if bound else {"lossless": True}
    data = inrformat.encode(inrformat.Volume(array, spacing=spacing), device="cpu", progress=False, **how)
    volume = assert_same_full_level(data, SHIPPED_CONTEXT)
    assert np.abs(volume.astype(float) - array).max() <= bound
    with pytest.raises(second.ModelNotFound):
        second.full(second.read_file(data))


@pytest.mark.parametrize("kind", ["stride", "gaps", "few", "noise", "constant", "padded", "spiky"])
def test_fresh_file_of_sparse_values(kind: str) -> None:
    """Runs, raw and constant bricks, and escapes."""
    rng = np.random.default_rng(len(kind))
    array = smooth(rng, "i2", (20, 30, 40)) // 64
    if kind == "stride":
        array = array * 4
    elif kind == "gaps":
        array = np.where(array > 0, array + 9000, array)
    elif kind == "few":
        array = np.sort(rng.choice(65536, 300, replace=False))[array.clip(-150, 149) + 150] - 32768
    elif kind == "noise":
        array = rng.integers(-32768, 32768, array.shape)
    elif kind == "constant":
        array = np.full((3, 5, 140), -77)
    elif kind == "padded":
        array[:, :9] = -2000
        array[..., 30:] = 12000
    else:
        array = np.where(
            rng.random(array.shape) < 0.01, -32768 + 9 * rng.integers(0, 7000, array.shape), array
        )
    data = inrformat.encode(array.astype("i2"), lossless=True, device="cpu", progress=False)
    volume = assert_same_full_level(data, SHIPPED_CONTEXT)
    assert np.array_equal(volume, array)
    kinds = {code[0] for code in second.read_file(data).bricks.codes}
    assert kinds == {{"constant": 1, "noise": 0}.get(kind, 2)}


@pytest.mark.parametrize("how", [{"lossless": True}, {"max_error": 5}])
def test_fresh_file_of_several_bricks_with_layers_of_its_own(
    how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PRED, TUNE, ZONE, an embedded model, several bricks with several lanes."""
    monkeypatch.setattr(importlib.import_module("inrformat.encode"), "TUNED_VOXELS", 1000)
    monkeypatch.setattr(bricks, "BRICK", (16, 48, 40))
    rng = np.random.default_rng(3)

    def tune(model: Any, volume: Any, *_: Any) -> Any:
        """Linear predictors, and changes of all sizes, in zones too, in the place of training."""
        model = model.centred(
            [
                Centre(n % 4, tuple(rng.integers(-400, 500, len(taps(kind))).tolist()) if n % 2 else None)
                for n, (_, kind) in enumerate(NETWORKS)
            ]
        )
        last = {key: model.weights[key] for key in LAYERS}
        changes = {
            key: rng.integers(-30, 31, w.shape) * (rng.random(w.shape) < 0.3) for key, w in last.items()
        }
        model = model.changed(
            model.weights
            | {key: np.clip(w + changes[key], -2047, 2047).astype("i2") for key, w in last.items()}
        )
        own = {key: model.weights[key] + rng.integers(-20, 21, (5, *last[key].shape)) for key in ZONED}
        sets = {key: np.clip(w, -2047, 2047).astype("i2") for key, w in own.items()}
        return model.zoned(Zones(volume.shape, rng.integers(0, 5, (3, 4, 2)).astype("u1")), sets)

    monkeypatch.setattr(fit.tuning, "tune", tune)
    array = smooth(rng, "u2", (35, 60, 50))
    data = inrformat.encode(
        inrformat.Volume(array, spacing=(2.0, 1.0, 1.0)),
        context=registry.default_context(),
        device="cpu",
        progress=False,
        **how,
    )
    file = second.read_file(data)
    assert None not in file.bricks.own
    assert file.bricks.context is not None
    assert file.bricks.counts == (3, 2, 2)
    volume = assert_same_full_level(data)
    assert np.abs(volume.astype(float) - array).max() <= how.get("max_error", 0)


@pytest.mark.parametrize(
    ("dtype", "shape", "spacing", "ratio"),
    [
        ("u1", (23, 37, 39), (1.0, 1.0, 1.0), 10),
        ("i2", (1, 80, 73), (5.0, 1.0, 1.0), 5),
        ("u2", (9, 41, 50), (5.0, 0.7, 0.7), 30),
        ("i2", (90, 6, 9), (0.5, 2.0, 1.0), 4),
        ("f4", (24, 30, 28), (1.5, 1.0, 1.0), 20),
    ],
)
def test_fresh_file_of_latents(dtype: str, shape: Any, spacing: Any, ratio: float) -> None:
    """By the shipped latent model, which is not in the file."""
    rng = np.random.default_rng([ord(c) for c in dtype] + list(shape))
    array = smooth(rng, dtype, shape)
    data = inrformat.encode(
        inrformat.Volume(array, spacing=spacing), preset="fast", ratio=ratio, device="cpu", progress=False
    )
    file = second.read_file(data)
    assert file.latents is not None
    with pytest.raises(second.ModelNotFound):
        second.preview(file)
    own = second.preview(file, SHIPPED_LATENTS)
    assert own.tobytes() == inrformat.decode(data, level="preview", device="cpu").data.tobytes()
    if file.header.sr is None:
        least, greatest = bounds(file, None, SHIPPED_LATENTS)
        volume = inrformat.decode(data, device="cpu").data
        assert np.all((least <= volume) & (volume <= greatest))


def test_fresh_file_of_latents_by_a_tuned_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the shipped latent model and the file's own changes to it; with others the values are different."""
    fast = replace(fit.plan.PRESETS["fast"], latents=30, corrections=0)
    monkeypatch.setitem(fit.plan.PRESETS, "fast", fast)
    for name, value in (("LEAST_BYTES", 300), ("BYTES_PER_RANK", 1000), ("BATCH", 512)):
        monkeypatch.setattr(fit.latent_tuning, name, value)
    z, y, x = np.indices((12, 40, 44))
    rings = np.rint(1000 * np.sin(x * y / 30) * (z > 3)).astype("i2")
    data = inrformat.encode(rings, ratio=12, factors=(1, 1, 1), sr=None, device="cpu", progress=False)
    file = second.read_file(data)
    assert len(second.read_container(data, "HEAD", second.Limits())["LATU"]) > 50
    with inrformat.open(data, device="cpu") as opened:
        np.testing.assert_array_equal(second.codes(file, SHIPPED_LATENTS), opened.codes().numpy())
    least, greatest = bounds(file, None, SHIPPED_LATENTS)
    volume = inrformat.decode(data, device="cpu").data
    assert np.all((least <= volume) & (volume <= greatest))
    unchanged = second.File(**{**vars(file), "latents": replace(file.latents, changes=None)})
    with pytest.raises(second.InvalidFile, match="bad-latents"):
        second.preview(unchanged, SHIPPED_LATENTS)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    masks=st.lists(st.integers(1, 7), max_size=3),
    rows=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    ranks=st.dictionaries(st.sampled_from(list(second.INTEGER["latents"])), st.integers(1, 16)),
    reach=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_changes_to_a_latent_model(
    shape: Any, masks: Any, rows: Any, ranks: Any, reach: int, seed: int
) -> None:
    """Both decoders give the same preview, with changes of any ranks to any networks."""
    model = latent_vectors.model_file(latent_vectors.random_weights(seed, *rows, shifts=seed % 2 * 30))
    latu = latent_vectors.changes(model, ranks, seed, reach)
    data = latent_vectors.random_parts(shape, masks, seed, model=model, latu=latu).file()
    own = second.preview(second.read_file(data))
    assert own.tobytes() == inrformat.decode(data, level="preview", device="cpu").data.tobytes()


AXES = st.one_of(st.integers(1, 4), st.integers(1, 13))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(AXES, AXES, AXES),
    masks=st.lists(st.integers(1, 7), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    most=st.sampled_from([0, 1, 40, 300, 2**21]),
    step=st.sampled_from([1, 30, 3000, 60000]),
    share=st.sampled_from([0.0, 0.003, 0.05, 0.5]),
    size=st.sampled_from([1.0, 5.0, 200.0, 5000.0]),
    spikes=st.sampled_from([0.0, 0.05]),
    width=st.integers(-40, 150),
    bits=st.sampled_from([1, 50, 2048]),
)
def test_random_latents(
    shape: Any,
    masks: Any,
    seed: int,
    most: int,
    step: int,
    share: float,
    size: float,
    spikes: float,
    width: int,
    bits: int,
) -> None:
    """Both decoders give the same preview, of latents and models far from any that training gives."""
    model = latent_vectors.model_file(latent_vectors.random_weights(seed, 1 + seed % 3, width=width))
    with latent_vectors.bits_per_lane(bits):
        parts = latent_vectors.random_parts(
            shape, masks, seed, step=step, bias=127, share=share, size=size, spikes=spikes, model=model
        )
    data = parts.file()
    with (
        unittest.mock.patch.object(latents, "PREVIEW_POINTS", most),
        unittest.mock.patch.object(second.inrv_latents, "PREVIEW", most),
    ):
        own = second.preview(second.read_file(data))
        preview = inrformat.decode(data, level="preview", device="cpu").data
    assert own.shape == preview.shape
    assert own.tobytes() == preview.tobytes()


MODELS = {
    "light": make_vectors.small_model("light", half=False, channels=2, layers=2),
    "srdensenet": make_vectors.small_model("srdensenet", half=True, blocks=1, layers=2, growth=2, maps=3),
}


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(list(MODELS)),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    factors=st.tuples(*[st.sampled_from([1, 2, 4])] * 3),
    reach=st.sampled_from([1, 30, 3000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_changes_to_a_model(kind: str, shape: Any, factors: Any, reach: int, seed: int) -> None:
    """Both decoders give the same full level, with changes of any ranks to any tensors."""
    rng, model = np.random.default_rng(seed), MODELS[kind]
    factors = factors if kind == "light" else (factors[0], 4, 4)
    ranks = {
        tensor.name: int(rng.integers(min(4, tensor.shape[0], int(np.prod(tensor.shape[1:]))) + 1))
        for tensor in registry.load_model(model).header.tensors
        if rng.random() < 0.6
    }
    changes = sr_vectors.section(model, sr_vectors.random_changes(model, ranks, seed, reach))
    siren = make_vectors.base_network(make_vectors.random_network(seed % 1000, 4, 1))
    data = sr_vectors.volume(siren, shape, factors, model, changes)
    least, greatest = bounds(second.read_file(data))
    volume = inrformat.decode(data, device="cpu").data
    assert np.all((least <= volume) & (volume <= greatest))


def test_changes_reach_the_model_that_a_caller_gives() -> None:
    """The same picture from a model beside the file; another one without the changes."""
    data = (VECTORS / "valid/sr-changes-light.inrv").read_bytes()
    file = second.read_file(data)
    bare = second.File(**{**vars(file), "model": None})
    np.testing.assert_array_equal(second.full(bare, file.model), second.full(file))
    unchanged = second.full(second.File(**{**vars(file), "changes": None}))
    assert np.abs(unchanged.astype(float) - second.full(file)).max() > 50


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


# Files of our own, written as the specification says, to reach what the encoder never writes.


def record(value: Any) -> bytes:
    """The canonical encoding: MessagePack takes the shortest forms, the keys are sorted here."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(entry) for entry in value] if isinstance(value, list) else value

    packed: bytes = msgpack.packb(ordered(value))
    return packed


def container(sections: dict[str, bytes]) -> bytes:
    body, table = 32 + 32 * len(sections), b""
    for name, content in sections.items():
        table += struct.pack("<4sIQQQ", name.encode(), second.crc32c(content), body, len(content), 0)
        body += len(content)
    head = second.MAGIC + struct.pack("<BBHIQ", 1, 0, 0, len(sections), body + 32)
    head += struct.pack("<II", second.crc32c(head + table), 0)
    data = head + table + b"".join(sections.values())
    return data + hashlib.sha256(data).digest()


def encode_rans(symbols: list[int], tables: list[int]) -> bytes:
    lanes = max(1, min(64, len(symbols) // 1024))
    x, words = [65536] * lanes, []
    for i in range(len(symbols) - 1, -1, -1):
        lane, row = i % lanes, second.bank()[tables[i]]
        f, c = int(row[symbols[i] + 128]), int(row[: symbols[i] + 128].sum())
        if x[lane] >= 65536 * f:
            words.append(x[lane] % 65536)
            x[lane] //= 65536
        x[lane] = 65536 * (x[lane] // f) + x[lane] % f + c
    return struct.pack(f"<{lanes}I{len(words)}H", *x, *words[::-1])


def encode_integers(groups: list[tuple[np.ndarray, int, int]]) -> bytes:
    symbols, tables, bits = [], [], ""
    for values, family, level in groups:
        k = max(0, -((28 - level) // 4))
        for v in values.ravel().tolist():
            symbols.append(v >> k)
            tables.append(29 * family + level - 4 * k)
            bits += format(v % 2**k, f"0{k}b") if k else ""
    bits += "0" * (-len(bits) % 8)
    return encode_rans(symbols, tables) + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def random_network(rng: np.random.Generator) -> bytes:
    """A section SIRN: any scale, shift, family and level; mostly with phases that turn, and codes in range."""
    width, depth = int(rng.choice([1, 2, 5, 8, 24, 33])), int(rng.integers(1, 6))
    layers, groups = [], []
    for i in range(depth + 1):
        shape = (width, 3) if i == 0 else (1 if i == depth else width, width)
        scale, shift = int(rng.choice([1, 2, 100, 9999, 16383])), int(rng.integers(0, 49))
        headroom = (2**52 - 1) // (scale * 2**20) if i == 0 else 2**23
        drawn = []
        for size, most in ((shape, headroom), (shape[:1], 20000 if i == depth else 2**23)):
            family, level = int(rng.integers(2)), int(rng.integers(93))
            unit = 2 ** max(0, -((28 - level) // 4))
            if rng.integers(2):
                values = rng.integers(-most, most + 1, size)
            else:
                values = np.rint(2 ** ((level - 12) / 4) * rng.standard_normal(size)).astype(int)
            values = values.clip(max(-most, -128 * unit), min(most, 128 * unit - 1))
            drawn.append((values, family, level))
        groups += drawn
        if rng.random() < 0.85:
            top = abs(drawn[0][0]).sum(axis=1).max() * scale + 1
            shift = int(np.clip(np.log2(top) - (4 if i == 0 else 16) + rng.integers(-3, 3), 0, 48))
        bias_shift = int(rng.integers(0, 3 if i == depth else 16))
        weights, biases = (list(group[1:]) for group in drawn)
        layers.append(
            {"scale": scale, "shift": shift, "bias_shift": bias_shift, "weights": weights, "biases": biases}
        )
    packed = record({"width": width, "depth": depth, "layers": layers})
    return struct.pack("<I", len(packed)) + packed + encode_integers(groups)


def random_head(rng: np.random.Generator) -> bytes:
    dtype = str(rng.choice(second.TYPES))
    if dtype == "f4":
        ends = rng.standard_normal(2) * 10.0 ** rng.integers(-44, 38)
    else:
        ends = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, 2).astype(float)
    return record(
        {
            "shape": rng.integers(1, 20, 3).tolist(),
            "dtype": dtype,
            "range": sorted(ends.tolist()),
            "factors": rng.choice([1, 2, 4, 8], 3).tolist(),
            "base": "siren",
            "sr": None,
            "spacing": [1.0, 1.0, 1.0],
            "affine": [0.0] * 12,
            "slope": [1.0],
            "intercept": [0.0],
        }
    )


def test_random_networks() -> None:
    """Bytes of the preview agree on networks far from any that training gives."""
    busy = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        data = container({"HEAD": random_head(rng), "SIRN": random_network(rng)})
        file = second.read_file(data)
        own, preview = second.preview(file), inrformat.decode(data, level="preview", device="cpu").data
        assert own.dtype == preview.dtype, seed
        assert own.shape == preview.shape, seed
        assert own.tobytes() == preview.tobytes(), seed
        least, greatest = bounds(file)
        volume = inrformat.decode(data, device="cpu").data
        assert np.all((least <= volume) & (volume <= greatest)), seed
        busy += len(np.unique(own)) > 1
    assert busy >= 25


def test_changed_bytes() -> None:
    """Behind right checksums, both refuse the same files; codes differ only where several rules are broken."""
    names = ("records", "example", "dtype-f4", "slope-per-slice", "levels-laplace")
    outcomes: list[tuple[str, str]] = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        data = (VECTORS / "valid" / f"{rng.choice(names)}.inrv").read_bytes()
        sections = second.read_container(data, "HEAD", second.Limits())
        name = str(rng.choice(list(sections)))
        content = bytearray(sections[name])
        for _ in range(rng.integers(1, 3)):
            i = int(rng.integers(len(content)))
            change = rng.integers(3)
            length = int(change < 2)
            content[i : i + length] = bytes(rng.integers(0, 256, int(change != 1)).tolist())
        data = container({**sections, name: bytes(content)})
        own = library = "accepted"
        try:
            preview = second.preview(second.read_file(data))
        except second.InvalidFile as error:
            own = error.code
        try:
            inrformat.verify(data, device="cpu")
        except inrformat.InrError as error:
            library = getattr(error, "code", "?")
        outcomes.append((own, library))
        assert (own == "accepted") == (library == "accepted"), (seed, name, own, library)
        if own == "accepted":
            volume = inrformat.decode(data, level="preview", device="cpu").data
            assert preview.tobytes() == volume.tobytes(), seed
    assert sum(own == library for own, library in outcomes) >= 0.9 * len(outcomes)
    assert len(set(outcomes)) >= 8


def changed_brick_file(rng: np.random.Generator) -> bytes:
    """A vector with bricks in which one section is changed, behind right checksums, the bricks' own too."""
    names = sorted(Path(name).stem for name in vectors("valid") if Path(name).stem.startswith("lattice-"))
    data = (VECTORS / "valid" / f"{rng.choice(names)}.inrv").read_bytes()
    sections = second.read_container(data, "HEAD", second.Limits())
    name = str(
        rng.choice(
            [n for n in ("LATT", "PRED", "TUNE", "ZONE", "BIDX", "BRIX", "BRIX", "BRIX") if n in sections]
        )
    )
    content = bytearray(sections[name])
    at = int(rng.integers(len(content)))
    content[at] = int(rng.integers(256)) if rng.integers(2) else content[at] ^ 1 << int(rng.integers(8))
    sections[name] = bytes(content)
    if name == "BRIX":
        index, start = b"", 0
        for size, _ in struct.iter_unpack("<II", sections["BIDX"]):
            index += struct.pack("<II", size, second.crc32c(bytes(content[start : start + size])))
            start += size
        sections["BIDX"] = index
    return container(sections)


def by_both(data: bytes, level: str) -> list[Any]:
    """What each decoder makes of a file: the bytes of its values, or the code of its refusal."""
    values = {"full": second.full, "preview": second.preview}[level]
    results: list[Any] = []
    for decode in (
        lambda: values(second.read_file(data)),
        lambda: inrformat.decode(data, level=level, device="cpu").data,
    ):
        try:
            results.append(decode().tobytes())
        except (second.InvalidFile, inrformat.InrError) as error:
            results.append(getattr(error, "code", "?"))
    return results


def test_changed_bytes_of_bricks() -> None:
    """Both refuse the same files, with codes that seldom differ, and give the same values for the others."""
    outcomes: list[str] = []
    same = 0
    for seed in range(250):
        data = changed_brick_file(np.random.default_rng(seed))
        results = by_both(data, "full")
        if bytes in map(type, results):
            assert results[0] == results[1], seed
        same += results[0] == results[1]
        outcomes.append(results[0] if isinstance(results[0], str) else "accepted")
    counts = {code: outcomes.count(code) for code in set(outcomes)}
    assert counts["accepted"] > 10
    assert counts["damaged-brick"] > 100
    assert len(counts) >= 8
    assert same >= 0.97 * len(outcomes)


def test_changed_bytes_of_changes() -> None:
    """Both refuse the same sections SRTU, and by the same codes but where several rules are broken."""
    names = [name for name in vectors("valid") if Path(name).stem.startswith("sr-changes-light")]
    outcomes: list[tuple[str, str]] = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sections = second.read_container(
            (VECTORS / str(rng.choice(names))).read_bytes(), "HEAD", second.Limits()
        )
        content = bytearray(sections["SRTU"])
        at = int(rng.integers(24 if rng.integers(2) else len(content)))
        content[at] = int(rng.integers(256)) if rng.integers(2) else content[at] ^ 1 << int(rng.integers(8))
        data = container({**sections, "SRTU": bytes(content)})
        own, library = (x if isinstance(x, str) else "accepted" for x in by_both(data, "full"))
        assert (own == "accepted") == (library == "accepted"), (seed, own, library)
        if own == "accepted":
            least, greatest = bounds(second.read_file(data))
            volume = inrformat.decode(data, device="cpu").data
            assert np.all((least <= volume) & (volume <= greatest)), seed
        outcomes.append((own, library))
    assert sum(own == library for own, library in outcomes) >= 0.97 * len(outcomes)
    assert {own for own, _ in outcomes} >= {"accepted", "out-of-range", "rans-bad-end", "rans-truncated"}


def test_changed_bytes_of_changes_to_a_latent_model() -> None:
    """Both refuse the same sections LATU, and by the same codes, and give the same values for the others."""
    names = [name for name in vectors("valid") if Path(name).stem.startswith("latents-changes")]
    outcomes: list[str] = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sections = second.read_container(
            (VECTORS / str(rng.choice(names))).read_bytes(), "HEAD", second.Limits()
        )
        content = bytearray(sections["LATU"])
        for _ in range(rng.integers(1, 3)):
            at = int(rng.integers(20 if rng.integers(2) else len(content)))
            most = 256 if rng.integers(2) else 17
            content[at : at + 1] = bytes(rng.integers(0, most, rng.integers(3)).tolist())
        results = by_both(container({**sections, "LATU": bytes(content)}), "preview")
        assert results[0] == results[1], seed
        outcomes.append(results[0] if isinstance(results[0], str) else "accepted")
    counts = {code: outcomes.count(code) for code in set(outcomes)}
    assert counts.keys() >= {"out-of-range", "rans-truncated", "rans-bad-end", "network-truncated"}, counts


def test_changed_bytes_of_latents() -> None:
    """Both refuse the same files, with codes that seldom differ, and give the same values for the others."""
    names = sorted(Path(name).stem for name in vectors("valid") if Path(name).stem.startswith("latents-"))
    outcomes: list[str] = []
    same = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        data = (VECTORS / "valid" / f"{rng.choice(names)}.inrv").read_bytes()
        sections = second.read_container(data, "HEAD", second.Limits())
        name = str(rng.choice(["LATN", "LATD", "LATD", "LATD"]))
        content = bytearray(sections[name])
        at = int(rng.integers(len(content)))
        content[at] = int(rng.integers(256)) if rng.integers(2) else content[at] ^ 1 << int(rng.integers(8))
        data = container({**sections, name: bytes(content)})
        results = by_both(data, "preview")
        if bytes in map(type, results):
            assert results[0] == results[1], seed
        same += results[0] == results[1]
        outcomes.append(results[0] if isinstance(results[0], str) else "accepted")
    counts = {code: outcomes.count(code) for code in set(outcomes)}
    assert counts["accepted"] > 10
    assert counts["bad-latents"] > 50
    assert len(counts) >= 8
    assert same >= 0.97 * len(outcomes)
