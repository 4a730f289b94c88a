"""The test vectors: small files, and what a decoder must make of each (spec/inrv.md, "Test vectors").

    python spec/make_vectors.py             says what differs from spec/vectors/, and fails if anything does
    python spec/make_vectors.py --accept    writes spec/vectors/ anew

Nothing else writes there. A published valid vector is never changed and never removed: files of version 1.0
decode for ever. `--accept` refuses to do either; it takes `--break-the-promise` before the first release.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path[1:1] = [str(Path(__file__).parents[1] / "tests" / "attacks"), str(Path(__file__).parent)]

import latent_vectors
import lattice_vectors
import sr_vectors
from container_cases import HUGE, declares, forge, frame, part, stored, zeros

from inrformat.coding import integers
from inrformat.coding.network import Layer, Network, counts, shapes
from inrformat.container import (
    CODES,
    Measured,
    ModelHeader,
    ModelReference,
    Promise,
    Provenance,
    Reader,
    VolumeHeader,
    build,
    codes,
    pack_metadata,
    pack_tensors,
    records,
)
from inrformat.container.dictionary import DICTIONARY
from inrformat.decode import File
from inrformat.models import registry
from inrformat.models.sr import super_resolve

FOLDER = Path(__file__).parent / "vectors"
Sections = list[tuple[str, bytes]]
Kinds = Sequence[tuple[tuple[int, int], tuple[int, int]]]
AFFINE = (0.0, 0.0, 0.75, -12.5, 0.0, 0.75, 0.0, 4.0, 2.5, 0.0, 0.0, 100.0)
SAMPLES = 16
NOT_DECODED = "decoding a volume does not read the list of its files: held by the attacks alone"
NO_FILE = {
    "part-out-of-bounds": "the index of bricks, the only one of version 1.0, is refused before [bad-index]",
    **dict.fromkeys(("bad-path", "duplicate-path", "duplicate-slice", "pixels-out-of-bounds"), NOT_DECODED),
    **dict.fromkeys(("rest-bad-frame", "rest-size-mismatch"), NOT_DECODED),
}


# --- networks ----------------------------------------------------------------------------------------------
def random_network(
    seed: int,
    width: int,
    depth: int,
    *,
    most: int = 60,
    scale: int = 12000,
    shift: int = 8,
    bias_shift: int = 4,
    share: float = 1.0,
) -> Network:
    """Random integers: weights up to `most`, a `share` of them not zero; the last layer spans the codes."""
    rng = np.random.default_rng(seed)
    layers = []
    for index, (rows, inputs) in enumerate(shapes(width, depth)):
        weights = rng.integers(-most, most + 1, (rows, inputs)) * (rng.random((rows, inputs)) < share)
        bias = rng.integers(-300, 301, rows)
        if index == 0:
            first_shift = max(0, (most * scale << 20).bit_length() - 25)
            layers.append(Layer(weights, bias, scale, first_shift, bias_shift))
        elif index < depth:
            layers.append(Layer(weights, bias, scale, shift, bias_shift))
        else:
            weights = np.where(weights == 0, 1, weights)
            reach = int(np.abs(weights).sum()) * scale
            last_shift = max(0, (reach >> 16).bit_length() - 1)
            layers.append(Layer(weights, np.array([4]), scale, last_shift, 13))
    return Network(tuple(layers))


def flat_network(bias: int, bias_shift: int) -> Network:
    """Every code is bias << bias_shift: no weights, no words in the entropy code beyond the biases'."""
    zeros = Layer(np.zeros((1, 3), np.int64), np.zeros(1, np.int64), 1, 0, 0)
    return Network((zeros, Layer(np.zeros((1, 1), np.int64), np.array([bias]), 1, 0, bias_shift)))


DEFLATED = bytes.fromhex(
    "03652b16fcd9ea0594714013a714228d0bc0182c38b395432452b642a932903215b08022275331b3b0e2ce4e7037c1dd0d63"
    "00b3d301502ad9844825079053870266eab0ff413875a094edb08887260e07ac8943013971bc390302679113071346e20097"
    "dffed81285831d8e44c14e20519c657e91ea1b028c2500"
)
"""The records of `bundle-stored`, deflated with the dictionary; libraries may differ in what they write."""

EXAMPLE = Network(
    (
        Layer(np.array([[0, 20, 100]]), np.array([-300]), 12000, 16, 0),
        Layer(np.array([[9]]), np.array([1]), 16000, 2, 15),
    )
)


