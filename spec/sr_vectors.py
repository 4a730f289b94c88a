"""The vectors of super-resolution at (1, 1, 1) and of changes to its model, for make_vectors.py."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import latent_vectors
import numpy as np

from inrformat.coding import integers
from inrformat.container import ModelReference, VolumeHeader
from inrformat.container.layout import build
from inrformat.models.registry import load_model
from inrformat.models.sr_changes import KIND_BYTES, LARGEST, MOST_EXPONENT, Change, pack, runs

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int]
Kind = tuple[int, int]
Changes = dict[str, Change]


# --- section SRTU -----------------------------------------------------------------------------------------
def numbers(rng: np.random.Generator, shape: tuple[int, ...], reach: int) -> Array:
    """Whole numbers up to `reach`, a third of them not zero."""
    return rng.integers(-reach, reach + 1, shape) * (rng.random(shape) < 1 / 3)


def random_changes(model: bytes, ranks: Mapping[str, int], seed: int, reach: int = 40) -> Changes:
    """A change of this rank to every tensor named; a small one."""
    rng = np.random.default_rng(seed)
    changes = {}
    for tensor in load_model(model).header.tensors:
        if (rank := ranks.get(tensor.name)) is None:
            continue
        rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
        shapes = [(rows, rank), (rank, columns)] if rank else [(rows, columns)]
        exponent = min(MOST_EXPONENT, (math.ceil(math.log2(reach)) + 3) * (1 + (rank > 0)))
        changes[tensor.name] = Change(exponent, tuple(numbers(rng, shape, reach) for shape in shapes))
    return changes


def section(model: bytes, changes: Changes, kinds: Mapping[str, tuple[Kind, ...]] | None = None) -> bytes:
    """SRTU; `kinds`: (family, level) of the matrices of some tensors, which are chosen for the others."""
    loaded = load_model(model)
    if kinds is None:
        return pack(loaded, changes)
    table, values, shapes = [], [], []
    for tensor in loaded.header.tensors:
        change = changes.get(tensor.name) or Change(0, (np.zeros(math.prod(tensor.shape), np.int64),))
        parts = [part.ravel() for part in change.parts]
        chosen = kinds.get(tensor.name) or tuple(integers.best_level(part) for part in parts)
        table.append([change.rank, change.exponent, *[n for kind in (*chosen, (0, 0))[:2] for n in kind]])
        values += parts
        shapes.append(tensor.shape)
    packed = np.array(table, np.uint8)
    spread = integers.spread(*runs(packed, shapes))
    return packed.tobytes() + integers.encode(np.concatenate(values), *spread)


# --- files ------------------------------------------------------------------------------------------------
def volume(
    siren: bytes, shape: Shape, factors: Shape, model: bytes, srtu: bytes | None, *, sr: bool = True
) -> bytes:
    """A file with an embedded model, which `sr` names, and what it changes in it."""
    head = VolumeHeader(
        shape=shape,
        dtype="u2",
        range=(0.0, 4095.0),
        factors=factors,
        sr=ModelReference("vector", 1, hashlib.sha256(model).digest()) if sr else None,
        spacing=(2.5, 0.75, 0.75),
        affine=latent_vectors.AFFINE,
    )
    sections = [("HEAD", head.pack()), ("SIRN", siren)] + ([("SRMD", model)] if sr else [])
    return build(sections + ([] if srtu is None else [("SRTU", srtu)]))


def of_latents(shape: Shape, model: bytes, srtu: bytes | None) -> bytes:
    """A file of latents at full size with an embedded model, and what it changes in it."""
    made = latent_vectors.random_parts(shape, (7, 3), 90)
    sr = ModelReference("vector", 1, hashlib.sha256(model).digest())
    more = [("SRMD", model)] + ([] if srtu is None else [("SRTU", srtu)])
    return replace(made, head=replace(made.head, sr=sr), more=more).file()


# --- valid files ------------------------------------------------------------------------------------------
def valid(siren: bytes, small_model: Callable[..., bytes]) -> dict[str, bytes]:
    """Every feature and every limit that a small file can show."""
    light = small_model("light", half=True, channels=3, layers=2)
    tiny = small_model("light", half=False, channels=1, layers=1)
    both = {"first.weight": 0, "convs.0.weight": 2, "gains": 0, "head": 1}
    mixed = section(light, random_changes(light, both, 91))
    alone = section(tiny, random_changes(tiny, {"convs.0.weight": 1, "head": 0}, 92))
    files = {
        "at-1-1-1": volume(siren, (5, 6, 7), (1, 1, 1), light, None),
        "at-1-1-1-long": volume(siren, (70, 3, 2), (1, 1, 1), light, None),
        "at-1-1-1-latents": of_latents((5, 9, 10), light, None),
        "changes-none": volume(siren, (5, 6, 7), (2, 2, 2), tiny, section(tiny, {})),
        "changes-light": volume(siren, (9, 10, 11), (2, 2, 2), light, mixed),
        "changes-light-mixed": volume(siren, (3, 11, 9), (1, 4, 2), light, mixed),
        "changes-light-f4": volume(siren, (1, 1, 9), (4, 1, 4), tiny, alone),
        "changes-at-1-1-1": volume(siren, (5, 6, 7), (1, 1, 1), light, mixed),
        "changes-at-1-1-1-latents": of_latents((5, 9, 10), light, mixed),
        **_limits(siren, small_model),
        **_dense(siren, small_model),
    }
    return {f"sr-{name}": data for name, data in files.items()}


def _dense(siren: bytes, small_model: Callable[..., bytes]) -> dict[str, bytes]:
    """Tensors of one dimension too, changed by single numbers and by a product."""
    dense = small_model("srdensenet", half=True, blocks=2, layers=2, growth=2, maps=3)
    ranks = {"low.weight": 0, "low.bias": 0, "blocks.0.convs.1.weight": 1, "blocks.1.convs.0.bias": 1}
    ranks |= {"bottleneck.weight": 2, "up1.weight": 1, "up2.bias": 0, "reconstruction.weight": 1}
    changes = section(dense, random_changes(dense, {**ranks, "reconstruction.bias": 1}, 93))
    return {
        "changes-srdensenet": volume(siren, (3, 17, 14), (1, 4, 4), dense, changes),
        "changes-srdensenet-z": volume(siren, (7, 9, 8), (2, 4, 4), dense, changes),
    }


def _limits(siren: bytes, small_model: Callable[..., bytes]) -> dict[str, bytes]:
    """The greatest ranks, exponents, numbers and levels."""
    wide = small_model("light", half=True, channels=16, layers=1)
    ranks = {"first.weight": 16, "convs.0.weight": 16, "gains": 1, "head": 7}
    small = small_model("light", half=True, channels=2, layers=1)
    rng = np.random.default_rng(94)
    ends = np.where(rng.random((1, 18)) < 0.5, -LARGEST, LARGEST)
    far = rng.integers(-LARGEST, LARGEST + 1, (7, 98))
    extreme = {
        "first.weight": Change(0, (numbers(rng, (2, 27), 1),)),
        "convs.0.weight": Change(24, (rng.integers(-900, 901, (2, 2)), rng.integers(-900, 901, (2, 54)))),
        "gains": Change(18, (ends,)),
        "head": Change(20, (far,)),
    }
    kinds = {
        "first.weight": ((0, 28),),
        "convs.0.weight": ((1, 45), (0, 44)),
        "gains": ((1, 92),),
        "head": ((0, 61),),
    }
    return {
        "changes-of-rank-16": volume(
            siren, (3, 5, 6), (1, 2, 2), wide, section(wide, random_changes(wide, ranks, 95))
        ),
        "changes-extreme": volume(siren, (5, 6, 7), (2, 1, 4), small, section(small, extreme, kinds)),
    }


# --- invalid files ----------------------------------------------------------------------------------------
def invalid(add: Callable[..., None], siren: bytes, small_model: Callable[..., bytes]) -> None:
    """Broken files: `add(name, code, data, **limits)`."""
    light = small_model("light", half=True, channels=2, layers=1)
    names = [tensor.name for tensor in load_model(light).header.tensors]
    end = KIND_BYTES * len(names)
    conv, gains = (KIND_BYTES * names.index(name) for name in ("convs.0.weight", "gains"))
    good = section(light, random_changes(light, {"convs.0.weight": 1, "first.weight": 0}, 96))

    def put(name: str, code: str, srtu: bytes, *, sr: bool = True) -> None:
        add(f"sr-changes-{name}", code, volume(siren, (3, 4, 5), (2, 2, 2), light, srtu, sr=sr))

    def kind(name: str, at: int, value: int) -> None:
        put(name, "out-of-range", good[:at] + bytes([value]) + good[at + 1 :])

    def number(name: str, tensor: str, *parts: Array) -> None:
        put(name, "out-of-range", section(light, {tensor: Change(9, parts)}))

    put("not-named", "model-hash-mismatch", good, sr=False)
    put("empty", "network-truncated", b"")
    put("short", "network-truncated", good[: end - 1])
    kind("rank-17", conv, 17)
    kind("rank-beyond-rows", conv, 3)
    kind("rank-beyond-columns", gains, 2)
    kind("exponent-25", conv + 1, 25)
    kind("family-2", conv + 2, 2)
    kind("level-93", conv + 3, 93)
    kind("second-family-2", conv + 4, 2)
    kind("second-level-93", conv + 5, 93)
    kind("family-of-none", gains + 4, 1)
    kind("level-of-none", gains + 5, 1)
    put("of-another-rank", "rans-truncated", good[:conv] + b"\2" + good[conv + 1 :])
    put("cut", "rans-truncated", good[: end + 2])
    put("state-low", "rans-bad-state", good[:end] + bytes(4) + good[end + 4 :])
    put("appended", "rans-bad-end", section(light, {}) + b"\0\0")
    low = section(light, {"gains": Change(9, (np.arange(18),))}, {"gains": ((0, 29),)})
    put("padding", "padding-not-zero", low[:-1] + bytes([low[-1] | 1]))
    number("32768", "gains", np.full(18, LARGEST + 1))
    number("minus-32768", "gains", np.full(18, -LARGEST - 1))
    number("32768-of-a-product", "gains", np.ones((1, 1), np.int64), np.full((1, 18), LARGEST + 1))
    dense = small_model("srdensenet", half=True, blocks=1, layers=1, growth=1, maps=1)
    for name, factors in (("1-1-1", (1, 1, 1)), ("1-2-2", (1, 2, 2))):
        add(f"sr-srdensenet-{name}", "model-mismatch", volume(siren, (3, 4, 5), factors, dense, None))
