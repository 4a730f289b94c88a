"""The vectors of latents, for make_vectors.py; tiny latent models of random numbers."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import lattice_vectors
import numpy as np
import torch

from inrformat.coding import integers, latent_code
from inrformat.coding.latents import LARGEST_LATENT, Pyramid, inputs
from inrformat.coding.residuals import COUNTS
from inrformat.coding.wavelet import PATTERNS
from inrformat.container import ModelHeader, ModelReference, VolumeHeader, pack_tensors, records
from inrformat.container.headers import LatentHeader
from inrformat.container.layout import build
from inrformat.models import latent_changes
from inrformat.models.integers import PARTS
from inrformat.models.latent_changes import Product
from inrformat.models.latents import LatentModel
from inrformat.models.registry import load_latents, pack_integers

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int]
Shape2 = tuple[int, int]
AFFINE = lattice_vectors.AFFINE


# --- latent models ----------------------------------------------------------------------------------------
def random_weights(
    seed: int, first: int = 1, second: int = 1, *, width: int = 0, shifts: int = 0
) -> dict[str, Array]:
    """Whole numbers for all networks.

    width     how much wider distributions are, in eighths of octaves.
    shifts   how large the weights of the shifts are at most; 0: there are none.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for pattern in PATTERNS:
        n = inputs(pattern)
        weights[f"{pattern}.first"] = rng.integers(-200, 201, (first, n)).astype(np.int16)
        weights[f"{pattern}.second"] = rng.integers(-400, 401, (second, first + 1)).astype(np.int16)
        last = rng.integers(-30, 31, (3, second + n))
        last[1] //= 4
        last[2] *= 3
        last[1, -8] = 8 * width
        if shifts:
            more = rng.integers(-shifts, shifts + 1, (3, second + n))
            last = np.concatenate([last, more])
        weights[f"{pattern}.last"] = last.astype(np.int16)
    return weights


def model_file(weights: Mapping[str, Array]) -> bytes:
    """The .inrm file of these weights."""
    about = {"name": "latent-vector", "version": 1, "licence": "CC0-1.0", "trained_on": "random numbers"}
    return pack_integers(LatentModel(weights), **about)


def any_model_file(weights: Mapping[str, Array], config: dict[str, int] | None = None) -> bytes:
    """A file of kind latents with arrays of any floats, which need not be a latent model."""
    infos, body = pack_tensors(weights)
    head = ModelHeader("latent-vector", 1, "latents", config or {}, "CC0-1.0", "random numbers", infos)
    return build([("MODL", records.pack(head.to_record())), ("TENS", body)])


TINY = model_file(random_weights(1))


def mixed_model() -> bytes:
    """Networks of different sizes."""
    sizes = [(3, 2), (2, 3), (1, 4), (5, 1)]
    parts = [random_weights(20 + i, *size) for i, size in enumerate(sizes)]
    every = [(str(p), parts[i % 4]) for i, p in enumerate(PATTERNS)]
    return model_file({f"{p}.{layer}": part[f"{p}.{layer}"] for p, part in every for layer in PARTS})


def some_shifts() -> bytes:
    """Offsets of every other network."""
    weights, more = random_weights(91), random_weights(92, shifts=40)
    return model_file(weights | {key: more[key] for key in more if int(key.split(".")[0]) % 2})


def largest_model() -> bytes:
    """Rows whose magnitudes sum to 132104, the most that is allowed, with weights of 2047."""
    weights = random_weights(30)
    for pattern in PATTERNS:
        for layer in ("first", "last"):
            rows = weights[f"{pattern}.{layer}"]
            rows[:] = 0
            rows[:, 1:65] = np.where(np.arange(64) % 2, 2047, -2047)
            rows[:, 0] = 132104 - int(np.abs(rows[0].astype(int)).sum())
    return model_file(weights)


# --- section LATU -----------------------------------------------------------------------------------------
def shapes(model: LatentModel, name: str, rank: int) -> dict[str, tuple[Shape2, Shape2]]:
    """The two matrices of each layer of a network that is changed with this rank."""
    layers = {part: model.weights[f"{name}.{part}"].shape for part in PARTS}
    return {
        part: ((rows, min(rank, rows)), (min(rank, rows), columns))
        for part, (rows, columns) in layers.items()
    }


def random_products(
    model: LatentModel, ranks: Mapping[str, int], seed: int, reach: int = 4
) -> dict[str, dict[str, Product]]:
    """Whole numbers up to `reach`, a third of them not zero."""
    rng = np.random.default_rng(seed)

    def numbers(shape: Shape2) -> Array:
        return rng.integers(-reach, reach + 1, shape) * (rng.random(shape) < 1 / 3)

    return {
        name: {part: (numbers(u), numbers(v)) for part, (u, v) in shapes(model, name, rank).items()}
        for name, rank in ranks.items()
    }


def changes(model: bytes, ranks: Mapping[str, int], seed: int, reach: int = 4) -> bytes:
    """A section of random changes to a model's file."""
    loaded = load_latents(model)
    return latent_changes.pack(loaded, random_products(loaded, ranks, seed, reach))


