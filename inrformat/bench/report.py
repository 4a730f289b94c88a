"""What is written of the points: tables, curves, and pictures side by side."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..volume import Array
from .curves import bd_rate
from .measure import Point, Result

COLUMNS = tuple(field.name for field in fields(Point))
PACKAGES = ("inrformat", "torch", "numpy", "imagecodecs", "av")
WINDOW = (0.5, 99.5)
"""The percentiles of the original slice that are drawn black and white."""
LABEL = 46
"""Pixels above each tile, for three lines of text."""
LEAST_WIDTH = 200
"""Of a tile; narrower slices are enlarged."""
GAP = 6


def as_csv(points: Sequence[Point]) -> bytes:
    """A line for each point under the names of its fields; nothing where there is no value."""
    text = StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows({**point.to_json(), "shape": _shape(point)} for point in points)
    return text.getvalue().encode()


def as_json(points: Sequence[Point], ours: Sequence[str]) -> dict[str, Any]:
    """The points, the BD-rates of the codecs named in `ours`, and the versions of the packages."""
    return {
        "points": [point.to_json() for point in points],
        "bd_rate": bd_rates(points, ours),
        "versions": _versions(),
    }


def as_bytes(document: dict[str, Any]) -> bytes:
    """A JSON file."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def bd_rates(points: Sequence[Point], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Each of our codecs against each peer, on each volume: see `curves.bd_rate`, None if they do not meet.

    Models that come with the library are not in it.
    """
    found = []
    for volume in dict.fromkeys(point.volume for point in points):
        here = [point for point in points if point.volume == volume]
        names = list(dict.fromkeys(point.codec for point in here))
        for codec in (name for name in names if name in ours):
            for peer in (name for name in names if name not in ours):
                percent, low, high = bd_rate(_curve(here, codec), _curve(here, peer)) or (None, None, None)
                row = {"volume": volume, "codec": codec, "peer": peer}
                found.append({**row, "percent": percent, "psnr_from": low, "psnr_to": high})
    return found


def _curve(points: Sequence[Point], codec: str) -> list[tuple[float, float]]:
    """(bytes, PSNR) of what a codec coded with some error."""
    return [
        (point.bytes, point.psnr)
        for point in points
        if point.codec == codec and point.bytes is not None and point.psnr is not None
    ]


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def lines(points: Sequence[Point]) -> list[str]:
    """The points for people."""
    shown = [
        f"{'volume':<20} {'codec':<18} {'setting':>16} {'bytes':>12} {'ratio':>8} {'PSNR':>6} {'SSIM':>6}"
    ]
    shown[0] += f" {'worst':>6} {'encode':>8} {'decode':>7}"
    for p in points:
        text = f"{p.volume:<20} {p.codec:<18} {f'{p.unit} {p.setting:g}':>16} "
        if p.error is not None:
            shown.append(f"{text}MISSING: {p.error}")
            continue
        text += f"{p.bytes:>12,} {p.ratio:>8.1f} {_decibels(p.psnr):>6} {p.ssim:>6.4f} "
        shown.append(text + f"{_decibels(p.worst_slice_psnr):>6} {p.encode_s:>6.1f} s {p.decode_s:>5.1f} s")
    return shown


def rate_lines(rates: Sequence[dict[str, Any]]) -> list[str]:
    """The BD-rates for people."""
    return [
        f"{r['volume']}: {r['codec']} takes {r['percent']:+.1f}% bytes against {r['peer']} "
        f"at the same PSNR, {r['psnr_from']:.1f} to {r['psnr_to']:.1f} dB"
        for r in rates
        if r["percent"] is not None
    ]


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.2f}"


def curves_png(points: Sequence[Point]) -> bytes:
    """Rate-distortion of one volume's points: PSNR, and SSIM, over bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    by_psnr, by_ssim = figure.subplots(1, 2)
    for codec in dict.fromkeys(point.codec for point in points):
        own = sorted(
            (p for p in points if p.codec == codec and p.psnr is not None), key=lambda p: p.bytes or 0
        )
        sizes = [p.bytes for p in own]
        by_psnr.plot(sizes, [p.psnr for p in own], ".-", label=codec)
        by_ssim.plot(sizes, [p.ssim for p in own], ".-", label=codec)
    peak = next((p.peak for p in points if p.peak is not None), math.nan)
    for axes, what in ((by_psnr, f"PSNR, dB (peak {peak:g})"), (by_ssim, "SSIM")):
        axes.set(xscale="log", xlabel="bytes", ylabel=what)
        axes.grid(visible=True, which="both", alpha=0.3)
    by_psnr.legend()
    figure.suptitle(f"{points[0].volume}, {_shape(points[0])}, {points[0].raw_bytes:,} bytes")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def pictures_png(original: Array, results: Sequence[Result], size: float) -> bytes:
    """The original slice (y, x), and of each codec the decoded one nearest to `size` bytes (in their ratio).

    Under each is what differs, on the original's own grey scale.
    """
    tiles = [("original", original)]
    for result in nearest(results, size):
        p = result.point
        label = f"{p.codec}\n{p.bytes:,} bytes, {_decibels(p.psnr)} dB\nbelow: difference, same scale"
        assert result.middle is not None
        tiles.append((label, result.middle))
    black, white = np.percentile(original, WINDOW).tolist()
    scale, zoom = 255 / max(white - black, 1e-30), -(-LEAST_WIDTH // original.shape[1])
    height, width = (zoom * side for side in original.shape)
    sheet = Image.new("L", (len(tiles) * (width + GAP) - GAP, LABEL + 2 * height + GAP))
    draw = ImageDraw.Draw(sheet)
    for i, (label, decoded) in enumerate(tiles):
        left, values = i * (width + GAP), decoded.astype(np.float64)
        draw.multiline_text((left + 2, 2), label, fill=255)
        for tile, top in ((values - black, LABEL), (np.abs(values - original), LABEL + height + GAP)):
            grey = Image.fromarray(np.clip(tile * scale, 0, 255).astype(np.uint8))
            sheet.paste(grey.resize((width, height), Image.Resampling.NEAREST), (left, top))
    out = BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def nearest(results: Sequence[Result], size: float) -> list[Result]:
    """Of each codec the result whose bytes are nearest to `size`, in their ratio."""
    best: dict[str, tuple[float, Result]] = {}
    for result in results:
        if result.point.bytes is None:
            continue
        distance = abs(math.log(result.point.bytes / size))
        if result.point.codec not in best or distance < best[result.point.codec][0]:
            best[result.point.codec] = distance, result
    return [result for _, result in best.values()]


def _shape(point: Point) -> str:
    return "x".join(map(str, point.shape))