def base_network(network: Network, kinds: Kinds | None = None, **changes: Any) -> bytes:
    """Section SIRN with the levels of our choice, and any field of its record changed (None: left out)."""
    arrays = [(layer.weights.ravel(), layer.bias) for layer in network.layers]
    kinds = kinds or [(integers.best_level(w), integers.best_level(b)) for w, b in arrays]
    record = {
        "width": network.width,
        "depth": network.depth,
        "layers": [
            {
                "scale": layer.scale,
                "shift": layer.shift,
                "bias_shift": layer.bias_shift,
                "weights": list(w),
                "biases": list(b),
            }
            for layer, (w, b) in zip(network.layers, kinds, strict=True)
        ],
        **changes,
    }
    spread = integers.spread(list(kinds), counts(network.width, network.depth))
    head = records.pack(record)
    values = np.concatenate([part for pair in arrays for part in pair])
    return struct.pack("<I", len(head)) + head + integers.encode(values, *spread)


def header(
    shape: tuple[int, int, int], factors: tuple[int, int, int] = (1, 1, 1), **more: Any
) -> VolumeHeader:
    """A header with plausible geometry; u2 from 0 to 4095 unless `more` says otherwise."""
    fields: dict[str, Any] = {"dtype": "u2", "range": (0.0, 4095.0), "spacing": (2.5, 0.75, 0.75)}
    return VolumeHeader(shape=shape, factors=factors, affine=AFFINE, **{**fields, **more})


def volume(
    head: VolumeHeader, network: Network, kinds: Kinds | None = None, *more: tuple[str, bytes]
) -> bytes:
    """A file with a base network and `more` sections."""
    return build([("HEAD", head.pack()), ("SIRN", base_network(network, kinds)), *more])


# --- models ------------------------------------------------------------------------------------------------
def small_model(kind: str, *, half: bool, seed: int = 0, **config: int) -> bytes:
    """An .inrm file with seeded random weights that make a moderate detail."""
    model = registry.create_model(kind, config)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.from_numpy(rng.normal(0, 0.15, tuple(tensor.shape)).astype(np.float32)))
    return registry.pack_model(
        model, name=f"{kind}-vector", version=1, licence="CC0-1.0", trained_on="random numbers", half=half
    )


def with_model(
    model: bytes, shape: tuple[int, int, int], factors: tuple[int, int, int], network: Network
) -> bytes:
    """A volume with an embedded model."""
    reference = ModelReference("vector", 1, hashlib.sha256(model).digest())
    return volume(header(shape, factors, sr=reference), network, None, ("SRMD", model))


# --- valid files -------------------------------------------------------------------------------------------
def valid() -> dict[str, bytes]:
    """Every feature and every limit that a small file can show."""
    files: dict[str, bytes] = {}
    _volumes(files)
    _networks(files)
    _records(files)
    siren = base_network(random_network(1, 8, 2))
    files |= lattice_vectors.valid(siren) | sr_vectors.valid(siren, small_model)
    files |= latent_vectors.valid(small_model("light", half=True, channels=1, layers=1))
    sections = [(name.encode(), body) for name, body in latent_vectors.changed().sections()]
    small = b"".join(part(*section) for section in sections[:3])  # HEAD, LATN and LATU
    files["latents-changes-bundle"] = forge([(b"BNDL", b"\x01" + stored(small)), *sections[3:]])
    return files


