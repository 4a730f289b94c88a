"""A second decoder of the .inrv format, from `spec/inrv.md` alone; it shares no code with the library.

It prefers the specification's own formulas to speed, and checks all of a file before it gives a value. The
chapters below are those of the specification, in its order; the bricks' arithmetic is in `inrv_lattice.py`,
that of the latents in `inrv_latents.py`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import math
import re
import struct
import sys
import unicodedata
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
import inrv_latents
import inrv_lattice as lattice

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Map = dict[str, Any]
Shape = tuple[int, ...]
T = TypeVar("T")


class InvalidFile(Exception):  # noqa: N818 (the name says it)
    """The file breaks the rule of this code (chapter "Errors")."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code


class ModelNotFound(LookupError):  # noqa: N818
    """The file names a model that is neither embedded nor given."""


@dataclass(frozen=True)
class Limits:
    """Chapter "Limits"."""

    max_voxels: int = 2**33
    max_parameters: int = 2**24
    max_layers: int = 64
    max_sections: int = 64
    max_section_bytes: int = 2**33
    max_record_bytes: int = 2**21
    max_record_depth: int = 8
    max_record_items: int = 2**18
    max_metadata_bytes: int = 2**26
    max_metadata_depth: int = 64
    max_metadata_items: int = 2**22
    max_model_bytes: int = 2**28
    max_work: int = 2**52
    max_activations: int = 2**30
    max_latents: int = 2**28
    max_brick_voxels: int = 2**23


def need(rule: bool, code: str, text: str = "") -> None:
    """Refuse the file unless it keeps the rule."""
    if not rule:
        raise InvalidFile(code, text)


# ---- The parts of a file ----

SPECIFICATION = Path(__file__).parents[1] / "inrv.md"
MAGIC = b"\x93INR\r\n\x1a\n"
DAMAGED = (b"\x93INR", b"\x13INR", b"\xc2\x93INR", b"\xef\xbf\xbdINR")
REQUIRED = {"HEAD": {"HEAD"}, "MODL": {"MODL", "TENS"}}
LATTICE = {"LATT", "BIDX", "BRIX"}
BASES = {"siren": {"SIRN"}, "latents": {"LATN", "LATD"}}
OF_BASE = {"SIRN", "LATN", "LATD", "LATM", "LATU"}
CRITICAL = {
    "HEAD": {"HEAD", "SRMD", "SRTU", "CTXM", "PRED", "TUNE", "ZONE", *LATTICE, *OF_BASE},
    "MODL": {"MODL", "TENS"},
}


@cache
def crc_table() -> list[int]:
    """CRC-32C (reflected polynomial 0x82F63B78) of each single byte."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
        table.append(crc)
    return table


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes."""
    table, crc = crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def read_container(data: bytes, first: str, limits: Limits) -> dict[str, bytes]:
    """The sections of a file whose first section must be `first`, all checksums checked."""
    if not data.startswith(MAGIC):
        need(not MAGIC.startswith(data), "truncated")
        raise InvalidFile("text-mode-damage" if data.startswith(DAMAGED) else "bad-magic")
    need(len(data) >= 32, "truncated")
    major, _minor, reserved, count, length, crc, reserved_too = struct.unpack("<BBHIQII", data[8:32])
    need(major == 1, "unsupported-version", str(major))
    need(count > 0, "no-sections")
    need(count <= limits.max_sections, "too-many-sections", str(count))
    need(reserved == reserved_too == 0, "reserved-not-zero", "header")
    need(len(data) >= length, "truncated")
    need(len(data) <= length, "trailing-bytes")
    body, footer = 32 + 32 * count, len(data) - 32
    need(body <= footer, "truncated")
    need(crc32c(data[:24] + data[32:body]) == crc, "bad-header-crc")

    entries: list[tuple[str, int, int, int]] = []
    position = body
    for i in range(count):
        raw, crc, start, size, reserved = struct.unpack_from("<4sIQQQ", data, 32 + 32 * i)
        need(re.fullmatch(rb"[A-Za-z]{4}", raw) is not None, "bad-section-type", repr(raw))
        name = raw.decode("ascii")
        need(all(name != entry[0] for entry in entries), "duplicate-section", name)
        need(reserved == 0, "reserved-not-zero", name)
        need(size <= limits.max_section_bytes, "section-too-large", name)
        need(start == position, "sections-not-contiguous", name)
        position = start + size
        need(position <= footer, "section-out-of-bounds", name)
        entries.append((name, crc, start, size))
    need(position == footer, "sections-not-contiguous", "footer")

    sections = {name: data[start : start + size] for name, _, start, size in entries}
    for name, crc, _, _ in entries:
        need(crc32c(sections[name]) == crc, "bad-section-crc", name)
    need(hashlib.sha256(data[:footer]).digest() == data[footer:], "bad-file-hash")
    if entries[0][0] == "BNDL":
        bundled = read_bundle(sections.pop("BNDL"))
        need(not bundled.keys() & sections.keys(), "duplicate-section")
        sections = bundled | sections

    names = list(sections)
    need(names[0] == first, "bad-first-section", names[0])
    for name in names:
        need(name in CRITICAL[first] or name[0].islower(), "unknown-critical-section", name)
    need(set(names) >= REQUIRED[first], "missing-section")
    need(
        set(names) >= LATTICE or not {"CTXM", "PRED", "TUNE", "ZONE", *LATTICE} & set(names),
        "missing-section",
    )
    need(len({"file", "rest"} & set(names)) != 1, "missing-section")
    return sections


@cache
def dictionary() -> bytes:
    """Dictionary 1 of bundles, as the specification has it."""
    block = re.search(r"```base64\n(.*?)```", SPECIFICATION.read_text(), re.DOTALL)
    assert block is not None
    return base64.b64decode(block[1])


def read_bundle(body: bytes) -> dict[str, bytes]:
    """The sections of a section BNDL."""
    need(len(body) > 0, "bad-bundle")
    need(body[0] == 1, "unknown-dictionary", str(body[0]))
    inflater = zlib.decompressobj(-15, dictionary())
    try:
        parts = inflater.decompress(body[1:], 65537)
    except zlib.error:
        raise InvalidFile("bad-bundle") from None
    need(len(parts) <= 65536, "bundle-too-large")
    need(inflater.eof and not inflater.unused_data, "bad-bundle")
    need(len(parts) > 0, "bad-bundle")
    found: dict[str, bytes] = {}
    while parts:
        need(len(parts) >= 6, "bad-bundle")
        raw, length = struct.unpack_from("<4sH", parts)
        known = re.fullmatch(rb"[A-Za-z]{4}", raw) is not None and raw != b"BNDL"
        need(known, "bad-section-type", repr(raw))
        need(raw.decode() not in found, "duplicate-section", repr(raw))
        need(len(parts) >= 6 + length, "bad-bundle")
        found[raw.decode()], parts = parts[6 : 6 + length], parts[6 + length :]
    return found


# ---- Records ----

# First byte: struct format, and the least value (of negative ints the greatest) that needs this form.
UNSIGNED = {0xCC: (">B", 2**7), 0xCD: (">H", 2**8), 0xCE: (">I", 2**16), 0xCF: (">Q", 2**32)}
SIGNED = {0xD0: (">b", -33), 0xD1: (">h", -129), 0xD2: (">i", -32769), 0xD3: (">q", -(2**31) - 1)}
FLOATS = {0xCA: ">f", 0xCB: ">d"}
SIZED = {
    **{0xC4: ("bin", ">B", 0), 0xC5: ("bin", ">H", 2**8), 0xC6: ("bin", ">I", 2**16)},
    **{0xD9: ("str", ">B", 2**5), 0xDA: ("str", ">H", 2**8), 0xDB: ("str", ">I", 2**16)},
    **{0xDC: ("array", ">H", 2**4), 0xDD: ("array", ">I", 2**16)},
    **{0xDE: ("map", ">H", 2**4), 0xDF: ("map", ">I", 2**16)},
}


