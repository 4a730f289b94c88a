"""Reading and writing volumes: DICOM series, NIfTI, NRRD, NPY <-> `Volume`.

`read` and `write` tell the kind from the path. What a source says of itself goes to `Volume.metadata`, in
plain types that msgpack can hold; the key 'source' names the kind ('dicom', 'nifti', 'nrrd', 'npy'), and
the module of that kind documents the rest. No error or log here carries a value of a patient's attribute.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..container.files import atomic_write, temporary_name
from ..errors import InputError, OutputError, UsageError
from ..volume import Volume

__all__ = ["read", "suffix_of", "write"]

FILE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".npy")
DICOM_SUFFIXES = ("", ".dcm", ".dicom", ".ima")
_KNOWN = (
    f"{', '.join(FILE_SUFFIXES)}, or a DICOM series: a folder (or one file, {', '.join(DICOM_SUFFIXES[1:])})"
)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The suffix that decides the kind: lower case, '.nii.gz' as one, '' for none."""
    name = Path(path).name.lower()
    if name.endswith(".nii.gz"):
        return ".nii.gz"
    suffix = Path(name).suffix
    return suffix if any(c.isalpha() for c in suffix) else ""  # a UID's last part is no suffix


def read(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    skip_unreadable: bool = False,
    allow_irregular: bool = False,
    metadata: str = "full",
) -> Volume:
    """Read a volume: a folder with a DICOM series, one DICOM file, .nii, .nii.gz, .nrrd or .npy.

    `series`, `skip_unreadable`, `allow_irregular` and `metadata` concern DICOM: see `dicom.read_dicom`.

    Raises InputError (the file or series is broken, mixed or of a wrong kind), UsageError (an unknown
    suffix or series), UnsupportedError (an optional package is missing).
    """
    source, suffix = Path(path), suffix_of(path)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.is_dir() or suffix in DICOM_SUFFIXES:
        from .dicom import read_dicom

        return read_dicom(
            source,
            series=series,
            skip_unreadable=skip_unreadable,
            allow_irregular=allow_irregular,
            metadata=metadata,
        )
    if suffix not in FILE_SUFFIXES:
        raise UsageError(f"cannot read '{suffix}' files; known are {_KNOWN}")
    if series is not None:
        raise UsageError("series= chooses inside a DICOM folder; this is one file")
    if suffix == ".npy":
        from .npy import read_npy

        return read_npy(source)
    if suffix == ".nrrd":
        from .nrrd import read_nrrd

        return read_nrrd(source)
    from .nifti import read_nifti

    return read_nifti(source)


def write(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume as .nii, .nii.gz, .nrrd or .npy, or without a suffix as a folder with a DICOM series.

    Files are replaced in one step; a folder must be new or empty. .npy keeps the stored values alone; what
    else each kind cannot hold is said in its module. Raises OutputError, UsageError (an unknown suffix) or
    UnsupportedError (an optional package is missing).
    """
    as_folder = os.fspath(path).endswith(("/", os.sep))
    target, suffix = Path(path), suffix_of(path)
    if as_folder or suffix == "" or target.is_dir():
        from .dicom_write import write_dicom_series

        write_dicom_series(volume, target)
        return
    if suffix not in FILE_SUFFIXES:
        known = ", ".join(FILE_SUFFIXES)
        raise UsageError(f"cannot write '{suffix}' files; known are {known}, or no suffix for a DICOM folder")
    if suffix == ".npy":
        from .npy import write_npy

        with atomic_write(target) as file:
            write_npy(volume, file)
    elif suffix == ".nrrd":
        from .nrrd import write_nrrd

        with atomic_write(target) as file:
            write_nrrd(volume, file)
    else:
        from .nifti import write_nifti

        with atomic_write(target) as file:
            write_nifti(volume, file, compress=suffix == ".nii.gz")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that becomes `path` when the block ends well. OutputError where `path` is not empty."""
    temporary = path.parent / temporary_name()
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"{path} is there already and is not an empty folder")
        temporary.mkdir()
        yield temporary
        _sync_folder(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or type(error).__name__}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system can (Windows cannot open a folder)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
