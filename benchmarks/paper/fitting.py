"""The paper's SIREN on one picture: float32, Adam, mean squared error (its sections 3.3 and 4.2)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from inrformat.fit.siren import FloatSiren, forward, gradients, initialise
from inrformat.parallel import map_on_cores

WIDTH, OMEGA, RATE, BATCH, ITERATIONS = 128, 30.0, 1.5e-3, 1 << 16, 50_000
"""The paper's, but for omega, which it does not name: SIREN's own."""
EPSILON = 1e-8
CHECKS = 25
"""How often a fit looks at the whole picture."""
PIECE = {"cpu": 1 << 11}
"""Coordinates at a time: on a CPU what fits its cache, elsewhere all."""


@dataclass(frozen=True)
class Fit:
    """The best picture that was met, (y, x), and how it came about.

    seconds   of the iterations alone, without the looks at the whole picture. cpu_seconds: of all cores.
    curve     iteration, PSNR in dB (peak 1), mean squared error; of the whole picture.
    held_kib  on the GPU between two iterations, above what was there before; None on a CPU. peak_kib: at most.
    """

    picture: Tensor
    psnr: float
    parameters: int
    seconds: float
    cpu_seconds: float
    curve: list[tuple[int, float, float]]
    held_kib: float | None
    peak_kib: float | None


def fit(
    picture: Tensor,
    layers: int,
    iterations: int = ITERATIONS,
    *,
    batch: int = BATCH,
    seed: int = 0,
    device: torch.device | None = None,
) -> Fit:
    """Fit a SIREN of so many hidden layers to a picture (y, x) in [0, 1].

    An iteration takes `batch` random pixels, or all of them where there are no more than that.
    """
    device = device or torch.device("cpu")
    before = _memory(device)
    generator = torch.Generator().manual_seed(seed)
    net = initialise(WIDTH, layers, OMEGA, torch.ones(3), generator, device)
    places, values = _places(picture).to(device), picture.flatten().to(device)
    params = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
    # The weights hold omega (see inrformat.fit.siren): so much larger are the steps that Adam takes with them.
    inner = {"params": params[:-2], "lr": RATE * OMEGA, "eps": EPSILON / OMEGA}
    adam = torch.optim.Adam([inner, {"params": params[-2:], "lr": RATE, "eps": EPSILON}])
    sampler = torch.Generator(device).manual_seed(seed)
    curve: list[tuple[int, float, float]] = []
    best, least, held, peak = picture, math.inf, None, None
    every, seconds, started = max(1, iterations // CHECKS), [0.0, 0.0], _clocks()
    for iteration in range(1, iterations + 1):
        x, target = places, values
        if len(values) > batch:
            index = torch.randint(len(values), (batch,), generator=sampler, device=device)
            x, target = places[index], values[index]
        for p, gradient in zip(params, _gradients(net, x, target), strict=True):
            p.grad = gradient.reshape(p.shape)
        adam.step()
        if iteration % every and iteration < iterations:
            continue
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            if held is None:  # before the whole picture is looked at
                peak = torch.cuda.max_memory_allocated(device) / 1024 - before
                held = _memory(device) - before
        seconds = [a + now - then for a, now, then in zip(seconds, _clocks(), started, strict=True)]
        made = _evaluate(net, places).reshape(picture.shape).cpu()
        error = float((made - picture).double().square().mean())
        curve.append((iteration, -10 * math.log10(max(error, 1e-30)), error))
        if error < least:
            best, least = made, error
        started = _clocks()
    count = sum(p.numel() for p in params)
    return Fit(best, -10 * math.log10(max(least, 1e-30)), count, *seconds, curve, held, peak)


def _clocks() -> tuple[float, float]:
    """The time, and that of this process on all cores."""
    return time.perf_counter(), time.process_time()


def _memory(device: torch.device) -> float:
    """KiB that are held on a GPU now; from here on its greatest is counted anew."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 1024


def _places(picture: Tensor) -> Tensor:
    """(n, 3): z, y and x of each pixel's centre in [-1, 1]; z is 0."""
    axes = [(2 * torch.arange(n) + 1 - n) / n for n in (1, *picture.shape)]
    return torch.cartesian_prod(*axes).float()


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    return torch.split(x, PIECE.get(x.device.type, len(x)))


def _gradients(net: FloatSiren, x: Tensor, target: Tensor) -> list[Tensor]:
    parts = map_on_cores(
        lambda piece: gradients(net, *piece, torch.float32, len(target))[1],
        zip(_pieces(x), _pieces(target), strict=True),
    )
    return [sum(g[1:], g[0]) for g in zip(*parts, strict=True)]


def _evaluate(net: FloatSiren, places: Tensor) -> Tensor:
    return torch.cat(map_on_cores(lambda x: forward(net, x, torch.float32)[0], _pieces(places)))
