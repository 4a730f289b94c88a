"""Mutations that reach deep: a section or a field is changed, and every checksum made right again."""

from __future__ import annotations

import hashlib
import math
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import google_crc32c
import msgpack
import zstandard

from inrformat.container.dictionary import DICTIONARY
from inrformat.container.metadata import decompress
from inrformat.errors import InrError

Sections = list[tuple[bytes, bytes]]
NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    8,
    28,
    29,
    48,
    49,
    92,
    93,
    255,
    256,
    1024,
    1025,
    16383,
    32767,
    32768,
    -32768,
    65535,
    65536,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    255.0,
    65535.0,
    1e300,
    -1e300,
    5e-324,
    3.4028234663852886e38,
    math.inf,
    math.nan,
]
TEXTS = [
    "",
    "u1",
    "i2",
    "f4",
    "siren",
    "light",
    "srdensenet",
    "context",
    "latents",
    "../x",
    "https://x",
    "\x1b[31m",
    "\u202e",
    "a" * 70,
]
TYPES = [
    *(b"HEAD", b"SIRN", b"SRMD", b"SRTU", b"meas", b"prov", b"meta", b"MODL", b"TENS"),
    *(b"LATT", b"CTXM", b"PRED", b"TUNE", b"ZONE", b"BIDX", b"BRIX", b"LATN", b"LATD", b"LATM"),
    *(b"LATU", b"BNDL", b"Xxxx", b"xxxx", b"\x1b[1m"),
]

MODELS = {b"SRMD": (b"HEAD", "sr"), b"CTXM": (b"LATT", "model"), b"LATM": (b"LATN", "model")}
"""The sections of models, and where each one's hash is."""


def parse(data: bytes) -> Sections:
    """The sections of a file that is at least nearly right; ValueError or struct.error otherwise."""
    (count,) = struct.unpack_from("<I", data, 12)
    if not (data.startswith(b"\x93INR") and 0 < count < 65):
        raise ValueError
    sections = []
    for at in range(32, 32 + 32 * count, 32):
        name, _, offset, length = struct.unpack_from("<4sIQQ", data, at)
        sections.append((name, data[offset : offset + length]))
    if sections[0][0] == b"BNDL":
        sections[:1] = unbundled(sections[0][1])
    return sections


def unbundled(body: bytes) -> Sections:
    """What a bundle holds."""
    try:
        parts = zlib.decompressobj(-15, zdict=DICTIONARY).decompress(body[1:], 1 << 17)
    except zlib.error as error:
        raise ValueError from error
    found, at = [], 0
    while at < len(parts):
        name, length = struct.unpack_from("<4sH", parts, at)
        found.append((name, parts[at + 6 : at + 6 + length]))
        at += 6 + length
    if not found:
        raise ValueError
    return found


def bundled(sections: Sections, rng: random.Random) -> Sections:
    """The first few sections as a bundle, that is now and then wrong."""
    count = rng.randrange(1, len(sections) + 1)
    small = [section for section in sections[:count] if len(section[1]) < 1 << 14]
    parts = b"".join(name[:4].ljust(4) + struct.pack("<H", len(body)) + body for name, body in small)
    if rng.random() < 0.05:
        parts = flip(parts, rng)
    code = zlib.compressobj(rng.choice([0, 9]), zlib.DEFLATED, -15, zdict=DICTIONARY)
    body = bytes([1 if rng.random() < 0.98 else rng.randrange(256)]) + code.compress(parts) + code.flush()
    rest = [section for section in sections[:count] if section not in small] + sections[count:]
    return [(b"BNDL", flip(body, rng) if rng.random() < 0.05 else body), *rest]


