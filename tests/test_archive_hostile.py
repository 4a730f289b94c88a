"""Files that no exporter should write, and archives that nobody should trust."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from archive_factory import HERE, there_and_back, tree
from dicom_factory import make_series, volume_array

from inrformat.archive import archive, restore, verify
from inrformat.container import build, records
from inrformat.container.metadata import LEVEL
from inrformat.container.originals import compress_rest

pytestmark = pytest.mark.usefixtures("stand_in")


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian."""
    length = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"UN", b"SQ"):
        return struct.pack("<HH2sHI", group, number, vr, 0, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


def insert(path, *elements: bytes) -> None:
    """Put raw elements before the pixels of a file of `make_series`."""
    data = path.read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(data[:at] + b"".join(elements) + data[at:])


UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
NESTED = ITEM + b"\xff" * 4 + element(0x0009, 0x1001, b"LO", b"ab") + ITEM_END + END


@pytest.mark.parametrize(
    "raw",
    [
        element(0x0029, 0x1010, b"XQ", b"what"),
        element(0x0029, 0x1010, b"\x00\x00", b"what"),
        element(0x0029, 0x1010, b"UN", b"odd", 3),
        element(0x0029, 0x1010, b"DS", b"not a number"),
        element(0x0029, 0x1010, b"SQ", NESTED, UNDEFINED),
        element(0x0029, 0x1010, b"UN", NESTED, UNDEFINED),
        element(0x0029, 0x1010, b"SQ", ITEM + b"\xff" * 4, UNDEFINED),
        element(0x0029, 0x1010, b"OB", b"", 0x7FFFFFF0),
        element(0x0008, 0x0005, b"CS", b"NO_SUCH_SET "),
        element(0x0010, 0x0010, b"PN", b"\xff\xfe\x1b[31m"),
    ],
)
def test_odd_elements(export, tmp_path, raw):
    for path in make_series(export, volume_array()):
        insert(path, raw)
    there_and_back(tmp_path)


def test_odd_lengths_and_bytes_behind_the_pixels(export, tmp_path):
    for k, path in enumerate(make_series(export, volume_array((3, 5, 7), np.uint8))):
        data = path.read_bytes()
        path.write_bytes([data[:-1], data + b"trailing", data][k])  # without its padding, and with more
    there_and_back(tmp_path)


@pytest.mark.slow
def test_a_file_with_an_element_of_2_gib(export, tmp_path):
    """In bounded memory: the file is read in parts, and so it is given back."""
    paths = make_series(export, volume_array())
    data = paths[0].read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    with paths[0].open("r+b") as file:
        file.seek(at)
        file.write(element(0x0029, 0x1010, b"OB", b"", 2**31))
        file.seek(2**31, 1)
        file.write(data[at:])
    code = (
        "import resource, sys; from inrformat.archive import *; from inrformat.archive.workers import Workers\n"
        "done = archive(sys.argv[1], sys.argv[2], workers=Workers(1))\n"
        "back = restore(sys.argv[2], sys.argv[3], workers=Workers(1))\n"
        "assert done.files == back.identical == 5 and done.exit_code == back.exit_code == 0, (done, back)\n"
        "assert 'too much beside its pixels' in done.kept\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    names = [str(tmp_path / name) for name in ("export", "archive", "out")]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.5 * 2**20  # KiB: what the coder of volumes takes, and not the element
    shutil.rmtree(tmp_path / "out")


def hostile(tmp_path, paths: list[bytes]) -> str:
    """An archive whose one pack, right in all its sums, has a file of these paths."""
    store = tmp_path / "archive"
    (tmp_path / "export" / "a").write_bytes(b"ab")
    archive(str(tmp_path / "export"), str(store), workers=HERE)
    entry = [paths, 2, hashlib.sha256(b"ab").digest(), 0, [], ""]
    record = records.pack({"files": [entry], "exact": True, "big_endian": False})
    listed = zstandard.ZstdCompressor(level=LEVEL).compress(record)
    data = build([("FILE", listed), ("REST", compress_rest([b"ab"], 2))])
    path = next(store.rglob("*.inrp"))
    path.write_bytes(data)
    database = sqlite3.connect(store / "manifest.sqlite")
    with database:
        database.execute("UPDATE jobs SET sha256 = ?", (hashlib.sha256(data).hexdigest(),))
        database.execute("UPDATE files SET path = ?", (paths[0],))
    database.close()
    return str(store)


@pytest.mark.parametrize(
    "path", [b"../up", b"/tmp/inrformat-absolute", b"a/../../up", b".", b"a//b", b"a\0b"]
)
def test_no_file_is_restored_outside(export, tmp_path, path):
    store = hostile(tmp_path, [path])
    before = tree(tmp_path)
    done = restore(store, str(tmp_path / "out"), workers=HERE)
    assert done.files == 0 and done.exit_code == 8 and "[bad-path" in next(iter(done.failed))
    assert verify(store, workers=HERE).exit_code == 4
    assert tree(tmp_path) == before


def test_an_object_outside_is_not_read(export, tmp_path):
    store = hostile(tmp_path, [b"a"])
    database = sqlite3.connect(tmp_path / "archive" / "manifest.sqlite")
    with database:
        database.execute("UPDATE jobs SET object = '../export/a'")
    database.close()
    assert restore(store, str(tmp_path / "out"), workers=HERE).failed == {"a path leads out of its folder": 1}


def test_a_manifest_that_is_none(export, tmp_path):
    from inrformat.errors import InrError

    (tmp_path / "archive").mkdir()
    for content in (b"", b"noise" * 1000, b"SQLite format 3\0" + bytes(5000)):
        (tmp_path / "archive" / "manifest.sqlite").write_bytes(content)
        with pytest.raises(InrError):
            restore(str(tmp_path / "archive"), str(tmp_path / "out"))