class MessagePack:
    """One MessagePack object that fills `data`; `strict` for records, not strict for metadata."""

    def __init__(self, data: bytes, strict: bool, depth: int, items: int) -> None:
        self.data, self.strict, self.depth, self.items = data, strict, depth, items
        self.position = 0

    def whole(self) -> Any:
        """The object."""
        value = self.value(1)
        need(self.position == len(self.data), "record-trailing-bytes")
        return value

    def take(self, size: int) -> bytes:
        """The next bytes."""
        need(size <= len(self.data) - self.position, "record-truncated")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> Any:
        """The next number of a struct format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def canonical(self, rule: bool) -> None:
        """Refuse a record (not metadata) that is not in canonical encoding."""
        need(rule or not self.strict, "record-not-canonical")

    def value(self, level: int) -> Any:
        """The next object; an array or a map here would be at nesting depth `level`."""
        byte = self.take(1)[0]
        value: Any
        if byte < 0x80 or byte >= 0xE0:
            value = byte if byte < 0x80 else byte - 256
        elif byte in (0xC0, 0xC2, 0xC3):
            value = {0xC0: None, 0xC2: False, 0xC3: True}[byte]
        elif byte in UNSIGNED:
            form, least = UNSIGNED[byte]
            value = self.number(form)
            self.canonical(value >= least)
        elif byte in SIGNED:
            form, greatest = SIGNED[byte]
            value = self.number(form)
            self.canonical(value <= greatest)
        elif byte in FLOATS:
            value = self.number(FLOATS[byte])
            need(math.isfinite(value) or not self.strict, "record-not-finite")
            self.canonical(byte == 0xCB)
        else:
            value = self.sized(*self.size(byte), level)
        return value

    def size(self, byte: int) -> tuple[str, int]:
        """Kind and length of the str, bin, array or map that this byte begins."""
        if byte < 0xC0:
            kind = "map" if byte < 0x90 else "array" if byte < 0xA0 else "str"
            return kind, byte & (31 if kind == "str" else 15)
        need(byte in SIZED, "record-bad-type", f"{byte:02x}")
        kind, form, least = SIZED[byte]
        length = int(self.number(form))
        self.canonical(length >= least)
        return kind, length

    def sized(self, kind: str, length: int, level: int) -> Any:
        """The object of this kind and length."""
        if kind == "bin":
            return self.take(length)
        if kind == "str":
            try:
                return self.take(length).decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidFile("record-bad-utf8") from error
        need(level <= self.depth, "record-too-deep")
        need(length <= len(self.data) - self.position, "record-truncated")
        self.items -= length
        need(self.items >= 0, "record-too-many-items")
        if kind == "array":
            return [self.value(level + 1) for _ in range(length)]
        result: Map = {}
        last = ""
        for _ in range(length):
            key = self.value(level + 1)
            need(isinstance(key, str) and (key.isascii() or not self.strict), "record-bad-key")
            need(key not in result, "record-duplicate-key", ascii(key))
            self.canonical(not result or key > last)
            last = key
            result[key] = self.value(level + 1)
        return result


def read_record(data: bytes, limits: Limits) -> Any:
    """The object of a record."""
    need(len(data) <= limits.max_record_bytes, "record-too-large")
    return MessagePack(data, True, limits.max_record_depth, limits.max_record_items).whole()


def fields(value: Any, names: str, critical: bool) -> Map:
    """A map with these fields."""
    need(isinstance(value, dict), "bad-type")
    for name in names.split():
        need(name in value, "missing-key", name)
    need(not critical or len(value) == len(names.split()), "unknown-key", ascii(sorted(value)))
    return dict(value)


def integer(value: Any, low: int, high: int) -> int:
    """An int from low to high."""
    need(type(value) is int, "bad-type")
    need(low <= value <= high, "out-of-range", str(value))
    return int(value)


def real(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A float from low to high."""
    need(type(value) is float, "bad-type")
    need(low <= value <= high, "out-of-range", str(value))
    return float(value)


def array(value: Any, counts: Collection[int], entry: Callable[[Any], T]) -> list[T]:
    """An array with one of these numbers of entries, each of which `entry` checks."""
    need(isinstance(value, list), "bad-type")
    need(len(value) in counts, "out-of-range", f"{len(value)} entries")
    return [entry(item) for item in value]


def matching(value: Any, pattern: str) -> str:
    """A str that the pattern matches as a whole."""
    need(isinstance(value, str), "bad-type")
    need(re.fullmatch(pattern, value) is not None, "out-of-range", ascii(value)[:80])
    return str(value)


def text(value: Any, most: int) -> str:
    """A text of at most so many characters."""
    need(isinstance(value, str), "bad-type")
    need(len(value) <= most, "out-of-range")
    for character in value:
        kind = unicodedata.category(character)
        bad = kind in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or (kind == "Zs" and character != " ")
        need(not bad, "not-printable", ascii(character))
    return str(value)


NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
TYPES = ("u1", "i1", "u2", "i2", "f4")


