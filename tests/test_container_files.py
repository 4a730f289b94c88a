"""files.py: whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inrformat.container import atomic_write, write_bytes
from inrformat.errors import InputError, OutputError


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.inrv"
    write_bytes(path, b"one")
    write_bytes(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, InputError, SystemExit])
@pytest.mark.parametrize("before", [None, b"kept"])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, failure: type[BaseException], before: bytes | None
) -> None:
    path = tmp_path / "a.inrv"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(failure), atomic_write(path) as file:
        file.write(b"half of it")
        raise failure("stop")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failing_disk_is_an_output_error(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if name == "fsync" else (Path, "replace")), full)
    with pytest.raises(OutputError, match=r"a\.inrv.*No space left"):
        write_bytes(tmp_path / "a.inrv", b"one")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append("replace"), replace(self, to))[1])
    write_bytes(tmp_path / "a.inrv", b"one")
    assert steps in (["fsync", "replace", "fsync"], ["fsync", "replace"])  # the folder's, where it can be


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "folder", tmp_path / ("a" * 300), "a\0b", os.devnull):
        with pytest.raises(OutputError) as caught:
            write_bytes(path, b"one")
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []
    assert not Path(os.devnull).is_file()


def test_a_link_keeps_pointing_at_the_file(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("no symbolic links here")
    write_bytes(link, b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