def build(sections: Sections, rng: random.Random) -> bytes:
    """A file with right checksums; now and then one number of its table is wrong."""
    if sections and rng.random() < 0.2:
        sections = bundled(sections, rng)
    table, offset = [], 32 + 32 * len(sections)
    for name, body in sections:
        table.append([name, google_crc32c.value(body), offset, len(body), 0])
        offset += len(body)
    if table and rng.random() < 0.05:
        rng.choice(table)[rng.randrange(1, 5)] = rng.choice(NUMBERS) % 2**32
    raw = b"".join(struct.pack("<4sIQQQ", *entry) for entry in table)
    start = struct.pack(
        "<8sBBHIQ", b"\x93INR\r\n\x1a\n", 1, rng.choice([0, 0, 1]), 0, len(table), offset + 32
    )
    data = (
        start
        + struct.pack("<II", google_crc32c.value(start + raw), 0)
        + raw
        + b"".join(b for _, b in sections)
    )
    return data + hashlib.sha256(data).digest()


def flip(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, repeated or put in."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(out):
            out[at] = rng.choice([rng.randrange(256), out[at] ^ 1 << rng.randrange(8)])
        elif kind == 1:
            del out[at : at + rng.choice([1, 2, 8, 64])]
        elif kind == 2:
            out[at:at] = rng.randbytes(rng.choice([1, 2, 4, 16]))
        else:
            out[at:at] = out[at : at + rng.choice([1, 4, 32])]
    return bytes(out)


def change(value: Any, rng: random.Random) -> Any:
    """A value of a record with one thing in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.05:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: change(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], change(value[at], rng), *value[at + 1 :]]
    if isinstance(value, list):
        return (value * 2)[: rng.randrange(len(value) * 2 + 1)]
    if isinstance(value, bool) or value is None or rng.random() < 0.1:
        return rng.choice([None, True, 1, 1.5, "x", b"x", [], {}, [[]]])
    if isinstance(value, int):
        return rng.choice(
            [rng.choice(NUMBERS), value + rng.choice([-1, 1]), value * 2, value // 2, rng.randrange(100)]
        )
    if isinstance(value, float):
        return rng.choice([rng.choice(FLOATS), value * 2, -value, math.nextafter(value, 0)])
    if isinstance(value, str):
        return rng.choice([rng.choice(TEXTS), value + "x", value[:-1]])
    return flip(value, rng) if isinstance(value, bytes) else {"a": 1}


def packed(value: Any) -> bytes:
    """The canonical encoding, as far as the value has one."""

    def ordered(obj: Any) -> Any:
        if isinstance(obj, dict):
            return {key: ordered(obj[key]) for key in sorted(obj, key=str)}
        return [ordered(item) for item in obj] if isinstance(obj, list) else obj

    try:
        return bytes(msgpack.packb(ordered(value)))
    except (OverflowError, ValueError):
        return b"\xc0"


def record(data: bytes, rng: random.Random) -> bytes:
    """A record with a field changed."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except Exception:  # msgpack has many
        return flip(data, rng)
    for _ in range(rng.choice([1, 1, 2])):
        value = change(value, rng)
    return packed(value)


def network(data: bytes, rng: random.Random) -> bytes:
    """A base network with its record or its code changed."""
    end = 4 + int.from_bytes(data[:4], "little")
    if len(data) < 4 or end > len(data) or rng.random() < 0.05:
        return flip(data, rng)
    if rng.random() < 0.5:
        return data[:end] + flip(data[end:], rng)
    head = record(data[4:end], rng)
    return struct.pack("<I", len(head)) + head + data[end:]


def metadata(data: bytes, rng: random.Random) -> bytes:
    """Metadata with its content changed, in a right frame."""
    try:
        plain = decompress(data, 1 << 16)
    except InrError:
        return flip(data, rng)
    plain = record(plain, rng) if rng.random() < 0.5 else flip(plain, rng)
    return zstandard.ZstdCompressor(level=1).compress(plain)


def tensors(data: bytes, rng: random.Random) -> bytes:
    """Tensors with a float16 in them changed, or any bytes."""
    at = 2 * rng.randrange(len(data) // 2 + 1)
    if rng.random() < 0.3:
        return flip(data, rng)
    values = [0.0, 1.0, -1.0, 2047.0, -2047.0, 2048.0, -32768.0, 0.5, 65504.0, math.inf]
    return data[:at] + struct.pack("<e", rng.choice(values)) + data[at + 2 :]


def indexed(sections: Sections, old: bytes) -> Sections:
    """The bricks' index made right again after section BRIX was changed from `old`, as far as that goes."""
    bodies = dict(sections)
    index, bricks = bodies.get(b"BIDX", b""), bodies[b"BRIX"]
    sizes = [size for size, _ in struct.iter_unpack("<II", index[: len(index) // 8 * 8])]
    if sizes:  # the brick that was changed is the one that is longer or shorter now
        common = next((i for i, (a, b) in enumerate(zip(old, bricks, strict=False)) if a != b), len(bricks))
        number, end = 0, sizes[0]
        while end <= common and number + 1 < len(sizes):
            number += 1
            end += sizes[number]
        sizes[number] = max(0, sizes[number] + len(bricks) - len(old))
    entries, start = [], 0
    for size in sizes:
        entries.append(struct.pack("<II", size % 2**32, google_crc32c.value(bricks[start : start + size])))
        start += size
    return [(name, b"".join(entries) if name == b"BIDX" else body) for name, body in sections]


def latents(data: bytes, rng: random.Random) -> bytes:
    """Section LATD with one of its five parts changed, and its lengths right again."""
    if len(data) < 16 or rng.random() < 0.1:
        return flip(data, rng)
    parts, start = [], 16
    for size in struct.unpack_from("<IIII", data):
        parts.append(data[start : start + size])
        start += size
    parts.append(data[start:])
    at = rng.randrange(5)
    parts[at] = flip(parts[at], rng)
    return struct.pack("<IIII", *map(len, parts[:4])) + b"".join(parts)


def section(name: bytes, body: bytes, rng: random.Random) -> bytes:
    """One section with something changed, by what it holds."""
    if rng.random() < 0.15:
        return flip(body, rng)
    if name in MODELS:
        return file(body, rng)
    ways: dict[bytes, Callable[[bytes, random.Random], bytes]] = {
        b"SIRN": network,
        b"meta": metadata,
        b"TENS": tensors,
        b"LATD": latents,
        **dict.fromkeys((b"SRTU", b"LATU", b"PRED", b"TUNE", b"ZONE", b"BIDX", b"BRIX"), flip),
    }
    return ways.get(name, record)(body, rng)


def file(data: bytes, rng: random.Random) -> bytes:
    """A file with one thing changed and its checksums right; any bytes where it cannot be parsed."""
    try:
        sections = parse(data)
    except (ValueError, struct.error):
        return flip(data, rng)
    draw = rng.random()
    at = rng.randrange(len(sections))
    name, body = sections[at]
    if draw < 0.05:
        return flip(data, rng)
    if draw < 0.1:
        sections[at] = (rng.choice(TYPES), body)
    elif draw < 0.15:
        rng.choice(
            [lambda: sections.pop(at), lambda: rng.shuffle(sections), lambda: sections.append(sections[at])]
        )()
    else:
        sections[at] = (name, section(name, body, rng))
        if name in MODELS and rng.random() < 0.9:
            sections = [_named(n, b, name, sections[at][1]) for n, b in sections]
        if name == b"BRIX" and rng.random() < 0.95:
            sections = indexed(sections, body)
    return build(sections, rng)


def _named(name: bytes, body: bytes, kind: bytes, model: bytes) -> tuple[bytes, bytes]:
    """HEAD, LATT or LATN with the hash of this model, if it is the one that they name."""
    key = MODELS[kind][1] if MODELS[kind][0] == name else None
    try:
        value = msgpack.unpackb(body) if key else None
        if key and value and value[key]:
            return name, packed({**value, key: {**value[key], "sha256": hashlib.sha256(model).digest()}})
    except Exception:
        pass
    return name, body
