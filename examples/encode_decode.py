"""Encode a volume, look at what the file says of itself, and decode it again.

Usage: python examples/encode_decode.py [VOLUME] [FILE.inrv]

VOLUME: a DICOM series folder, .nii, .nii.gz, .nrrd or .npy; without one, a generated head.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import inrformat


def main(source: str | None = None, target: str = "example.inrv") -> None:
    """Encode, check and decode."""
    volume = inrformat.read(source) if source else inrformat.head_phantom((32, 64, 64))
    data = inrformat.encode(volume)
    Path(target).write_bytes(data)

    info = inrformat.verify(target)
    print(f"{volume.data.nbytes:,} bytes of voxels became {info.bytes:,}: {info.ratio:.0f}:1")
    if info.measured and info.measured.psnr is not None:
        print(f"PSNR {info.measured.psnr:.2f} dB with a peak of {info.measured.peak:g}")

    decoded = inrformat.decode(target)
    error = np.abs(decoded.real_values() - volume.real_values())
    print(f"mean error {error.mean():.1f} in real-world units (Hounsfield for CT)")


if __name__ == "__main__":
    main(*sys.argv[1:])
