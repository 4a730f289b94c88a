"""Whole files or none: written beside the target, made durable, then moved over it.

A writer that is killed leaves its temporary file behind. It is told from that of a writer that lives by a
lock, which the system gives up with the process: see `remove_leftovers`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError

if sys.platform != "win32":
    import fcntl

TEMPORARY = re.compile(r"\.inr-[0-9a-f]{16}\.tmp")
"""The name of whatever is not whole yet, and of nothing else."""


def temporary_name() -> str:
    """A new name for a file or folder that gets its own when it is whole."""
    return f".inr-{secrets.token_hex(8)}.tmp"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace otherwise.

    The file is written under a temporary name in the same folder. Whatever ends the block early, a
    KeyboardInterrupt too, removes it and leaves `path` as it was. An OSError becomes OutputError.
    """
    temporary: Path | None = None
    try:
        target = _target(path)
        while True:
            temporary = target.with_name(temporary_name())
            if (created := _created(temporary)) is not None:
                break
        with created as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":  # as long as it is locked
                temporary.replace(target)
        if sys.platform == "win32":  # where an open file cannot be moved
            temporary.replace(target)
        temporary = None
        _sync(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, or none; OutputError."""
    with atomic_write(path) as file:
        file.write(data)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, durably; OSError."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync(new.parent)


def remove_leftovers(folder: str, keep: Collection[str] = ()) -> None:
    """Remove the temporary files of writers that are dead from a folder, as far as that can be.

    A file goes only when it has a temporary name that is not in `keep`, is a regular file and no link, and
    nobody holds the lock that `atomic_write` has on its file. Nothing goes on a system or a file system
    without such locks, and nothing in the folders below this one.
    """
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if TEMPORARY.fullmatch(entry.name)]
    for name in names:
        if name not in keep:
            with contextlib.suppress(OSError):
                _remove_if_dead(Path(folder, name))


def _created(path: Path) -> BinaryIO | None:
    """A new file, locked until it is closed; None where `remove_leftovers` came before the lock."""
    file = path.open("xb")
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = path.exists()
        except BlockingIOError:
            mine = False
        except OSError:  # no locks here: then nobody else can have one, either
            mine = True
        if not mine:
            file.close()
            path.unlink(missing_ok=True)
            return None
    return file


def _remove_if_dead(path: Path) -> None:
    """Remove a temporary file that nobody writes; OSError where that cannot be known."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        finally:
            os.close(descriptor)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to replace: links are followed, so that a link keeps pointing at it."""
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():  # never replace a folder, or a device such as /dev/null
            raise OutputError(f"cannot write {path}: it is not a regular file")
    except ValueError as error:
        raise OutputError(f"cannot write {path!a}: {error}") from error
    return target


def _sync(folder: Path) -> None:
    """Make new names in a folder durable, where the system can (Windows cannot open one)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
