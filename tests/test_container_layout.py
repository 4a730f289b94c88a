"""layout.py: header, section table, sections, footer."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrformat.container import Limits, Reader, VolumeHeader, build, layout
from inrformat.container.__main__ import main
from inrformat.errors import FormatError, InputError, InrError, LimitError, UnsupportedError, UsageError

sys.path.insert(0, str(Path(__file__).parent / "attacks"))
from container_cases import HEAD, PROVENANCE, SECTIONS, VALID, forge, read_all

TYPES = st.text("ABCZabcz", min_size=4, max_size=4)
FILES = st.lists(st.tuples(TYPES, st.binary(max_size=40)), min_size=1, max_size=6, unique_by=lambda s: s[0])


@given(sections=FILES)
def test_round_trip(sections: list[tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> None:
    data = build(sections)
    path = tmp_path_factory.mktemp("layout") / "a.inrv"
    path.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path)):
        with Reader(source) as reader:
            reader.check_all()
            assert [(info.type, reader.read(info.type)) for info in reader.sections] == sections


def test_build_writes_what_the_specification_says() -> None:
    assert build([(name.decode(), body) for name, body in SECTIONS]) == VALID
    assert VALID[-32:] == hashlib.sha256(VALID[:-32]).digest()


@pytest.mark.parametrize(
    "types", [[], ["HEAD", "HEAD"], ["HEA"], ["HEADS"], ["HE D"], ["HEÄD"], ["HEA\n"], ["HEAD\n"], ["1EAD"]]
)
def test_build_refuses_wrong_types(types: list[str]) -> None:
    with pytest.raises(UsageError):
        build([(name, b"") for name in types])


def test_a_file_cut_anywhere_is_detected() -> None:
    for size in range(len(VALID)):
        with pytest.raises(FormatError) as caught:
            read_all(VALID[:size])
        assert caught.value.code == "truncated"


def test_every_flipped_bit_is_detected() -> None:
    small = forge([(b"HEAD", HEAD.pack()), (b"SIRN", b"\x00\x01"), (b"prov", PROVENANCE.pack())])
    for bit in range(8 * len(small)):
        flipped = bytearray(small)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InrError):
            read_all(bytes(flipped))


def test_a_flipped_bit_gives_the_same_bytes_or_an_error_without_the_file_hash() -> None:
    """The lazy path: one section is read, `check_all` is not called."""
    for bit in range(8 * len(VALID)):
        flipped = bytearray(VALID)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert Reader(flipped).read("HEAD") == HEAD.pack()
        except InrError:
            continue


def test_every_value_of_every_header_byte() -> None:
    small = forge([(b"HEAD", b"")])
    for at in range(64):
        for value in range(256):
            changed = small[:at] + bytes([value]) + small[at + 1 :]
            if changed != small:
                with pytest.raises(InrError):
                    Reader(changed).check_all()


@settings(max_examples=300)
@given(st.data())
def test_a_changed_table_with_right_checksums_is_one_of_our_errors(data: st.DataObject) -> None:
    """Fuzzing behind the checksums: any field of the table, any value."""
    number = st.one_of(st.integers(0, 300), st.integers(2**64 - 300, 2**64 - 1), st.integers(0, 2**64 - 1))

    def edit(table: list[list[object]]) -> None:
        entry = data.draw(st.sampled_from(table))
        column = data.draw(st.sampled_from([0, 2, 3, 4]))
        entry[column] = data.draw(st.binary(min_size=4, max_size=4) if column == 0 else number)

    try:
        read_all(forge(SECTIONS, edit))
    except InrError as error:
        assert str(error).isprintable()


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_one_of_our_errors(data: bytes, with_magic: bool) -> None:
    with pytest.raises(InrError):
        Reader(layout.MAGIC + b"\x01" + data if with_magic else data).check_all()


def test_a_newer_minor_version_is_read() -> None:
    newer = forge([*SECTIONS, (b"newS", b"unknown")], version=(1, 255))
    assert read_all(newer)["HEAD"] == HEAD
    with pytest.raises(UnsupportedError, match=r"2\.0"):
        read_all(forge(SECTIONS, version=(2, 0)))


def test_errors_say_where() -> None:
    with pytest.raises(FormatError) as caught:
        damaged = bytearray(VALID)
        damaged[-33] ^= 1
        Reader(damaged).check_all()
    info = Reader(VALID).info("meta")
    assert (caught.value.code, caught.value.section, caught.value.offset) == (
        "bad-section-crc",
        "meta",
        info.offset,
    )


def test_limits_are_the_callers() -> None:
    assert len(Reader(VALID, Limits(max_sections=5)).sections) == 5
    for limits in (Limits(max_sections=4), Limits(max_section_bytes=8)):
        with pytest.raises(LimitError):
            Reader(VALID, limits)
    for wrong in ({"max_voxels": 0}, {"max_voxels": 1.5}, {"max_record_depth": 1000}):
        with pytest.raises(UsageError):
            Limits(**wrong)


def test_the_default_limits_admit_2048_cubed() -> None:
    header = VolumeHeader((2048,) * 3, "u2", (0, 65535), (1, 1, 1), (1, 1, 1), (1,) * 12)
    assert VolumeHeader.unpack(header.pack()).lr_shape == (2048,) * 3


def test_sections_are_read_lazily(tmp_path: Path) -> None:
    path = tmp_path / "a.inrv"
    large = build([("HEAD", HEAD.pack()), ("meta", bytes(10**6))])
    path.write_bytes(large)
    with Reader(path) as reader:
        path.write_bytes(large[:500_000])  # the rest disappears after the file was opened
        with pytest.raises(FormatError) as caught:
            reader.read("meta")
        assert caught.value.code == "truncated"
        with pytest.raises(FormatError):
            reader.check_all()


def test_check_all_reads_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "CHUNK", 7)
    Reader(VALID).check_all()
    assert max(len(chunk) for chunk in Reader(VALID)._chunks(0, 100)) == 7


def test_parts_from_several_threads(tmp_path: Path) -> None:
    body = bytes(range(256)) * 100
    path = tmp_path / "a.inrv"
    path.write_bytes(build([("HEAD", b"x"), ("RESI", body)]))
    with Reader(path) as reader, ThreadPoolExecutor(4) as pool:
        starts = [37 * n % 25000 for n in range(400)]
        parts = pool.map(lambda start: reader.read_part("RESI", start, 99), starts)
        assert all(part == body[start : start + 99] for part, start in zip(parts, starts, strict=True))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.inrv", "a\0b"):
        with pytest.raises(InputError):
            Reader(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="is not a file"):
            Reader(tmp_path / "pipe")


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.inrv"
    path.write_bytes(VALID[:50])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(FormatError):
            Reader(path)
        gc.collect()
    assert [w for w in caught if "a.inrv" in str(w.message)] == []


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.inrv", tmp_path / "head"
    path.write_bytes(VALID)
    assert main(["list", str(path)]) == 0
    assert "HEAD" in capsys.readouterr().out
    assert main(["check", str(path)]) == 0
    assert main(["extract", str(path), "HEAD", str(out)]) == 0
    assert out.read_bytes() == HEAD.pack()
    assert main(["extract", str(path), "SRMD", str(out)]) == 4
    path.write_bytes(VALID[:-1])
    assert main(["check", str(path)]) == 4
    assert "[truncated" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none")]) == 3


def test_importing_the_container_takes_no_torch() -> None:
    code = "import inrformat.container, inrformat.container.__main__, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
