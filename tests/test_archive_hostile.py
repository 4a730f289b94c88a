"""Files that no exporter should write, and archives that nobody should trust."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from archive_factory import HERE, encode_stand_in, there_and_back, tree
from dicom_factory import make_series, volume_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

import inrformat
from inrformat import cli
from inrformat.archive import archive, objects, pixels, restore, verify
from inrformat.archive.places import Folder
from inrformat.container import build, records
from inrformat.container.metadata import LEVEL
from inrformat.container.originals import compress_rest
from inrformat.errors import InputError, OutputError

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
        "from inrformat.container import originals; originals.LEVEL = 1  # two minutes less\n"
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


# --- a damaged archive, a store that does not answer ------------------------------------------------


def test_an_empty_manifest_costs_no_object(export, tmp_path):
    """A manifest that was cut to nothing is not a new one: its objects would be swept away."""
    make_series(export, volume_array())
    there_and_back(tmp_path)
    (tmp_path / "archive" / "manifest.sqlite").write_bytes(b"")
    before = tree(tmp_path / "archive" / "objects")
    with pytest.raises(OutputError, match="without a manifest"):
        archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert tree(tmp_path / "archive" / "objects") == before


def test_a_database_of_something_else_is_left_alone(export, tmp_path):
    (export / "a").write_bytes(b"ab")
    (tmp_path / "archive").mkdir()
    database = sqlite3.connect(tmp_path / "archive" / "manifest.sqlite")
    with database:
        database.execute("CREATE TABLE accounts (name TEXT)")
    database.close()
    with pytest.raises(InputError, match="damaged"):
        archive(str(export), str(tmp_path / "archive"), workers=HERE)


def test_an_object_that_is_gone_is_made_again(export, tmp_path):
    make_series(export, volume_array())
    there_and_back(tmp_path)
    next((tmp_path / "archive").rglob("*.inrv")).unlink()
    shutil.rmtree(tmp_path / "out")
    assert there_and_back(tmp_path).made == 1


def test_a_proof_that_fails_takes_no_object_that_counts(export, tmp_path, monkeypatch):
    make_series(export, volume_array())
    store = str(tmp_path / "archive")

    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(pixels, "encode_volume", broken)
    assert archive(str(export), store, workers=HERE).kept == {"not coded: MemoryError": 5}
    before = tree(tmp_path / "archive" / "objects")
    with monkeypatch.context() as unproved:
        unproved.setattr(objects.Opened, "prove", broken)
        assert archive(str(export), store, workers=HERE).exit_code == 8
    assert tree(tmp_path / "archive" / "objects") == before
    assert restore(store, str(tmp_path / "out"), workers=HERE).identical == 5
    monkeypatch.setattr(pixels, "encode_volume", encode_stand_in)  # and memory is no reason for ever
    assert archive(str(export), store, workers=HERE).volumes == 1


def test_what_the_manifest_says_is_what_comes_back(export, tmp_path):
    """An object that is whole but another one: what it lacks, or has otherwise, is a failure."""
    for name in ("a", "b"):
        (export / name).write_bytes(name.encode() * 2)
    store = tmp_path / "archive"
    archive(str(export), str(store), workers=HERE)
    files = [[[b"a"], 4, hashlib.sha256(b"EVIL").digest(), 0, [], ""]]
    record = records.pack({"files": files, "exact": True, "big_endian": False})
    listed = zstandard.ZstdCompressor(level=LEVEL).compress(record)
    next(store.rglob("*.inrp")).write_bytes(build([("FILE", listed), ("REST", compress_rest([b"EVIL"], 4))]))
    done = restore(str(store), str(tmp_path / "out"), workers=HERE)
    assert (done.files, done.exit_code) == (0, 8)
    assert done.failed == {"an object does not hold what the manifest says": 2}
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        ("DROP TABLE files", 3),
        ("UPDATE files SET path = 5", 0),  # a run asks for what it needs alone
        ("UPDATE files SET sha256 = 'text'", 0),
        ("UPDATE jobs SET bytes_in = 'many'", 3),
        (
            "CREATE VIEW more AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
            3,
        ),
        ("CREATE TRIGGER t AFTER DELETE ON jobs BEGIN DELETE FROM files; END", 3),
        ("UPDATE jobs SET object = CAST(x'ff' AS TEXT)", 3),
    ],
)
def test_a_damaged_manifest_is_said(export, tmp_path, capsys, damage, again):
    (export / "a").write_bytes(b"ab")
    store = str(tmp_path / "archive")
    archive(str(export), store, workers=HERE)
    database = sqlite3.connect(tmp_path / "archive" / "manifest.sqlite")
    with database:
        database.execute(damage)
    database.close()
    before = tree(tmp_path / "archive" / "objects")
    assert cli.main(["archive", str(export), store, "--workers", "1"]) == again
    assert tree(tmp_path / "archive" / "objects") == before
    for command in (["verify", store], ["restore", store, str(tmp_path / "out")]):
        capsys.readouterr()
        assert cli.main(command) == 3, command
        assert "damaged" in capsys.readouterr().err


@pytest.fixture
def nested(export):
    """More folders in each other than calls can be, a file in the last."""
    here, depth = Path.cwd(), 1100
    os.chdir(export)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a").write_bytes(b"deep")
    os.chdir(here)
    yield export
    os.chdir(export)  # to remove them: whatever cleans up after tests would call itself for each
    for _ in range(depth):
        os.chdir("d")
    Path("a").unlink()
    for _ in range(depth):
        os.chdir("..")
        Path("d").rmdir()
    os.chdir(here)


def test_folders_nested_deeper_than_calls(nested):
    make_series(nested, volume_array())
    assert len(list(Folder(str(nested)).walk())) == 6
    assert inrformat.read(nested).shape == (5, 6, 7)


def test_a_folder_that_cannot_be_listed_stays(tmp_path):
    (tmp_path / "objects" / "ab").mkdir(parents=True)
    place = Folder(str(tmp_path))
    with pytest.raises(OutputError, match="cannot be removed"):
        place.remove(b"objects/ab")


@pytest.mark.parametrize("source", ["memory://nothing-here", "file:///nothing-here", "nothing-here"])
def test_a_source_that_is_not_there(tmp_path, source):
    with pytest.raises(InputError, match="no such folder"):
        archive(source, str(tmp_path / "archive"), workers=HERE)
    assert not (tmp_path / "archive").exists()


def test_a_store_that_does_not_answer(tmp_path, monkeypatch):
    import fsspec

    class Silent(fsspec.AbstractFileSystem):
        def exists(self, path, **_):
            raise ConnectionRefusedError

        find = exists

    fsspec.register_implementation("silent", Silent, clobber=True)
    with pytest.raises(InputError, match=r"cannot be reached \(ConnectionRefusedError"):
        archive("silent://x", str(tmp_path / "archive"), workers=HERE)


def test_file_urls_follow_no_link(export, tmp_path):
    (tmp_path / "outside").write_bytes(b"not part of it")
    (export / "link").symlink_to(tmp_path / "outside")
    (export / "a").write_bytes(b"ab")
    done = archive(export.as_uri(), (tmp_path / "archive").as_uri(), workers=HERE)
    assert (done.files, done.refused) == (1, {"a link": 1})


def test_a_deflated_bomb_is_not_inflated(export, tmp_path):
    path = make_series(export, volume_array((1, 6, 7)), syntax=DeflatedExplicitVRLittleEndian)[0]
    data = path.read_bytes()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    at = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    with path.open("wb") as file:
        file.write(data[:at])
        for _ in range(65):
            file.write(deflate.compress(bytes(1 << 24)))
        file.write(deflate.flush())
    assert there_and_back(tmp_path).kept == {"a deflated data set": 1}
    with pytest.raises(InputError, match="when inflated"):
        inrformat.read(path)


def test_wrong_use_is_no_reason_to_keep_files(export, tmp_path, capsys):
    make_series(export, volume_array())
    for options, code in ((["--ratio", "-5"], 2), (["--max-error", "nan"], 2), (["--device", "bogus"], 2)):
        assert cli.main(["archive", str(export), str(tmp_path / "archive"), *options]) == code, options
        assert not (tmp_path / "archive").exists()


def test_names_cannot_forge_lines(export, tmp_path, capsys):
    (export / "a\n  9 files of nobody").write_bytes(b"ab")
    archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert cli.main(["info", str(tmp_path / "archive"), "--patient"]) == 0
    assert "\n  9 files of nobody" not in capsys.readouterr().out
