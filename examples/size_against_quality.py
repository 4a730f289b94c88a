"""Encode one volume at several sizes, and print what each of them costs.

Usage: python examples/size_against_quality.py [VOLUME] [RATIO ...]
"""

from __future__ import annotations

import sys

import inrformat


def main(source: str | None = None, *ratios: str) -> None:
    """One line for each ratio; without a volume, of a generated head."""
    volume = inrformat.read(source) if source else inrformat.head_phantom((32, 64, 64))
    print(f"{'ratio':>8}{'bytes':>10}{'PSNR dB':>10}{'SSIM':>8}  LR grid")
    for ratio in map(float, ratios or ("50", "100", "150")):
        info = inrformat.info(inrformat.encode(volume, ratio=ratio, sr=None))
        measured = info.measured
        psnr = measured.psnr if measured and measured.psnr is not None else float("inf")
        ssim = measured.ssim if measured else float("nan")
        grid = " x ".join(map(str, info.lr_shape))
        print(f"{info.ratio:>8.1f}{info.bytes:>10,}{psnr:>10.2f}{ssim:>8.4f}  {grid}")


if __name__ == "__main__":
    main(*sys.argv[1:])
