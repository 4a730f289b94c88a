"""`inrformat demo`: a generated head through the whole format, with a picture of what it costs."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .container.files import write_bytes
from .decode import decode
from .encode import encode
from .errors import OutputError, UnsupportedError
from .inspect import info
from .io import write
from .phantom import head_phantom
from .volume import Array, Volume

SHAPE = (24, 112, 112)
FACTORS = (1, 2, 2)
DIFFERENCE_GAIN = 4
"""The difference is drawn this many times as strong as the images."""
ZOOM = 3
GAP = 4


def run(folder: Path, device: str = "auto") -> tuple[dict[str, Any], str]:
    """Write demo.inrv, the decoded demo.nii.gz (.npy without nibabel) and demo.png; return the figures."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from None
    volume = head_phantom(SHAPE)
    began = time.monotonic()
    data = encode(volume, factors=FACTORS, device=device)
    encoded = time.monotonic()
    write_bytes(folder / "demo.inrv", data)
    decoding = time.monotonic()
    decoded = decode(folder / "demo.inrv", device=device)
    seconds = (encoded - began, time.monotonic() - decoding)
    written = ["demo.inrv", _write_volume(decoded, folder), "demo.png"]
    write_bytes(folder / "demo.png", picture(volume.data, decoded.data))
    found = info(data)
    measured = found.measured
    assert measured is not None
    document = {
        "folder": str(folder),
        "files": written,
        "bytes": found.bytes,
        "ratio": found.ratio,
        "psnr": measured.psnr,
        "peak": measured.peak,
        "ssim": measured.ssim,
        "encode_seconds": seconds[0],
        "decode_seconds": seconds[1],
    }
    quality = "exact" if measured.psnr is None else f"PSNR {measured.psnr:.2f} dB (peak {measured.peak:g})"
    lines = [
        f"a generated CT head, {' x '.join(map(str, SHAPE))} voxels, {volume.data.nbytes:,} bytes",
        f"  file      {found.bytes:,} bytes, {found.ratio:.1f}:1",
        f"  quality   {quality}, SSIM {measured.ssim:.4f}",
        f"  time      {seconds[0]:.1f} s to encode, {seconds[1]:.1f} s to decode",
        f"  written   {', '.join(str(folder / name) for name in written)}",
        f"  picture   original | decoded | absolute difference, {DIFFERENCE_GAIN} times as bright",
    ]
    return document, "\n".join(lines)


def _write_volume(volume: Volume, folder: Path) -> str:
    """Write the volume as the best kind that the installed packages allow, and return its name."""
    try:
        write(volume, folder / "demo.nii.gz")
        return "demo.nii.gz"
    except UnsupportedError:
        write(volume, folder / "demo.npy")
        return "demo.npy"


def picture(original: Array, decoded: Array) -> bytes:
    """A PNG of the middle slice, original | decoded | difference, scaled with the original's range."""
    middle = len(original) // 2
    low, high = float(original.min()), float(original.max())
    a, b = (volume[middle].astype(np.float64) - low for volume in (original, decoded))
    gap = np.full((a.shape[0], GAP), high - low)
    row = np.hstack([a, gap, b, gap, np.abs(a - b) * DIFFERENCE_GAIN])
    pixels = np.clip(row * (255 / max(high - low, 1e-30)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    image = image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST)
    out = BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
