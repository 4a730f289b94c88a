"""The tables as Markdown, and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

PAPER: dict[tuple[str, int], tuple[float, float, float, int]] = {
    ("with", 2): (34.670, 55.76, 3.65, 1038),
    ("with", 3): (34.865, 74.80, 1.96, 1296),
    ("with", 4): (35.140, 99.61, 1.28, 1554),
    ("without", 2): (25.269, 664.92, 3.65, 10_254),
    ("without", 3): (28.800, 1004.21, 1.96, 10_512),
    ("without", 4): (30.689, 1336.53, 1.28, 10_770),
}
"""Its Tables 4 and 5: best PSNR, seconds, compression rate, KB of GPU memory."""
TILE, GAP, LABEL = 256, 6, 16


def tables(results: dict[str, Any]) -> str:
    """Tables 4, 5 and 6, and SRDenseNet's. Seconds on a CPU are those of all cores: others may use it, too."""
    parts, cpu = [], "cpu_" if results["device"] == "cpu" else ""
    for number, way in ((4, "with"), (5, "without")):
        rows = [r for r in results["rows"] if r["way"] == way]
        parts += [f"Table {number}, {way} the architecture:\n", _table(rows, way, cpu), ""]
    parts += ["Table 6, the two beside each other:\n", _both(results["rows"], cpu), ""]
    parts += ["SRDenseNet-All x4, dB over Lanczos on undamaged LR slices:\n", _gains(results["srdensenet"])]
    return "\n".join(parts) + "\n"


