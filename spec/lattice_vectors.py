"""The vectors of lossless and bounded volumes, for make_vectors.py; tiny context models of random numbers."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import google_crc32c
import numpy as np
import torch

from inrformat.coding.bricks import Coder, boxes
from inrformat.coding.lanes import lanes_for
from inrformat.coding.lattice import LARGEST_TAP, Span, inputs, schedule, taps
from inrformat.coding.levels import Levels
from inrformat.coding.residuals import COUNTS
from inrformat.coding.zones import Zones
from inrformat.container import ModelHeader, ModelReference, VolumeHeader, pack_tensors, records
from inrformat.container.headers import LatticeHeader
from inrformat.container.layout import build
from inrformat.models.context import (
    LAYERS,
    NETWORKS,
    ZONED,
    Centre,
    ContextModel,
    pack_centres,
    pack_changes,
    pack_zones,
)
from inrformat.models.registry import load_context, pack_integers

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int]
AFFINE = (0.0, 0.0, 0.75, -12.5, 0.0, 0.75, 0.0, 4.0, 2.5, 0.0, 0.0, 100.0)


# --- context models ---------------------------------------------------------------------------------------
def random_weights(seed: int, first: int = 1, second: int = 1, most: int = 200) -> dict[str, Array]:
    """Whole numbers for all networks, with hidden layers of so many rows."""
    rng = np.random.default_rng(seed)
    weights = {}
    for where, kind in NETWORKS:
        n = inputs(kind)
        for layer, shape, reach in (
            ("first", (first, n), most),
            ("second", (second, first + 1), 2 * most),
            ("last", (3, second + n), most // 5),
        ):
            weights[f"{where}.{kind}.{layer}"] = rng.integers(-reach, reach + 1, shape).astype(np.int16)
    return weights


def model_file(weights: Mapping[str, Array]) -> bytes:
    """The .inrm file of these weights."""
    return pack_integers(
        ContextModel(weights),
        name="context-vector",
        version=1,
        licence="CC0-1.0",
        trained_on="random numbers",
    )


def any_model_file(weights: Mapping[str, Array], config: dict[str, int] | None = None) -> bytes:
    """A file of kind context with arrays of any floats, which need not be a context model."""
    infos, body = pack_tensors(weights)
    head = ModelHeader("context-vector", 1, "context", config or {}, "CC0-1.0", "random numbers", infos)
    return build([("MODL", records.pack(head.to_record())), ("TENS", body)])


TINY = model_file(random_weights(1))


def mixed_model() -> bytes:
    """Networks of different sizes."""
    sizes = [(3, 2), (2, 3), (1, 4), (5, 1)]
    parts = [random_weights(20 + i, *size) for i, size in enumerate(sizes)]
    return model_file(
        {
            f"{where}.{kind}.{layer}": parts[(i * 5 + kind) % 4][f"{where}.{kind}.{layer}"]
            for i, (where, kind) in enumerate(NETWORKS)
            for layer in ("first", "second", "last")
        }
    )


def largest_model() -> bytes:
    """Rows whose magnitudes sum to 132104, the most that is allowed, with weights of 2047."""
    weights = random_weights(30)
    for where, kind in NETWORKS:
        for layer in ("first", "last"):
            rows = weights[f"{where}.{kind}.{layer}"]
            rows[:] = 0
            rows[:, 1:55] = np.where(np.arange(54) % 2, 2047, -2047)[: rows.shape[1] - 1]
            rest = 132104 - int(np.abs(rows[0].astype(int)).sum())
            rows[:, 0] = min(2047, rest)
    return model_file(weights)


# --- files ------------------------------------------------------------------------------------------------
@dataclass
class Parts:
    """The parts of a file with bricks, any of which may be changed before it is put together."""

    head: VolumeHeader
    siren: bytes
    latt: dict[str, Any]
    codes: list[bytes]
    model: bytes | None
    tune: bytes | None = None
    pred: bytes | None = None
    zone: bytes | None = None
    more: list[tuple[str, bytes]] = field(default_factory=list)
    index: bytes | None = None

    def sections(self) -> list[tuple[str, bytes]]:
        """The sections, with right checksums of the bricks unless `index` is given."""
        index = b"".join(struct.pack("<II", len(code), google_crc32c.value(code)) for code in self.codes)
        sections = [("HEAD", self.head.pack()), ("SIRN", self.siren), ("LATT", records.pack(self.latt))]
        sections += [("CTXM", self.model)] if self.model is not None else []
        sections += [("PRED", self.pred)] if self.pred is not None else []
        sections += [("TUNE", self.tune)] if self.tune is not None else []
        sections += [("ZONE", self.zone)] if self.zone is not None else []
        sections += [("BIDX", index if self.index is None else self.index), ("BRIX", b"".join(self.codes))]
        return sections + self.more

    def file(self) -> bytes:
        """The bytes of the file."""
        return build(self.sections())


class Coded(Coder):
    """Codes every brick, also where that is longer."""

    def _plain(self, levels: Array) -> bytes:
        return bytes(10**6)


class Plain(Coder):
    """Codes no brick."""

    def encode(self, levels: Array, origins: Sequence[Shape]) -> list[bytes]:
        """See `Coder`."""
        return [self._plain(brick) for brick in levels]


def parts(
    data: Array,
    siren: bytes,
    *,
    levels: Levels | None = None,
    model: bytes = TINY,
    changes: Mapping[str, Array] | None = None,
    centres: Sequence[Centre] | None = None,
    zones: tuple[Array, int] | None = None,
    order: Sequence[int] | None = None,
    counts: Shape = (1, 1, 1),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    factors: Shape = (1, 1, 1),
    coder: type[Coder] = Coded,
) -> Parts:
    """The parts of the file of a volume, in stored values (or in levels, with `levels` of a grid).

    zones   the set of each zone, and by how much the sets' last layers differ, at most.
    """
    low, high = float(data.min()), float(data.max())
    levels = levels or Levels(int(high - low), 0, values=((int(low), 1, int(high - low) + 1),))
    if data.dtype.kind == "f":
        low, high = levels.range
    base = load_context(model)
    base = base.centred(centres) if centres else base
    changed = base.changed({**base.weights, **changes}) if changes else base
    shape = (data.shape[0], data.shape[1], data.shape[2])
    if zones:
        changed = changed.zoned(Zones(shape, zones[0]), some_sets(changed, *zones))
    z, y, x = (-(-n // k) for n, k in zip(data.shape, counts, strict=True))
    order = tuple(order if order is not None else schedule((z, y, x), spacing))
    coding = coder(order, Span(levels.greatest, 2 * levels.error + 1), changed, torch.device("cpu"))
    codes = [
        coding.encode(
            levels.of(data[tuple(slice(a, b) for a, b in box)])[None], [(box[0][0], box[1][0], box[2][0])]
        )[0]
        for box in boxes(data.shape, counts)
    ]
    dtype = data.dtype.str[1:]
    reference = ModelReference("context-vector", 1, hashlib.sha256(model).digest())
    latt = LatticeHeader(
        levels.error, levels.values, levels.grid, levels.greatest, order, counts, reference
    ).to_record()
    head = VolumeHeader(
        shape=shape, dtype=dtype, range=(low, high), factors=factors, spacing=spacing, affine=AFFINE
    )
    tune = pack_changes(base, changed) if changes else None
    pred, zone = pack_centres(base) if centres else None, pack_zones(changed) if zones else None
    return Parts(head, siren, latt, codes, model, tune, pred, zone)


def some_sets(model: ContextModel, sets: Array, most: int) -> dict[str, Array]:
    """Random changes to the last layers, so many at most, of sets up to the greatest that a zone has."""
    rng, layers = np.random.default_rng(60), {}
    for name in ZONED:
        last = model.weights[name]
        change = rng.integers(-most, most + 1, (int(sets.max()) + 1, *last.shape))
        layers[name] = np.clip(last + change, -2047, 2047).astype(np.int16)
    return layers


def picture(shape: Shape, dtype: str, seed: int = 0, *, share: float = 0.1, spikes: float = 0.0) -> Array:
    """A smooth picture with noise over a share of the type's range, and spikes over all of it."""
    rng = np.random.default_rng(seed)
    least, greatest = (-1e4, 1e4) if dtype == "f4" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    middle, width = (least + greatest) / 2, (greatest - least) * share
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    plain = middle + width / 2 * (np.sin(z / 2 + y / 3) * np.cos(x / 4) + rng.normal(0, 0.05, shape))
    values = np.where(rng.random(shape) < spikes, rng.uniform(least, greatest, shape), plain)
    values = values.clip(least, greatest)
    result: Array = (values if dtype == "f4" else np.rint(values)).astype(dtype)
    return result