def _volumes(files: dict[str, bytes]) -> None:
    plain = random_network(1, 8, 2)
    example = header((1, 2, 3), (1, 1, 2), dtype="u1", range=(0.0, 255.0), spacing=(1.0, 1.0, 1.0))
    affine = (0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    files["example"] = volume(replace(example, affine=affine), EXAMPLE)

    largest = float(np.finfo(np.float32).max)
    for dtype, span in {
        "u1": (3.0, 250.0),
        "i1": (-128.0, 127.0),
        "u2": (0.0, 65535.0),
        "i2": (-1024.0, 3071.0),
        "f4": (-1.5, 0.10000000149011612),
    }.items():
        files[f"dtype-{dtype}"] = volume(header((3, 5, 7), dtype=dtype, range=span), plain)
    files["f4-widest-range"] = volume(
        header((2, 3, 5), (1, 1, 2), dtype="f4", range=(-largest, largest)), plain
    )
    files["f4-zero-range"] = volume(header((2, 2, 2), dtype="f4", range=(-0.0, -0.0)), plain)

    for factors in ((2, 2, 2), (1, 2, 4), (8, 1, 2), (4, 4, 4), (8, 8, 8), (2, 4, 1)):
        name = "factors-" + "-".join(map(str, factors))
        files[name] = volume(header((9, 13, 17), factors), random_network(2, 12, 2))
    for name, shape, factors in (
        ("one-voxel", (1, 1, 1), (1, 1, 1)),
        ("one-voxel-factors", (1, 1, 1), (8, 4, 2)),
        ("one-slice", (1, 13, 7), (4, 2, 2)),
        ("one-line", (1, 1, 31), (1, 1, 4)),
        ("one-column", (31, 1, 1), (2, 1, 1)),
        ("prime", (7, 11, 13), (2, 2, 2)),
        ("longest-axis", (1, 1, 65536), (1, 1, 8)),
        ("longest-axis-z", (65536, 1, 2), (8, 1, 1)),
    ):
        files[name] = volume(header(shape, factors), random_network(3, 8, 2))

    files["constant"] = volume(header((3, 4, 5), range=(7.0, 7.0)), flat_network(0, 0))
    for name, bias, shift, high in (
        ("tie-0.5", 1, 15, 1.0),
        ("tie-1.5", 1, 15, 3.0),
        ("tie-2.5", 1, 15, 5.0),
        ("code-too-low", -60, 15, 100.0),
        ("code-too-high", 60, 15, 100.0),
    ):
        files[name] = volume(header((1, 2, 2), range=(0.0, high)), flat_network(bias, shift))


def _long_bundle(parts: bytes, size: int) -> bytes:
    """A bundle of sections and one more, of zeros, that takes it to so many bytes."""
    count = size - len(parts) - 6
    return b"\x01" + stored(parts + part(b"abcd", b"", count), last=False) + zeros(count)


def _networks(files: dict[str, bytes]) -> None:
    plain = random_network(1, 8, 2)
    for depth in range(1, 7):
        files[f"depth-{depth}"] = volume(header((4, 6, 5)), random_network(10 + depth, 16, depth))
    for width in (1, 3, 9, 24, 100):
        files[f"width-{width}"] = volume(header((4, 6, 5)), random_network(20 + width, width, 2))
    files["width-1024"] = volume(header((2, 3, 4)), random_network(30, 1024, 1, most=5))
    files["lanes-64"] = volume(header((2, 3, 4)), random_network(31, 256, 2, most=1, share=0.004))
    files["lanes-uneven"] = volume(header((2, 3, 4)), random_network(32, 55, 2, most=3))

    files["weights-beyond-int8"] = volume(header((4, 5, 6)), random_network(40, 16, 3, most=5000, shift=14))
    files["weights-largest"] = volume(header((4, 5, 6)), random_network(41, 8, 3, most=260_000, shift=20))
    files["weights-no-rows-of-8"] = volume(header((4, 5, 6)), random_network(42, 12, 3, most=127))
    files["sums-near-int32"] = volume(header((2, 2, 3)), saturated(random_network(43, 256, 2), 127, 16383))
    for shift in (0, 1, 16, 17, 31, 47, 48):
        files[f"shift-{shift}"] = volume(header((3, 4, 5)), random_network(50, 16, 3, shift=shift))
    for shift in (0, 15):
        files[f"bias-shift-{shift}"] = volume(header((3, 4, 5)), random_network(51, 16, 2, bias_shift=shift))
    for scale in (1, 2, 16383):
        files[f"scale-{scale}"] = volume(header((3, 4, 5)), random_network(52, 16, 2, scale=scale, shift=5))
    zero = replace(EXAMPLE.layers[0], shift=48)
    files["first-shift-48"] = volume(header((2, 3, 4)), Network((zero, EXAMPLE.layers[1])))
    zero = replace(EXAMPLE.layers[0], shift=0)
    files["first-shift-0"] = volume(header((2, 3, 4)), Network((zero, EXAMPLE.layers[1])))

    network = random_network(60, 8, 6, most=20)
    for family, name in enumerate(("gauss", "laplace")):
        kinds = [((family, 17 + index), (family, 42 + 5 * index)) for index in range(7)]
        files[f"levels-{name}"] = volume(header((3, 4, 5)), network, kinds)
        files[f"levels-92-{name}"] = volume(header((3, 4, 5)), plain, [((family, 92),) * 2] * 3)
    small = random_network(61, 8, 2, most=1)
    files["levels-0-and-28"] = volume(
        header((3, 4, 5)), small, [((0, 0), (1, 48)), ((1, 28), (0, 49)), ((1, 29), (0, 28))]
    )
    network = random_network(62, 8, 2, most=127)
    network.layers[0].weights.ravel()[:2] = -128, 127
    files["symbols-extreme"] = volume(
        header((3, 4, 5)), network, [((0, 28), (1, 40)), ((0, 28), (1, 40)), ((1, 28), (0, 12))]
    )


def _records(files: dict[str, bytes]) -> None:
    plain = random_network(1, 8, 2)
    slopes = {"slope": (1.0, 0.5, 2.0, -1.0, 0.0), "intercept": (-1024.0, 0.0, 1.5, 2.0, 3.0)}
    files["slope-per-slice"] = volume(header((5, 6, 7), (2, 2, 2), **slopes), plain)
    figures = Measured(40.5, 4095.0, 38.25, None, 0.9, 8.0, 1.5, 2, None, Promise("psnr", 38.0))
    made = Provenance("inrformat 0.1.0", "fast", 7, "cpu", 30.0, 1000)
    more = {
        "note \N{GREEK SMALL LETTER MU}": "\x1b[31m\x00\u202e",
        "list": [1, -2.5, b"\xff", None, {"a": float("nan")}],
    }
    meta = pack_metadata({"modality": "CT", **more})
    files["records"] = volume(
        header((3, 4, 5)), plain, None, ("meas", figures.pack()), ("prov", made.pack()), ("meta", meta)
    )
    files["infinite-psnr"] = volume(
        header((3, 4, 5)), plain, None, ("meas", replace(figures, psnr=None, promise=None).pack())
    )
    newer = records.pack({**made.to_record(), "later": [1, {"of": "an ancillary record"}]})
    files["ancillary-field-unknown"] = volume(header((3, 4, 5)), plain, None, ("prov", newer))
    files["ancillary-section-unknown"] = volume(
        header((3, 4, 5)), plain, None, ("xyzW", b"?" * 9), ("eMTY", b"")
    )
    files["sections-in-another-order"] = build(
        [
            ("HEAD", header((3, 4, 5)).pack()),
            ("prov", made.pack()),
            ("abcd", b""),
            ("SIRN", base_network(plain)),
        ]
    )
    body = [(b"HEAD", header((3, 4, 5)).pack()), (b"SIRN", base_network(plain))]
    files["minor-version-255"] = forge(body, version=(1, 255))
    records_too = b"".join(
        part(name, record)
        for name, record in (body[0], (b"meas", figures.pack()), (b"prov", made.pack()), (b"eMTY", b""))
    )
    others = [body[1], (b"meta", meta)]
    files["bundle-stored"] = forge([(b"BNDL", b"\x01" + stored(records_too)), *others])
    files["bundle-largest"] = forge([(b"BNDL", _long_bundle(records_too, 65536)), *others])
    files["bundle-all"] = forge([(b"BNDL", b"\x01" + stored(b"".join(part(*section) for section in body)))])
    assert zlib.decompressobj(-15, zdict=DICTIONARY).decompress(DEFLATED) == records_too
    files["bundle-dictionary"] = forge([(b"BNDL", b"\x01" + DEFLATED), *others])

    light = small_model("light", half=True, channels=3, layers=2)
    files["model-light"] = with_model(light, (9, 10, 11), (2, 2, 2), random_network(70, 12, 2))
    files["model-light-mixed"] = with_model(light, (3, 11, 9), (1, 4, 2), random_network(71, 12, 2))
    light = small_model("light", half=False, channels=1, layers=1)
    files["model-light-f4"] = with_model(light, (1, 1, 9), (4, 1, 4), random_network(72, 12, 2))
    dense = small_model("srdensenet", half=True, blocks=2, layers=2, growth=2, maps=3)
    files["model-srdensenet"] = with_model(dense, (3, 17, 14), (1, 4, 4), random_network(73, 12, 2))
    files["model-srdensenet-z"] = with_model(dense, (7, 9, 8), (2, 4, 4), random_network(74, 12, 2))


def saturated(network: Network, weight: int, scale: int) -> Network:
    """Its hidden layers with weights of this magnitude only."""
    first, *hidden, last = network.layers
    hidden = [
        replace(layer, weights=np.where(layer.weights < 0, -weight, weight), scale=scale, shift=13)
        for layer in hidden
    ]
    return Network((first, *hidden, last))


# --- invalid files -----------------------------------------------------------------------------------------
class Invalid(dict[str, tuple[bytes, str, dict[str, int]]]):
    """name -> file, code, limits that are not the default."""

    def add(self, name: str, code: str, data: bytes, **limits: int) -> None:
        """One file."""
        self[name] = (data, code, limits)


def invalid() -> Invalid:
    """Broken files: at least one for each code."""
    files = Invalid()
    head, network = header((3, 4, 5)), random_network(1, 8, 2)
    siren = base_network(network)
    sections = [(b"HEAD", head.pack()), (b"SIRN", siren)]
    good = forge(sections)
    _bad_containers(files, sections, good)
    _bad_records(files, head, siren)
    _bad_networks(files, head, network)
    _bad_models(files, head, siren)
    light = small_model("light", half=True, channels=1, layers=1)
    lattice_vectors.invalid(files.add, siren, light)
    latent_vectors.invalid(files.add, siren, light)
    sr_vectors.invalid(files.add, siren, small_model)
    return files


def _bad_containers(files: Invalid, sections: list[tuple[bytes, bytes]], good: bytes) -> None:
    def edit(change: Callable[[list[Any]], None]) -> bytes:
        return forge(sections, change)

    def entry(index: int, field: int, value: Any) -> bytes:
        def change(table: list[Any]) -> None:
            table[index][field] = value

        return edit(change)

    files.add("bad-magic", "bad-magic", b"\x89PNG" + good[4:])
    files.add("empty", "truncated", b"")
    files.add("text-mode", "text-mode-damage", good.replace(b"\r\n", b"\n"))
    files.add("cut", "truncated", good[:-1])
    files.add("cut-table", "truncated", good[:60])
    files.add("appended", "trailing-bytes", good + b"\0")
    files.add("header-crc", "bad-header-crc", forge(sections, header_crc=0))
    files.add("reserved-header", "reserved-not-zero", forge(sections, reserved=(1, 0)))
    files.add("reserved-header-2", "reserved-not-zero", forge(sections, reserved=(0, 1)))
    files.add("reserved-entry", "reserved-not-zero", entry(1, 4, 1))
    files.add("no-sections", "no-sections", forge([]))
    files.add("section-type", "bad-section-type", entry(1, 0, b"SIR1"))
    files.add("section-twice", "duplicate-section", forge([*sections, sections[1]]))
    files.add("section-hole", "sections-not-contiguous", forge(sections, gap=b"hidden"))
    files.add("section-overlap", "sections-not-contiguous", entry(1, 2, 100))
    files.add("section-offset-huge", "sections-not-contiguous", entry(1, 2, HUGE))
    files.add("section-too-long", "section-out-of-bounds", entry(1, 3, len(sections[1][1]) + 1))
    files.add("section-crc", "bad-section-crc", entry(1, 1, 0))
    files.add("file-hash", "bad-file-hash", forge(sections, digest=bytes(32)))
    files.add("first-section", "bad-first-section", forge(sections[::-1]))
    files.add("no-base-network", "missing-section", forge(sections[:1]))
    files.add("unknown-critical", "unknown-critical-section", forge([*sections, (b"Resi", b"")]))
    files.add("newer-major", "unsupported-version", forge(sections, version=(2, 0)))
    _bad_bundles(files, sections)
    files.add("sections-65", "too-many-sections", forge(sections, count=65))
    files.add("section-length-huge", "section-too-large", entry(1, 3, HUGE))


def _bad_bundles(files: Invalid, sections: list[tuple[bytes, bytes]]) -> None:
    (_, head), siren = sections
    parts = part(b"HEAD", head)

    def put(name: str, code: str, body: bytes) -> None:
        files.add(f"bundle-{name}", code, forge([(b"BNDL", body), siren]))

    put("empty", "bad-bundle", b"")
    put("none", "bad-bundle", b"\x01" + stored(b""))
    put("dictionary", "unknown-dictionary", b"\x02" + stored(parts))
    put("garbage", "bad-bundle", b"\x01\x07")
    put("cut", "bad-bundle", b"\x01" + stored(parts)[:-1])
    put("appended", "bad-bundle", b"\x01" + stored(parts) + b"x")
    put("large", "bundle-too-large", _long_bundle(parts, 65537))
    put("part-cut", "bad-bundle", b"\x01" + stored(parts + b"prov\0"))
    put("part-long", "bad-bundle", b"\x01" + stored(parts + part(b"prov", b"x", 2)))
    put("type", "bad-section-type", b"\x01" + stored(parts + part(b"pr0v", b"")))
    put("nested", "bad-section-type", b"\x01" + stored(parts + part(b"BNDL", b"")))
    put("twice", "duplicate-section", b"\x01" + stored(2 * parts))
    put("beside", "duplicate-section", b"\x01" + stored(parts + part(*siren)))
    put("critical", "unknown-critical-section", b"\x01" + stored(parts + part(b"EVIL", b"")))
    put("wrong-first", "bad-first-section", b"\x01" + stored(part(b"xyzw", b"") + parts))
    late = [*sections, (b"BNDL", b"\x01" + stored(part(b"prov", b"")))]
    files.add("bundle-late", "unknown-critical-section", forge(late))


def _bad_records(files: Invalid, head: VolumeHeader, siren: bytes) -> None:
    packed = head.pack()

    def put(name: str, code: str, data: bytes, *more: tuple[bytes, bytes], **limits: int) -> None:
        files.add(name, code, forge([(b"HEAD", data), (b"SIRN", siren), *more]), **limits)

    def field(name: str, code: str, **changes: Any) -> None:
        record = {key: v for key, v in {**head.to_record(), **changes}.items() if v is not ...}
        put(name, code, bytes(msgpack.packb(dict(sorted(record.items())))))

    put("record-cut", "record-truncated", packed[:-1])
    put("record-array-huge", "record-truncated", b"\xdd\xff\xff\xff\xff")
    put("record-appended", "record-trailing-bytes", packed + b"\xc0")
    put("record-extension", "record-bad-type", b"\x81\xa1a\xd4\x01\x00")
    put("record-utf8", "record-bad-utf8", b"\x81\xa1a\xa2\xc0\xaf")
    put("record-key-int", "record-bad-key", b"\x81\x01\x02")
    put("record-key-twice", "record-duplicate-key", b"\x82\xa1a\x01\xa1a\x02")
    put("record-nan", "record-not-finite", b"\x81\xa1a\xcb\x7f\xf8" + bytes(6))
    put("record-not-canonical", "record-not-canonical", b"\x81\xa1a\xcd\x00\x01")
    put("record-large", "record-too-large", packed, max_record_bytes=100)
    put("record-deep", "record-too-deep", b"\x91" * 9 + b"\x90")
    put("record-items", "record-too-many-items", packed, max_record_items=20)
    put("head-list", "bad-type", b"\x90")
    field("shape-floats", "bad-type", shape=[3.0, 4.0, 5.0])
    field("shape-zero", "out-of-range", shape=[3, 0, 5])
    field("shape-huge", "too-many-voxels", shape=[65536, 65536, 65536])
    field("range-backwards", "out-of-range", range=[5.0, 4.0])
    field("factor-3", "out-of-range", factors=[1, 3, 1])
    field("spacing-huge", "out-of-range", spacing=[1e308, 1.0, 1.0])
    field("affine-huge", "out-of-range", affine=[1e308] * 12)
    field("base-unknown", "out-of-range", base="hybrid")
    field("no-shape", "missing-key", shape=...)
    field("field-unknown", "unknown-key", url="https://example.com/")
    field("model-a-path", "out-of-range", sr={"name": "../model", "sha256": bytes(32), "version": 1})
    made = Provenance("inrformat", "fast", 7, "cpu", 30.0, 1000).to_record()
    escape = records.pack({**made, "device": "\x1b[31m"})
    put("text-escape", "not-printable", packed, (b"prov", escape))
    for name, code, data in (
        ("meta-not-a-frame", "metadata-bad-frame", b"{}"),
        ("meta-two-frames", "metadata-bad-frame", frame(b"\x80") * 2),
        ("meta-bomb", "metadata-too-large", declares(2**40)),
        ("meta-no-size", "metadata-no-size", b"\x28\xb5\x2f\xfd\x00\x58\x09\x00\x00\x80"),
        ("meta-list", "bad-type", frame(b"\x90")),
    ):
        put(name, code, packed, (b"meta", data))


def _bad_networks(files: Invalid, head: VolumeHeader, network: Network) -> None:
    good = base_network(network)
    end = 4 + int.from_bytes(good[:4], "little")

    def put(name: str, code: str, data: bytes, **limits: int) -> None:
        files.add(name, code, forge([(b"HEAD", head.pack()), (b"SIRN", data)]), **limits)

    put("network-empty", "network-truncated", b"")
    put("network-record-long", "network-truncated", b"\xff\xff\xff\xff" + good[4:])
    put("network-width-0", "out-of-range", base_network(network, width=0))
    put("network-width-1025", "out-of-range", base_network(network, width=1025))
    put("network-depth-huge", "too-many-layers", base_network(network, depth=2**31))
    put("network-parameters", "too-many-parameters", good, max_parameters=100)
    put("network-width-unlike", "rans-truncated", base_network(network, width=1024, depth=2))
    put("network-work", "too-much-work", good, max_work=1000)
    layer = {"scale": 1, "shift": 0, "bias_shift": 0, "weights": [0, 0], "biases": [0, 0]}
    for name, change in {
        "scale-0": {"scale": 0},
        "scale-16384": {"scale": 16384},
        "shift-49": {"shift": 49},
        "bias-shift-16": {"bias_shift": 16},
        "family-2": {"weights": [2, 0]},
        "level-93": {"biases": [0, 93]},
    }.items():
        put(
            f"network-{name}",
            "out-of-range",
            base_network(network, layers=[{**layer, **change}, layer, layer]),
        )
    put("network-layers-2", "out-of-range", base_network(network, layers=[layer, layer]))
    large = np.full((8, 3), 1 << 20)
    overflow = Network((replace(network.layers[0], weights=large, scale=16383), *network.layers[1:]))
    put("network-overflow", "network-overflow", base_network(overflow))
    put("rans-cut", "rans-truncated", good[: end + 2])
    put("rans-odd", "rans-truncated", base_network(network, [((1, 28), (0, 44))] * 3)[:-1])
    flat = base_network(flat_network(0, 0))
    put("rans-state-low", "rans-bad-state", flat[:-4] + b"\xff\xff\x00\x00")
    put("rans-word-left", "rans-bad-end", good + b"\0\0" if _no_low_bits(good) else flat + b"\0\0")
    state = int.from_bytes(flat[-4:], "little")
    put("rans-state-wrong", "rans-bad-end", flat[:-4] + (state ^ 1).to_bytes(4, "little"))
    low_bits = base_network(EXAMPLE)
    put("low-bits-padding", "padding-not-zero", low_bits[:-1] + bytes([low_bits[-1] | 1]))


def _no_low_bits(section: bytes) -> bool:
    end = 4 + int.from_bytes(section[:4], "little")
    layers = records.unpack(section[4:end])["layers"]
    return all(level <= 28 for layer in layers for _, level in (layer["weights"], layer["biases"]))


def _bad_models(files: Invalid, head: VolumeHeader, siren: bytes) -> None:
    light = small_model("light", half=True, channels=1, layers=1)
    with Reader(light) as reader:
        info, body = ModelHeader.unpack(reader.read("MODL")), reader.read("TENS")

    def model(name: str, code: str, info: ModelHeader | dict[str, Any], body: bytes) -> bytes:
        record = info if isinstance(info, dict) else info.to_record()
        data = build([("MODL", records.pack(record)), ("TENS", body)])
        files.add(f"{name}.inrm", code, data)
        return data

    def put(
        name: str, code: str, data: bytes, reference: bytes, factors: tuple[int, int, int], **limits: int
    ) -> None:
        sr = ModelReference("vector", 1, hashlib.sha256(reference).digest())
        packed = replace(head, sr=sr, factors=factors).pack()
        files.add(name, code, forge([(b"HEAD", packed), (b"SIRN", siren), (b"SRMD", data)]), **limits)

    put("model-other", "model-hash-mismatch", light, b"another", (2, 2, 2))
    files.add(
        "model-not-named",
        "model-hash-mismatch",
        forge([(b"HEAD", head.pack()), (b"SIRN", siren), (b"SRMD", light)]),
    )
    put("model-factor-8", "model-mismatch", light, light, (8, 2, 2))
    put("model-memory", "too-much-memory", light, light, (2, 2, 2), max_activations=100)
    put("model-work", "too-much-work", light, light, (4, 4, 4), max_work=400)
    record = info.to_record()
    tensors = record["tensors"]
    bad = model(
        "model-channels-huge",
        "out-of-range",
        {**record, "config": {"channels": 2**31 - 1, "layers": 1}},
        body,
    )
    put("model-embedded-bad", "out-of-range", bad, bad, (2, 2, 2))
    model("model-channels-257", "out-of-range", {**record, "config": {"channels": 257, "layers": 1}}, body)
    model("model-layers-unlike", "out-of-range", {**record, "config": {"channels": 1, "layers": 32}}, body)
    model("model-config-other", "out-of-range", {**record, "config": {"width": 1}}, body)
    model("model-kind", "out-of-range", {**record, "kind": "pickle"}, body)
    model("model-tensor-twice", "duplicate-tensor", {**record, "tensors": [tensors[0], *tensors]}, body)
    model("model-tensors-short", "tensor-size-mismatch", info, body[:-1])
    model(
        "model-tensor-huge",
        "too-many-parameters",
        {**record, "tensors": [["first.weight", "f4", [2**31 - 1] * 5]]},
        body,
    )
    model("model-nan", "weight-not-finite", info, b"\xff\xff" + body[2:])
    files.add("model-too-large.inrm", "model-too-large", light, max_model_bytes=100)
    one = pack_tensors({"w": np.zeros(1, np.float32)})
    model("model-tensors-unlike", "out-of-range", replace(info, tensors=one[0]), one[1])


# --- the manifest ------------------------------------------------------------------------------------------
def interpolate(x: np.ndarray[Any, Any], n: int, f: int) -> np.ndarray[Any, Any]:
    """Lanczos along the first axis, in float64, straight from the specification's formula."""
    i = np.arange(n)
    total, weights = np.zeros((n, *x.shape[1:])), np.zeros(n)
    for offset in range(-3, 5):
        j = (2 * i + 1 - f) // (2 * f) + offset
        t = ((j + 0.5) * f - 0.5 - i) / f
        w = np.where((np.abs(t) < 3) & (j >= 0) & (j < len(x)), np.sinc(t) * np.sinc(t / 3), 0.0)
        total += w.reshape(-1, *[1] * (x.ndim - 1)) * x[np.clip(j, 0, len(x) - 1)]
        weights += w
    return total / weights.reshape(-1, *[1] * (x.ndim - 1))


def full_level(file: File) -> tuple[np.ndarray[Any, Any], float]:
    """The volume before rounding, clamped: Lanczos in float64, the detail in float32; and the detail's reach."""
    x = full = file.codes().double().numpy() / 65536
    for axis, (n, f) in enumerate(zip(file.shape, file.header.factors, strict=True)):
        if f > 1:
            full = np.moveaxis(interpolate(np.moveaxis(full, axis, 0), n, f), 0, axis)
    reach = 0.0
    if file.model is not None:
        lr, factors = torch.from_numpy(x).float(), file.header.factors
        with torch.inference_mode():
            both = super_resolve(file.model, lr, factors, file.shape, dtype=torch.float32)
            detail = (both - super_resolve(None, lr, factors, file.shape)).double().numpy()
        full, reach = full + detail, float(np.abs(detail).max())
    low, high = file.header.range
    return np.clip(low + full * (high - low), low, high), reach


def describe(data: bytes) -> dict[str, Any]:
    """A valid file's entry in the manifest."""
    with File(data, device="cpu") as file:
        preview = file.preview().data
        result = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "preview": {
                "shape": list(preview.shape),
                "dtype": file.header.dtype,
                "sha256": hashlib.sha256(
                    preview.astype(preview.dtype.newbyteorder("<")).tobytes()
                ).hexdigest(),
            },
        }
        if file.bounded:
            volume = file.full().data
            little = volume.astype(volume.dtype.newbyteorder("<"))
            digest = hashlib.sha256(little.tobytes()).hexdigest()
            return {**result, "full": {"shape": list(volume.shape), "sha256": digest}}
        full, reach = full_level(file)
        low, high = file.header.range
        at = np.unique(np.linspace(0, full.size - 1, SAMPLES).astype(int))
        result["full"] = {
            "shape": list(file.shape),
            "tolerance": (1e-5 + 0.02 * reach) * (high - low) + 2.0**-23 * max(abs(low), abs(high)),
            "detail": reach,
            "mean": float((full / full.size).sum()),
            "at": at.tolist(),
            "values": full.ravel()[at].tolist(),
        }
        return result


