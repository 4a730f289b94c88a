"""An archive back into the files it was made from; and the proof that it could be."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from typing import Any

from tqdm import tqdm

from ..container.originals import Originals
from ..errors import InrError, OutputError, PromiseError
from .derive import derived
from .manifest import Entry, Manifest
from .objects import Opened
from .places import CHUNK, Place, place_of, sha256_of
from .run import PARTLY_DONE, listed
from .workers import Workers, reason_of

UID_MAP = "uid-map-{}{}.csv"
"""Beside the files of a lossy series: original SOP Instance UID, the restored one. Named after the object,
and numbered where the archive has a file of that name."""
THERE = "another file is there already"
CORRUPT = 4
NOT_HELD = "an object does not hold what the manifest says"


@dataclass
class Restored:
    """What a restore did. identical: of the files, those with the SHA-256 of the original."""

    files: int = 0
    identical: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or 8 where a file could not be restored."""
        return PARTLY_DONE if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain types, for `json.dumps`."""
        return {**asdict(self), "failed": listed(self.failed), "exit_code": self.exit_code}


@dataclass
class Proof:
    """What was checked. rebuilt: files whose SHA-256 was compared after a real decode."""

    objects: int = 0
    files: int = 0
    rebuilt: int = 0
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or 4 where the archive is damaged."""
        return CORRUPT if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain types, for `json.dumps`."""
        return {**asdict(self), "failed": listed(self.failed), "exit_code": self.exit_code}


@dataclass(frozen=True)
class _Task:
    """What a worker is sent.

    files     path -> SHA-256 of what is wanted of the object.
    uid_map   what `UID_MAP` is called.
    """

    entry: Entry
    files: dict[bytes, bytes]
    archive: str
    out: str = ""
    uid_map: bytes = b""
    use_sr: bool = False
    rebuild: bool = False


def restore(
    archive: str,
    out: str,
    *,
    use_sr: bool = False,
    workers: Workers | None = None,
    progress: bool | None = None,
) -> Restored:
    """Write every file of an archive below `out`, a folder or an fsspec URL.

    A file that is there already is left alone: it counts when it is the same, and is a failure otherwise.
    What a restore that was killed left half written beside them is removed.
    Of a lossy series new DICOM files are written, marked as such; `use_sr` brings them to full size by a
    super-resolution model. Raises InputError (no archive).
    """
    began, result, failed = time.monotonic(), Restored(), Counter[str]()
    tasks = _tasks(archive, out=out, use_sr=use_sr)
    paths = {path for task in tasks for path in task.files}
    tasks = [replace(task, uid_map=_uid_map(task, paths)) for task in tasks]
    place_of(out).sweep(paths | {task.uid_map for task in tasks})
    for part in _over(_restore, tasks, workers, progress):
        if isinstance(part, Exception):
            failed[reason_of(part)] += 1
            continue
        result.files += part.files
        result.identical += part.identical
        result.bytes += part.bytes
        failed.update(part.failed)
    result.failed, result.seconds = dict(failed), time.monotonic() - began
    return result


def verify(
    archive: str, *, rebuild: bool = False, workers: Workers | None = None, progress: bool | None = None
) -> Proof:
    """Check every checksum of an archive; with `rebuild` decode all of it and compare every file's SHA-256.

    What is damaged is in the result. Raises InputError (no archive).
    """
    began, result, failed = time.monotonic(), Proof(), Counter[str]()
    for part in _over(_verify, _tasks(archive, rebuild=rebuild), workers, progress):
        if isinstance(part, Exception):
            failed[reason_of(part)] += 1
            continue
        result.objects += 1
        result.files += part[0]
        result.rebuilt += part[1]
    result.failed, result.seconds = dict(failed), time.monotonic() - began
    return result


def contents(archive: str, *, patient: bool = False) -> dict[str, Any]:
    """What an archive holds, as plain types; with `patient` the paths, which may have a patient's name."""
    with Manifest(place_of(archive)) as manifest:
        files, bytes_in, volumes, bytes_out = manifest.totals()
        found: dict[str, Any] = {
            "files": files,
            "volumes": volumes,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "ratio": bytes_in / max(bytes_out, 1),
            "kept": listed(manifest.reasons()),
            "failed": listed(manifest.failures()),
        }
        if patient:
            for name, paths in (
                ("paths", manifest.paths_with_reasons()),
                ("left_out", manifest.left_out()),
            ):
                found[name] = [{"path": os.fsdecode(path), "reason": reason} for path, reason in paths]
        return found