def valid(siren: bytes) -> dict[str, bytes]:
    """Every feature and every limit that a small file can show."""
    files: dict[str, bytes] = {}

    def put(name: str, data: Array, **more: Any) -> None:
        files[f"lattice-{name}"] = parts(data, siren, **more).file()

    for seed, dtype in enumerate(("u1", "i1", "u2", "i2")):
        data = picture((5, 6, 7), dtype, seed, share=0.4)
        data.ravel()[[3, 100]] = np.iinfo(dtype).min, np.iinfo(dtype).max
        put(f"dtype-{dtype}", data)
    _floats(put)
    _levels(put)

    data = picture((5, 6, 7), "i2", 10, share=0.01)
    put("model-mixed", data, model=mixed_model())
    put("model-largest", data, model=largest_model())
    weights = {key: w.astype(np.float32) for key, w in random_weights(31).items()}
    put("model-f4", data, model=any_model_file(weights))
    base, rng = load_context(TINY), np.random.default_rng(32)
    changes = {}
    for number, name in enumerate(LAYERS):  # of every size, and with every shift
        shape, shift = base.weights[name].shape, number % 9
        reach = (0, 1, 5, 30, 120, 300, 700, 1900)[number // 3 % 8] >> shift
        change = rng.integers(-reach, reach + 1, shape) << shift
        changes[name] = np.clip(base.weights[name] + change, -2047, 2047).astype(np.int16)
    put("tune", data, changes=changes)
    _predictors(put)
    _zones(put)
    put("wide", picture((5, 6, 7), "u2", 11, share=1.9))
    put("escapes", picture((6, 7, 9), "i2", 12, share=0.001, spikes=0.1))
    clipped = picture((6, 7, 9), "i2", 14)
    put("clipped", np.maximum(clipped, np.int16(np.median(clipped))))
    put("lanes-3", picture((20, 25, 27), "u1", 13, share=0.02))

    for name, shape, order in (
        ("one-voxel", (1, 1, 1), None),
        ("one-line", (1, 1, 67), None),
        ("one-column", (35, 1, 1), None),
        ("one-slice", (1, 12, 9), None),
        ("no-splits", (2, 3, 4), ()),
        ("order-z-5-times", (33, 2, 3), (0,) * 5),
        ("order-more-than-voxels", (2, 3, 2), (0, 1, 2) * 5),
        ("order-mixed", (9, 8, 17), (2, 1, 2, 0, 2, 1, 0)),
        ("order-one-axis-last", (5, 4, 9), (2, 2, 2, 1, 1, 0, 0)),
    ):
        put(name, picture(shape, "i2", 14, share=0.01), order=order)
    put("thick", picture((5, 14, 15), "i2", 15, share=0.01), spacing=(5.0, 0.5, 0.7))
    put("bricks", picture((7, 8, 5), "i2", 16, share=0.01), counts=(2, 3, 1), factors=(2, 2, 2))
    put("bricks-of-one-voxel", picture((2, 3, 2), "i2", 17), counts=(2, 3, 2))
    put("raw-u1", picture((3, 4, 5), "i2", 18, share=0.001), coder=Plain)
    put("raw-u2", picture((3, 4, 5), "i2", 19), coder=Plain)
    constant = np.repeat(np.array([-5, 9], "i2"), 12).reshape(2, 3, 4)
    put("constant", constant, counts=(2, 1, 1), coder=Plain)
    put("one-level", np.full((3, 4, 5), -700, "i2"))
    return files


def some_centres(seed: int, most: int) -> list[Centre]:
    """Every precision, and linear predictors for two networks of three, whose weights are up to `most`."""
    rng = np.random.default_rng(seed)
    centres = []
    for number, (_, kind) in enumerate(NETWORKS):
        weights = np.rint(rng.laplace(0, most / 8, len(taps(kind)))).clip(-most, most).astype(int)
        centres.append(Centre(number % 5, tuple(weights.tolist()) if number % 3 else None))
    return centres


def _predictors(put: Callable[..., None]) -> None:
    data = picture((9, 10, 11), "i2", 33, share=0.01)
    put("pred", data, centres=some_centres(33, 1000))
    every = [Centre(0, (LARGEST_TAP, -LARGEST_TAP) * (len(taps(kind)) // 2)) for _, kind in NETWORKS]
    put("pred-largest", picture((5, 6, 7), "u2", 34, share=1.9), centres=every)
    last = {
        f"{where}.{kind}.last": load_context(TINY).weights[f"{where}.{kind}.last"] for where, kind in NETWORKS
    }
    put("pred-tune", data, centres=some_centres(35, 3000), changes={key: w // 2 for key, w in last.items()})
    put("pred-fine", data, centres=[Centre(4)] * len(NETWORKS))
    low, high = int(data.min()), int(data.max())
    levels = Levels(high - low, 3, values=((low, 1, high - low + 1),))
    put("pred-error-3", data, centres=some_centres(36, 1000), levels=levels)
    put("pred-one-slice", picture((1, 12, 9), "i2", 37, share=0.01), centres=some_centres(37, 1000))


def _zones(put: Callable[..., None]) -> None:
    data = picture((9, 10, 11), "i2", 61, share=0.01)
    sets = np.random.default_rng(62).integers(0, 5, (2, 3, 4)).astype(np.uint8)
    put("zones", data, zones=(sets, 300), counts=(2, 2, 1))
    last = {name: w // 2 for name, w in load_context(TINY).weights.items() if name.endswith(".last")}
    put("zones-pred-tune", data, zones=(sets % 2, 50), centres=some_centres(63, 1000), changes=last)
    low, high = int(data.min()), int(data.max())
    levels = Levels(high - low, 3, values=((low, 1, high - low + 1),))
    put("zones-error-3", data, zones=(sets, 100), levels=levels, spacing=(1.0, 3.0, 0.5))
    every = (np.arange(5 * 6 * 7) % 16).astype(np.uint8).reshape(5, 6, 7)
    put("zones-of-one-voxel", picture((5, 6, 7), "i2", 64, share=0.01), zones=(every, 20))
    one = np.ones((1, 1, 1), np.uint8)
    put("zones-one", picture((1, 12, 9), "i2", 65, share=0.01), zones=(one, 2000))


def _floats(put: Callable[..., None]) -> None:
    data = picture((5, 6, 7), "f4", 40, share=0.01)
    put("f4", data, levels=Levels.of_floats(data, 0.5))
    low, high = float(data.min()), float(data.max())
    pitch = (high - low) / 40.3  # the last level's value is beyond the range
    put("f4-beyond-range", data, levels=Levels(41, 0, grid=(low, pitch), range=(low, high)))
    zero = np.full((2, 2, 2), -0.0, "f4")
    put("f4-minus-zero", zero, levels=Levels(0, 3, grid=(-0.0, 1.0), range=(-0.0, -0.0)))
    largest = float(np.finfo(np.float32).max)
    wide = np.linspace(-largest, largest, 60).astype("f4").reshape(3, 4, 5)
    put("f4-widest", wide, levels=Levels.of_floats(wide, 1e35))


def _levels(put: Callable[..., None]) -> None:
    for error in (1, 2, 100, 32767):
        data = picture((5, 6, 7), "u2", 50, share=1.2)
        low, high = int(data.min()), int(data.max())
        put(f"error-{error}", data, levels=Levels(high - low, error, values=((low, 1, high - low + 1),)))
    data = picture((5, 6, 7), "i2", 51, share=0.01)
    put("runs-stride", data * 4, levels=Levels.of_integers(data * 4, 0))
    runs = ((-32768, 1, 1), (-1000, 7, 200), (500, 65536, 1), (600, 1, 3), (20000, 100, 128), (32767, 3, 1))
    total = sum(count for _, _, count in runs)
    table = np.concatenate([first + stride * np.arange(count) for first, stride, count in runs])
    rng = np.random.default_rng(52)
    data = table[(rng.normal(100, 20, (5, 6, 7)).astype(int)).clip(0, total - 1)]
    data.ravel()[[0, 1]] = table[[0, -1]]
    put("runs", data.astype("i2"), levels=Levels(total - 1, 0, values=runs))


# --- invalid files ----------------------------------------------------------------------------------------
def invalid(add: Callable[..., None], siren: bytes, light: bytes) -> None:
    """Broken files: `add(name, code, data, **limits)`."""
    good = parts(picture((6, 7, 9), "i2", 12, share=0.01, spikes=0.1), siren)
    _bad_records(add, good)
    _bad_floats(add, siren)
    _bad_models(add, good, light)
    _bad_bricks(add, siren)


def _bad_records(add: Callable[..., None], good: Parts) -> None:
    bare = replace(good, model=None)  # refused before the model is looked for

    def latt(name: str, code: str, **changes: Any) -> None:
        record = {key: value for key, value in {**good.latt, **changes}.items() if value is not ...}
        add(f"lattice-{name}", code, replace(bare, latt=record).file())

    sections = bare.sections()
    for name in ("LATT", "BIDX", "BRIX"):
        add(f"lattice-no-{name}", "missing-section", build([s for s in sections if s[0] != name]))
    for name in ("PRED", "TUNE", "ZONE"):
        add(f"lattice-{name.lower()}-alone", "missing-section", build([*sections[:2], (name, b"")]))
    latt("no-order", "missing-key", order=...)
    latt("field-unknown", "unknown-key", planes=1)
    latt("error-32768", "out-of-range", error=32768)
    latt("greatest-65536", "out-of-range", greatest=65536)
    latt("values-and-grid", "out-of-range", grid=[0.0, 1.0])
    latt("no-values", "out-of-range", values=None)
    latt("grid-of-integers", "out-of-range", values=None, grid=[0.0, 1.0])
    (first, _, count), greatest = good.latt["values"][0], good.latt["greatest"]
    middle = first + count // 2
    latt("runs-none", "out-of-range", values=[])
    latt("runs-descend", "out-of-range", values=[[middle, 1, count - 1], [first, 1, 1]])
    latt("runs-overlap", "out-of-range", values=[[first, 1, 9], [first + 8, 1, count - 9]])
    latt("run-stride-0", "out-of-range", values=[[first, 0, count]])
    latt("run-count-0", "out-of-range", values=[[first, 1, count], [first + count, 1, 0]])
    latt("run-beyond-16-bits", "out-of-range", values=[[first, 65536, count]])
    latt("runs-few", "out-of-range", values=[[first, 1, 1], [first + count - 1, 1, 1]])
    latt("runs-many", "out-of-range", greatest=greatest - 1)
    latt("runs-not-range", "out-of-range", values=[[first + 1, 1, count]])
    latt("run-of-two", "out-of-range", values=[[first, count]])
    latt("error-with-runs", "out-of-range", error=1, values=[[first, 1, 9], [first + 9, 1, count - 9]])
    latt("error-with-stride", "out-of-range", error=1, greatest=1, values=[[first, count - 1, 2]])
    latt("order-axis-3", "out-of-range", order=[0, 3])
    latt("order-6-times", "out-of-range", order=[1] * 6)
    latt("order-16", "out-of-range", order=[0, 1, 2] * 5 + [0])
    latt("bricks-0", "out-of-range", bricks=[0, 1, 1])
    latt("bricks-more-than-voxels", "out-of-range", bricks=[1, 8, 1])
    latt("model-nil", "bad-type", model=None)
    latt("model-a-path", "out-of-range", model={**good.latt["model"], "name": "../model"})
    add("lattice-brick-large", "brick-too-large", good.file(), max_brick_voxels=6 * 7 * 9 - 1)
    length = len(good.codes[0])
    entry = struct.pack("<II", length, google_crc32c.value(good.codes[0]))
    add("lattice-index-empty", "bad-index", replace(bare, index=b"").file())
    add("lattice-index-long", "bad-index", replace(bare, index=entry + bytes(8)).file())
    for name, wrong in (("short", length - 1), ("over", length + 1), ("huge", 2**32 - 1)):
        index = struct.pack("<I", wrong) + entry[4:]
        add(f"lattice-index-lengths-{name}", "bad-index", replace(bare, index=index).file())


def _bad_floats(add: Callable[..., None], siren: bytes) -> None:
    data = picture((3, 4, 5), "f4", 41)
    bare = replace(parts(data, siren, levels=Levels.of_floats(data, 100.0)), model=None)
    origin, pitch = bare.latt["grid"]
    span = [int(origin), 1, bare.latt["greatest"] + 1]
    for name, code, changes in (
        ("pitch-0", "out-of-range", {"grid": [origin, 0.0]}),
        ("pitch-negative", "out-of-range", {"grid": [origin, -pitch]}),
        ("grid-overflow", "out-of-range", {"grid": [1e308, 1e308]}),
        ("grid-of-three", "out-of-range", {"grid": [origin, pitch, pitch]}),
        ("values-of-floats", "out-of-range", {"grid": None, "values": [span]}),
    ):
        add(f"lattice-{name}", code, replace(bare, latt={**bare.latt, **changes}).file())
    nan = records.pack(bare.latt).replace(struct.pack(">d", pitch), struct.pack(">d", float("nan")))
    sections = [(name, nan if name == "LATT" else body) for name, body in bare.sections()]
    add("lattice-pitch-nan", "record-not-finite", build(sections))


def _bad_models(add: Callable[..., None], good: Parts, light: bytes) -> None:
    def model(
        name: str,
        code: str,
        data: bytes,
        tune: bytes | None = None,
        pred: bytes | None = None,
        zone: bytes | None = None,
        **limits: int,
    ) -> None:
        reference = {**good.latt["model"], "sha256": hashlib.sha256(data).digest()}
        latt = {**good.latt, "model": reference}
        changed = replace(good, model=data, latt=latt, tune=tune, pred=pred, zone=zone)
        add(f"lattice-{name}", code, changed.file(), **limits)

    weights = {key: w.astype(np.float16) for key, w in random_weights(1).items()}

    def tensor(name: str, key: str, values: Array | None) -> None:
        changed = {k: w for k, w in {**weights, key: values}.items() if w is not None}
        model(name, "out-of-range", any_model_file(changed))

    def weight(name: str, key: str, value: float) -> None:
        values = weights[key].copy()
        values.ravel()[0] = value
        tensor(name, key, values)

    add("lattice-model-other", "model-hash-mismatch", replace(good, model=light).file())
    model("model-of-another-kind", "model-mismatch", light)
    model("model-config", "out-of-range", any_model_file(weights, {"hidden": 1}))
    weight("weight-fraction", "z.0.last", 0.5)
    weight("weight-2048", "y.1.second", 2048.0)
    weight("weight-minus-32768", "x.2.first", -32768.0)
    tensor("weights-sum", "coarse.3.first", np.full((1, inputs(3)), 1652, np.float16))
    tensor("tensor-missing", "coarse.3.last", None)
    tensor("tensor-unknown", "coarse.4.last", weights["coarse.3.last"])
    tensor("tensor-shape", "z.0.first", weights["z.1.first"])
    tensor("tensor-flat", "z.0.first", np.zeros(58, np.float16))
    tensor("rows-of-last-6", "z.0.last", np.zeros((6, 1 + 58), np.float16))
    rows = {"z.0.second": np.zeros((1025, 2), np.float16), "z.0.last": np.zeros((3, 1025 + 58), np.float16)}
    model("hidden-1025", "out-of-range", any_model_file({**weights, **rows}))
    model("work", "too-much-work", TINY, max_work=6 * 7 * 9 * 300)

    base = load_context(TINY)
    _bad_centres(model, base)
    _bad_zones(model, base)
    centres = some_centres(40, 1000)
    file = parts(picture((6, 7, 9), "i2", 12, share=0.01), good.siren, centres=centres).file()
    add("lattice-pred-work", "too-much-work", file, max_work=6 * 7 * 9 * base.centred(centres).work - 1)
    sets = np.array([[[0, 1]]], np.uint8)
    work = 6 * 7 * 9 * base.zoned(Zones((6, 7, 9), sets), some_sets(base, sets, 20)).work
    file = parts(picture((6, 7, 9), "i2", 12, share=0.01), good.siren, zones=(sets, 20)).file()
    add("lattice-zone-work", "too-much-work", file, max_work=work - 1)
    same = pack_changes(base, base)
    model("tune-empty", "network-truncated", TINY, b"")
    model("tune-short", "network-truncated", TINY, same[:143])
    model("tune-family", "out-of-range", TINY, b"\x02" + same[1:])
    model("tune-level", "out-of-range", TINY, same[:1] + bytes([93]) + same[2:])
    model("tune-shift", "out-of-range", TINY, same[:2] + b"\x09" + same[3:])
    model("tune-cut", "rans-truncated", TINY, same[:146])
    model("tune-appended", "rans-bad-end", TINY, same + b"\0\0")
    high = {**base.weights, "z.0.last": np.full_like(base.weights["z.0.last"], 2048)}
    model("tune-too-large", "out-of-range", TINY, pack_changes(base, base.changed(high)))
    many = {**base.weights, "x.3.last": np.full_like(base.weights["x.3.last"], 1632)}
    model("tune-sum", "out-of-range", TINY, pack_changes(base, base.changed(many)))
    sr = ModelReference("context-vector", 1, hashlib.sha256(TINY).digest())
    head = replace(good.head, factors=(2, 2, 2), sr=sr)
    sections = [("HEAD", head.pack()), ("SIRN", good.siren), ("SRMD", TINY)]
    add("lattice-model-as-sr", "model-mismatch", build(sections))


def _bad_centres(model: Callable[..., None], base: ContextModel) -> None:
    def pred(name: str, code: str, data: bytes, file: bytes = TINY) -> None:
        model(f"pred-{name}", code, file, pred=data)

    def packed(*taps: int) -> bytes:
        """The section with one linear predictor, the first network's; all weights are 0 but the first few."""
        first = Centre(1, (*taps, *[0] * (132 - len(taps))))
        changed = base.changed(base.weights)
        changed.centres = (first, *[Centre()] * (len(NETWORKS) - 1))
        return pack_centres(changed)

    good = packed(4096, -300)
    pred("empty", "network-truncated", b"")
    pred("short", "network-truncated", good[:63])
    pred("kind", "out-of-range", b"\2" + good[1:])
    pred("fine", "out-of-range", good[:1] + b"\5" + good[2:])
    pred("family", "out-of-range", good[:2] + b"\2" + good[3:])
    pred("level", "out-of-range", good[:3] + bytes([93]) + good[4:])
    pred("family-of-none", "out-of-range", good[:6] + b"\1" + good[7:])
    pred("level-of-none", "out-of-range", good[:7] + b"\1" + good[8:])
    pred("cut", "rans-truncated", good[:66])
    pred("appended", "rans-bad-end", good + b"\0\0")
    pred("tap-32768", "out-of-range", packed(LARGEST_TAP + 1))
    pred("tap-minus-32768", "out-of-range", packed(-LARGEST_TAP - 1))
    pred("weight-2048", "out-of-range", _four_times(good), model_file(random_weights(38, most=5 * 600)))
    sums = random_weights(39)
    sums["x.3.last"][0] = 412
    pred("weights-sum", "out-of-range", _four_times(good), model_file(sums))


def _bad_zones(model: Callable[..., None], base: ContextModel) -> None:
    def zone(name: str, code: str, data: bytes) -> None:
        model(f"zone-{name}", code, TINY, zone=data)

    def packed(key: str, values: int) -> bytes:
        """The section of one zone and two sets, of which the second has one layer of these values."""
        layers = {name: np.stack([base.weights[name]] * 2).astype(np.int64) for name in ZONED}
        layers[key][1] = values
        changed = base.changed(base.weights)
        changed.zones, changed.sets = Zones((6, 7, 9), np.zeros((1, 1, 1), np.uint8)), layers
        return pack_zones(changed)

    sets = (np.arange(8) % 2).astype(np.uint8).reshape(2, 2, 2)
    good = pack_zones(base.zoned(Zones((6, 7, 9), sets), some_sets(base, sets, 20)))
    zone("empty", "network-truncated", b"")
    zone("counts-cut", "network-truncated", good[:3])
    zone("sets-cut", "network-truncated", good[:11])
    zone("kinds-cut", "network-truncated", good[:59])
    zone("one-set", "out-of-range", b"\1" + good[1:])
    zone("sets-17", "out-of-range", b"\x11" + good[1:])
    zone("no-zone", "out-of-range", good[:2] + b"\0" + good[3:])
    zone("more-than-voxels", "out-of-range", good[:1] + b"\7" + good[2:])
    zone("set-unknown", "out-of-range", good[:4] + b"\2" + good[5:])
    zone("family", "out-of-range", good[:12] + b"\2" + good[13:])
    zone("level", "out-of-range", good[:13] + bytes([93]) + good[14:])
    zone("cut", "rans-truncated", good[:62])
    zone("appended", "rans-bad-end", good + b"\0\0")
    zone("weight-2048", "out-of-range", packed("z.0.last", 2048))
    zone("weights-sum", "out-of-range", packed("x.3.last", 1632))


def _four_times(pred: bytes) -> bytes:
    """The section with a precision of two bits for every network that has no linear predictor."""
    kinds = bytearray(pred[:64])
    kinds[5::4] = b"\2" * 15
    return bytes(kinds) + pred[64:]


@dataclass
class Code:
    """The parts of a coded brick."""

    roots: list[int]
    states: list[int]
    words: list[int]
    low: bytes
    escapes: list[int]

    @classmethod
    def parse(cls, code: bytes, roots: int, voxels: int) -> Code:
        """The parts of a right code."""
        words, low, escapes = COUNTS.unpack_from(code, 1)
        at, arrays = 13, []
        for kind, count in (("<u2", roots), ("<u4", lanes_for(voxels)), ("<u2", words)):
            arrays.append(np.frombuffer(code, kind, count, at).tolist())
            at += count * int(kind[2])
        at += low
        small = np.frombuffer(code, np.uint8, escapes, at)
        last = small.astype(np.int64)
        last[small == 255] = np.frombuffer(code, "<u4", -1, at + escapes)
        return cls(*arrays, code[at - low : at], last.tolist())

    def join(self) -> bytes:
        """The code."""
        counts = COUNTS.pack(len(self.words), len(self.low), len(self.escapes))
        arrays = (
            np.array(values, kind).tobytes()
            for values, kind in ((self.roots, "<u2"), (self.states, "<u4"), (self.words, "<u2"))
        )
        last = np.array(self.escapes, np.int64)
        small, large = np.minimum(last, 255).astype(np.uint8), last[last >= 255].astype("<u4")
        return b"\x02" + counts + b"".join(arrays) + self.low + small.tobytes() + large.tobytes()


def broken_bricks(good: Parts) -> dict[str, bytes]:
    """Codes of one brick of 6 x 7 x 9 voxels whose order is the usual one, each wrong in one thing."""
    code, greatest = good.codes[0], int(good.latt["greatest"])
    strides = [1 << good.latt["order"].count(axis) for axis in range(3)]
    roots = int(np.prod([-(-n // s) for n, s in zip(good.head.shape, strides, strict=True)]))
    is_ = Code.parse(code, roots, 6 * 7 * 9)
    if is_.join() != code or not (is_.words and is_.low and is_.escapes) or is_.low[-1] > 127:
        raise SystemExit("the brick does not have all parts: another seed")
    raw = np.full(6 * 7 * 9, greatest, "<u2").tobytes()
    over = struct.pack("<H", greatest + 1)
    return {
        "empty": b"",
        "kind-3": b"\x03" + code[1:],
        "counts-cut": code[:12],
        "cut": code[:-1],
        "appended": code + b"\0",
        "counts-huge": b"\x02" + b"\xff" * 12 + code[13:],
        "raw-short": b"\0" + raw[:-1],
        "raw-long": b"\0" + raw + b"\0",
        "raw-level": b"\0" + raw[:-2] + over,
        "constant-short": b"\1\0",
        "constant-long": b"\1\0\0\0",
        "constant-level": b"\1" + over,
        "root-level": replace(is_, roots=[*is_.roots[:-1], greatest + 1]).join(),
        "state-low": replace(is_, states=[65535]).join(),
        "state-wrong": replace(is_, states=[is_.states[0] ^ 65536]).join(),
        "word-missing": replace(is_, words=is_.words[:-1]).join(),
        "word-left": replace(is_, words=[*is_.words, 0]).join(),
        "low-bits-missing": replace(is_, low=is_.low[:-1]).join(),
        "low-bits-left": replace(is_, low=is_.low + b"\0").join(),
        "low-bits-padding": replace(is_, low=is_.low[:-1] + bytes([is_.low[-1] | 128])).join(),
        "escape-missing": replace(is_, escapes=is_.escapes[:-1]).join(),
        "escape-left": replace(is_, escapes=[*is_.escapes, 0]).join(),
        "escape-large-missing": replace(is_, escapes=[*is_.escapes[:-1], 255]).join()[:-4],
        "escape-large-small": replace(is_, escapes=[*is_.escapes[:-1], 255]).join()[:-4]
        + bytes([254, 0, 0, 0]),
    }


def _bad_bricks(add: Callable[..., None], siren: bytes) -> None:
    good = spiky(siren)
    for name, code in broken_bricks(good).items():
        add(f"lattice-brick-{name}", "damaged-brick", replace(good, codes=[code]).file())
    index = struct.pack("<II", len(good.codes[0]), google_crc32c.value(good.codes[0]) ^ 1)
    add("lattice-brick-crc", "damaged-brick", replace(good, index=index).file())


def spiky(siren: bytes) -> Parts:
    """A volume whose one brick has words, low bits and escapes."""
    return parts(picture((6, 7, 9), "i2", 12, share=0.01, spikes=0.1), siren)
