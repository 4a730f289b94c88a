"""NRRD <-> Volume, attached headers only (raw, gzip, bzip2 or text data).

NRRD has no agreed place for slope and intercept and its readers take the values as they are, so the writer
applies them. metadata: {'source': 'nrrd', 'space': str}.
"""

from __future__ import annotations

import bz2
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError, UnsupportedError
from ..volume import DTYPES, Array, Volume, default_affine, spacing_of
from .bounded import Inflater, inflates_beyond

_SIGNS = {  # patient axes that point the other way than LPS have -1
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_SCALAR_KINDS = ("domain", "space", "none", "???")
_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "", "???"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "micrometer", "micrometers", "micron", "microns"), 1e-3),
    **{"cm": 10.0, "m": 1e3},
}
"""Millimetres of the units that a space may be in; where none is named it is taken to be in these."""
_EXPANSION = {"raw": 1, "gzip": 1100, "gz": 1100, "bzip2": 1 << 15, "bz2": 1 << 15}  # text: no useful bound
_MOST_VALUES = 1 << 36
_LARGEST_VALUE = 8
_SLACK = 1 << 20
"""Bytes of values, and beside them, that compressed data may have at most."""


def _pynrrd() -> Any:
    try:
        import nrrd
    except ImportError as error:
        raise UnsupportedError("NRRD files need pynrrd: pip install inrformat[nrrd]") from error
    return nrrd


def read_nrrd(path: Path) -> Volume:
    """Read an .nrrd with three axes. A space of RAS or LAS is turned into LPS; any other is taken as LPS.

    InputError when the file is broken, keeps its data in another file, or has other than three scalar axes.
    """
    nrrd = _pynrrd()
    try:
        with path.open("rb") as file:
            header = nrrd.read_header(file)
            _check(header, path)
            _check_inflated(header, file)
            data = nrrd.read_data(header, file, index_order="C")
        affine = _affine(header)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # pynrrd and numpy fail in many ways on broken bytes
        raise InputError(f"{path}: broken or truncated NRRD file ({type(error).__name__})") from error
    try:
        space = str(header.get("space", ""))[:64]
        return Volume(data, spacing_of(affine), affine, metadata={"source": "nrrd", "space": space})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check(header: dict[str, Any], path: Path) -> None:
    """Refuse what this reader does not do, and sizes that the file cannot hold, before it is read."""
    if "data file" in header or "datafile" in header:
        raise InputError("the data are in another file; give an NRRD with an attached header")
    sizes = [int(n) for n in header["sizes"]]
    if len(sizes) != 3 or int(header["dimension"]) != 3:
        raise InputError(f"{len(sizes)} axes {tuple(sizes)}; a volume has three")
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if any(kind not in _SCALAR_KINDS for kind in kinds):
        raise InputError(f"axes of the kinds {', '.join(kinds)[:100]}; a volume has three of space")
    if str(header["type"]).lower() == "block":
        raise InputError("cannot use values of type block")
    for skip in ("line skip", "lineskip"):
        if int(header.get(skip, 0)) > 1000:
            raise InputError("absurd line skip")
    values = sizes[0] * sizes[1] * sizes[2]
    expansion = _EXPANSION.get(str(header["encoding"]).lower())
    room = _MOST_VALUES if expansion is None else path.stat().st_size * expansion
    if min(sizes) < 1 or values > room:
        raise InputError(
            f"the header promises {'x'.join(map(str, sizes))} voxels, which the file cannot hold"
        )


def _check_inflated(header: dict[str, Any], file: BinaryIO) -> None:
    """InputError where compressed data are more than the values: pynrrd inflates all of them at once."""
    encoding, start = str(header["encoding"]).lower(), file.tell()
    if encoding not in ("gzip", "gz", "bzip2", "bz2"):
        return
    for _ in range(int(header.get("line skip", header.get("lineskip", 0)))):
        file.readline(_SLACK)
    inflater: Inflater = (
        bz2.BZ2Decompressor() if encoding[0] == "b" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    )
    if inflates_beyond(file, inflater, _LARGEST_VALUE * math.prod(int(n) for n in header["sizes"]) + _SLACK):
        raise InputError("its data are more than its header promises")
    file.seek(start)


def _affine(header: dict[str, Any]) -> Array:
    """Index (z, y, x, 1) -> LPS mm, from 'space directions' and 'space origin', else from 'spacings'."""
    if "space directions" in header:
        directions = np.array(header["space directions"], float)  # a row per axis, fastest (x) first
        if directions.shape != (3, 3):
            raise InputError("space directions are not three vectors of three")
        affine = np.eye(4)
        affine[:3, :3] = directions[::-1].T
        affine[:3, 3] = np.array(header.get("space origin", (0, 0, 0)), float)
        affine[:3] *= np.array([_mm(unit) for unit in header.get("space units", ["mm"] * 3)])[:, None]
        signs = _SIGNS.get(str(header.get("space", "")).lower(), (1, 1, 1))
        flipped: Array = np.diag([*signs, 1.0]) @ affine
        return flipped
    spacings = np.array(header.get("spacings", (1, 1, 1)), float)
    spacings[~np.isfinite(spacings)] = 1.0  # NRRD writes 'nan' for unknown
    return default_affine(tuple(np.abs(spacings[::-1])))


def _mm(unit: Any) -> float:
    """How many millimetres a unit is; InputError."""
    if (name := str(unit).strip().strip('"').lower()) not in _MM:
        raise InputError(f"space units {name[:20]!r} are none that is known, such as mm and um")
    return _MM[name]


def write_nrrd(volume: Volume, file: BinaryIO) -> None:
    """Write a gzip-coded NRRD in LPS, with values in real-world units.

    A slope of 1 with a whole intercept gives integers of 16 bits where they fit (CT becomes Hounsfield,
    nothing is lost); any other rescale gives float32.
    """
    nrrd = _pynrrd()
    affine = volume.affine
    assert affine is not None
    header = {
        "space": "left-posterior-superior",
        "kinds": ["domain", "domain", "domain"],
        "space directions": affine[:3, :3].T[::-1],
        "space origin": affine[:3, 3],
        "encoding": "gzip",
    }
    nrrd.write(file, real_or_shifted(volume), header, compression_level=6, index_order="C")


def real_or_shifted(volume: Volume) -> Array:
    """The values in real-world units, (z, y, x): 16-bit integers when a whole shift does it, else float32."""
    data, intercepts = volume.data, set(volume.intercept)
    if set(volume.slope) == {1.0} and len(intercepts) == 1:
        (shift,) = intercepts
        if shift == 0:
            return np.ascontiguousarray(data)
        if data.dtype.kind in "iu" and shift.is_integer():
            low, high = int(data.min()) + int(shift), int(data.max()) + int(shift)
            for dtype in (DTYPES["i2"], DTYPES["u2"]):
                if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                    return (data.astype(np.int32) + int(shift)).astype(dtype)
    return volume.real_values()
