"""What the tests of the archive share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import zstandard

from inrformat.archive import archive, restore
from inrformat.archive.workers import Workers
from inrformat.container import Reader, VolumeHeader, build
from inrformat.volume import DTYPES, Volume

HERE = Workers(1)


def tree(folder: Path) -> dict[bytes, str]:
    """Name -> SHA-256 of every file of a folder."""
    root = bytes(folder)
    files = [bytes(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        path[len(root) :]: hashlib.sha256(
            Path(path.decode("utf-8", "surrogateescape")).read_bytes()
        ).hexdigest()
        for path in files
    }


def encode_stand_in(volume, quality):
    dtype = next(name for name, d in DTYPES.items() if d == volume.data.dtype)
    head = VolumeHeader(
        shape=volume.shape,
        dtype=dtype,
        range=(float(volume.data.min()), float(volume.data.max())),
        factors=(1, 1, 1),
        spacing=volume.spacing,
        affine=tuple(volume.affine[:3].ravel().tolist()),
        slope=volume.slope,
        intercept=volume.intercept,
    )
    data = zstandard.ZstdCompressor(3).compress(volume.data.tobytes())
    return build([("HEAD", head.pack()), ("SIRN", b"none"), ("rawz", data)])


def decode_stand_in(source, use_sr=False):
    with Reader(source) as reader:
        head = VolumeHeader.unpack(reader.read("HEAD"))
        raw = zstandard.ZstdDecompressor().decompress(reader.read("rawz"))
    return Volume(np.frombuffer(raw, DTYPES[head.dtype]).reshape(head.shape))


def there_and_back(tmp_path, workers=HERE):
    """Archive and restore the folder `export`: all of it is identical, and nothing of it was touched."""
    export, store, out = (tmp_path / name for name in ("export", "archive", "out"))
    before = tree(export)
    done = archive(str(export), str(store), workers=workers)
    assert done.files == len(before) and done.exit_code == 0, done
    back = restore(str(store), str(out), workers=workers)
    assert back.identical == back.files == len(before) and not back.failed, back
    assert tree(out) == before == tree(export)
    return done
