"""Open a file lazily: a preview, a slice and a region of it, without decoding the rest.

Usage: python examples/regions.py [FILE.inrv]
"""

from __future__ import annotations

import sys

import inrformat


def main(path: str | None = None) -> None:
    """Look into the file; without one, into a generated head that is encoded first."""
    source = path or inrformat.encode(inrformat.head_phantom((32, 64, 64)), factors=(1, 2, 2))
    with inrformat.open(source) as file:
        z, y, x = file.shape
        print(f"{z} x {y} x {x} voxels, of type {file.dtype}; nothing has been decoded yet")

        preview = file.preview()  # a Volume with its own spacing; the same bytes on every machine
        print(f"preview: {preview.shape}, spacing {preview.spacing} mm")

        middle = file[z // 2]  # one slice at full size, as an array
        print(f"slice {z // 2}: {middle.shape}, mean {middle.mean():.1f}")

        region = file[z // 4 : z // 2, :, x // 4 : x // 2]
        print(f"region: {region.shape}, from {region.min()} to {region.max()}")

        placed = file.cut(((z // 4, z // 2), (0, y), (x // 4, x // 2)))  # a Volume that knows where it lies
        print(f"its first voxel lies at {placed.affine[:3, 3].round(1).tolist()} mm (LPS)")


if __name__ == "__main__":
    main(*sys.argv[1:])