def of_products(products: Mapping[str, Mapping[str, Product]], rank: int, levels: Sequence[int]) -> bytes:
    """A section of networks that are changed with one rank, by levels of our choice."""
    named = [name for name in LatentModel.networks_of if name in products]
    matrices = [matrix.ravel() for name in named for part in PARTS for matrix in products[name][part]]
    every = np.repeat(levels, [len(matrix) for matrix in matrices])
    code = integers.encode(np.concatenate(matrices), every, np.ones_like(every))
    return bytes([rank * (name in named) for name in LatentModel.networks_of] + [*levels]) + code


def to_weights(model: LatentModel, name: str, wanted: Mapping[str, Array]) -> dict[str, Product]:
    """Products of rank 3 that make these layers of a small network; nothing of the others."""
    result = {}
    for part, (u, v) in shapes(model, name, 3).items():
        before = model.weights[f"{name}.{part}"].astype(np.int64)
        result[part] = np.eye(*u, dtype=np.int64), np.zeros(v, np.int64)
        if part in wanted:
            result[part][1][:] = wanted[part] - before
    return result


# --- section LATD -----------------------------------------------------------------------------------------
@dataclass
class Code:
    """The code of the latents that are predicted."""

    states: list[int]
    words: list[int]
    low: bytes
    escapes: list[int]

    @classmethod
    def parse(cls, code: bytes, lanes: int) -> Code:
        """The parts of a right code."""
        words, low, escapes = COUNTS.unpack_from(code)
        at = 12 + 4 * lanes
        states = np.frombuffer(code, "<u4", lanes, 12).tolist()
        spilled = np.frombuffer(code, "<u2", words, at).tolist()
        at += 2 * words + low
        small = np.frombuffer(code, np.uint8, escapes, at)
        last = small.astype(np.int64)
        last[small == 255] = np.frombuffer(code, "<u4", -1, at + escapes)
        return cls(states, spilled, code[at - low : at], last.tolist())

    def join(self) -> bytes:
        """The code."""
        counts = COUNTS.pack(len(self.words), len(self.low), len(self.escapes))
        arrays = (
            np.array(values, kind).tobytes() for values, kind in ((self.states, "<u4"), (self.words, "<u2"))
        )
        last = np.array(self.escapes, np.int64)
        small, large = np.minimum(last, 255).astype(np.uint8), last[last >= 255].astype("<u4")
        return counts + b"".join(arrays) + self.low + small.tobytes() + large.tobytes()


@dataclass
class Data:
    """The parts of section LATD."""

    counts: bytes
    gaps: bytes
    sizes: bytes
    smooth: bytes
    rest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Data:
        """The parts of a right section."""
        ends = np.cumsum([16, *latent_code.LENGTHS.unpack_from(data), len(data)]).tolist()
        return cls(*(data[a:b] for a, b in pairwise(ends)))

    def join(self) -> bytes:
        """The section."""
        parts = [self.counts, self.gaps, self.sizes, self.smooth]
        return latent_code.LENGTHS.pack(*map(len, parts)) + b"".join(parts) + self.rest


def births(*classes: tuple[Sequence[int], int]) -> tuple[bytes, bytes]:
    """The counts and the gaps of classes whose births have these gaps, of these levels."""
    numbers = [number for number, (gaps, _) in enumerate(classes) if gaps]
    before = np.diff(numbers, prepend=-1) - 1
    each = [(len(classes[number][0]) - 1, classes[number][1]) for number in numbers]
    counts = b"".join(bytes([skipped, *own]) for skipped, own in zip(before.tolist(), each, strict=True))
    gaps = np.concatenate([np.array(gaps, np.int64) for gaps, _ in classes])
    levels = np.concatenate([np.full(len(gaps), level) for gaps, level in classes])
    return counts, latent_code.integers.encode(gaps, levels, np.ones_like(levels))


# --- files ------------------------------------------------------------------------------------------------
@dataclass
class Parts:
    """The parts of a file of latents, any of which may be changed before it is put together."""

    head: VolumeHeader
    latn: dict[str, Any]
    latd: bytes
    model: bytes | None
    latu: bytes | None = None
    more: list[tuple[str, bytes]] = field(default_factory=list)

    def sections(self) -> list[tuple[str, bytes]]:
        """The sections."""
        sections = [("HEAD", self.head.pack()), ("LATN", records.pack(self.latn))]
        sections += [("LATU", self.latu)] if self.latu is not None else []
        sections += [("LATD", self.latd)]
        return sections + ([("LATM", self.model)] if self.model is not None else []) + self.more

    def file(self) -> bytes:
        """The bytes of the file."""
        return build(self.sections())

    @property
    def data(self) -> Data:
        """The parts of section LATD."""
        return Data.parse(self.latd)


@contextmanager
def bits_per_lane(bits: int) -> Iterator[None]:
    """The encoder makes a lane for so many bits."""
    before, latent_code.BITS_PER_LANE = latent_code.BITS_PER_LANE, bits
    try:
        yield
    finally:
        latent_code.BITS_PER_LANE = before