def _table(rows: list[dict[str, Any]], way: str, cpu: str) -> str:
    quality = "LR dB | HR dB: SRDenseNet | Lanczos" if way == "with" else "HR dB"
    unit = "CPU s" if cpu else "s"
    heads = f"layers | weights, bytes | {quality} | training, {unit} | rate, 8 bits | 16 bits | GPU memory, KiB | ours: dB | bytes | rate, 16 bits | encode, {unit}"
    lines = [f"| {heads} |", "|" + " ---: |" * (heads.count("|") + 1)]
    for r in rows:
        found = [f"{r['psnr']:.2f}"]
        if way == "with":
            found = [f"{r['lr_psnr']:.2f}", f"{r['psnr']:.2f}", f"{r['psnr_lanczos']:.2f}"]
        own = r["ours"]
        stored = r["rate_16_bits"] * r["float32_bytes"]
        cells = [
            str(r["layers"]),
            f"{r['float32_bytes']:,}",
            *found,
            f"{r[f'{cpu}seconds']:.0f}",
            f"{r['rate_8_bits']:.2f}",
            f"{r['rate_16_bits']:.2f}",
            _memory(r),
            f"{own['psnr']:.2f}",
            f"{own['bytes']:,}",
            f"{stored / own['bytes']:.0f}",
            f"{own[f'encode_{cpu}seconds']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _memory(r: dict[str, Any]) -> str:
    if r["gpu_held_kib"] is None:
        return "not measured"
    return f"{r['gpu_held_kib']:,.0f}, at most {r['gpu_peak_kib']:,.0f}"


def _both(rows: list[dict[str, Any]], cpu: str) -> str:
    unit, found = "CPU s" if cpu else "s", {(r["way"], r["layers"]): r for r in rows}
    lines = [
        "| | layers | without | with | in the paper (GPU, 50,000 iterations): without | with |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    layers = sorted({n for _, n in found})
    for what, key, place in (("best PSNR, dB", "psnr", 0), (f"training, {unit}", f"{cpu}seconds", 1)):
        for n in layers:
            cells = [f"{found[way, n][key]:.{2 - place}f}" for way in ("without", "with")]
            cells += [
                f"{PAPER[way, n][place]:.2f}" if (way, n) in PAPER else "" for way in ("without", "with")
            ]
            lines.append(f"| {what} | {n} | " + " | ".join(cells) + " |")
    for n in layers:
        cells = [_memory(found[way, n]) for way in ("without", "with")]
        cells += [f"{PAPER[way, n][3]:,}" if (way, n) in PAPER else "" for way in ("without", "with")]
        lines.append(f"| GPU memory, KiB | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _gains(facts: dict[str, Any]) -> str:
    lines = [
        "| slices of | trained on that series | slices | this SRDenseNet: mean | least | greatest | shipped light model: mean |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for t in facts["tests"]:
        own, seen = t["srdensenet"], "yes, on other slices" if t["trained_on"] else "no"
        cells = [f"{own[key]:+.2f}" for key in ("mean", "least", "greatest")] + [f"{t['light']['mean']:+.2f}"]
        lines.append(f"| {t['series']} | {seen} | {t['slices']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# --- figures --------------------------------------------------------------------------------------


def figures(results: dict[str, Any], pictures: dict[str, Tensor], out: Path) -> None:
    """hr-lr.png (the paper's Figure 3), pictures.png (7 to 12 and 14), curves.png (4 to 6)."""
    original = pictures["original"].numpy()
    low, high = np.percentile(original, [0.5, 99.5])

    def grey(picture: Tensor) -> Image.Image:
        scaled = (picture.numpy() - low) / max(high - low, 1e-9)
        return Image.fromarray((np.clip(scaled, 0, 1) * 255).round().astype(np.uint8))

    hr, lr = grey(pictures["original"]), grey(pictures["lr"])
    size = f"{hr.width}x{hr.height}"
    pair = [(f"HR, {size}", hr), (f"LR, {lr.width}x{lr.height}, at its own size", lr)]
    _sheet([pair], hr.size, out / "hr-lr.png")
    rows = {(r["way"], r["layers"]): r for r in results["rows"]}
    sheet = []
    for n in sorted({n for _, n in rows}):
        a, b = rows["with", n], rows["without", n]
        lr_fit = grey(pictures[f"lr-{n}"]).resize(hr.size, Image.Resampling.NEAREST)
        own = a["ours"]
        sheet.append(
            [
                ("original", _middle(hr)),
                (f"{n} layers, LR fit: {a['lr_psnr']:.2f} dB", _middle(lr_fit)),
                (
                    f"with: {a['psnr']:.2f} dB, {a['float32_bytes']:,} bytes",
                    _middle(grey(pictures[f"with-{n}"])),
                ),
                (
                    f"without: {b['psnr']:.2f} dB, {b['float32_bytes']:,}",
                    _middle(grey(pictures[f"without-{n}"])),
                ),
                (_caption(own), _middle(grey(pictures[f"ours-with-{n}"]))),
            ]
        )
    _sheet(sheet, (TILE, TILE), out / "pictures.png")
    _curves(results, out / "curves.png")


def _caption(own: dict[str, Any]) -> str:
    return f"ours: {own['psnr']:.2f} dB, {own['bytes']:,} bytes"


def _middle(picture: Image.Image) -> Image.Image:
    left, top = (max(0, (n - TILE) // 2) for n in picture.size)
    return picture.crop((left, top, min(left + TILE, picture.width), min(top + TILE, picture.height)))


def _sheet(rows: list[list[tuple[str, Image.Image]]], tile: tuple[int, int], path: Path) -> None:
    width, height = tile[0] + GAP, tile[1] + LABEL + GAP
    sheet = Image.new("L", (max(map(len, rows)) * width - GAP, len(rows) * height - GAP), 0)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for k, (label, picture) in enumerate(row):
            sheet.paste(picture, (k * width, i * height + LABEL))
            draw.text((k * width + 2, i * height + 2), label, fill=255)
    sheet.save(path, optimize=True)


def _curves(results: dict[str, Any], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no curves: matplotlib is in the extra `bench`")
        return
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for r in results["rows"]:
        steps, psnr, loss = zip(*r["curve"], strict=True)
        label = f"{r['layers']} layers, " + (
            "LR slice (with)" if r["way"] == "with" else "HR slice (without)"
        )
        style = {
            "label": label,
            "color": f"C{r['layers'] - 2}",
            "linestyle": "-" if r["way"] == "with" else "--",
        }
        axes[0].plot(steps, psnr, **style)
        axes[1].semilogy(steps, loss, **style)
    for axis, name in zip(axes, ("PSNR on its own grid, dB", "mean squared error (peak 1)"), strict=True):
        axis.set_xlabel("iteration")
        axis.set_title(name)
        axis.grid(visible=True, alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=90)
