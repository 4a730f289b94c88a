"""The attacks on the container: malformed files, each with the one error code that it must give.

`README.md` lists them by number; `test_container_attacks.py` runs them.
"""

from __future__ import annotations

import hashlib
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import msgpack
import numpy as np
import pytest
import zstandard

from inrformat.container import (
    DEFAULT_LIMITS,
    VOLUME_CRITICAL,
    Limits,
    Measured,
    ModelHeader,
    ModelReference,
    Promise,
    Provenance,
    Reader,
    TensorInfo,
    VolumeHeader,
    pack_metadata,
    records,
    unpack_metadata,
)
from inrformat.container.originals import PACK_CRITICAL, Originals, Rest, compress_rest, read_originals
from inrformat.errors import InrError

HUGE = 2**64 - 1
Entry = list[Any]  # type, CRC-32C, offset, length, reserved


def forge(
    sections: list[tuple[bytes, bytes]],
    edit: Callable[[list[Entry]], None] = lambda table: None,
    *,
    magic: bytes = b"\x93INR\r\n\x1a\n",
    version: tuple[int, int] = (1, 0),
    reserved: tuple[int, int] = (0, 0),
    count: int | None = None,
    length: int | None = None,
    header_crc: int | None = None,
    digest: bytes | None = None,
    gap: bytes = b"",
) -> bytes:
    """A file written from the specification, apart from `layout.build`: any field wrong, every sum right."""
    table: list[Entry] = []
    offset = 32 + 32 * len(sections)
    for name, body in sections:
        table.append([name, google_crc32c.value(body), offset, len(body), 0])
        offset += len(body)
    offset += len(gap)
    edit(table)
    raw_table = b"".join(struct.pack("<4sIQQQ", *entry) for entry in table)
    number = len(table) if count is None else count
    total = offset + 32 if length is None else length
    start = magic + struct.pack("<BBHIQ", *version, reserved[0], number, total)
    crc = google_crc32c.value(start + raw_table) if header_crc is None else header_crc
    data = start + struct.pack("<II", crc, reserved[1]) + raw_table
    data += b"".join(body for _, body in sections) + gap
    return data + (hashlib.sha256(data).digest() if digest is None else digest)


HEAD = VolumeHeader(
    shape=(3, 4, 5),
    dtype="i2",
    range=(-1024.0, 3071.0),
    factors=(1, 2, 2),
    spacing=(2.5, 0.7, 0.7),
    affine=(0.0, 0.0, 0.7, 0.0, 0.0, 0.7, 0.0, 0.0, 2.5, 0.0, 0.0, 0.0),
    sr=ModelReference("light-x2", 1, bytes(32)),
)
MODEL = ModelHeader(
    "light-x2", 1, "light", {"width": 2}, "CC-BY-4.0", "phantoms", (TensorInfo("w", "f4", (2,)),)
)
MEASURED = Measured(40.0, 4095.0, 38.0, None, 0.9, 8.0, 1.5, 2, None, Promise("psnr", 38.0))
PROVENANCE = Provenance("inrformat 0.1.0", "fast", 0, "cpu", 12.5, 1000)
METADATA = {"modality": "CT", "series": [1, 2.5, b"raw", None]}
SECTIONS = [
    (b"HEAD", HEAD.pack()),
    (b"SIRN", b"weights"),
    (b"meas", MEASURED.pack()),
    (b"prov", PROVENANCE.pack()),
    (b"meta", pack_metadata(METADATA)),
]
VALID = forge(SECTIONS)
SMALL: list[tuple[bytes, bytes]] = [(b"HEAD", b"abc"), (b"SIRN", b"defg")]