def pyramid(shape: Shape, masks: Sequence[int], seed: int = 0, *, step: int = 300, bias: int = 60) -> Pyramid:
    """Steps about `step` and biases up to `bias`."""
    rng = np.random.default_rng(seed)
    count = sum((1 << mask.bit_count()) - 1 for mask in masks) + 1
    steps = rng.integers(-(-step // 2), 2 * step, count).clip(1, 65535)
    return Pyramid(
        shape, tuple(masks), tuple(steps.tolist()), tuple(rng.integers(0, bias + 1, count).tolist())
    )


def random_latents(
    layout: Pyramid, seed: int = 0, *, share: float = 0.3, size: float = 3.0, spikes: float = 0.0
) -> tuple[torch.Tensor, dict[tuple[int, int], torch.Tensor]]:
    """Latents of which about a `share` are not zero, in clusters; a few are of any size."""
    rng = np.random.default_rng(seed)
    nothing = torch.zeros(layout.shape)
    bands = {}
    for number, level, pattern, _ in layout.numbers():
        shape = tuple(level.band(nothing, pattern).shape)
        values = np.rint(rng.laplace(0, size, shape))
        wave = np.sin(np.arange(int(np.prod(shape))).reshape(shape) / 7 + number)
        values = np.where((wave > 0.3) & (rng.random(shape) < 2 * share), values, 0)
        values = np.where(rng.random(shape) < spikes, rng.integers(-32767, 32768, shape), values)
        if values.size:
            bands[number, pattern] = torch.from_numpy(values.astype(np.int16))
    smooth = rng.integers(0, 65536, tuple(layout.smooth(nothing).shape)) / layout.steps[-1]
    most = torch.from_numpy(np.rint(smooth)).clamp(-LARGEST_LATENT, LARGEST_LATENT)
    return most.int(), bands


def parts(
    layout: Pyramid,
    smooth: torch.Tensor,
    bands: Mapping[tuple[int, int], torch.Tensor],
    *,
    model: bytes = TINY,
    latu: bytes | None = None,
    full: Shape | None = None,
    factors: Shape = (1, 1, 1),
    dtype: str = "i2",
    span: tuple[float, float] = (-1000.0, 3000.0),
) -> Parts:
    """The parts of the file of such latents; `full`: its shape, if not the grid's times `factors`."""
    loaded = load_latents(model)
    if latu is not None:
        loaded = latent_changes.apply(loaded, latu)
    latd, lanes, _ = latent_code.encode(layout, smooth, dict(bands), loaded)
    reference = ModelReference("latent-vector", 1, hashlib.sha256(model).digest())
    latn = LatentHeader(layout.masks, layout.steps, layout.bias, lanes, reference).to_record()
    z, y, x = (n * f for n, f in zip(layout.shape, factors, strict=True))
    head = VolumeHeader(
        shape=full or (z, y, x),
        dtype=dtype,
        range=span,
        factors=factors,
        base="latents",
        spacing=(2.5, 0.75, 0.75),
        affine=AFFINE,
    )
    return Parts(head, latn, latd, model, latu)


def random_parts(shape: Shape, masks: Sequence[int], seed: int = 0, **more: Any) -> Parts:
    """The parts of a file of random latents."""
    about = {key: more.pop(key) for key in ("share", "size", "spikes") if key in more}
    steps = {key: more.pop(key) for key in ("step", "bias") if key in more}
    layout = pyramid(shape, masks, seed, **steps)
    return parts(layout, *random_latents(layout, seed, **about), **more)


# --- valid files ------------------------------------------------------------------------------------------
def valid(light: bytes) -> dict[str, bytes]:
    """Every feature and every limit that a small file can show."""
    files: dict[str, bytes] = {}

    def put(name: str, shape: Shape, masks: Sequence[int], seed: int = 0, **more: Any) -> Parts:
        made = random_parts(shape, masks, seed, **more)
        files[f"latents-{name}"] = made.file()
        return made

    for name, shape, masks in (
        ("no-level", (3, 4, 5), ()),
        ("one-voxel", (1, 1, 1), ()),
        ("one-voxel-levels", (1, 1, 1), (7,) * 6),
        ("one-axis", (5, 6, 16), (1, 1)),
        ("each-axis", (6, 8, 7), (4, 2, 1)),
        ("two-axes", (4, 13, 12), (3, 3)),
        ("two-axes-and-others", (9, 8, 11), (6, 5, 3)),
        ("three-axes", (8, 8, 8), (7, 7)),
        ("odd", (7, 11, 13), (7, 7, 7)),
        ("even-then-odd", (6, 10, 14), (7, 7)),
        ("two-points", (2, 2, 2), (7, 7)),
        ("one-slice", (1, 12, 15), (3, 7, 3)),
        ("one-line", (1, 1, 67), (1, 1, 7)),
        ("one-column", (35, 1, 1), (4, 4)),
        ("six-levels", (3, 5, 70), (1, 1, 1, 1, 1, 1)),
        ("six-levels-of-little", (5, 3, 9), (7,) * 6),
        ("no-parent", (5, 9, 10), (7, 1)),
        ("no-parent-at-first", (5, 9, 10), (1, 6)),
        ("empty-parent", (2, 9, 7), (7, 7, 3)),
        ("empty-coarsest", (1, 9, 10), (3, 4)),
        ("empty-finest", (1, 9, 10), (4, 3)),
    ):
        put(name, shape, masks, len(files))
    _values(files, put)
    _volumes(files, put, light)
    _models(files, put)
    _changes(put)
    _births(files)
    put("preview", (131, 127, 127), (6, 7, 7, 7), 5, share=0.0001)  # more than 2^21 points
    return files


def _values(files: dict[str, bytes], put: Callable[..., Parts]) -> None:
    put("large", (5, 9, 10), (7, 3), 40, size=300.0)
    put("spikes", (5, 9, 10), (7, 3), 41, spikes=0.1)
    put("clamped", (5, 9, 10), (7, 3), 42, spikes=0.3, step=60000)
    put("step-1", (5, 9, 10), (7, 3), 43, step=1, size=9.0)
    put("no-bias", (5, 9, 10), (7, 3), 44, bias=0)
    put("bias-127", (5, 9, 10), (7, 3), 45, bias=127, step=1000)
    put("zeros", (5, 9, 10), (7, 3), 46, share=0.0)
    put("sparse", (20, 20, 20), (7, 7), 47, share=0.004)
    put("dense", (5, 9, 10), (7, 3), 48, share=1.0, size=20.0)
    with bits_per_lane(100):
        put("lanes-several", (9, 14, 15), (7, 3), 49, size=9.0)
    with bits_per_lane(1):
        put("lanes-more-than-points", (5, 9, 10), (7, 3), 50)
    put("clamped-codes", (3, 4, 5), (7,), 52, spikes=0.3, step=60000, factors=(2, 2, 2))
    for width in (20, 140):  # 140: the symbol of -65536 takes over what lies below
        files[f"latents-beyond-{width}"] = beyond(width).file()
    made = put("lanes-of-nothing", (2, 3, 4), (), 51)
    rest = Code([65536] * 3, [], b"", []).join()
    data = replace(made.data, rest=rest).join()
    files["latents-lanes-of-nothing"] = replace(made, latn={**made.latn, "lanes": 3}, latd=data).file()


def beyond(width: int) -> Parts:
    """Codes of what no latent can be, in the only level: decoders clamp it."""
    layout = pyramid((4, 7, 18), (3,), 53, step=3)
    smooth, bands = random_latents(layout, 53)
    rng = np.random.default_rng(53)
    for key, band in bands.items():
        bands[key] = band.int()  # the encoder takes such as they are
        places = torch.from_numpy(rng.permutation(band.numel())[: band.numel() // 2])
        values = rng.choice([-65536, -65000, -60000, -40000, 40000, 65535, 2**20], len(places))
        bands[key].view(-1)[places] = torch.from_numpy(values).int()
    return parts(layout, smooth, bands, model=model_file(random_weights(54, width=width)))


def _volumes(files: dict[str, bytes], put: Callable[..., Parts], light: bytes) -> None:
    for number, (dtype, span) in enumerate(
        {
            "u1": (3.0, 250.0),
            "i1": (-128.0, 127.0),
            "u2": (0.0, 65535.0),
            "i2": (-32768.0, 32767.0),
            "f4": (-1.5, 0.10000000149011612),
        }.items()
    ):
        put(f"dtype-{dtype}", (3, 6, 7), (3, 7), 60 + number, dtype=dtype, span=span)
    put("f4-zero-range", (3, 4, 5), (7,), 65, dtype="f4", span=(-0.0, -0.0))
    put("factors", (4, 5, 6), (3, 7), 66, full=(8, 10, 11), factors=(2, 2, 2))
    put("factors-mixed", (3, 5, 6), (3,), 67, full=(3, 17, 41), factors=(1, 4, 8))
    made = put("model-light", (4, 5, 6), (3, 7), 68, factors=(2, 2, 2))
    sr = ModelReference("light-vector", 1, hashlib.sha256(light).digest())
    head = replace(made.head, sr=sr)
    files["latents-model-light"] = replace(made, head=head, more=[("SRMD", light)]).file()
    exact = lattice_vectors.parts(
        lattice_vectors.picture((5, 6, 7), "i2", 10, share=0.01), b"", factors=(2, 2, 2)
    )
    made = random_parts((3, 3, 4), (7,), 69)
    sections = [("HEAD", replace(exact.head, base="latents").pack()), *made.sections()[1:]]
    sections += [section for section in exact.sections() if section[0] not in ("HEAD", "SIRN")]
    files["latents-and-bricks"] = build(sections)


def _models(files: dict[str, bytes], put: Callable[..., Parts]) -> None:
    put("model-mixed", (6, 9, 10), (7, 3), 80, model=mixed_model())
    put("model-largest", (6, 9, 10), (7, 3), 81, model=largest_model(), size=40.0)
    shifts = model_file(random_weights(86, 3, 2, shifts=20))
    put("shifts", (7, 11, 13), (7, 3, 7), 86, model=shifts)
    put("shifts-none-stored", (7, 11, 13), (7, 3, 7), 87, model=shifts, share=0.0)
    most = model_file(random_weights(88, shifts=1000))
    put("shifts-largest", (6, 9, 10), (7, 3), 88, model=most, spikes=0.1, bias=127, step=60000)
    put("shifts-past-zero", (6, 9, 10), (7, 3), 89, model=most, step=300, bias=127, size=1.0)
    put("shifts-of-some", (6, 9, 10), (7, 3), 90, model=some_shifts())
    weights = {key: w.astype(np.float32) for key, w in random_weights(82).items()}
    put("model-f4", (6, 9, 10), (7, 3), 83, model=any_model_file(weights))
    for width in (-60, 40, 60, 80, 100, 140):  # up to 14 low bits, and symbols at the bottom
        model = model_file(random_weights(84, width=width))
        put(f"width-{width}", (6, 9, 10), (7, 3), 85, model=model, size=2.0 ** (width / 8), spikes=0.01)


def _changes(put: Callable[..., Parts]) -> None:
    def change(name: str, seed: int, model: bytes, latu: bytes, **more: Any) -> None:
        put(f"changes-{name}", (6, 9, 10), (7, 3), seed, model=model, latu=latu, **more)

    mixed, shifts = mixed_model(), model_file(random_weights(86, 3, 2, shifts=20))
    change("none", 100, TINY, latent_changes.pack(load_latents(TINY), {}))
    change("of-one", 101, TINY, changes(TINY, {"7": 1}, 101))
    change("ranks", 102, mixed, changes(mixed, {"6": 16, "1": 1, "2": 2, "4": 3, "3": 5}, 102, 9))
    change("shifts", 103, shifts, changes(shifts, {str(p): 4 for p in PATTERNS}, 103, 3), step=1000)
    wide = model_file(random_weights(104) | _of_network("1", random_weights(105, 17, 18)))
    change("rank-16", 104, wide, changes(wide, {"1": 16, "5": 16}, 104, 2))
    small = random_products(load_latents(TINY), {str(p): 1 for p in PATTERNS}, 106, 1)
    change("levels", 106, TINY, of_products(small, 1, [0, 28, 29, 30, 45, 92] * 7))
    change("largest", 107, TINY, _largest_sums(), size=40.0)
    change("cancelled", 108, TINY, _cancelled())


def _of_network(name: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{name}.{part}": weights[f"{name}.{part}"] for part in PARTS}


def _row(columns: int, total: int) -> Array:
    """A row of weights whose magnitudes sum to so many, most of them as large as may be."""
    row = np.where(np.arange(columns) % 2, 2047, -2047)
    row[65:], row[0] = 0, total - 64 * 2047
    return row


def _largest_sums() -> bytes:
    """Sums of either sign that are as large as they may be, of a weight and of a row."""
    model = load_latents(TINY)
    rows = {name: _row(n, 132104)[None] for name, n in LatentModel.networks_of.items()}
    products = {name: to_weights(model, name, {"first": row}) for name, row in rows.items()}
    return latent_changes.pack(model, products)


def _cancelled() -> bytes:
    """Products of 2^44 that cancel each other; what stands between them is left."""
    model, rng = load_latents(TINY), np.random.default_rng(108)
    products = random_products(model, {"1": 3, "7": 3}, 108)
    for layers in products.values():
        left, right = layers["last"]
        left[:, 0] = rng.integers(1 << 21, 1 << 22, len(left))
        right[0] = rng.integers(-1 << 22, 1 << 22, right.shape[1])
        left[:, 2], right[2] = -left[:, 0], right[0]
    return latent_changes.pack(model, products)


def lonely(count: int, latents: Mapping[int, int]) -> Parts:
    """A line whose only band has `count` points, all quiet at first; of them some are not zero."""
    layout = Pyramid((1, 1, 2 * count), (1, 4), (500, 700, 900), (20, 30, 40))
    band = torch.zeros(1, 1, count, dtype=torch.int16)
    for place, latent in latents.items():
        band[0, 0, place] = latent
    smooth = torch.full((1, 1, count), 30, dtype=torch.int32)
    return parts(layout, smooth, {(0, 1): band})


def _births(files: dict[str, bytes]) -> None:
    files["latents-births"] = lonely(90, {0: 3, 40: -2, 177 // 2: 1}).file()
    far = {place: 2 - place % 3 for place in (*range(1, 80, 2), 1801)}
    filled = lonely(2000, far)
    if (latent_code._unpack_alike(filled.data.sizes, _births_of(filled)) >= 0).all():
        raise SystemExit("no gap is too long for its level")
    files["latents-births-far"] = filled.file()
    files["latents-births-far-even"] = lonely(1200, {**dict.fromkeys(range(0, 60, 4), -1), 1190: 7}).file()
    files["latents-births-large"] = lonely(60, {0: 32767, 20: -32767, 41: 32767}).file()
    files["latents-births-in-a-row"] = lonely(60, dict.fromkeys(range(0, 60, 2), -4)).file()
    only = lonely(60, {59: -9})
    if only.latn["lanes"]:
        raise SystemExit("a birth in the last class has something predicted after it")
    files["latents-births-alone"] = only.file()
    # Fillers of either sign, counts in more groups than they need, levels with low bits.
    counts, gaps = births(([], 0), ([], 0), ([], 0), ([-1, 2, -5, 0], 34))
    sizes = latent_code._pack_alike(np.array([0, 5, 0, 8]) - 1)
    counts = b"\x83\x80\0" + b"\x83\x80\x80\x80\0" + counts[2:]
    changed = replace(only.data, counts=counts, gaps=gaps, sizes=sizes)
    files["latents-births-odd"] = replace(only, latd=changed.join()).file()


# --- invalid files ----------------------------------------------------------------------------------------
def rich() -> Parts:
    """A volume whose code has births, words, low bits and escapes."""
    model = model_file(random_weights(90, width=40))
    return random_parts((6, 9, 10), (7, 3), 91, model=model, size=30.0, share=0.1, spikes=0.02)


def invalid(add: Callable[..., None], siren: bytes, light: bytes) -> None:
    """Broken files: `add(name, code, data, **limits)`."""
    good = rich()
    _bad_records(add, good, siren)
    _bad_models(add, good, light)
    _bad_data(add, good)
    _bad_changes(add)


def _bad_records(add: Callable[..., None], good: Parts, siren: bytes) -> None:
    bare = replace(good, model=None)  # refused before the model is looked for

    def latn(name: str, code: str, **changes: Any) -> None:
        record = {key: value for key, value in {**good.latn, **changes}.items() if value is not ...}
        add(f"latents-{name}", code, replace(bare, latn=record).file())

    sections = bare.sections()
    for name in ("LATN", "LATD"):
        add(f"latents-no-{name}", "missing-section", build([s for s in sections if s[0] != name]))
    add("latents-with-SIRN", "base-mismatch", build([*sections, ("SIRN", siren)]))
    plain = [("HEAD", replace(good.head, base="siren").pack()), ("SIRN", siren)]
    add("latents-no-SIRN", "missing-section", build([plain[0], *sections[1:]]))
    for name, body in replace(good, latu=bytes(7)).sections()[1:]:
        add(f"latents-{name}-beside-SIRN", "base-mismatch", build([*plain, (name, body)]))
    steps, bias = good.latn["steps"], good.latn["bias"]
    latn("no-masks", "missing-key", masks=...)
    latn("field-unknown", "unknown-key", url="https://example.com/")
    latn("masks-a-number", "bad-type", masks=7)
    latn("mask-0", "out-of-range", masks=[7, 0], steps=steps[:8], bias=bias[:8])
    latn("mask-8", "out-of-range", masks=[7, 8], steps=steps[:9], bias=bias[:9])
    latn("levels-7", "out-of-range", masks=[1] * 7, steps=steps[:8], bias=bias[:8])
    latn("steps-few", "out-of-range", steps=steps[:-1])
    latn("steps-many", "out-of-range", steps=[*steps, 1])
    latn("step-0", "out-of-range", steps=[*steps[:-1], 0])
    latn("step-65536", "out-of-range", steps=[*steps[:-1], 65536])
    latn("step-a-float", "bad-type", steps=[*steps[:-1], 1.0])
    latn("bias-few", "out-of-range", bias=bias[:-1])
    latn("bias-128", "out-of-range", bias=[*bias[:-1], 128])
    latn("bias-negative", "out-of-range", bias=[*bias[:-1], -1])
    latn("lanes-4097", "out-of-range", lanes=4097)
    latn("lanes-negative", "out-of-range", lanes=-1)
    latn("model-nil", "bad-type", model=None)
    latn("model-a-path", "out-of-range", model={**good.latn["model"], "name": "../model"})
    add("latents-too-many", "too-many-latents", good.file(), max_latents=6 * 9 * 10 - 1)
    add("latents-work", "too-much-work", good.file(), max_work=6 * 9 * 10 * 400)


def _bad_models(add: Callable[..., None], good: Parts, light: bytes) -> None:
    def model(name: str, code: str, data: bytes) -> None:
        reference = {**good.latn["model"], "sha256": hashlib.sha256(data).digest()}
        add(f"latents-{name}", code, replace(good, model=data, latn={**good.latn, "model": reference}).file())

    weights = {key: w.astype(np.float16) for key, w in random_weights(1).items()}

    def tensor(name: str, key: str, values: Array | None) -> None:
        changed = {k: w for k, w in {**weights, key: values}.items() if w is not None}
        model(name, "out-of-range", any_model_file(changed))

    def weight(name: str, key: str, value: float) -> None:
        values = weights[key].copy()
        values.ravel()[0] = value
        tensor(name, key, values)

    add("latents-model-other", "model-hash-mismatch", replace(good, model=TINY).file())
    model("model-of-another-kind", "model-mismatch", light)
    model("model-context", "model-mismatch", lattice_vectors.TINY)
    model("model-config", "out-of-range", any_model_file(weights, {"hidden": 1}))
    weight("weight-fraction", "1.last", 0.5)
    weight("weight-2048", "2.second", 2048.0)
    weight("weight-minus-32768", "7.first", -32768.0)
    tensor("weights-sum", "6.first", np.full((1, inputs(6)), 1224, np.float16))
    tensor("tensor-missing", "5.last", None)
    tensor("tensor-unknown", "8.last", weights["7.last"])
    tensor("tensor-shape", "1.first", weights["2.first"])
    tensor("tensor-flat", "1.first", np.zeros(inputs(1), np.float16))
    tensor("rows-of-last-4", "1.last", np.zeros((4, 1 + inputs(1)), np.float16))
    rows = {"4.second": np.zeros((1025, 2), np.float16)}
    rows["4.last"] = np.zeros((3, 1025 + inputs(4)), np.float16)
    model("hidden-1025", "out-of-range", any_model_file({**weights, **rows}))
    sr = ModelReference("latent-vector", 1, hashlib.sha256(TINY).digest())
    plain = replace(random_parts((3, 4, 5), (7,), 69), more=[("SRMD", TINY)])
    as_sr = replace(plain, head=replace(plain.head, factors=(2, 2, 2), shape=(6, 8, 10), sr=sr))
    add("latents-model-as-sr", "model-mismatch", as_sr.file())


def _bad_data(add: Callable[..., None], good: Parts) -> None:
    for name, (code, data) in broken(good).items():
        add(f"latents-{name}", code, replace(good, latd=data).file())
    for name, lanes in (("lanes-one-more", good.latn["lanes"] + 1), ("lanes-none", 0)):
        add(f"latents-{name}", "bad-latents", replace(good, latn={**good.latn, "lanes": lanes}).file())
    empty = random_parts((2, 3, 4), (), 51)
    counts = replace(empty.data, counts=b"\0\0\x10").join()
    add("latents-counts-of-no-class", "bad-latents", replace(empty, latd=counts).file())
    words = replace(empty.data, rest=Code([], [0], b"", []).join()).join()
    add("latents-words-of-no-lane", "bad-latents", replace(empty, latd=words).file())
    quiet = lonely(60, {0: 3})
    if not quiet.latn["lanes"]:
        raise SystemExit("nothing is predicted beside the birth")
    nothing = replace(quiet.data, rest=Code([], [], b"", []).join()).join()
    add(
        "latents-predicted-by-no-lane",
        "bad-latents",
        replace(quiet, latd=nothing, latn={**quiet.latn, "lanes": 0}).file(),
    )
    alone = lonely(60, {59: -9})
    alone_counts, alone_gaps = births(([], 0), ([], 0), ([], 0), ([30], 20))
    beyond = replace(alone.data, counts=alone_counts, gaps=alone_gaps).join()
    add("latents-birth-beyond", "bad-latents", replace(alone, latd=beyond).file())


def changed() -> Parts:
    """A small volume whose latent model is changed: one network with rank 1, one with rank 2."""
    return random_parts((3, 4, 5), (7,), 109, latu=changes(TINY, {"1": 1, "6": 2}, 109))


def _bad_changes(add: Callable[..., None]) -> None:
    parts, model = changed(), load_latents(TINY)
    good, end = parts.latu or b"", 7 + 2 * 6

    def put(name: str, code: str, latu: bytes) -> None:
        add(f"latents-changes-{name}", code, replace(parts, latu=latu).file())

    def byte(name: str, code: str, at: int, value: int) -> None:
        put(name, code, good[:at] + bytes([value]) + good[at + 1 :])

    put("empty", "network-truncated", b"")
    put("ranks-cut", "network-truncated", bytes(6))
    put("levels-cut", "network-truncated", good[: end - 1])
    byte("rank-17", "out-of-range", 0, 17)
    byte("rank-255", "out-of-range", 5, 255)
    byte("level-93", "out-of-range", 7, 93)
    byte("last-level-93", "out-of-range", end - 1, 93)
    byte("of-another-rank", "rans-truncated", 5, 3)
    put("of-nothing", "rans-truncated", bytes(7))
    put("cut", "rans-truncated", good[: end + 2])
    put("word-missing", "rans-truncated", good[:-2])
    put("state-low", "rans-bad-state", good[:end] + b"\xff\xff\0\0" + good[end + 4 :])
    put("appended", "rans-bad-end", good + b"\0\0")
    nothing = latent_changes.pack(model, {})
    put("state-wrong", "rans-bad-end", nothing[:-4] + b"\1" + nothing[-3:])
    put("of-nothing-appended", "rans-bad-end", nothing + b"\0\0")
    low = of_products({"1": random_products(model, {"1": 1}, 110)["1"]}, 1, [29] * 6)
    put("low-bits-cut", "rans-truncated", low[:17])
    put("padding", "padding-not-zero", low[:-1] + bytes([low[-1] | 1]))

    def sums(name: str, row: Array) -> None:
        products = to_weights(model, "1", {"first": row[None]})
        put(name, "out-of-range", latent_changes.pack(model, {"1": products}))

    one = np.zeros(inputs(1), np.int64)
    one[5] = 1
    sums("2048", 2048 * one)
    sums("minus-2048", -2048 * one)
    sums("row-sum", _row(inputs(1), 132105))
    product = to_weights(model, "1", {"first": model.weights["1.first"] + (1 << 16) * one})
    product["first"] = (1 << 16) * product["first"][0], product["first"][1]
    put("product-of-32-bits", "out-of-range", latent_changes.pack(model, {"1": product}))


def broken(good: Parts) -> dict[str, tuple[str, bytes]]:
    """Sections LATD, each wrong in one thing, and the codes of their errors."""
    data, lanes = good.data, good.latn["lanes"]
    code = Code.parse(data.rest, lanes)
    whole = bool(code.words and code.low and code.escapes) and code.low[-1] < 128
    if data.join() != good.latd or code.join() != data.rest or not (whole and data.gaps):
        raise SystemExit("the latents do not have all parts: another seed")

    def part(**changes: bytes) -> tuple[str, bytes]:
        return "bad-latents", replace(data, **changes).join()

    def array(error: str, **changes: bytes) -> tuple[str, bytes]:
        return error, replace(data, **changes).join()

    def rest(**changes: Any) -> tuple[str, bytes]:
        return part(rest=replace(code, **changes).join())

    total = len(latent_code._unpack_alike(data.sizes, _births_of(good)))
    magnitudes = latent_code._unpack_alike(data.sizes, total)
    smooth = latent_code._unpack_alike(data.smooth, 3 * 3 * 3)
    pack = latent_code._pack_alike
    section = good.latd
    large = replace(code, escapes=[*code.escapes[:-1], 255]).join()[:-4]
    state = struct.unpack_from("<I", data.gaps)[0]
    return {
        "empty": ("bad-latents", b""),
        "lengths-cut": ("bad-latents", section[:15]),
        "parts-cut": ("bad-latents", section[: 16 + len(data.counts)]),
        "lengths-huge": ("bad-latents", b"\xff" * 16 + section[16:]),
        "cut": ("bad-latents", section[:-1]),
        "appended": ("bad-latents", section + b"\0"),
        "counts-cut": part(counts=data.counts[:-1]),
        "counts-empty": part(counts=b""),
        "counts-appended": part(counts=data.counts + b"\0"),
        "counts-endless": part(counts=b"\x80" * 5 + b"\0" + data.counts[1:]),
        "counts-over": part(counts=b"\0\xff\x7f\x10" + data.counts[3:]),
        "counts-huge": part(counts=b"\0\xff\xff\xff\xff\x7f\x10" + data.counts[3:]),
        "counts-beyond": part(counts=data.counts + bytes([len(_classes(good)), 0, 16])),
        "counts-far-beyond": part(counts=data.counts + b"\xff\xff\xff\xff\x7f\0\x10"),
        "counts-level-93": part(counts=data.counts[:-1] + b"\x5d"),
        "births-none-gaps": part(counts=b"", sizes=b""),
        "births-none-sizes": part(counts=b"", gaps=b""),
        "births-where-none-is-quiet": part(
            counts=b"\0\0\x14",
            gaps=births(([0], 20))[1],
            sizes=pack(np.array([0])),
        ),
        "gaps-cut": array("rans-truncated", gaps=data.gaps[:3]),
        "gaps-state-low": array("rans-bad-state", gaps=b"\xff\xff\0\0" + data.gaps[4:]),
        "gaps-state-wrong": array("rans-bad-end", gaps=struct.pack("<I", state ^ 65536) + data.gaps[4:]),
        "sizes-empty": part(sizes=b""),
        "sizes-family-2": part(sizes=b"\2" + data.sizes[1:]),
        "sizes-level-93": part(sizes=data.sizes[:1] + b"\x5d" + data.sizes[2:]),
        "sizes-cut": array("rans-truncated", sizes=data.sizes[:5]),
        "sizes-negative": part(sizes=pack(np.r_[magnitudes[:-1], -2])),
        "sizes-32768": part(sizes=pack(np.r_[magnitudes[:-1], 32767])),
        "smooth-empty": part(smooth=b""),
        "smooth-family-2": part(smooth=b"\2" + data.smooth[1:]),
        "smooth-level-93": part(smooth=data.smooth[:1] + b"\x5d" + data.smooth[2:]),
        "smooth-cut": array("rans-truncated", smooth=data.smooth[:4]),
        "smooth-padding": array("padding-not-zero", smooth=_padded(smooth)),
        "smooth-32768": part(smooth=pack(np.r_[smooth[:-1], 32768 - smooth[:-1].sum()])),
        "smooth-minus-32768": part(smooth=pack(np.r_[smooth[:-1], -32768 - smooth[:-1].sum()])),
        "code-cut": part(rest=data.rest[:11]),
        "code-counts-huge": part(rest=b"\xff" * 12 + data.rest[12:]),
        "state-low": rest(states=[65535, *code.states[1:]]),
        "state-wrong": rest(states=[code.states[0] ^ 65536, *code.states[1:]]),
        "word-missing": rest(words=code.words[:-1]),
        "word-left": rest(words=[*code.words, 0]),
        "low-bits-missing": rest(low=code.low[:-1]),
        "low-bits-left": rest(low=code.low + b"\0"),
        "low-bits-padding": rest(low=code.low[:-1] + bytes([code.low[-1] | 128])),
        "escape-missing": rest(escapes=code.escapes[:-1]),
        "escape-left": rest(escapes=[*code.escapes, 0]),
        "escape-large-missing": part(rest=large),
        "escape-large-small": part(rest=large + bytes([254, 0, 0, 0])),
    }


def _classes(good: Parts) -> list[int]:
    masks, steps, bias = (tuple(good.latn[key]) for key in ("masks", "steps", "bias"))
    return Pyramid(good.head.lr_shape, masks, steps, bias).class_sizes()


def _births_of(good: Parts) -> int:
    return sum(latent_code._counts(good.data.counts, _classes(good))[0])


def _padded(values: Array) -> bytes:
    """An array with three low bits each, and a bit set after the last of them."""
    every = np.full(len(values), 37)
    code = latent_code.integers.encode(values, every, np.zeros_like(every))
    if 3 * len(values) % 8 == 0:
        raise SystemExit("the low bits fill their last byte")
    return bytes([0, 37]) + code[:-1] + bytes([code[-1] | 1])
