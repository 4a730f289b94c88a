"""NumPy .npy <-> Volume: the stored values alone; spacing, orientation, slope and intercept are not kept."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import InputError
from ..volume import Volume

_MAGIC = b"\x93NUMPY"


def read_npy(path: Path) -> Volume:
    """Read a .npy file with a (z, y, x) array; spacing is 1 mm. The array is mapped where possible.

    No pickle is ever loaded. InputError when the file is not a .npy, is cut short, or holds no usable volume.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise InputError(f"{path}: not a .npy file")
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # a broken header can end anywhere in numpy
        raise InputError(f"{path}: broken or truncated .npy file ({type(error).__name__})") from error
    try:
        return Volume(data, metadata={"source": "npy"})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write_npy(volume: Volume, file: BinaryIO) -> None:
    """Write the stored values, (z, y, x), as version 1.0 .npy."""
    np.lib.format.write_array(file, np.ascontiguousarray(volume.data), version=(1, 0), allow_pickle=False)
