"""Where files are read from and objects are written to: a folder, or an fsspec URL such as s3://bucket/key.

Names are bytes with '/' between their parts, relative to the place. Nothing follows a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..container.files import atomic_write, make_folder, remove_leftovers
from ..container.originals import is_safe
from ..errors import InputError, OutputError, UnsupportedError

CHUNK = 1 << 20
BLOCK = 1 << 17
"""Bytes that are fetched at a time from a remote file whose header is read."""


class Folder:
    """A folder of this machine."""

    def __init__(self, path: str) -> None:
        self.root = os.path.realpath(os.fsencode(path))

    def there(self) -> bool:
        """Whether the place itself exists."""
        return Path(os.fsdecode(self.root)).is_dir()

    def walk(self) -> Iterator[tuple[bytes, int | str]]:
        """Every file with its size, or with the reason why it cannot be taken; sorted within a folder."""
        waiting = [b""]  # no recursion: folders may be nested deeper than calls
        while waiting:
            folder, folders = waiting.pop(), []
            try:
                with os.scandir(self._join(folder)) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                yield folder, f"cannot be listed ({error.strerror})"
                continue
            for entry in entries:
                name = folder + b"/" + entry.name if folder else entry.name
                try:
                    mode = entry.stat(follow_symlinks=False)
                except OSError as error:
                    yield name, f"cannot be read ({error.strerror})"
                    continue
                if stat.S_ISDIR(mode.st_mode):
                    folders.append(name)
                elif stat.S_ISREG(mode.st_mode):
                    yield name, mode.st_size
                else:
                    yield name, "a link" if stat.S_ISLNK(mode.st_mode) else "neither a file nor a folder"
            waiting += reversed(folders)

    def open(self, name: bytes) -> BinaryIO:
        """The file, for reading; OSError. A link, and whatever would block, is refused."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        return os.fdopen(os.open(self._join(name), flags | getattr(os, "O_BINARY", 0)), "rb")

    def write(self, name: bytes, parts: Iterable[bytes]) -> None:
        """The whole file or none, and durable; OutputError. Its folders are made; a link is no way out."""
        path = self._join(name)
        if os.path.realpath(path) != path:
            raise OutputError("a link is in the way")
        try:
            make_folder(Path(os.fsdecode(path)).parent)
        except OSError as error:
            raise OutputError(f"a folder cannot be made ({error.strerror})") from None
        try:
            with atomic_write(os.fsdecode(path)) as file:
                for part in parts:
                    file.write(part)
        except OutputError as error:
            cause = error.__cause__
            reason = cause.strerror if isinstance(cause, OSError) else "not a regular file"
            raise OutputError(f"a file cannot be written ({reason})") from None

    def source(self, name: bytes) -> Path | bytes:
        """What `container.Reader` takes."""
        return Path(os.fsdecode(self._join(name)))

    def remove(self, name: bytes) -> None:
        """Remove a file, if it is there; OutputError."""
        try:
            Path(os.fsdecode(self._join(name))).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"a file cannot be removed ({error.strerror})") from None

    def sweep(self, files: Iterable[bytes]) -> None:
        """Remove what killed writers left beside these files, and in the place itself; the files stay."""
        folders: defaultdict[bytes, set[str]] = defaultdict(set, {b"": set()})
        for name in filter(is_safe, files):
            folder, _, last = name.rpartition(b"/")
            folders[folder].add(os.fsdecode(last))
        for folder, keep in folders.items():
            path = self._join(folder)
            if os.path.realpath(path) == path:  # a link is no way out
                remove_leftovers(os.fsdecode(path), keep)

    def exists(self, name: bytes) -> bool:
        """Whether there is anything of this name."""
        return os.path.lexists(self._join(name))

    def _join(self, name: bytes) -> bytes:
        if name and not is_safe(name):
            raise InputError("a path leads out of its folder")
        return self.root.rstrip(b"/") + b"/" + name if name else self.root


class Remote:
    """A place behind an fsspec URL. One object is written at a time, and appears whole or not at all."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self.fs, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UnsupportedError(
                f"{url.partition(':')[0]}: needs pip install inrformat[s3]: {error}"
            ) from None
        except Exception as error:
            raise _unreachable(error) from None
        self.root = self.root.rstrip("/")

    def there(self) -> bool:
        """See `Folder`."""
        with _answering():
            return bool(self.fs.exists(self.root))

    def walk(self) -> Iterator[tuple[bytes, int | str]]:
        """See `Folder`."""
        with _answering():
            self.fs.invalidate_cache()
            found: dict[str, Any] = self.fs.find(self.root, detail=True)
        for path, entry in sorted(found.items()):
            name = path[len(self.root) + 1 :].encode(errors="backslashreplace")
            yield name, int(entry["size"]) if is_safe(name) else "a name that no folder can hold"

    def open(self, name: bytes) -> BinaryIO:
        """See `Folder`."""
        return cast(BinaryIO, self.fs.open(self._join(name), "rb", block_size=BLOCK))

    def write(self, name: bytes, parts: Iterable[bytes]) -> None:
        """See `Folder`."""
        try:
            self.fs.pipe_file(self._join(name), b"".join(parts))
        except Exception as error:  # each kind of store has errors of its own
            raise OutputError(f"an object cannot be written ({type(error).__name__})") from None

    def source(self, name: bytes) -> Path | bytes:
        """See `Folder`."""
        return bytes(self.fs.cat_file(self._join(name)))

    def remove(self, name: bytes) -> None:
        """See `Folder`."""
        if self.exists(name):
            self.fs.rm_file(self._join(name))

    def sweep(self, files: Iterable[bytes]) -> None:
        """See `Folder`; nothing half written ever has a name here."""

    def exists(self, name: bytes) -> bool:
        """See `Folder`."""
        path = self._join(name)
        with _answering():
            self.fs.invalidate_cache()
            return bool(self.fs.exists(path))

    def _join(self, name: bytes) -> str:
        if not is_safe(name):
            raise InputError("a path leads out of its folder")
        return f"{self.root}/{name.decode()}"


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """InputError where a store does not answer: each kind has errors of its own."""
    try:
        yield
    except Exception as error:
        raise _unreachable(error) from None


def _unreachable(error: Exception) -> InputError:
    return InputError(f"a URL cannot be reached ({type(error).__name__})")


Place = Folder | Remote


def sha256_of(place: Place, name: bytes) -> bytes:
    """The SHA-256 of a file; OSError."""
    digest = hashlib.sha256()
    with place.open(name) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def place_of(path: str) -> Place:
    """A URL is remote; anything else is a folder, and so is what file:// names."""
    kind, is_url, name = path.partition("://")
    return Remote(path) if is_url and kind != "file" else Folder(name if is_url else path)
