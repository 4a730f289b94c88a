"""An export into an archive: scan, make the objects, commit each; run again, it goes on where it was."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm

from ..decode import resolve_device
from ..errors import InputError, OutputError, UsageError
from .manifest import Manifest
from .objects import Made, make
from .pixels import Quality
from .places import Folder, Place, place_of
from .scan import Job, scan
from .workers import Workers, reason_of

PARTLY_DONE = 8
"""The exit code of a batch of which a part could not be done."""


@dataclass
class Summary:
    """What an archive holds after a run, and what the run did. Nothing of a patient.

    files, bytes_in     of the export, as far as the archive has them.
    volumes, bytes_out  files that are volumes, and the bytes of all objects.
    kept                files kept unchanged: how many for each reason.
    made, unchanged     objects of this run, and those of an earlier one that needed no work.
    failed              objects that could not be made: how many for each reason.
    refused             what is no file or cannot be read: how many for each reason.
    """

    files: int = 0
    volumes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    made: int = 0
    unchanged: int = 0
    seconds: float = 0.0
    kept: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Bytes of the files over bytes of the objects."""
        return self.bytes_in / max(self.bytes_out, 1)

    @property
    def exit_code(self) -> int:
        """0, or 8 where something was left out."""
        return PARTLY_DONE if self.failed or self.refused else 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain types, for `json.dumps`."""
        counted = {name: listed(getattr(self, name)) for name in ("kept", "failed", "refused")}
        return {**asdict(self), **counted, "ratio": self.ratio, "exit_code": self.exit_code}


def listed(reasons: dict[str, int]) -> list[dict[str, Any]]:
    """Reasons with their counts, for JSON."""
    return [{"reason": reason, "count": count} for reason, count in reasons.items()]


def archive(
    source: str,
    target: str,
    *,
    quality: Quality | None = None,
    workers: Workers | None = None,
    progress: bool | None = None,
) -> Summary:
    """Archive every file below `source`, a folder or an fsspec URL, in `target`.

    quality   lossless where None: every file can be restored byte for byte. Otherwise the volumes are lossy.
    progress  None: a bar on stderr, if that is a terminal.

    Each object is proved to give its files back before it is committed. What fails is in the summary, and the
    next run tries it again. Raises InputError, OutputError (another run has the archive), UsageError,
    UnsupportedError (the device).
    """
    quality, workers = quality or Quality(), workers or Workers()
    _check_places(source, target)
    if workers.dask is None:
        resolve_device(quality.device)
    began = time.monotonic()
    export, place = place_of(source), place_of(target)
    with Manifest(place, write=True) as manifest:
        there = _sweep(place, manifest)
        manifest.forget_failures()
        found = scan(export)
        summary = _Run(manifest, place, source, target, quality, there).work(found.jobs, workers, progress)
        summary.files, summary.bytes_in, summary.volumes, summary.bytes_out = manifest.totals()
        summary.kept = manifest.reasons()
        summary.refused = dict(Counter(reason for _, reason in found.refused))
        with contextlib.suppress(OutputError):  # a full disk takes no note
            manifest.leave_out(found.refused)
    summary.seconds = time.monotonic() - began
    return summary


@dataclass(frozen=True)
class _Task:
    """What a worker is sent."""

    job: Job
    source: str
    target: str
    quality: Quality
    known: str | None


def _make(task: _Task) -> Made | None:
    """In a worker."""
    return make(task.job, place_of(task.source), place_of(task.target), task.quality, task.known)


@dataclass
class _Run:
    manifest: Manifest
    place: Place
    source: str
    target: str
    quality: Quality
    there: dict[str, int]

    def work(self, jobs: tuple[Job, ...], workers: Workers, progress: bool | None) -> Summary:
        """Do and commit every job."""
        summary, failed, written = Summary(), Counter[str](), [0, 0]
        tasks = [self._task(job) for job in jobs]
        total = sum(job.size for job in jobs)
        with tqdm(
            total=total, unit="B", unit_scale=True, disable=None if progress is None else not progress
        ) as bar:
            for number, (task, made) in enumerate(workers.map(_make, tasks), 1):
                try:
                    if isinstance(made, Exception):
                        raise made
                    if made is None:
                        summary.unchanged += 1
                    else:
                        self._commit(task, made)
                        summary.made += 1
                        written = [written[0] + task.job.size, written[1] + made.size]
                except Exception as error:
                    failed[reason_of(error)] += 1
                    reason = reason_of(error)
                    with contextlib.suppress(OutputError):  # a full disk takes no note either
                        self.manifest.fail(task.job, self._parameters(task.job), reason)
                        paths = (path for file in task.job.files for path in file.paths)
                        self.manifest.leave_out((path, reason) for path in paths)
                bar.set_postfix_str(
                    f"{number}/{len(jobs)} objects, {written[0] / max(written[1], 1):.2f}:1", refresh=False
                )
                bar.update(task.job.size)
        summary.failed = dict(failed)
        return summary

    def _task(self, job: Job) -> _Task:
        known = self.manifest.known(job, self._parameters(job), self.there)
        return _Task(job, self.source, self.target, self.quality, known)

    def _commit(self, task: _Task, made: Made) -> None:
        for name in self.manifest.commit(task.job, self._parameters(task.job), made):
            self.place.remove(name.encode())

    def _parameters(self, job: Job) -> str:
        return str(self.quality) if job.shape is not None else ""


def _sweep(place: Place, manifest: Manifest) -> dict[str, int]:
    """Remove what a run that was killed left behind: objects without a commit, temporary files.

    The objects that are there, and their bytes.
    """
    names = {entry.name.encode(): entry.name for entry in manifest.entries()}
    there = {}
    for name, size in place.walk():
        if name in names and isinstance(size, int):
            there[names[name]] = size
        elif name.startswith(b"objects/") and name not in names and isinstance(size, int):
            place.remove(name)
    return there


def _check_places(source: str, target: str) -> None:
    """InputError when there is no export, UsageError when one of the two folders lies in the other."""
    first, second = place_of(source), place_of(target)
    if not first.there():
        raise InputError(f"{source}: no such folder")
    if isinstance(first, Folder) and isinstance(second, Folder):
        a, b = (place.root.rstrip(b"/") + b"/" for place in (first, second))
        if a.startswith(b) or b.startswith(a):
            raise UsageError("the export and the archive must not lie in each other")
