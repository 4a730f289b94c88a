"""manifest.sqlite: what counts in an archive. An object that it does not name is none, whatever lies there.

Each commit is one transaction: a killed run leaves the manifest as it was before or after it. Each path
belongs to one object, the last that was made of it; an object without a path is garbage.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ..errors import InputError, OutputError
from .objects import Made
from .places import Folder, Place
from .scan import Job

NAME = b"manifest.sqlite"
VERSION = 1
SCHEMA = f"""
PRAGMA user_version = {VERSION};
CREATE TABLE jobs (
    key TEXT PRIMARY KEY,      -- of the paths
    state TEXT NOT NULL,       -- done, failed
    kind TEXT NOT NULL,        -- series, pack: what was found
    input TEXT NOT NULL,       -- SHA-256 over paths and contents
    parameters TEXT NOT NULL,  -- lossless, ratio=..., ...
    object TEXT NOT NULL,      -- its name; .inrv: a volume, .inrp: a pack
    sha256 TEXT NOT NULL,      -- of the object
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    reason TEXT NOT NULL       -- why it failed
);
CREATE TABLE files (
    path BLOB PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (key),
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    reason TEXT NOT NULL       -- why it was not coded as a volume
);
CREATE INDEX files_of_job ON files (job);
"""
LEFT_OUT = """
CREATE TABLE IF NOT EXISTS left_out (  -- of the last run
    path BLOB PRIMARY KEY,
    reason TEXT NOT NULL       -- why it was refused, or its job failed
)"""


@dataclass(frozen=True)
class Entry:
    """A committed object: its job's key, its name and SHA-256, and the bytes of its files and its own."""

    key: str
    name: str
    sha256: str
    bytes_in: int
    bytes_out: int