def _uid_map(task: _Task, paths: Set[bytes]) -> bytes:
    """A name that no file of the archive has."""
    numbers = chain([""], (f"-{number}" for number in count(2)))
    names = (UID_MAP.format(task.entry.key[:16], number).encode() for number in numbers)
    return next(name for name in names if name not in paths)


def _tasks(archive: str, **options: Any) -> list[_Task]:
    with Manifest(place_of(archive)) as manifest:
        return [_Task(entry, manifest.files(entry.key), archive, **options) for entry in manifest.entries()]


def _over(function: Any, tasks: list[_Task], workers: Workers | None, progress: bool | None) -> Iterator[Any]:
    """The results for the objects, the largest first."""
    tasks = sorted(tasks, key=lambda task: -task.entry.bytes_in)
    total = sum(task.entry.bytes_in for task in tasks)
    with tqdm(
        total=total, unit="B", unit_scale=True, disable=None if progress is None else not progress
    ) as bar:
        for number, (task, part) in enumerate((workers or Workers()).map(function, tasks), 1):
            bar.set_postfix_str(f"{number}/{len(tasks)} objects", refresh=False)
            bar.update(task.entry.bytes_in)
            yield part


# --- in a worker ----------------------------------------------------------------------------------


def _verify(task: _Task) -> tuple[int, int]:
    """Files that an object holds as the manifest says, and those rebuilt."""
    place = place_of(task.archive)
    if sha256_of(place, task.entry.name.encode()).hex() != task.entry.sha256:
        raise PromiseError("an object has another SHA-256 than the manifest says")
    with Opened(place, task.entry.name) as found:
        found.reader.check_all()
        if _not_held(task, found.originals):
            raise PromiseError(NOT_HELD)
        if not task.rebuild:
            return len(task.files), 0
        if not found.originals.exact:
            found.volume()
            return len(task.files), 0
        return len(task.files), found.prove()


def _not_held(task: _Task, originals: Originals) -> set[bytes]:
    """The wanted paths that an object has not, or with another SHA-256 than the manifest says."""
    held = {path: file.sha256 for file in originals.files for path in file.paths}
    return {path for path, sha256 in task.files.items() if held.get(path) != sha256}


def _restore(task: _Task) -> Restored:
    """The wanted files of one object."""
    out, result, failed = place_of(task.out), Restored(), Counter[str]()
    with Opened(place_of(task.archive), task.entry.name) as found:
        originals = found.originals
        wrong = _not_held(task, originals)
        failed.update({NOT_HELD: len(wrong)} if wrong else {})
        wanted = task.files.keys() - wrong
        volume = found.volume(task.use_sr) if found.reader.kind == "volume" else None
        if volume is not None and not originals.exact:
            return _write_derived(task, wanted, found, out, failed)
        for file, pieces in found.rebuilt(None if volume is None else volume.data):
            written: bytes | None = None
            for path in (p for p in file.paths if p in wanted):
                try:
                    if not out.exists(path):
                        source = pieces if written is None else _chunks(out, written)
                        out.write(path, _checked(source, file.sha256))
                        written = path
                    elif sha256_of(out, path) != file.sha256:
                        raise OutputError(THERE)
                    result.files += 1
                    result.identical += 1
                    result.bytes += file.size
                except (InrError, OSError) as error:
                    failed[reason_of(error)] += 1
    result.failed = dict(failed)
    return result


def _write_derived(
    task: _Task, wanted: Set[bytes], found: Opened, out: Place, failed: Counter[str]
) -> Restored:
    """The files of a lossy series as new DICOM, and what becomes of their UIDs."""
    result, uids = Restored(), ["original,restored"]

    def write(path: bytes, data: bytes) -> bool:
        try:
            if not out.exists(path):
                out.write(path, [data])
            elif sha256_of(out, path) != hashlib.sha256(data).digest():
                raise OutputError(THERE)
        except (InrError, OSError) as error:
            failed[reason_of(error)] += 1
            return False
        return True

    for path, data, old, new in derived(found, task.entry, task.use_sr):
        if path in wanted:
            uids.append(f"{old},{new}")
            if write(path, data):
                result.files += 1
                result.bytes += len(data)
    write(task.uid_map, "\n".join([*uids, ""]).encode())
    result.failed = dict(failed)
    return result


def _checked(pieces: Iterator[bytes], sha256: bytes) -> Iterator[bytes]:
    """The pieces; PromiseError at their end when they are not the file, so that it is never written."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.digest() != sha256:
        raise PromiseError("a file does not come back with the SHA-256 it had")


def _chunks(place: Place, name: bytes) -> Iterator[bytes]:
    with place.open(name) as file:
        while chunk := file.read(CHUNK):
            yield chunk
