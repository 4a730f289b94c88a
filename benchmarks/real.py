"""Encode and decode real series, each run in a process of its own, and write what was measured.

    python benchmarks/real.py OUT [--series chest-ct mr-t1-7t] [--presets fast balanced] [--ratio R]

OUT gets results.json, results.md (the README's table) and a picture for each run: original, decoded, difference at
one scale. PSNR's peak is the volume's own max - min. Seconds are wall time with torch's default number of threads.
Peak memory is that of the whole process, minus what it had after the volume was loaded.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from series import load

import inrformat


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(series: str, preset: str, ratio: float | None, out: Path) -> dict[str, object]:
    """One encode and one decode of each level, in this process."""
    volume = load(series)
    loaded = peak_mib()
    started = time.perf_counter()
    data = inrformat.encode(volume, preset=preset, ratio=ratio, progress=None)
    encoded = time.perf_counter()
    preview = inrformat.decode(data, level="preview")
    previewed = time.perf_counter()
    decoded = inrformat.decode(data)
    finished = time.perf_counter()
    above = peak_mib() - loaded  # before anything below takes memory of its own
    name = f"{series}-{preset}" + (f"-{ratio:g}" if ratio else "")
    (out / f"{name}.inrv").write_bytes(data)
    info = inrformat.info(data)
    measured = info.measured
    assert measured is not None
    error = decoded.data.astype(np.float64) - volume.data
    psnr = 10 * np.log10(measured.peak**2 / np.mean(error**2))
    assert abs(psnr - (measured.psnr or 0)) < 0.01, (psnr, measured.psnr)
    picture(volume.data, decoded.data, out / f"{name}.png")
    return {
        "series": series,
        "preset": preset,
        "shape": list(info.shape),
        "bytes": info.bytes,
        "ratio": info.ratio,
        "factors": list(info.factors),
        "network": f"{info.width}x{info.depth}",
        "lr_psnr": measured.lr_psnr,
        "psnr_lanczos": measured.psnr_lanczos,
        "psnr": measured.psnr,
        "sr": info.sr["name"] if info.sr else None,
        "peak": measured.peak,
        "ssim": measured.ssim,
        "max_error": measured.max_error,
        "worst_slice_psnr": measured.worst_slice_psnr,
        "encode_s": encoded - started,
        "preview_s": previewed - encoded,
        "decode_s": finished - previewed,
        "peak_mib_above_volume": above,
        "preview_shape": list(preview.shape),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def picture(original: np.ndarray, decoded: np.ndarray, path: Path) -> None:
    """The middle slice: original, decoded, and |difference| on the original's own grey scale."""
    z = len(original) // 2
    a, b = original[z].astype(float), decoded[z].astype(float)
    low, high = np.percentile(original[z], [0.5, 99.5])
    tiles = [(a - low) / (high - low), (b - low) / (high - low), np.abs(a - b) / (high - low)]
    labels = ["original", "decoded", "|difference|, same scale"]
    width = a.shape[1]
    sheet = Image.new("L", (3 * width + 20, a.shape[0] + 18), 0)
    draw = ImageDraw.Draw(sheet)
    for i, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left = i * (width + 10)
        sheet.paste(Image.fromarray((np.clip(tile, 0, 1) * 255).astype(np.uint8)), (left, 18))
        draw.text((left + 2, 2), label, fill=255)
    sheet.save(path, optimize=True)


def table(rows: list[dict[str, object]]) -> str:
    """Markdown."""
    lines = [
        "| series | preset | bytes | ratio | network, factors | preview dB | full, Lanczos dB | full, best dB | SSIM "
        "| encode s | preview s | decode s | memory MiB |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        best = f"{r['psnr']:.2f} ({r['sr'] or 'Lanczos'})"
        lines.append(
            f"| {r['series']} | {r['preset']} | {r['bytes']:,} | {r['ratio']:,.0f}:1 | {r['network']}, "
            f"{tuple(r['factors'])} | {r['lr_psnr']:.2f} | {r['psnr_lanczos']:.2f} | {best} | {r['ssim']:.3f} | "
            f"{r['encode_s']:.0f} | {r['preview_s']:.1f} | {r['decode_s']:.1f} | {r['peak_mib_above_volume']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--series", nargs="+", default=["chest-ct", "mr-t1-7t"])
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    parser.add_argument("--ratio", type=float)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.one:
        print(json.dumps(run(args.series[0], args.presets[0], args.ratio, args.out)))
        return
    rows = []
    for series in args.series:
        for preset in args.presets:
            command = [
                sys.executable,
                __file__,
                str(args.out),
                "--one",
                "--series",
                series,
                "--presets",
                preset,
            ]
            command += ["--ratio", str(args.ratio)] if args.ratio else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
            (args.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
            (args.out / "results.md").write_text(table(rows))
            print(table(rows[-1:]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