def refuse(data: bytes, code: str, limits: dict[str, int]) -> dict[str, Any]:
    """An invalid file's entry in the manifest."""
    kind = (
        "LimitError"
        if code in codes.LIMIT
        else "UnsupportedError"
        if code in codes.UNSUPPORTED
        else "FormatError"
    )
    return {"sha256": hashlib.sha256(data).hexdigest(), "code": code, "error": kind, "limits": limits}


def everything() -> tuple[dict[str, bytes], dict[str, Any]]:
    """All files by their path in spec/vectors/, and the manifest."""
    good, bad = valid(), invalid()
    missing = set(CODES) - {code for _, code, _ in bad.values()} - set(NO_FILE)
    if missing:
        raise SystemExit(f"no invalid vector for {sorted(missing)}")
    files = {f"valid/{name}.inrv": data for name, data in good.items()}
    manifest: dict[str, Any] = {
        "format": "1.0",
        "valid": {path: describe(data) for path, data in files.items()},
        "invalid": {},
        "codes_without_a_file": NO_FILE,
    }
    for name, (data, code, limits) in bad.items():
        path = f"invalid/{name}" + ("" if name.endswith(".inrm") else ".inrv")
        files[path] = data
        manifest["invalid"][path] = refuse(data, code, limits)
    return files, manifest