class Manifest:
    """The open manifest of an archive. One process at a time can hold it for writing."""

    def __init__(self, place: Place, *, write: bool = False, patience: float = 5.0) -> None:
        self._place, self._write, self._patience = place, write, patience
        there = place.exists(NAME)
        if not there and not write:
            raise InputError("this is no archive: it has no manifest.sqlite")
        if not there:
            self._check_alone()
        try:
            self._db = self._open(there)
        except (sqlite3.OperationalError, OSError) as error:
            raise OutputError(f"the manifest is in use or cannot be written ({error})") from None
        except sqlite3.DatabaseError as error:
            raise InputError(f"the manifest is damaged ({error})") from None

    def _open(self, there: bool) -> sqlite3.Connection:
        if isinstance(self._place, Folder):
            path = self._place.source(NAME)
            assert not isinstance(path, bytes)
            mode = "rwc" if self._write else "rw"  # to roll back what a killed run left; "rw" takes less, too
            if self._write:
                path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=self._patience)
        else:
            database = sqlite3.connect(":memory:")
            found = self._place.source(NAME) if there else b""
            if isinstance(found, bytes) and found:
                database.deserialize(found)
        if self._write:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            database.commit()
        version = database.execute("PRAGMA user_version").fetchone()[0]
        empty = not database.execute("SELECT 1 FROM sqlite_master").fetchone()
        if version == 0 and empty and self._write:
            self._check_alone()  # an empty file is a manifest cut short, where there are objects
            database.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"version {version}")
        elif _others(database):
            raise sqlite3.DatabaseError("it holds other things than tables and their indexes")
        if self._write:
            database.execute(LEFT_OUT)
        return database

    def _check_alone(self) -> None:
        """OutputError where there are objects: a new manifest would have them removed."""
        if self._place.exists(b"objects"):
            raise OutputError("there are objects without a manifest.sqlite, which would be lost")

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; OutputError. A remote manifest is sent whole."""
        try:
            with self._db:
                yield self._db
        except sqlite3.Error as error:
            raise OutputError(f"the manifest cannot be written ({error})") from None
        if not isinstance(self._place, Folder):
            self._place.write(NAME, [self._db.serialize()])

    def known(self, job: Job, parameters: str, there: Mapping[str, int]) -> str | None:
        """The input hash with which a job was done in just this way; None where it is to be done.

        there   the bytes of the objects that exist, by their names.
        """
        paths = sum(len(file.paths) for file in job.files)
        rows = self._rows(
            (str, str, int),
            "SELECT input, object, bytes_out FROM jobs WHERE key = ? AND state = 'done' AND parameters = ? "
            "AND kind = ? AND (SELECT count(*) FROM files WHERE job = key) = ?",
            (job.key, parameters, _kind(job), paths),
        )
        return next((input_hash for input_hash, name, size in rows if there.get(name) == size), None)

    def commit(self, job: Job, parameters: str, made: Made) -> list[str]:
        """The job is done; the names of objects that nothing needs any more."""
        row = (
            job.key,
            "done",
            _kind(job),
            made.input,
            "" if made.again else parameters,  # of a series none are empty: it is not known the next time
            made.name,
            made.sha256,
            job.size,
            made.size,
            "",
        )
        paths = [(p, job.key, f.size, f.sha256, f.reason) for f in made.files for p in f.paths]
        with self._transaction() as db:
            before = self._objects()
            db.execute(f"INSERT OR REPLACE INTO jobs VALUES ({','.join('?' * 10)})", row)  # noqa: S608
            db.execute("DELETE FROM files WHERE job = ?", (job.key,))
            db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", paths)
            db.execute("DELETE FROM jobs WHERE key NOT IN (SELECT job FROM files) AND state = 'done'")
            return sorted(before - self._objects())

    def fail(self, job: Job, parameters: str, reason: str) -> None:
        """The job is not done; what was archived of its files before stays."""
        with self._transaction() as db:
            if (
                db.execute("SELECT 1 FROM jobs WHERE key = ? AND state = 'done'", (job.key,)).fetchone()
                is None
            ):
                row = (job.key, "failed", _kind(job), "", parameters, "", "", job.size, 0, reason)
                db.execute(f"INSERT OR REPLACE INTO jobs VALUES ({','.join('?' * 10)})", row)  # noqa: S608

    def forget_failures(self) -> None:
        """A new run finds its own."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE state = 'failed'")
            db.execute("DELETE FROM left_out")

    def leave_out(self, paths: Iterable[tuple[bytes, str]]) -> None:
        """Note the files that this run could not archive, each with its reason."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO left_out VALUES (?, ?)", paths)

    def left_out(self) -> list[tuple[bytes, str]]:
        """The files that the last run could not archive; their names may tell of the patient."""
        if not self._rows((str,), "SELECT name FROM sqlite_master WHERE name = 'left_out'"):
            return []  # no run has written there since there is such a table
        return self._rows((bytes, str), "SELECT path, reason FROM left_out ORDER BY path")

    def entries(self) -> list[Entry]:
        """Every committed object."""
        rows = self._rows(
            (str, str, str, int, int),
            "SELECT key, object, sha256, bytes_in, bytes_out FROM jobs WHERE state = 'done' ORDER BY key",
        )
        return [Entry(*row) for row in rows]

    def files(self, key: str) -> dict[bytes, bytes]:
        """Path -> SHA-256 of the files that an object is there for."""
        return dict(self._rows((bytes, bytes), "SELECT path, sha256 FROM files WHERE job = ?", (key,)))

    def totals(self) -> tuple[int, int, int, int]:
        """Files, their bytes, volumes, and the bytes of all objects."""
        ((files, size),) = self._rows((int, int), "SELECT count(*), coalesce(sum(size), 0) FROM files")
        ((volumes, out),) = self._rows(
            (int, int),
            "SELECT coalesce(sum(object LIKE '%.inrv'), 0), coalesce(sum(bytes_out), 0) FROM jobs "
            "WHERE state = 'done'",
        )
        return files, size, volumes, out

    def paths_with_reasons(self) -> list[tuple[bytes, str]]:
        """The files that are in packs; their names may tell of the patient."""
        return self._rows((bytes, str), "SELECT path, reason FROM files WHERE reason != '' ORDER BY path")

    def reasons(self) -> dict[str, int]:
        """How many files are kept in packs for each reason."""
        return dict(
            self._rows(
                (str, int), "SELECT reason, count(*) FROM files WHERE reason != '' GROUP BY 1 ORDER BY 2 DESC"
            )
        )

    def failures(self) -> dict[str, int]:
        """How many jobs failed for each reason."""
        return dict(
            self._rows((str, int), "SELECT reason, count(*) FROM jobs WHERE state = 'failed' GROUP BY 1")
        )

    def _rows(self, types: tuple[type, ...], query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """What a query gives, in columns of these types; InputError, for a manifest can be anybody's."""
        try:
            rows = self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise InputError(f"the manifest is damaged ({type(error).__name__})") from None
        if not all(isinstance(value, kind) for row in rows for value, kind in zip(row, types, strict=True)):
            raise InputError("the manifest is damaged (a value of another type)")
        return rows

    def _objects(self) -> set[str]:
        return {row[0] for row in self._db.execute("SELECT object FROM jobs WHERE state = 'done'")}


def _others(database: sqlite3.Connection) -> bool:
    """Whether there is anything that a query of a table could run: views, triggers, virtual tables."""
    rows = database.execute("SELECT type, sql FROM sqlite_master").fetchall()
    return any(
        kind not in ("table", "index") or str(sql).lower().split()[:2] == ["create", "virtual"]
        for kind, sql in rows
    )


def _kind(job: Job) -> str:
    return "pack" if job.shape is None else "series"