@dataclass(frozen=True)
class Header:
    """The record `HEAD`."""

    shape: Shape
    dtype: str
    low: float
    high: float
    factors: Shape
    base: str
    sr: Map | None
    spacing: list[float]
    affine: list[float]
    slope: list[float]
    intercept: list[float]

    @property
    def lr_shape(self) -> Shape:
        """Points of the LR grid."""
        return tuple(-(-n // f) for n, f in zip(self.shape, self.factors, strict=True))


def read_head(data: bytes, limits: Limits) -> Header:
    """Check and read the record `HEAD`."""
    names = "shape dtype range factors base sr spacing affine slope intercept"
    record = fields(read_record(data, limits), names, True)
    shape = tuple(array(record["shape"], [3], lambda n: integer(n, 1, 65536)))
    need(math.prod(shape) <= limits.max_voxels, "too-many-voxels")
    dtype = matching(record["dtype"], "|".join(TYPES))
    if dtype == "f4":
        least, greatest = -float(np.finfo("f4").max), float(np.finfo("f4").max)
    else:
        least, greatest = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    low, high = array(record["range"], [2], lambda v: real(v, least, greatest))
    need(dtype == "f4" or (low.is_integer() and high.is_integer()), "out-of-range", "range")
    need(low <= high, "out-of-range", "range")
    factors = tuple(array(record["factors"], [3], lambda f: integer(f, 1, 8)))
    need(all(f in (1, 2, 4, 8) for f in factors), "out-of-range", "factors")
    base = matching(record["base"], "|".join(BASES))
    sr = record["sr"]
    if sr is not None:
        check_reference(sr)
    spacing = array(record["spacing"], [3], lambda v: real(v, math.ulp(0), 1e6))
    affine = array(record["affine"], [12], lambda v: real(v, -1e9, 1e9))
    slope = array(record["slope"], [1, shape[0]], real)
    intercept = array(record["intercept"], [1, shape[0]], real)
    return Header(shape, dtype, low, high, factors, base, sr, spacing, affine, slope, intercept)


def check_reference(value: Any) -> None:
    """Check the map that names a model."""
    fields(value, "name version sha256", True)
    matching(value["name"], NAME)
    integer(value["version"], 1, 65535)
    need(isinstance(value["sha256"], bytes), "bad-type")
    need(len(value["sha256"]) == 32, "out-of-range")


def read_measured(data: bytes, limits: Limits) -> Map:
    """Check and read the record `meas`."""
    errors, ratios = "peak max_error mean_error", "psnr psnr_lanczos lr_psnr worst_slice_psnr"
    record = fields(read_record(data, limits), f"{errors} {ratios} ssim worst_slice promise", False)
    for name in errors.split():
        real(record[name], 0)
    for name in ratios.split():
        need(record[name] is None or type(record[name]) is float, "bad-type", name)
    real(record["ssim"], -1, 1)
    integer(record["worst_slice"], 0, 65535)
    if record["promise"] is not None:
        promise = fields(record["promise"], "kind value", False)
        matching(promise["kind"], "ratio|psnr|max_error")
        real(promise["value"], 0)
    return record


def read_provenance(data: bytes, limits: Limits) -> Map:
    """Check and read the record `prov`."""
    record = fields(read_record(data, limits), "software preset seed device omega steps", False)
    for name, most in (("software", 256), ("preset", 64), ("device", 256)):
        text(record[name], most)
    real(record["omega"], 0)
    integer(record["seed"], 0, 2**63 - 1)
    integer(record["steps"], 0, 2**63 - 1)
    return record


def read_metadata(data: bytes, limits: Limits) -> Map:
    """Check and read the section `meta`: one Zstandard frame around one MessagePack map."""
    need(data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 4, "metadata-bad-frame")
    descriptor = data[4]
    single = bool(descriptor & 0x20)
    id_bytes = (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 + (0 if single else 1)
    need(len(data) >= start + id_bytes + size_bytes, "metadata-bad-frame")
    need(not any(data[start : start + id_bytes]), "metadata-bad-frame", "dictionary")
    need(size_bytes > 0, "metadata-no-size")
    start += id_bytes
    size = int.from_bytes(data[start : start + size_bytes], "little") + (256 if size_bytes == 2 else 0)
    window = size if single else (8 + (data[5] & 7)) << (7 + (data[5] >> 3))
    need(max(size, window) <= limits.max_metadata_bytes, "metadata-too-large")
    try:
        content = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InvalidFile("metadata-bad-frame") from error
    need(len(content) == size, "metadata-bad-frame")
    value = MessagePack(content, False, limits.max_metadata_depth, limits.max_metadata_items).whole()
    need(isinstance(value, dict), "bad-type")
    return dict(value)


# ---- Exact integers ----


def checked(table: NDArray[Any], kind: str, digest: str) -> Ints:
    """The table, which must have the SHA-256 that the specification gives."""
    if hashlib.sha256(table.astype(kind).tobytes()).hexdigest() != digest:
        raise ArithmeticError("this machine's sin, erfc or exp does not give the specification's table")
    return table.astype(np.int64)


@cache
def sine_table() -> Ints:
    """S[k] for the 2^16 phases."""
    table = np.rint(16383 * np.sin(2 * np.pi * np.arange(65536) / 65536))
    return checked(table, "<i2", "f9948aa298fbb78bf11b972e5867cf2851d83825f5325caec261bcc889798fad")


@cache
def bank() -> Ints:
    """F[t, v + 128] for the 58 tables t = 29 family + scale."""

    def tail(family: int, x: float) -> float:
        return (math.erfc(x / math.sqrt(2)) if family == 0 else math.exp(-math.sqrt(2) * x)) / 2

    table = np.zeros((58, 256), np.int64)
    for t in range(58):
        family, sigma = t // 29, 2 ** ((t % 29 - 12) / 4)
        for v in range(1, 129):
            mass = tail(family, (v - 0.5) / sigma) - tail(family, (v + 0.5) / sigma)
            table[t, 128 - v] = 1 + math.floor(65280 * mass)
            if v < 128:
                table[t, 128 + v] = table[t, 128 - v]
        table[t, 128] = 65536 - table[t].sum()
    return checked(table, "<u2", "86c56be97d52c6961f12b342ed6a1f7c88f191f6712bf98a9ffb0c7c28ccd9e4")


def decode_rans(code: bytes, tables: list[int]) -> list[int]:
    """The symbols of an entropy code, one for each table number."""
    lanes = max(1, min(64, len(tables) // 1024))
    need(len(code) >= 4 * lanes and len(code) % 2 == 0, "rans-truncated")
    states = [int(x) for x in np.frombuffer(code, "<u4", lanes)]
    words = [int(w) for w in np.frombuffer(code, "<u2", offset=4 * lanes)]
    need(min(states) >= 65536, "rans-bad-state")
    starts = [[0, *(int(c) for c in np.cumsum(row))] for row in bank()]  # C[v] and, after it, C[v] + F[v]
    symbols, taken = [], 0
    for i, t in enumerate(tables):
        x = states[i % lanes]
        slot = x % 65536
        s = bisect_right(starts[t], slot) - 1
        x = (starts[t][s + 1] - starts[t][s]) * (x // 65536) + slot - starts[t][s]
        if x < 65536:
            need(taken < len(words), "rans-truncated")
            x = 65536 * x + words[taken]
            taken += 1
        states[i % lanes] = x
        symbols.append(s - 128)
    need(taken == len(words) and all(x == 65536 for x in states), "rans-bad-end")
    return symbols


def decode_integers(data: bytes, groups: list[tuple[int, int, int]]) -> list[Ints]:
    """An integer array whose values come in groups of (number, family, level): the values of each group."""
    low_bits = [max(0, -((28 - level) // 4)) for _, _, level in groups]  # ceil((level - 28) / 4)
    total = sum(n * k for (n, _, _), k in zip(groups, low_bits, strict=True))
    split = len(data) - (total + 7) // 8
    need(split >= 0, "rans-truncated")
    tables: list[int] = []
    for (n, family, level), k in zip(groups, low_bits, strict=True):
        tables += n * [29 * family + level - 4 * k]
    highs = np.array(decode_rans(data[:split], tables), np.int64)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=split)).astype(np.int64)
    need(not bits[total:].any(), "padding-not-zero")
    result, value, bit = [], 0, 0
    for (n, _, _), k in zip(groups, low_bits, strict=True):
        lows = bits[bit : bit + n * k].reshape(n, k) @ (1 << np.arange(k - 1, -1, -1, dtype=np.int64))
        result.append((highs[value : value + n] << k) + lows)
        value, bit = value + n, bit + n * k
    return result


# ---- The base network ----


@dataclass(frozen=True)
class Layer:
    """One layer: weights (rows, inputs), biases (rows), and the numbers of its record."""

    weights: Ints
    biases: Ints
    scale: int
    shift: int
    bias_shift: int


def read_network(data: bytes, grid: Shape, limits: Limits) -> list[Layer]:
    """Check and read the section `SIRN` of a file with this grid."""
    need(len(data) >= 4, "network-truncated")
    end = 4 + int.from_bytes(data[:4], "little")
    need(len(data) >= end, "network-truncated")
    record = fields(read_record(data[4:end], limits), "width depth layers", True)
    width, depth = integer(record["width"], 1, 1024), integer(record["depth"], 1, 2**31)
    need(depth + 1 <= limits.max_layers, "too-many-layers")
    shapes = [(width, 3), *((depth - 1) * [(width, width)]), (1, width)]
    parameters = sum(rows * (inputs + 1) for rows, inputs in shapes)
    need(parameters <= limits.max_parameters, "too-many-parameters")
    entries = array(record["layers"], [depth + 1], read_layer_entry)
    need(parameters * math.prod(grid) <= limits.max_work, "too-much-work")

    groups: list[tuple[int, int, int]] = []
    for (rows, inputs), (_, _, _, weights, biases) in zip(shapes, entries, strict=True):
        groups += [(rows * inputs, *weights), (rows, *biases)]
    values = decode_integers(data[end:], groups)
    layers = []
    for i, (shape, (scale, shift, bias_shift, _, _)) in enumerate(zip(shapes, entries, strict=True)):
        q = values[2 * i].reshape(shape)
        if i == 0:
            greatest = int(abs(q).max()) * scale * 2**20
        else:
            greatest = int(abs(q).sum(axis=1).max()) * scale + 2**shift // 2
        need(greatest < 2**52, "network-overflow", f"layer {i}")
        layers.append(Layer(q, values[2 * i + 1], scale, shift, bias_shift))
    return layers


def read_layer_entry(entry: Any) -> tuple[int, int, int, tuple[int, int], tuple[int, int]]:
    """Check one entry of `layers`: scale, shift, bias_shift, and (family, level) of weights and biases."""

    def pair(value: Any) -> tuple[int, int]:
        family, level = array(value, [2], lambda v: integer(v, 0, 92))
        return integer(family, 0, 1), level

    fields(entry, "scale shift bias_shift weights biases", True)
    scale, shift = integer(entry["scale"], 1, 16383), integer(entry["shift"], 0, 48)
    return scale, shift, integer(entry["bias_shift"], 0, 15), pair(entry["weights"]), pair(entry["biases"])


def evaluate(layers: list[Layer], grid: Shape) -> Ints:
    """The code u of every point of the grid. Right shifts of int64 are floor(a / 2^k)."""
    first = layers[0]
    terms = []
    for axis, n in enumerate(grid):
        c = ((2 * np.arange(n, dtype=np.int64) + 1 - n) << 20) // n
        terms.append((first.scale * first.weights[:, axis, None] * c) >> first.shift)
    codes = np.empty(math.prod(grid), np.int64)
    for start in range(0, codes.size, 2**15):
        points = np.arange(start, min(start + 2**15, codes.size))
        s = sum(term[:, i] for term, i in zip(terms, np.unravel_index(points, grid), strict=True))
        z = ((s + 128) >> 8) + (first.biases << first.bias_shift)[:, None]
        for layer in layers[1:]:
            a = (layer.scale * sine_table()[z & 65535] + 2**13) >> 14
            sums = layer.weights.astype(np.float64) @ a.astype(np.float64)  # exact, by the headroom
            half = 2**layer.shift // 2
            z = ((sums.astype(np.int64) + half) >> layer.shift) + (layer.biases << layer.bias_shift)[:, None]
        codes[points] = z[0].clip(-65536, 131071)
    return codes.reshape(grid)


# ---- Models ----


@dataclass(frozen=True)
class Model:
    """A model."""

    kind: str
    config: dict[str, int]
    tensors: dict[str, Floats]
    sha256: bytes


def read_model(data: bytes, limits: Limits) -> Model:
    """Check and read a whole `.inrm` file."""
    sections = read_container(data, "MODL", limits)
    names = "name version kind config licence trained_on tensors"
    record = fields(read_record(sections["MODL"], limits), names, True)
    matching(record["name"], NAME)
    integer(record["version"], 1, 65535)
    kind = matching(record["kind"], "light|srdensenet|context|latents")
    need(isinstance(record["config"], dict), "bad-type")
    need(len(record["config"]) <= 64, "out-of-range", "config")
    for key, value in record["config"].items():
        matching(key, r"[a-z][a-z0-9_]{0,63}")
        integer(value, -(2**31), 2**31 - 1)
    matching(record["licence"], r"[A-Za-z0-9.+:() -]{1,64}")
    text(record["trained_on"], 4096)
    listed: dict[str, tuple[str, Shape]] = {}
    for entry in array(record["tensors"], range(1, 4097), lambda entry: entry):
        need(isinstance(entry, list) and len(entry) == 3, "bad-type")
        name = text(entry[0], 128)
        need(name not in listed, "duplicate-tensor", name)
        shape = tuple(array(entry[2], range(1, 6), lambda n: integer(n, 1, 2**31 - 1)))
        listed[name] = (matching(entry[1], "f4|f2"), shape)
    parameters = sum(math.prod(shape) for _, shape in listed.values())
    need(parameters <= limits.max_parameters, "too-many-parameters")
    size = sum(int(dtype[1]) * math.prod(shape) for dtype, shape in listed.values())
    need(size <= limits.max_model_bytes, "model-too-large")
    need(size == len(sections["TENS"]), "tensor-size-mismatch")
    tensors, offset = {}, 0
    for name, (dtype, shape) in listed.items():
        tensor = np.frombuffer(sections["TENS"], f"<{dtype}", math.prod(shape), offset)
        need(bool(np.isfinite(tensor).all()), "weight-not-finite", name)
        tensors[name] = tensor.reshape(shape).astype(np.float64)
        offset += tensor.nbytes
    check_kind(kind, record["config"], {name: shape for name, (_, shape) in listed.items()})
    if kind in INTEGER:
        check_weights(tensors)
    return Model(kind, record["config"], tensors, hashlib.sha256(data).digest())


def check_kind(kind: str, config: dict[str, int], shapes: dict[str, Shape]) -> None:
    """Refuse a model whose config or tensors are not those of its kind."""
    if kind in INTEGER:
        need(not config, "out-of-range", "config")
        names = [f"{network}.{layer}" for network in INTEGER[kind] for layer in LAYERS]
        need(shapes.keys() == set(names), "out-of-range", "tensors")
        for network, inputs in INTEGER[kind].items():
            first, second, last = (shapes[f"{network}.{layer}"] for layer in LAYERS)
            need(max(first[0], second[0]) <= 1024, "out-of-range", "hidden")
            right = (first[1:], second[1:], last[1:]) == ((inputs,), (first[0] + 1,), (second[0] + inputs,))
            need(right and last[0] in ROWS_OF_LAST[kind], "out-of-range", network)
        return
    light = {"channels": 256, "layers": 32}
    ranges = light if kind == "light" else {"blocks": 32, "layers": 32, "growth": 128, "maps": 1024}
    need(config.keys() == ranges.keys(), "out-of-range", "config")
    for key, most in ranges.items():
        integer(config[key], 1, most)
    if kind == "light":
        c, n = config["channels"], config["layers"]
        expected: dict[str, Shape] = {"first.weight": (c, 1, 3, 3, 3)}
        expected |= {"gains": (n, 3, 3, c), "head": (7, 7, 7, c)}
        expected |= {f"convs.{i}.weight": (c, c, 3, 3, 3) for i in range(n)}
    else:
        g, maps = config["growth"], config["maps"]
        v = config["layers"] * g
        weights: dict[str, Shape] = {"low": (v, 1, 3, 3), "reconstruction": (1, maps, 3, 3)}
        weights["bottleneck"] = (maps, v * (config["blocks"] + 1), 1, 1)
        weights["up1"] = weights["up2"] = (maps, maps, 3, 3)
        for b in range(config["blocks"]):
            for i in range(config["layers"]):
                weights[f"blocks.{b}.convs.{i}"] = (g, g * i if i else v * (b + 1), 3, 3)
        expected = {f"{name}.weight": shape for name, shape in weights.items()}
        expected |= {f"{name}.bias": shape[:1] for name, shape in weights.items()}
    need(shapes == expected, "out-of-range", "tensors")


LAYERS = ("first", "second", "last")
ROWS_OF_LAST = {"context": (3,), "latents": (3, 6)}
INTEGER = {
    "context": {
        f"{where}.{kind}": len(lattice.neighbours(kind)) + 6
        for where in ("z", "y", "x", "coarse")
        for kind in range(4)
    },
    "latents": {str(pattern): inrv_latents.inputs(pattern) for pattern in inrv_latents.PATTERNS},
}
"""The networks of the models of whole numbers, and how many inputs each has."""


def check_weights(tensors: dict[str, Floats]) -> None:
    """Refuse a model of whole numbers whose weights are not whole, or too large to be exact."""
    for tensor in tensors.values():
        need(bool((tensor == np.rint(tensor)).all()), "out-of-range", "not whole")
        need(abs(tensor).max() <= 2047, "out-of-range", "too large")
        need(abs(tensor).sum(axis=1).max() * 127 < 2**24, "out-of-range", "too large")


def centred(model: Model, section: bytes | None) -> tuple[Model, list[lattice.Centre]]:
    """The context model as the section PRED leaves it, and the centres of its networks."""
    networks = list(INTEGER["context"])
    if section is None:
        return model, [lattice.Centre(0, None)] * len(networks)
    need(len(section) >= 64, "network-truncated", "PRED")
    entries, groups = [section[i : i + 4] for i in range(0, 64, 4)], []
    for number, (has, fine, family, level) in enumerate(entries):
        need(has < 2 and fine < 5 and family < 2 and level < 93, "out-of-range", "PRED")
        need(has == 1 or family == level == 0, "out-of-range", "PRED")
        groups.append((len(lattice.taps(number % 4)) * has, family, level))
    weights, tensors, centres = decode_integers(section[64:], groups), dict(model.tensors), []
    for name, (has, fine, *_), values in zip(networks, entries, weights, strict=True):
        need(not values.size or abs(values).max() <= 32767, "out-of-range", "PRED")
        last = tensors[f"{name}.last"].copy()
        last[0] *= 0 if has else 2**fine
        tensors[f"{name}.last"] = last
        centres.append(lattice.Centre(fine, values if has else None))
    check_weights(tensors)
    return Model(model.kind, model.config, tensors, model.sha256), centres


def tuned(model: Model, section: bytes | None) -> Model:
    """The context model with what the section TUNE adds to its weights."""
    if section is None:
        return model
    names = [f"{network}.{layer}" for network in INTEGER["context"] for layer in LAYERS]
    end = 3 * len(names)
    need(len(section) >= end, "network-truncated", "TUNE")
    groups = []
    for i, name in enumerate(names):
        family, level, shift = section[3 * i : 3 * i + 3]
        need(family < 2 and level < 93 and shift < 9, "out-of-range", "TUNE")
        groups.append((model.tensors[name].size, family, level))
    tensors = dict(model.tensors)
    changes = decode_integers(section[end:], groups)
    for name, values, shift in zip(names, changes, section[2:end:3], strict=True):
        tensors[name] = tensors[name] + (values << shift).reshape(tensors[name].shape)
    check_weights(tensors)
    return Model(model.kind, model.config, tensors, model.sha256)


def zoned(model: Model, section: bytes | None, shape: Shape) -> lattice.Zones | None:
    """What the section ZONE says: the sets of the zones, and the last layers that they have."""
    if section is None:
        return None
    need(len(section) >= 4, "network-truncated", "ZONE")
    count, axes = section[0], tuple(section[1:4])
    need(2 <= count <= 16, "out-of-range", "ZONE")
    need(all(1 <= k <= n for k, n in zip(axes, shape, strict=True)), "out-of-range", "ZONE")
    names = [f"{name}.last" for name in INTEGER["context"]][:12] * count
    first = 4 + math.prod(axes)
    end = first + 2 * len(names)
    need(len(section) >= end, "network-truncated", "ZONE")
    sets = np.frombuffer(section, np.uint8, first - 4, 4).reshape(axes).astype(np.int64)
    need(int(sets.max()) < count, "out-of-range", "ZONE")
    groups = []
    for i, name in enumerate(names):
        family, level = section[first + 2 * i : first + 2 * i + 2]
        need(family < 2 and level < 93, "out-of-range", "ZONE")
        groups.append((model.tensors[name].size, family, level))
    changes = decode_integers(section[end:], groups)
    lasts = []
    for number in range(count):
        pairs = zip(names[:12], changes[12 * number : 12 * number + 12], strict=True)
        own = {
            name: model.tensors[name] + values.reshape(model.tensors[name].shape) for name, values in pairs
        }
        check_weights(own)
        lasts.append(list(own.values()))
    return lattice.Zones(shape, sets, lasts)


def convolve(x: Floats, weights: Floats) -> Floats:
    """Cross-correlation without padding: x is (inputs, ...), weights are (outputs, inputs, ...)."""
    taps = weights.shape[2:]
    size = [n - k + 1 for n, k in zip(x.shape[1:], taps, strict=True)]
    out = np.zeros((len(weights), *size))
    for tap in np.ndindex(*taps):
        window = x[(slice(None), *(slice(d, d + n) for d, n in zip(tap, size, strict=True)))]
        out += np.tensordot(weights[(slice(None), slice(None), *tap)], window, 1)
    return out


def light_detail(x: Floats, factors: Shape, model: Model) -> Floats:
    """The detail of kind `light`, before voxels beyond the shape are dropped."""
    tensors = model.tensors
    kernel = tensors["first.weight"]
    inner = (slice(None), *(3 * [slice(1, -1)]))
    h = np.pad(x, model.config["layers"] + 1, mode="edge")[None]
    h = convolve(h, kernel - kernel.mean(axis=(2, 3, 4), keepdims=True))
    for i in range(model.config["layers"]):
        gain = 1 + sum(tensors["gains"][i, axis, (1, 2, 4).index(f)] for axis, f in enumerate(factors))
        weights = np.reshape(gain, (-1, 1, 1, 1, 1)) * tensors[f"convs.{i}.weight"]
        h = convolve(np.where(h >= 0, h, h / 10), weights) + h[inner]
    fz, fy, fx = (slice((0, 1, 3)[(1, 2, 4).index(f)], None) for f in factors)
    head = tensors["head"][fz, fy, fx][tuple(slice(f) for f in factors)]
    detail: Floats = np.einsum("czyx,uvwc->zuyvxw", h, head)
    return detail.reshape([n * f for n, f in zip(x.shape, factors, strict=True)])


def srdensenet_detail(x: Floats, factors: Shape, model: Model) -> Floats:
    """The detail of kind `srdensenet`, before voxels beyond the shape are dropped."""

    def conv(name: str, x: Floats) -> Floats:
        weights = model.tensors[f"{name}.weight"]
        if weights.shape[-1] == 3:
            x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        return convolve(x, weights) + model.tensors[f"{name}.bias"][:, None, None]

    def double(name: str, x: Floats) -> Floats:
        weights, (_, rows, columns) = model.tensors[f"{name}.weight"], x.shape
        out = np.zeros((weights.shape[1], 2 * rows + 1, 2 * columns + 1))  # from position -1
        for dy, dx in np.ndindex(3, 3):
            part = np.tensordot(weights[:, :, dy, dx].T, x, 1)
            out[:, dy : dy + 2 * rows : 2, dx : dx + 2 * columns : 2] += part
        return out[:, 1:, 1:] + model.tensors[f"{name}.bias"][:, None, None]

    def relu(x: Floats) -> Floats:
        return x.clip(0)

    slices = []
    for plane in x:
        y = relu(conv("low", plane[None]))
        for b in range(model.config["blocks"]):
            made = relu(conv(f"blocks.{b}.convs.0", y))
            for i in range(1, model.config["layers"]):
                made = np.concatenate([made, relu(conv(f"blocks.{b}.convs.{i}", made))])
            y = np.concatenate([y, made])
        y = relu(double("up2", relu(double("up1", relu(conv("bottleneck", y))))))
        slices.append(conv("reconstruction", y)[0])
    return lanczos(np.stack(slices), 0, len(x) * factors[0], factors[0], repeat=True)


def changed(model: Model, section: bytes | None) -> Model:
    """The super-resolution model with what the section SRTU adds to its weights."""
    if section is None:
        return model
    shapes = [(len(weights), weights.size // len(weights)) for weights in model.tensors.values()]
    end = 6 * len(shapes)
    need(len(section) >= end, "network-truncated", "SRTU")
    groups = []
    for at, (rows, columns) in zip(range(0, end, 6), shapes, strict=True):
        rank, exponent, *kinds = section[at : at + 6]
        need(rank <= min(16, rows, columns) and exponent <= 24, "out-of-range", "SRTU")
        need(max(kinds[::2]) < 2 and max(kinds[1::2]) < 93, "out-of-range", "SRTU")
        need(rank > 0 or kinds[2] == kinds[3] == 0, "out-of-range", "SRTU")
        groups.append((rows * (rank or columns), kinds[0], kinds[1]))
        groups.append((rank * columns, kinds[2], kinds[3]))
    numbers, tensors = decode_integers(section[end:], groups), {}
    need(all(abs(part).max(initial=0) <= 32767 for part in numbers), "out-of-range", "SRTU")
    parts = zip(numbers[::2], numbers[1::2], section[1:end:6], strict=True)
    for (name, weights), (u, v, exponent) in zip(model.tensors.items(), parts, strict=True):
        total = u.reshape(len(weights), -1) @ v.reshape(-1, weights.size // len(weights)) if v.size else u
        tensors[name] = weights + total.reshape(weights.shape) / 2.0**exponent
    return Model(model.kind, model.config, tensors, model.sha256)


def detail(x: Floats, file: File, model: Model) -> Floats:
    """The detail that a model adds to the grid x."""
    header, limits = file.header, file.limits
    need(model.kind not in INTEGER, "model-mismatch", model.kind)
    if model.kind == "light":
        fits = set(header.factors) <= {1, 2, 4}
        border = 2 * model.config["layers"] + 2
        largest = model.config["channels"] * math.prod(n + border for n in x.shape)
    else:
        fits = header.factors[1:] == (4, 4)
        kept = model.config["layers"] * model.config["growth"] * (model.config["blocks"] + 1)
        largest = max(kept, 16 * model.config["maps"]) * x.shape[1] * x.shape[2]
    need(fits, "model-mismatch", str(header.factors))
    work = sum(tensor.size for tensor in model.tensors.values()) * x.size
    need(work <= limits.max_work, "too-much-work")
    need(largest <= limits.max_activations, "too-much-memory")
    make = light_detail if model.kind == "light" else srdensenet_detail
    with np.errstate(over="ignore", invalid="ignore"):
        found = make(x, header.factors, changed(model, file.changes))
    return np.where(np.isfinite(found), found, 0)[tuple(slice(n) for n in header.shape)]


# ---- Lossless and bounded volumes ----

Own = tuple[bytes | None, bytes | None, bytes | None]
"""The sections PRED, TUNE and ZONE."""


@dataclass(frozen=True)
class Bricks:
    """The sections LATT, CTXM, PRED, TUNE, ZONE, BIDX and BRIX; a brick with a wrong CRC has no bytes."""

    error: int
    runs: list[list[int]] | None
    grid: list[float] | None
    greatest: int
    order: list[int]
    counts: Shape
    reference: Map
    context: Model | None
    own: Own
    codes: list[bytes]


def read_runs(value: Any, greatest: int) -> list[list[int]]:
    """Check the runs of values."""
    runs = array(value, range(1, 65537), lambda v: array(v, [3], lambda n: integer(n, -32768, 65536)))
    least = -32768
    for first, stride, count in runs:
        need(first >= least and stride >= 1 and count >= 1, "out-of-range", "runs")
        least = first + stride * (count - 1) + 1
        need(least <= 65536, "out-of-range", "runs")
    need(sum(count for _, _, count in runs) == greatest + 1, "out-of-range", "runs")
    return runs


def read_bricks(sections: dict[str, bytes], header: Header, limits: Limits) -> Bricks:
    """Check and read what a lossless or bounded file has besides its base network."""
    names = "error values grid greatest order bricks model"
    record = fields(read_record(sections["LATT"], limits), names, True)
    error, greatest = integer(record["error"], 0, 32767), integer(record["greatest"], 0, 65535)
    runs = None if record["values"] is None else read_runs(record["values"], greatest)
    grid = None if record["grid"] is None else array(record["grid"], [2], real)
    need((runs is None) != (grid is None), "out-of-range", "values or grid")
    need((grid is None) != (header.dtype == "f4"), "out-of-range", "values or grid")
    if grid is not None:
        need(grid[1] > 0 and math.isfinite(grid[0] + greatest * grid[1]), "out-of-range", "grid")
    if runs is not None:
        need(error == 0 or (len(runs) == 1 and runs[0][1] == 1), "out-of-range", "a bound needs one run")
        last = runs[-1][0] + runs[-1][1] * (runs[-1][2] - 1)
        need((runs[0][0], last) == (header.low, header.high), "out-of-range", "values and range")
    order = array(record["order"], range(16), lambda axis: integer(axis, 0, 2))
    need(max(order.count(axis) for axis in range(3)) <= 5, "out-of-range", "order")
    counts = tuple(array(record["bricks"], [3], lambda n: integer(n, 1, 65536)))
    need(all(k <= n for k, n in zip(counts, header.shape, strict=True)), "out-of-range", "bricks")
    need(record["model"] is not None, "bad-type", "model")
    check_reference(record["model"])
    largest = math.prod(-(-n // k) for n, k in zip(header.shape, counts, strict=True))
    need(largest <= limits.max_brick_voxels, "brick-too-large")

    need(len(sections["BIDX"]) == 8 * math.prod(counts), "bad-index")
    index = np.frombuffer(sections["BIDX"], "<u4").reshape(-1, 2)
    need(int(index[:, 0].astype(np.int64).sum()) == len(sections["BRIX"]), "bad-index")
    codes, start = [], 0
    for size, crc in index.tolist():
        code = sections["BRIX"][start : start + size]
        codes.append(code if crc32c(code) == crc else b"")
        start += size

    context, own = None, (sections.get("PRED"), sections.get("TUNE"), sections.get("ZONE"))
    if "CTXM" in sections:
        digest = hashlib.sha256(sections["CTXM"]).digest()
        need(record["model"]["sha256"] == digest, "model-hash-mismatch")
        context = read_model(sections["CTXM"], limits)
        check_context(context, record["model"], own, header, limits)
    return Bricks(error, runs, grid, greatest, order, counts, record["model"], context, own, codes)


def check_context(
    context: Model,
    reference: Map,
    own: Own,
    header: Header,
    limits: Limits,
) -> tuple[list[lattice.Network], list[lattice.Centre], lattice.Zones | None]:
    """The networks of a context model, which must be the one that the file names, their centres and zones."""
    need(context.sha256 == reference["sha256"], "model-hash-mismatch")
    need(context.kind == "context", "model-mismatch", context.kind)
    model, centres = centred(context, own[0])
    taps = max(0 if centre.taps is None else len(centre.taps) for centre in centres)
    model = tuned(model, own[1])
    zones = zoned(model, own[2], header.shape)
    more = 0
    if zones is not None:
        more = (len(zones.lasts) - 1) * max(layer.size for layer in zones.lasts[0])
    return networks_of(model, math.prod(header.shape), limits, taps + more), centres, zones


def networks_of(model: Model, points: int, limits: Limits, more: int = 0) -> list[lattice.Network]:
    """The networks of a model of whole numbers, which is to predict so many points."""
    tensors = model.tensors
    networks = [
        (tensors[f"{name}.first"], tensors[f"{name}.second"], tensors[f"{name}.last"])
        for name in INTEGER[model.kind]
    ]
    work = (max(sum(layer.size for layer in layers) for layers in networks) + more) * points
    need(work <= limits.max_work, "too-much-work")
    return networks


def to_values(levels: Ints, bricks: Bricks, header: Header) -> NDArray[Any]:
    """The stored values of levels."""
    if bricks.grid is not None:
        return store(bricks.grid[0] + levels.astype(np.float64) * bricks.grid[1], header)
    table = [first + stride * k for first, stride, count in bricks.runs or [] for k in range(count)]
    return np.array(table).astype(f"<{header.dtype}")[levels]


def decode_bricks(file: File, context: Model | None) -> NDArray[Any]:
    """The full level of a lossless or bounded file, exact."""
    bricks, header = file.bricks, file.header
    assert bricks is not None
    context = bricks.context or context
    if context is None:
        raise ModelNotFound(f"{bricks.reference['name']}, SHA-256 {bricks.reference['sha256'].hex()}")
    own = check_context(context, bricks.reference, bricks.own, header, file.limits)
    plan = lattice.Plan(bricks.greatest, bricks.error, bricks.order, *own)
    out = np.empty(header.shape, f"<{header.dtype}")
    for code, place in zip(bricks.codes, np.ndindex(*bricks.counts), strict=True):
        box = tuple(
            slice(i * n // k, (i + 1) * n // k)
            for i, n, k in zip(place, header.shape, bricks.counts, strict=True)
        )
        try:
            levels = lattice.decode_brick(code, out[box].shape, tuple(s.start for s in box), plan)
        except lattice.Damaged as error:
            raise InvalidFile("damaged-brick", str(place)) from error
        out[box] = to_values(levels, bricks, header)
    return out


# ---- Latents ----


def with_products(model: Model, section: bytes | None) -> Model:
    """The latent model with what the section LATU adds to its weights."""
    if section is None:
        return model
    names = list(INTEGER["latents"])
    need(len(section) >= len(names), "network-truncated", "LATU")
    changed = [(name, rank) for name, rank in zip(names, section, strict=False) if rank]
    end = len(names) + 6 * len(changed)
    need(len(section) >= end, "network-truncated", "LATU")
    need(all(rank <= 16 for _, rank in changed), "out-of-range", "LATU")
    need(all(level < 93 for level in section[len(names) : end]), "out-of-range", "LATU")
    layers, sizes = [f"{name}.{layer}" for name, _ in changed for layer in LAYERS], []
    for number, layer in enumerate(layers):
        rows, columns = model.tensors[layer].shape
        rank = min(changed[number // 3][1], rows)
        sizes += [rows * rank, rank * columns]
    groups = [(size, 1, level) for size, level in zip(sizes, section[len(names) : end], strict=True)]
    numbers, tensors = decode_integers(section[end:], groups), dict(model.tensors)
    for layer, u, v in zip(layers, numbers[::2], numbers[1::2], strict=True):
        rows, columns = tensors[layer].shape
        tensors[layer] = tensors[layer] + u.reshape(rows, -1) @ v.reshape(-1, columns)
    check_weights(tensors)
    return Model(model.kind, model.config, tensors, model.sha256)


@dataclass(frozen=True)
class Latents:
    """The sections LATN, LATM, LATU and LATD."""

    masks: list[int]
    steps: list[int]
    bias: list[int]
    lanes: int
    reference: Map
    model: Model | None
    changes: bytes | None
    data: bytes


def read_latents(sections: dict[str, bytes], header: Header, limits: Limits) -> Latents:
    """Check and read what makes an LR grid of latents, but for the code."""
    record = fields(read_record(sections["LATN"], limits), "masks steps bias lanes model", True)
    masks = array(record["masks"], range(7), lambda mask: integer(mask, 1, 7))
    bands = sum(len(inrv_latents.bands(mask)) for mask in masks) + 1
    steps = array(record["steps"], [bands], lambda step: integer(step, 1, 65535))
    bias = array(record["bias"], [bands], lambda b: integer(b, 0, 127))
    lanes = integer(record["lanes"], 0, 4096)
    need(record["model"] is not None, "bad-type", "model")
    check_reference(record["model"])
    need(math.prod(header.lr_shape) <= limits.max_latents, "too-many-latents")
    model = None
    if "LATM" in sections:
        digest = hashlib.sha256(sections["LATM"]).digest()
        need(record["model"]["sha256"] == digest, "model-hash-mismatch")
        model = read_model(sections["LATM"], limits)
        check_latent_model(model, record["model"], sections.get("LATU"), header, limits)
    return Latents(masks, steps, bias, lanes, record["model"], model, sections.get("LATU"), sections["LATD"])


def check_latent_model(
    model: Model, reference: Map, changes: bytes | None, header: Header, limits: Limits
) -> dict[int, lattice.Network]:
    """The networks of a latent model, by pattern, changed; it must be the one that the file names."""
    need(model.sha256 == reference["sha256"], "model-hash-mismatch")
    need(model.kind == "latents", "model-mismatch", model.kind)
    networks = networks_of(with_products(model, changes), math.prod(header.lr_shape), limits)
    return dict(zip(inrv_latents.PATTERNS, networks, strict=True))


def read_alike(data: bytes, count: int) -> Ints:
    """An integer array whose one family and level come first."""
    need(len(data) >= 2 and data[0] < 2 and data[1] < 93, "bad-latents", "family or level")
    return decode_integers(data[2:], [(count, data[0], data[1])])[0]


def read_births(counts: bytes, gaps: bytes, sizes: bytes, classes: list[int]) -> list[tuple[Ints, Ints]]:
    """The gaps and the magnitudes of the births of each class."""
    groups, at, which = [(0, 1, 0)] * len(classes), 0, -1
    while at < len(counts):
        pair = [0, 0]  # how many classes have none, and how many births the next one has beyond the first
        for k in range(2):
            more, digits = True, 0
            while more:
                need(at < len(counts) and digits < 5, "bad-latents", "counts")
                pair[k] += counts[at] % 128 << 7 * digits
                more, at, digits = counts[at] > 127, at + 1, digits + 1
        which += pair[0] + 1
        need(which < len(classes) and pair[1] < classes[which], "bad-latents", "more births than points")
        need(at < len(counts) and counts[at] < 93, "bad-latents", "level")
        groups[which] = pair[1] + 1, 1, counts[at]
        at += 1
    total = sum(number for number, _, _ in groups)
    if not total:
        need(not gaps and not sizes, "bad-latents", "births")
        return [(np.zeros(0, np.int64),) * 2 for _ in classes]
    distances = decode_integers(gaps, groups)
    magnitudes = read_alike(sizes, total) + 1
    need(magnitudes.min() >= 0 and magnitudes.max() <= 32767, "bad-latents", "magnitude")
    ends = np.cumsum([number for number, _, _ in groups])[:-1]
    return list(zip(distances, np.split(magnitudes, ends), strict=True))


def decode_latents(file: File, model: Model | None, *, for_preview: bool = False) -> Ints:
    """The codes of an LR grid of latents, or of the level of its pyramid that makes the preview."""
    latents, header = file.latents, file.header
    assert latents is not None
    model = latents.model or model
    if model is None:
        raise ModelNotFound(f"{latents.reference['name']}, SHA-256 {latents.reference['sha256'].hex()}")
    networks = check_latent_model(model, latents.reference, latents.changes, header, file.limits)
    need(len(latents.data) >= 16, "bad-latents", "lengths")
    ends = np.cumsum([16, *np.frombuffer(latents.data, "<u4", 4).tolist()]).tolist()
    need(ends[-1] <= len(latents.data), "bad-latents", "lengths")
    counts, gaps, sizes, points = (latents.data[a:b] for a, b in pairwise(ends))
    classes = inrv_latents.class_sizes(header.lr_shape, latents.masks)
    births = read_births(counts, gaps, sizes, classes)
    coarsest = zip(header.lr_shape, inrv_latents.strides(latents.masks), strict=True)
    smooth = np.cumsum(read_alike(points, math.prod(-(-n // stride) for n, stride in coarsest)))
    need(abs(smooth).max() <= 32767, "bad-latents", "smooth")
    plan = inrv_latents.Plan(header.lr_shape, latents.masks, latents.steps, latents.bias, networks)
    try:
        finest = inrv_latents.finest_of_preview(plan.shape, plan.masks) if for_preview else 0
        return inrv_latents.decode(plan, smooth, births, latents.data[ends[-1] :], latents.lanes, finest)
    except inrv_latents.Damaged as error:
        raise InvalidFile("bad-latents", str(error)) from error


# ---- Decoding ----


@dataclass(frozen=True)
class File:
    """A whole file, read and checked."""

    header: Header
    network: list[Layer] | None
    latents: Latents | None
    model: Model | None
    changes: bytes | None
    bricks: Bricks | None
    metadata: Map | None
    measured: Map | None
    provenance: Map | None
    limits: Limits


def read_file(data: bytes, limits: Limits | None = None) -> File:
    """Check and read everything in a `.inrv` file, but evaluate nothing."""
    limits = limits or Limits()
    sections = read_container(data, "HEAD", limits)
    header = read_head(sections["HEAD"], limits)
    need(sections.keys() >= BASES[header.base], "missing-section", header.base)
    others = OF_BASE - BASES[header.base] - ({"LATM", "LATU"} if header.base == "latents" else set())
    need(not others & sections.keys(), "base-mismatch", header.base)
    need(header.sr is not None or "SRTU" not in sections, "model-hash-mismatch", "SRTU")
    model = None
    if "SRMD" in sections:
        digest = hashlib.sha256(sections["SRMD"]).digest()
        need(header.sr is not None and header.sr["sha256"] == digest, "model-hash-mismatch")
        model = read_model(sections["SRMD"], limits)

    def optional(name: str, read: Callable[[bytes, Limits], Map]) -> Map | None:
        return read(sections[name], limits) if name in sections else None

    return File(
        header,
        read_network(sections["SIRN"], header.lr_shape, limits) if header.base == "siren" else None,
        read_latents(sections, header, limits) if header.base == "latents" else None,
        model,
        sections.get("SRTU"),
        read_bricks(sections, header, limits) if "LATT" in sections else None,
        optional("meta", read_metadata),
        optional("meas", read_measured),
        optional("prov", read_provenance),
        limits,
    )


def store(values: Floats, header: Header) -> NDArray[Any]:
    """Values in stored units: rounded for an integer type, clamped, converted."""
    if header.dtype != "f4":
        values = np.rint(values)
    stored = values.clip(header.low, header.high).astype(f"<{header.dtype}")
    stored += 0  # so that a zero is +0
    return stored


def codes(file: File, latent_model: Model | None = None) -> Ints:
    """The codes u of the LR grid."""
    if file.network is None:
        return decode_latents(file, latent_model)
    return evaluate(file.network, file.header.lr_shape)


def preview(file: File, latent_model: Model | None = None) -> NDArray[Any]:
    """The LR grid in stored values, or a coarser level of its latents; exact."""
    header = file.header
    if file.network is None:
        u = decode_latents(file, latent_model, for_preview=True).astype(np.float64)
    else:
        u = codes(file).astype(np.float64)
    return store(header.low + (u * (header.high - header.low)) / 65536, header)


def lanczos(x: Floats, axis: int, voxels: int, factor: int, repeat: bool = False) -> Floats:
    """Interpolate along an axis to so many voxels; at a border cut the kernel, or `repeat` the border."""
    points = x.shape[axis]
    place = (np.arange(voxels) + 0.5) / factor - 0.5  # of the voxel, among the points
    total, weights = np.zeros(1), np.zeros(1)
    for tap in range(-2, 4):
        j = np.floor(place).astype(np.int64) + tap
        w = np.sinc(j - place) * np.sinc((j - place) / 3)
        if not repeat:
            w = w * ((j >= 0) & (j < points))
        total = total + np.moveaxis(x, axis, -1)[..., j.clip(0, points - 1)] * w
        weights = weights + w
    return np.moveaxis(total / weights, -1, axis)


def full_values(
    file: File, model: Model | None = None, latent_model: Model | None = None
) -> tuple[Floats, float]:
    """The full level before clamping and rounding, and the greatest magnitude of the model's detail."""
    header = file.header
    x = codes(file, latent_model) / 65536
    values, most = x, 0.0
    for axis, (n, f) in enumerate(zip(header.shape, header.factors, strict=True)):
        if f > 1:
            values = lanczos(values, axis, n, f)
    if header.sr is not None:
        model = file.model or model
        if model is None:
            raise ModelNotFound(f"{header.sr['name']}, SHA-256 {header.sr['sha256'].hex()}")
        need(model.sha256 == header.sr["sha256"], "model-hash-mismatch")
        added = detail(x, file, model)
        values, most = values + added, float(abs(added).max())
    return header.low + values * (header.high - header.low), most


def full(file: File, model: Model | None = None, latent_model: Model | None = None) -> NDArray[Any]:
    """The volume at full size in stored values: exact with bricks, else within the tolerance."""
    if file.bricks is not None:
        return decode_bricks(file, model)
    low, high = file.header.low, file.header.high
    return store(full_values(file, model, latent_model)[0].clip(low, high), file.header)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Decode an .inrv file to .npy, by the specification.")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--level", choices=["preview", "full"], default="full")
    parser.add_argument("--model", type=Path, help="the .inrm file that HEAD or LATT names")
    parser.add_argument("--latents", type=Path, help="the .inrm file that LATN names")
    options = parser.parse_args()
    try:
        file = read_file(options.file.read_bytes())
        model, of_latents = (
            read_model(path.read_bytes(), file.limits) if path else None
            for path in (options.model, options.latents)
        )
        preview_only = options.level == "preview"
        volume = preview(file, of_latents) if preview_only else full(file, model, of_latents)
    except (InvalidFile, ModelNotFound) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    np.save(options.out, volume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