def error_table(entries: dict[str, Any]) -> str:
    """The table "Errors" of the specification."""
    import container_cases
    import decoder_cases
    import latent_cases
    import lattice_cases
    import sr_cases

    modules = (container_cases, decoder_cases, lattice_cases, latent_cases, sr_cases)
    attempts = [attack for module in modules for attack in module.ATTACKS]

    rows = [
        "| code | error | rule | attacks that hold it | vectors that hold it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, rule in CODES.items():
        attacks = [a.name for a in attempts if a.code == code]
        names = [Path(path).name.split(".inr")[0] for path, entry in entries.items() if entry["code"] == code]
        cells = (
            f"`{code}`",
            refuse(b"", code, {})["error"],
            rule,
            ", ".join(attacks) or "-",
            ", ".join(names) or "-",
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the specification's table of errors")
    parser.add_argument("--break-the-promise", action="store_true")
    options = parser.parse_args()
    files, manifest = everything()
    if options.table:
        print(error_table(manifest["invalid"]))
        return 0
    text = json.dumps(manifest, indent=1) + "\n"
    old_text = (FOLDER / "manifest.json").read_text() if (FOLDER / "manifest.json").exists() else "{}"
    old = json.loads(old_text)
    here = {str(p.relative_to(FOLDER)): p.read_bytes() for p in FOLDER.rglob("*.inr[vm]")}
    changed = sorted(path for path in files.keys() | here if files.get(path) != here.get(path))
    published = [
        path
        for path, entry in old.get("valid", {}).items()
        if any(manifest["valid"].get(path, {}).get(key) != entry[key] for key in ("sha256", "preview"))
        or manifest["valid"][path]["full"].get("sha256") != entry["full"].get("sha256")
    ]
    for path in changed:
        print(f"{'new' if path not in here else 'gone' if path not in files else 'changed'}: {path}")
    if old_text != text:
        print("the manifest differs")
    if not options.accept:
        return int(bool(changed) or old_text != text)
    if published and not options.break_the_promise:
        print(f"refused: published valid vectors would change: {', '.join(published)}")
        return 1
    for path in here.keys() - files.keys():
        (FOLDER / path).unlink()
    for path, data in files.items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_bytes(data)
    (FOLDER / "manifest.json").write_text(text)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
