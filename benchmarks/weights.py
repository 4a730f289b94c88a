"""Bytes of the base network against its loss: float32, naive rounding, and rounding that is fitted.

    python benchmarks/weights.py OUT.md [--series chest-ct] [--factors 4,4,4] [--steps 1500] [--width 128] [--depth 4]

One SIREN is fitted in float ("float32", 4 bytes a weight) and rounded after the fact, per tensor, to a fixed number
of bits (stored raw). Then the same network is fitted with quantisation steps at several rates and coded as the format
does: section SIRN, everything included. PSNR is on the low-resolution grid, peak = the volume's max - min; that of
coded networks is of the exact integer decoder, and the last column is float32 inference of the same weights.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch
from series import load

from inrformat.coding import network
from inrformat.fit import plan, quantise, train
from inrformat.fit.siren import FloatSiren, forward
from inrformat.models.siren import Evaluator

ROWS = 1 << 16


def float_psnr(net: FloatSiren, grid: torch.Tensor) -> float:
    axes = [(2 * torch.arange(n) + 1 - n) / n for n in grid.shape]
    places = torch.cartesian_prod(*axes)
    values = torch.cat([forward(net, part, torch.float32)[0] for part in places.split(ROWS)])
    return decibels((values + 1) / 2, grid)


def decibels(values: torch.Tensor, grid: torch.Tensor) -> float:
    return -10 * math.log10(float((values.flatten() - grid.flatten()).double().square().mean()))


def naive(net: FloatSiren, bits: int) -> FloatSiren:
    def round_to(t: torch.Tensor) -> torch.Tensor:
        step = 2 * t.abs().max().clamp_min(1e-12) / (2**bits - 1)
        return torch.round(t / step) * step

    return FloatSiren([round_to(w) for w in net.weights], [round_to(b) for b in net.biases])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--series", default="chest-ct")
    parser.add_argument("--factors", default="4,4,4")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    args = parser.parse_args()
    volume, cpu = load(args.series), torch.device("cpu")
    span = (float(volume.data.min()), float(volume.data.max()))
    z, y, x = (int(f) for f in args.factors.split(","))
    grid = plan.normalised_grid(volume.data, span, (z, y, x), cpu)
    base = plan.PRESETS["fast"].settings
    settings = replace(base, width=args.width, depth=args.depth, steps=args.steps)
    count = network.parameter_count(args.width, args.depth)
    lines = [
        f"{args.series}, factors ({args.factors}), {args.width}x{args.depth}, {count} parameters, {args.steps} steps",
        "",
        "| weights | bytes | bits a weight | PSNR on the LR grid, dB | in float32 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]

    def add(label: str, size: float, psnr: float, in_float: float) -> None:
        lines.append(f"| {label} | {size:,.0f} | {8 * size / count:.2f} | {psnr:.2f} | {in_float:.3f} |")
        print(lines[-1], flush=True)

    fitted = train.fit(grid, replace(settings, noise=0.0), cpu).float_net
    psnr = float_psnr(fitted, grid)
    add("float32", 4 * count, psnr, psnr)
    for bits in (16, 12, 10, 8, 7, 6):
        psnr = float_psnr(naive(fitted, bits), grid)
        add(f"rounded after the fit, {bits} bits per tensor", bits * count / 8, psnr, psnr)
    for noise in (0.06, 0.12, 0.25, 0.5, 1.0):
        result = train.fit(grid, replace(settings, noise=noise), cpu)
        section = network.pack(result.network)
        codes = Evaluator(network.unpack(section), grid.shape).codes()
        steps = quantise.layer_steps(result.float_net, result.sensitivity, result.noise)
        in_float = float_psnr(quantise.rounded(result.float_net, steps), grid)
        add(
            f"this format, noise {noise:g}",
            len(section),
            decibels(codes / (1 << network.CODE_BITS), grid),
            in_float,
        )
    args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