def read_all(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """All that the container can check of a volume."""
    with Reader(data, limits) as reader:
        assert reader.kind in ("volume", "model", "pack")
        reader.check_known(PACK_CRITICAL if reader.kind == "pack" else VOLUME_CRITICAL)
        reader.check_all()
        result: dict[str, Any] = {name: reader.read(name) for name in reader.types}
        if reader.kind == "pack":
            result["file"] = read_files(reader, 0, 0)
            return result
        result["HEAD"] = head = VolumeHeader.unpack(reader.read("HEAD"), limits)
        if reader.has("file"):
            result["file"] = read_files(reader, head.shape[0], head.shape[1] * head.shape[2])
        for kind in (Measured, Provenance):
            if reader.has(kind.SECTION):
                result[kind.SECTION] = kind.unpack(reader.read(kind.SECTION), limits)
        if reader.has("meta"):
            result["meta"] = unpack_metadata(reader.read("meta"), limits)
        return result


def read_files(reader: Reader, slices: int, slice_bytes: int) -> Originals:
    """The list of files, after all that is beside the pixels was read."""
    found = read_originals(reader, slices, slice_bytes)
    assert found is not None
    originals, rest = found[0], Rest(found[1])
    for _ in rest.read(originals.rest_bytes(slice_bytes)):
        pass
    rest.end()
    return originals


@dataclass(frozen=True)
class Attack:
    """One attack; `run` must raise the error with this code."""

    name: str
    what: str
    code: str
    run: Callable[[], object]


def measured(attack: Attack) -> tuple[InrError, float, int]:
    """The error that the attack ends in, its seconds, and the greatest number of bytes held meanwhile."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(InrError) as caught:
            attack.run()
        return caught.value, time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ATTACKS: list[Attack] = []


def add(name: str, code: str, what: str, run: Callable[[], object]) -> None:
    ATTACKS.append(Attack(name, what, code, run))


def file(name: str, code: str, what: str, data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    """An attack that is a whole file."""
    add(name, code, what, lambda: read_all(data, limits))


def record(name: str, code: str, what: str, data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    """An attack that is the HEAD section of a file whose every checksum is right."""
    file(name, code, what, forge([(b"HEAD", data), (b"SIRN", b"")]), limits)


def field(
    case: str, code: str, what: str, /, of: Any = HEAD, limits: Limits = DEFAULT_LIMITS, **changes: Any
) -> None:
    """An attack that changes fields of a record; a field that is `...` is left out."""
    fields = {**of.to_record(), **changes}
    data = records.pack({key: value for key, value in fields.items() if value is not ...})
    add(case, code, what, lambda: of.unpack(data, limits))


# --- the file header ---------------------------------------------------------------------------------------
file("empty", "truncated", "an empty file", b"")
file("not-ours", "bad-magic", "a file of another kind", b"PK\x03\x04" + bytes(200))
file("text-mode", "text-mode-damage", "every CR LF became LF", VALID.replace(b"\r\n", b"\n"))
file("to-crlf", "text-mode-damage", "every LF became CR LF", VALID.replace(b"\n", b"\r\n"))
file("seven-bit", "text-mode-damage", "the top bit of every byte was lost", bytes(b & 0x7F for b in VALID))
file("utf-8", "text-mode-damage", "read as Latin-1, written as UTF-8", VALID.decode("latin-1").encode())
file("newer-major", "unsupported-version", "a newer major version", forge(SECTIONS, version=(2, 0)))
file("cut-header", "truncated", "a file that ends inside its header", VALID[:20])
file("cut-table", "truncated", "a file that ends inside its section table", VALID[:100])
file("cut-body", "truncated", "a file that ends inside a section", VALID[:-40])
file("no-sections", "no-sections", "a file without sections", forge([]))
file(
    "count-over-limit",
    "too-many-sections",
    "2^32 - 1 sections announced in a small file",
    forge(SMALL, count=2**32 - 1),
)
file(
    "count-over-file",
    "truncated",
    "64 sections announced in a file too small for the table",
    forge(SMALL, count=64),
)
file("header-crc", "bad-header-crc", "a wrong CRC-32C of header and table", forge(SMALL, header_crc=1))
file("header-reserved", "reserved-not-zero", "a reserved header field in use", forge(SMALL, reserved=(1, 0)))
file(
    "header-reserved-2", "reserved-not-zero", "the header's last field in use", forge(SMALL, reserved=(0, 1))
)
file("length-short", "trailing-bytes", "a file length smaller than the file", forge(SMALL, length=130))
file("length-huge", "truncated", "a file length of 2^64 - 1", forge(SMALL, length=HUGE))
file("appended", "trailing-bytes", "bytes after the footer", VALID + b"x")


# --- the section table -------------------------------------------------------------------------------------
def table(
    name: str, code: str, what: str, index: int, column: int, value: Any, limits: Limits = DEFAULT_LIMITS
) -> None:
    def edit(entries: list[Entry]) -> None:
        entries[index][column] = value

    file(name, code, what, forge(SMALL, edit), limits)


table("type-digit", "bad-section-type", "a section type with a digit", 1, 0, b"SIR1")
table("type-control", "bad-section-type", "a section type with terminal control characters", 1, 0, b"\x1b[2J")
table("type-twice", "duplicate-section", "two sections of one type", 1, 0, b"HEAD")
table("entry-reserved", "reserved-not-zero", "a reserved table field in use", 1, 4, 1)
table("overlap", "sections-not-contiguous", "a section that begins inside the previous one", 1, 2, 97)
table("same-place", "sections-not-contiguous", "a section that begins where another begins", 1, 2, 96)
table("into-table", "sections-not-contiguous", "a section that begins inside the section table", 0, 2, 32)
table("hole", "sections-not-contiguous", "a section that begins after a hole", 1, 2, 100)
table("offset-huge", "sections-not-contiguous", "an offset of 2^64 - 1", 1, 2, HUGE)
table(
    "offset-wraps", "sections-not-contiguous", "an offset that wraps round to the right one", 1, 2, 2**64 - 29
)
table("length-over-limit", "section-too-large", "a section length of 2^64 - 1", 1, 3, HUGE)
table("length-over-file", "section-out-of-bounds", "a section that ends after the file", 1, 3, 2**32)
table("length-into-footer", "section-out-of-bounds", "a section that ends inside the footer", 1, 3, 5)
table("length-too-short", "sections-not-contiguous", "a last section that ends before the footer", 1, 3, 3)
file("hidden-bytes", "sections-not-contiguous", "bytes that no section holds", forge(SMALL, gap=b"hidden"))
table("section-crc", "bad-section-crc", "a wrong CRC-32C of a section", 1, 1, 7)
file("file-hash", "bad-file-hash", "a wrong SHA-256 of the file", forge(SMALL, digest=bytes(32)))
file(
    "unknown-critical",
    "unknown-critical-section",
    "an unknown critical section",
    forge([*SECTIONS, (b"EVIL", b"")]),
)
file(
    "wrong-first",
    "bad-first-section",
    "a file that begins with another section",
    forge([(b"SIRN", b""), (b"HEAD", b"")]),
)


# --- the bundle --------------------------------------------------------------------------------------------
def part(name: bytes, body: bytes, length: int | None = None) -> bytes:
    """A section in a bundle."""
    return name + struct.pack("<H", len(body) if length is None else length) + body


def stored(parts: bytes, *, last: bool = True) -> bytes:
    """A stored block of a raw DEFLATE stream: the same with every library."""
    return bytes([last]) + struct.pack("<HH", len(parts), len(parts) ^ 0xFFFF) + parts


def zeros(count: int) -> bytes:
    """The last block of a raw DEFLATE stream, with fixed codes: so many zeros, as literals and copies of 258."""
    copies, literals = divmod(count - 1, 258)
    bits = "1" + "10" + "00110000" * (literals + 1) + "1100010100000" * copies + "0000000"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


HEAD_PART = part(b"HEAD", HEAD.pack())
BUNDLE = b"\x01" + stored(HEAD_PART + part(b"prov", PROVENANCE.pack()))
OTHERS = [(b"SIRN", b"weights"), (b"meta", pack_metadata(METADATA))]
ZEROS = zlib.compressobj(9, zlib.DEFLATED, -15)
BOMB = b"".join([*(ZEROS.compress(bytes(2**20)) for _ in range(256)), ZEROS.flush()])

for _name, _code, _what, _body in (
    ("bundle-empty", "bad-bundle", "a bundle of no bytes", b""),
    ("bundle-none", "bad-bundle", "a bundle without sections", b"\x01" + stored(b"")),
    ("bundle-dictionary", "unknown-dictionary", "a bundle with another dictionary", b"\x02" + BUNDLE[1:]),
    ("bundle-garbage", "bad-bundle", "a bundle that is not deflated", b"\x01\x07"),
    ("bundle-far", "bad-bundle", "a copy from before the dictionary", b"\x01\x63\x01\xff\xff\xff\xff"),
    ("bundle-cut", "bad-bundle", "a DEFLATE stream that ends too early", BUNDLE[:-1]),
    ("bundle-appended", "bad-bundle", "bytes after the DEFLATE stream", BUNDLE + b"x"),
    ("bundle-bomb", "bundle-too-large", "a bundle of 256 MiB in 261 kB", b"\x01" + BOMB),
    (
        "bundle-part-cut",
        "bad-bundle",
        "a bundle that ends in a type",
        b"\x01" + stored(HEAD_PART + b"prov\0"),
    ),
    (
        "bundle-part-long",
        "bad-bundle",
        "a section that reaches beyond its bundle",
        b"\x01" + stored(HEAD_PART + part(b"prov", b"x", 2)),
    ),
    (
        "bundle-type",
        "bad-section-type",
        "a section type with a digit in a bundle",
        b"\x01" + stored(HEAD_PART + part(b"pr0v", b"")),
    ),
    (
        "bundle-nested",
        "bad-section-type",
        "a bundle in a bundle",
        b"\x01" + stored(HEAD_PART + part(b"BNDL", BUNDLE)),
    ),
    ("bundle-twice", "duplicate-section", "a section twice in a bundle", b"\x01" + stored(2 * HEAD_PART)),
    (
        "bundle-beside",
        "duplicate-section",
        "a section in a bundle and beside it",
        b"\x01" + stored(HEAD_PART + part(b"SIRN", b"")),
    ),
    (
        "bundle-critical",
        "unknown-critical-section",
        "an unknown critical section in a bundle",
        b"\x01" + stored(HEAD_PART + part(b"EVIL", b"")),
    ),
    (
        "bundle-wrong-first",
        "bad-first-section",
        "a bundle that begins with another section",
        b"\x01" + stored(part(b"prov", PROVENANCE.pack()) + HEAD_PART),
    ),
):
    file(_name, _code, _what, forge([(b"BNDL", _body), *OTHERS]))
file(
    "bundle-late",
    "unknown-critical-section",
    "a bundle that is not the first section",
    forge([*SECTIONS[:2], (b"BNDL", BUNDLE)]),
)
BUNDLED = forge([(b"BNDL", BUNDLE), *OTHERS])
file(
    "bundle-crc",
    "bad-section-crc",
    "a wrong CRC-32C of a bundle",
    BUNDLED.replace(BUNDLE, BUNDLE[:-1] + b"x"),
)
add(
    "bundle-part-after",
    "part-out-of-bounds",
    "bytes beyond a section in a bundle",
    lambda: Reader(BUNDLED).read_part("prov", 0, 1000),
)


add("absent", "missing-section", "a section that is not there", lambda: Reader(VALID).read("SRMD"))
for _name, _start, _length in (("after", 8, 1), ("before", -1, 2), ("negative", 0, -1), ("huge", 0, HUGE)):
    add(
        f"part-{_name}",
        "part-out-of-bounds",
        f"{_length} bytes from {_start} of a section of 7 bytes",
        lambda start=_start, length=_length: Reader(VALID).read_part("SIRN", start, length),
    )


# --- records -----------------------------------------------------------------------------------------------
def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


record("record-empty", "record-truncated", "an empty record", b"")
record("record-cut", "record-truncated", "a record that ends too early", HEAD.pack()[:-1])
record("record-appended", "record-trailing-bytes", "bytes after the record", HEAD.pack() + b"\xc0")
record("record-large", "record-too-large", "a record of more than max_record_bytes", bytes(2**21 + 1))
record(
    "array-huge", "record-truncated", "an array of 2^32 - 1 elements in five bytes", b"\xdd\xff\xff\xff\xff"
)
record("map-huge", "record-truncated", "a map of 2^32 - 1 entries in five bytes", b"\xdf\xff\xff\xff\xff")
record("str-huge", "record-truncated", "a string of 2^32 - 1 bytes in five bytes", b"\xdb\xff\xff\xff\xff")
record(
    "bin-huge", "record-truncated", "a byte string of 2^32 - 1 bytes in five bytes", b"\xc6\xff\xff\xff\xff"
)
record(
    "arrays-huge",
    "record-too-many-items",
    "nested arrays that each announce all that is left (a reader that allocates ahead takes gigabytes)",
    b"".join(b"\xdd" + struct.pack(">I", 2**17) for _ in range(2**17 // 5)) + bytes(2**18),
)
record("deep", "record-too-deep", "100,000 nested arrays", nested(100_000))
record("deep-nine", "record-too-deep", "nine nested arrays", nested(9))
record("deep-maps", "record-too-deep", "100,000 nested maps", b"\x81\xa1a" * 100_000 + b"\xc0")
record(
    "many-items",
    "record-too-many-items",
    "more than max_record_items elements",
    b"\xdd\x00\x04\x00\x01" + bytes(2**18 + 1),
)
record(
    "many-items-in-parts",
    "record-too-many-items",
    "more than max_record_items elements, in several arrays",
    b"\x92" + 2 * (b"\xdd\x00\x02\x00\x00" + bytes(2**17)),
)
record("extension", "record-bad-type", "an extension type", b"\xd4\x05\x00")
record("timestamp", "record-bad-type", "a timestamp", b"\xd6\xff\x00\x00\x00\x00")
record("extension-huge", "record-bad-type", "an extension of 2^32 - 1 bytes", b"\xc9\xff\xff\xff\xff\x05")
record("never-used", "record-bad-type", "the type byte that MessagePack never uses", b"\xc1")
record("bad-utf8", "record-bad-utf8", "a string that is not UTF-8", b"\xa2\xff\xfe")
record("surrogate", "record-bad-utf8", "a lone surrogate as UTF-8", b"\xa3\xed\xa0\x80")
record("overlong", "record-bad-utf8", "an overlong UTF-8 slash", b"\xa2\xc0\xaf")
record("int-key", "record-bad-key", "a key that is a number", b"\x81\x01\x02")
record("bin-key", "record-bad-key", "a key that is a byte string", b"\x81\xc4\x01a\x02")
record("array-key", "record-bad-key", "a key that is an array", b"\x81\x90\x02")
record(
    "unicode-key",
    "record-bad-key",
    "a key that looks like another (Cyrillic)",
    msgpack.packb({"sh\u0430pe": 1}),
)
record("key-twice", "record-duplicate-key", "a key twice", b"\x82\xa1a\x01\xa1a\x02")
record(
    "shape-twice",
    "record-duplicate-key",
    "a second shape after the one that was checked",
    b"\x8b" + HEAD.pack()[1:] + b"\xa5shape\x93\x01\x01\x01",
)
for _name, _value in (("nan", float("nan")), ("inf", float("inf")), ("minus-inf", float("-inf"))):
    record(_name, "record-not-finite", f"{_name} in a header", msgpack.packb({"slope": [_value]}))
record("nan-32", "record-not-finite", "NaN as float32", b"\xca\x7f\xc0\x00\x00")
for _name, _what, _data in (
    ("keys-unsorted", "keys out of order", b"\x82\xa1b\x01\xa1a\x02"),
    ("int-long", "an integer in a longer form than it needs", b"\xcc\x01"),
    ("int-signed", "a positive integer in a signed form", b"\xd0\x01"),
    ("int-64", "a small integer in eight bytes", b"\xcf" + bytes(8)),
    ("float-32", "a float32", b"\xca\x3f\x80\x00\x00"),
    ("str-long", "a string with a longer length than it needs", b"\xd9\x01a"),
    ("bin-long", "a byte string with a longer length than it needs", b"\xc5\x00\x01a"),
    ("array-long", "an array with a longer length than it needs", b"\xdc\x00\x00"),
    ("map-long", "a map with a longer length than it needs", b"\xde\x00\x00"),
):
    record(_name, "record-not-canonical", _what, _data)

# --- the header of a volume --------------------------------------------------------------------------------
record("head-not-map", "bad-type", "a header that is a list", b"\x90")
field("shape-huge", "too-many-voxels", "65536 x 65536 x 65536 voxels in a small file", shape=[65536] * 3)
field("shape-limit", "too-many-voxels", "more voxels than the caller allows", limits=Limits(max_voxels=59))
field("shape-zero", "out-of-range", "a shape with a zero", shape=[0, 4, 5])
field("shape-negative", "out-of-range", "a shape with a negative length", shape=[-3, -4, 5])
field("shape-axis", "out-of-range", "an axis of 65537 voxels", shape=[65537, 1, 1])
field("shape-2d", "out-of-range", "a shape with two axes", shape=[4, 5])
field("shape-float", "bad-type", "a shape of floats", shape=[3.0, 4.0, 5.0])
field("shape-bool", "bad-type", "a shape of booleans", shape=[True, True, True])
field("shape-str", "bad-type", "a shape that is a string", shape="345")
field("dtype-object", "out-of-range", "a type that would be a pickled object", dtype="O")
field("dtype-int", "bad-type", "a type that is a number", dtype=2)
field("range-reversed", "out-of-range", "a range that runs backwards", range=[1.0, 0.0])
field("range-beyond", "out-of-range", "a range beyond the type's values", range=[0.0, 40000.0])
field("range-fraction", "out-of-range", "a fraction as the range of integers", range=[0.0, 1.5])
field("range-int", "bad-type", "a range of integers", range=[0, 1])
field("factors-three", "out-of-range", "a factor of 3", factors=[1, 3, 1])
field("factors-zero", "out-of-range", "a factor of 0", factors=[0, 1, 1])
field("base-unknown", "out-of-range", "an unknown base network", base="pickle")
field("spacing-zero", "out-of-range", "a spacing of zero", spacing=[0.0, 1.0, 1.0])
field("spacing-negative", "out-of-range", "a negative spacing", spacing=[1.0, -1.0, 1.0])
field("spacing-huge", "out-of-range", "a spacing that overflows when scaled", spacing=[1e308, 1.0, 1.0])
field("affine-huge", "out-of-range", "an affine that overflows when scaled", affine=[1e308] * 12)
field("affine-short", "out-of-range", "an affine of eleven numbers", affine=[1.0] * 11)
field("slope-count", "out-of-range", "two slopes for three slices", slope=[1.0, 1.0])
field("slope-none", "out-of-range", "no slope", slope=[])
field("key-missing", "missing-key", "a header without a shape", shape=...)
field("key-unknown", "unknown-key", "a header with an unknown field", evil=1)
field("key-control", "unknown-key", "an unknown field whose name is terminal control", **{"\x1b[2J": 1})
for _name, _model in (
    ("sr-path", "../../etc/passwd"),
    ("sr-absolute", "/tmp/model"),
    ("sr-windows", "c:\\model"),
    ("sr-url", "https://example.com/model"),
    ("sr-hidden", ".model"),
    ("sr-newline", "light\n"),
    ("sr-null", "light\0"),
    ("sr-bidi", "light\u202e"),
    ("sr-empty", ""),
    ("sr-long", "a" * 65),
):
    field(
        _name,
        "out-of-range",
        f"a model named {ascii(_model)[:30]}",
        sr={"name": _model, "version": 1, "sha256": bytes(32)},
    )
field("sr-str", "bad-type", "a model reference that is a string", sr="https://example.com/model")
field(
    "sr-hash-short", "out-of-range", "a hash of 31 bytes", sr={"name": "a", "version": 1, "sha256": bytes(31)}
)
field("sr-hash-hex", "bad-type", "a hash as text", sr={"name": "a", "version": 1, "sha256": "0" * 32})
field(
    "sr-url-field",
    "unknown-key",
    "a model reference with a URL",
    sr={**HEAD.to_record()["sr"], "url": "http://a"},
)
add(
    "sr-swapped",
    "model-hash-mismatch",
    "another model in the place of the named one",
    lambda: HEAD.sr.check(b"evil"),
)  # type: ignore[union-attr]


# --- models ------------------------------------------------------------------------------------------------
def tensors(*entries: Any) -> list[Any]:
    return list(entries)


field("model-path", "out-of-range", "a model that names itself by a path", of=MODEL, name="../light")
field("model-bidi", "not-printable", "a bidi control in a text", of=MODEL, trained_on="ok \u202e txet")
field("model-escape", "not-printable", "terminal control in a text", of=MODEL, trained_on="\x1b]0;title\x07")
field("model-newline", "not-printable", "a line break in a text", of=MODEL, trained_on="one\ntwo")
field("model-text-long", "out-of-range", "a text of 4097 characters", of=MODEL, trained_on="a" * 4097)
field("model-kind", "out-of-range", "an unknown kind of network", of=MODEL, kind="torchscript")
field("model-licence", "out-of-range", "a licence with markup", of=MODEL, licence="<b>MIT</b>")
field(
    "config-str", "bad-type", "a string in a network's configuration", of=MODEL, config={"width": "os.system"}
)
field(
    "config-key", "out-of-range", "a dunder in a network's configuration", of=MODEL, config={"__class__": 1}
)
field("config-huge", "out-of-range", "a width of 2^40", of=MODEL, config={"width": 2**40})
field("config-list", "bad-type", "a configuration that is a list", of=MODEL, config=[])
field(
    "tensor-huge",
    "too-many-parameters",
    "a tensor of 2^155 numbers",
    of=MODEL,
    tensors=tensors(["w", "f4", [2**31 - 1] * 5]),
)
field(
    "tensor-bytes",
    "model-too-large",
    "tensors of more bytes than the caller allows",
    of=MODEL,
    limits=Limits(max_model_bytes=7),
)
field("tensor-none", "out-of-range", "a model without tensors", of=MODEL, tensors=[])
field(
    "tensor-negative",
    "out-of-range",
    "a tensor with a negative length",
    of=MODEL,
    tensors=tensors(["w", "f4", [-2]]),
)
field("tensor-object", "out-of-range", "a tensor of objects", of=MODEL, tensors=tensors(["w", "O", [2]]))
field("tensor-scalar", "out-of-range", "a tensor without axes", of=MODEL, tensors=tensors(["w", "f4", []]))
field(
    "tensor-entry",
    "bad-type",
    "a tensor entry with a field too many",
    of=MODEL,
    tensors=tensors(["w", "f4", [2], 0]),
)
field(
    "tensor-name",
    "not-printable",
    "a tensor's name with a null",
    of=MODEL,
    tensors=tensors(["w\0", "f4", [2]]),
)
field(
    "tensor-twice",
    "duplicate-tensor",
    "two tensors of one name",
    of=MODEL,
    tensors=tensors(["w", "f4", [1]], ["w", "f4", [1]]),
)
add(
    "tensors-short",
    "tensor-size-mismatch",
    "fewer weights than announced",
    lambda: MODEL.read_tensors(bytes(7)),
)
add(
    "tensors-long",
    "tensor-size-mismatch",
    "more weights than announced",
    lambda: MODEL.read_tensors(bytes(12)),
)
add(
    "weight-nan",
    "weight-not-finite",
    "a weight that is NaN",
    lambda: MODEL.read_tensors(np.array([0, np.nan], "<f4").tobytes()),
)

# --- measured, provenance ----------------------------------------------------------------------------------
field("meas-ssim", "out-of-range", "an SSIM of 2", of=MEASURED, ssim=2.0)
field("meas-error", "out-of-range", "a negative error", of=MEASURED, max_error=-1.0)
field(
    "meas-promise", "out-of-range", "an unknown promise", of=MEASURED, promise={"kind": "magic", "value": 1.0}
)
field(
    "prov-escape",
    "not-printable",
    "terminal control in the device's name",
    of=PROVENANCE,
    device="\x1b[31mcpu",
)
field(
    "prov-bidi",
    "not-printable",
    "a bidi control in the software's name",
    of=PROVENANCE,
    software="inr\u2066format",
)
field(
    "prov-line", "not-printable", "a line separator in the preset's name", of=PROVENANCE, preset="fast\u2028x"
)


# --- the source's metadata ---------------------------------------------------------------------------------
def meta(name: str, code: str, what: str, data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    """An attack that is the meta section of a file whose every checksum is right."""
    file(name, code, what, forge([(b"HEAD", HEAD.pack()), (b"SIRN", b""), (b"meta", data)]), limits)


def frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(data)


def declares(size: int, *, block: bytes = b"\x01\x00\x00") -> bytes:
    """A Zstandard frame of one segment that declares this size; its one block is empty by default."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + block


def run_length_frame(blocks: int, size: int) -> bytes:
    """A frame of blocks that each repeat one byte 131072 times, whatever size the frame declares."""
    kinds = [(131072 << 3) | 2 | (n == blocks - 1) for n in range(blocks)]
    return declares(size, block=b"".join(kind.to_bytes(3, "little") + b"\x00" for kind in kinds))


PLAIN = msgpack.packb(METADATA)
meta("bomb-declared", "metadata-too-large", "a tiny frame that declares 2^40 bytes", declares(2**40))
meta(
    "bomb-honest", "metadata-too-large", "2 KB that really become 67 MB", run_length_frame(513, 513 * 131072)
)
meta(
    "bomb-lying",
    "metadata-bad-frame",
    "a frame that holds more than it declares",
    run_length_frame(512, 131072),
)
meta("bomb-short", "metadata-bad-frame", "a frame that holds less than it declares", declares(1000))
meta(
    "bomb-no-size",
    "metadata-no-size",
    "a frame that does not declare its size",
    zstandard.ZstdCompressor(write_content_size=False).compress(PLAIN * 99),
)
meta(
    "bomb-window",
    "metadata-too-large",
    "a frame with a window of 2^31 bytes",
    b"\x28\xb5\x2f\xfd\xc0\xa8" + bytes(8) + b"\x01\x00\x00",
)
meta("frames-two", "metadata-bad-frame", "two frames", frame(PLAIN) + frame(PLAIN))
meta("frame-appended", "metadata-bad-frame", "bytes after the frame", frame(PLAIN) + b"x")
meta(
    "frame-skippable",
    "metadata-bad-frame",
    "a skippable frame first",
    b"\x50\x2a\x4d\x18\x01\x00\x00\x00x" + frame(PLAIN),
)
meta("frame-cut", "metadata-bad-frame", "a frame that ends too early", frame(PLAIN)[:-3])
meta("frame-head-cut", "metadata-bad-frame", "a frame that ends inside its header", frame(PLAIN)[:5])
meta(
    "frame-dictionary",
    "metadata-bad-frame",
    "a frame that needs a dictionary",
    b"\x28\xb5\x2f\xfd\x21\x07\x00\x01\x00\x00",
)
meta("frame-empty", "record-truncated", "a frame of nothing", frame(b""))
meta("meta-list", "bad-type", "metadata that is a list", frame(b"\x90"))
meta("meta-deep", "record-too-deep", "metadata of 100,000 nested arrays", frame(nested(100_000)))
meta(
    "meta-items",
    "record-too-many-items",
    "metadata of five million elements in a frame of some hundred bytes",
    frame(b"\xdd" + struct.pack(">I", 5_000_000) + bytes(5_000_000)),
)
meta("meta-key-twice", "record-duplicate-key", "a key twice in metadata", frame(b"\x82\xa1a\x01\xa1a\x02"))
meta("meta-int-key", "record-bad-key", "a key that is a number in metadata", frame(b"\x81\x01\x02"))


# --- file and rest -----------------------------------------------------------------------------------------
def entry_of(**changes: Any) -> list[Any]:
    """A file of two bytes, in canonical order."""
    fields = {"paths": [b"a"], "size": 2, "sha256": bytes(32), "at": 0, "slices": [], "reason": ""}
    return list({**fields, **changes}.values())


def files(
    name: str, code: str, what: str, *entries: Any, rest: bytes = compress_rest([b"ab"], 2), **changes: Any
) -> None:
    """An attack that is the list of a pack; its `rest` has two bytes."""
    record = records.pack({"files": list(entries), "exact": True, "big_endian": False, **changes})
    file(name, code, what, forge([(b"FILE", frame(record)), (b"REST", rest)]))


for label, path in {
    "absolute": b"/etc/passwd",
    "upward": b"a/../../b",
    "dot": b"a/./b",
    "empty": b"",
    "null": b"a\0b",
    "long": b"a" * 4097,
}.items():
    files(f"path-{label}", "bad-path", f"a file's path that is not safe: {label}", entry_of(paths=[path]))
files("path-twice", "duplicate-path", "two files of one path", entry_of(size=1), entry_of(size=1))
files("path-twice-in-one", "duplicate-path", "a file with one path twice", entry_of(paths=[b"a", b"a"]))
files("path-text", "bad-type", "a path that is a str", entry_of(paths=["a"]))
files("files-none", "out-of-range", "a list of no files")
files("file-short", "bad-type", "a file of five values", entry_of()[:5])
files("file-huge", "section-too-large", "a file of 2^40 bytes", entry_of(size=2**40))
files("file-at", "out-of-range", "pixels that begin behind the file's end", entry_of(at=3))
files("exact-int", "bad-type", "a number in the place of a bool", entry_of(), exact=1)
files("slice-in-pack", "pixels-out-of-bounds", "a pack whose file has a slice", entry_of(slices=[0]))
files("slice-twice", "duplicate-slice", "a slice of two files", entry_of(slices=[0, 0]))
files(
    "list-unknown-field", "unknown-key", "a field that the list of a pack does not have", entry_of(), more=1
)
files("rest-short", "rest-size-mismatch", "fewer bytes than the files have", entry_of(size=3))
files("rest-long", "rest-size-mismatch", "more bytes than the files have", entry_of(size=1))
files("rest-noise", "rest-bad-frame", "bytes that are no Zstandard frame", entry_of(), rest=b"noise" * 9)
files(
    "rest-window",
    "rest-bad-frame",
    "bytes in a window of 2^31",
    entry_of(),
    rest=b"\x28\xb5\x2f\xfd\x00\xa8\x11\x00\x00ab",
)
file(
    "list-bomb",
    "metadata-too-large",
    "a list of files in a tiny frame that declares 2^40 bytes",
    forge([(b"FILE", declares(2**40)), (b"REST", b"")]),
)
file(
    "pack-unknown-critical",
    "unknown-critical-section",
    "a pack with a critical section that nobody knows",
    forge([(b"FILE", b""), (b"REST", b""), (b"XXXX", b"")]),
)
file(
    "pack-no-rest",
    "missing-section",
    "a pack without REST",
    forge([(b"FILE", frame(records.pack({"files": [entry_of()], "exact": True, "big_endian": False})))]),
)


def readme_lines() -> list[str]:
    """The attacks as README.md lists them."""
    return [f"{n}. {a.what}: `{a.code}`. Test: `test_attack[{a.name}]`." for n, a in enumerate(ATTACKS, 1)]


if __name__ == "__main__":  # what to paste into README.md after a change
    print("\n".join(readme_lines()))
