"""records.py, headers.py and metadata.py: what the sections hold."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrformat.container import (
    DEFAULT_LIMITS,
    Limits,
    Measured,
    ModelHeader,
    Provenance,
    VolumeHeader,
    pack_metadata,
    pack_tensors,
    records,
    show,
    unpack_metadata,
)
from inrformat.container.headers import Record
from inrformat.errors import FormatError, InrError, LimitError, UsageError

sys.path.insert(0, str(Path(__file__).parent / "attacks"))
from container_cases import HEAD, MEASURED, METADATA, MODEL, PROVENANCE, forge, read_all

HEADERS: list[Record] = [HEAD, MODEL, MEASURED, PROVENANCE]
KEYS = st.text(st.characters(max_codepoint=127), max_size=6)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
OBJECTS = st.recursive(
    PLAIN | st.text(max_size=40) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(KEYS, inner, max_size=20),
    max_leaves=30,
)


@given(OBJECTS)
def test_records_round_trip(obj: Any) -> None:
    data = records.pack(obj)
    again = records.unpack(data, Limits(max_record_depth=100))
    assert again == obj
    assert repr(records.pack(again)) == repr(data)  # -0.0 too, which == does not tell from 0.0


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_lengths_at_the_borders_of_their_forms(size: int) -> None:
    for obj in ("a" * size, b"a" * size, [None] * size, {f"{n:05}": None for n in range(size)}):
        assert records.unpack(records.pack(obj)) == obj


@pytest.mark.parametrize("bits", [0, 5, 7, 8, 15, 16, 31, 32, 63])
def test_integers_at_the_borders_of_their_forms(bits: int) -> None:
    for value in (2**bits - 1, 2**bits, -(2**bits), -(2**bits) + 1):
        assert records.unpack(records.pack(value)) == value


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_random_bytes_are_an_object_or_one_of_our_errors(data: bytes) -> None:
    try:
        obj = records.unpack(data)
    except FormatError as error:
        assert str(error).isprintable()
    else:
        assert records.pack(obj) == data


@settings(max_examples=300)
@given(OBJECTS)
def test_the_parser_agrees_with_msgpack(obj: Any) -> None:
    """On anything that msgpack writes, in its own, not canonical, key order."""
    assert records.parse(msgpack.packb(obj), 100, 10**6, source_data=True) == obj


@settings(max_examples=500)
@given(st.data())
def test_a_changed_record_with_right_checksums_is_one_of_our_errors(data: st.DataObject) -> None:
    """Fuzzing behind the checksums: bytes of the header, replaced, removed or inserted."""
    header = bytearray(HEAD.pack())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(header) - 1))
        header[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        result = read_all(forge([(b"HEAD", bytes(header)), (b"SIRN", b"")]))
    except InrError as error:
        assert str(error).isprintable()
    else:
        assert result["HEAD"].pack() == header  # a valid header of another volume, such as another spacing


@pytest.mark.parametrize(
    "obj",
    [
        float("nan"),
        float("inf"),
        2**64,
        -(2**63) - 1,
        {1: 2},
        {"ä": 1},
        "\ud800",
        {1, 2},
        np.int64(1),
        Ellipsis,
    ],
    ids=repr,
)
def test_what_has_no_canonical_encoding_is_not_packed(obj: Any) -> None:
    for inside in (obj, [obj], {"a": obj}):
        with pytest.raises(UsageError):
            records.pack(inside)


@pytest.mark.parametrize("header", HEADERS, ids=lambda h: h.SECTION)
def test_headers_round_trip(header: Record) -> None:
    assert type(header).unpack(header.pack()) == header


@pytest.mark.parametrize("header", HEADERS, ids=lambda h: h.SECTION)
def test_every_field_is_needed_and_typed(header: Record) -> None:
    class Wrong:
        pass

    for key in header.to_record():
        without = {k: v for k, v in header.to_record().items() if k != key}
        with pytest.raises(FormatError) as caught:
            type(header).from_record(without)
        assert (caught.value.code, caught.value.section) == ("missing-key", header.SECTION)
        for wrong in (Wrong(), True, ["x"], {"X": 1}, 10**30, b"x", "\n"):
            with pytest.raises(FormatError):
                type(header).from_record({**header.to_record(), key: wrong})


def test_unknown_fields_are_ignored_in_ancillary_records_only() -> None:
    for header in HEADERS:
        record = {**header.to_record(), "new": 1}
        if header.SECTION.islower():
            assert type(header).from_record(record) == header
        else:
            with pytest.raises(FormatError, match="unknown-key"):
                type(header).from_record(record)


def test_the_largest_legal_header_fits_the_default_limits() -> None:
    z = 65536
    header = replace(HEAD, shape=(z, 1, 1), slope=(1.5,) * z, intercept=(-0.1,) * z)
    assert VolumeHeader.unpack(header.pack()) == header


def test_low_resolution_shape_rounds_up() -> None:
    assert replace(HEAD, shape=(1, 9, 16), factors=(8, 2, 4)).lr_shape == (1, 5, 4)


def test_headers_take_numpy_numbers() -> None:
    header = VolumeHeader(
        shape=tuple(np.array([3, 4, 5])),
        dtype="f4",
        range=(np.float32(-0.5), np.float32(1)),
        factors=(1, 1, 2),
        spacing=(1, 1, 1),
        affine=tuple(np.eye(4)[:3].ravel()),
    )
    assert VolumeHeader.unpack(header.pack()).range == (-0.5, 1.0)


def test_measured_takes_exact_reconstructions() -> None:
    exact = replace(MEASURED, psnr=float("inf"), ssim=1.0000000000000002, promise=None)
    assert Measured.unpack(exact.pack()).psnr is None
    assert Measured.unpack(exact.pack()).ssim == 1.0
    with pytest.raises(InrError):
        replace(MEASURED, psnr=float("nan")).pack()


def test_what_cannot_be_read_back_is_not_written() -> None:
    with pytest.raises(FormatError):
        replace(HEAD, range=(2.0, 1.0)).pack()
    with pytest.raises(FormatError):
        replace(PROVENANCE, device="cuda\n").pack()
    with pytest.raises(LimitError):
        replace(HEAD, shape=(65536, 65536, 65536)).pack()


def test_provenance_and_model_texts_may_be_unicode() -> None:
    assert Provenance.unpack(replace(PROVENANCE, device="Zürich 日本").pack()).device == "Zürich 日本"
    assert ModelHeader.unpack(replace(MODEL, trained_on="CT, 3 µm").pack()).trained_on == "CT, 3 µm"


def test_tensors_round_trip() -> None:
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1.5], np.float16),
        "c": np.asfortranarray(np.arange(4, dtype=np.float32).reshape(2, 2)),
    }
    infos, body = pack_tensors(arrays)
    model = replace(MODEL, tensors=infos)
    again = ModelHeader.unpack(model.pack()).read_tensors(body)
    assert list(again) == list(arrays)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert all(again[name].dtype == arrays[name].dtype for name in arrays)


def test_metadata_round_trip() -> None:
    nan = {"pixel padding": float("inf"), "größe": "line\nbreak \x1b[2J", "deep": [[[{"a": [b"\xff"]}]]]}
    for mapping in ({}, METADATA, nan, {"big": "a" * 10**6}):
        assert unpack_metadata(pack_metadata(mapping)) == mapping
    assert pack_metadata(METADATA) == pack_metadata(dict(METADATA))


def test_metadata_that_is_not_plain_or_too_large_is_not_packed() -> None:
    for wrong in ({"a": object()}, {"a": 2**70}, {"a": "\ud800"}):
        with pytest.raises(UsageError):
            pack_metadata(wrong)
    with pytest.raises(UsageError, match="metadata cannot be stored"):
        pack_metadata({1: 2})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="999"):
        pack_metadata({"a": bytes(1000)}, Limits(max_metadata_bytes=999))
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(InrError):
        pack_metadata({"a": deep})


@settings(max_examples=300)
@given(st.data())
def test_changed_metadata_is_one_of_our_errors(data: st.DataObject) -> None:
    packed = bytearray(pack_metadata(METADATA))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        unpack_metadata(bytes(packed))
    except FormatError as error:
        assert str(error).isprintable()


def test_show_is_safe_to_print() -> None:
    for value in ("\x1b[2J\u202e\n", b"\x00" * 10**6, "ä" * 10**6, ["x"] * 10**6, {"a": 1}, 10**9, None, 1.5):
        assert show(value).isprintable() and show(value).isascii() and len(show(value)) <= 60


def test_defaults_are_the_documented_ones() -> None:
    assert (DEFAULT_LIMITS.max_voxels, DEFAULT_LIMITS.max_work) == (2**33, 2**52)
    assert DEFAULT_LIMITS.max_work >= 2048**3 * 50_177
