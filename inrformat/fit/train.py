"""Fitting a SIREN to a grid: float steps first, then steps through the rounding that the file will have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..coding.network import Network, shapes
from ..models.sr import fast_dtype
from ..parallel import map_on_cores
from . import quantise
from .siren import FloatSiren, gradients, initialise, sensitivities

FLOAT_SHARE = 0.65
"""The share of the steps that run in float; the rest sees the weights rounded."""
HELD_VALUES = 1 << 26
"""Voxels of a grid that are kept on the device; of a larger one, each step's are sent there."""
PIECE = 1 << 11
"""Coordinates of a batch whose gradient one core computes at a time: they fit its cache."""
WARMUP = 20
SENSITIVITY_SAMPLES = 1 << 14
SMOOTHING = 0.95


@dataclass(frozen=True)
class FitSettings:
    """How a SIREN is fitted.

    width, depth   hidden layers of `width` sines.
    omega          frequency scale of the initialisation.
    steps, batch   optimiser steps, and coordinates in each.
    optimiser      "muon" (Muon on the hidden matrices, Adam on the rest) or "adam" (the paper's).
    learning_rate  of Adam; Muon's is `muon_rate`. Both follow a cosine, but for the paper's constant rate.
    target_bytes   of the coded network; None: as many as the quantisation noise `noise` asks for.
    noise          a rounded weight's share of the output error, as a part of the fit's own error.
    seconds        stop after so long, with the schedule squeezed to fit; None: all steps.
    """

    width: int = 128
    depth: int = 4
    omega: float = 30.0
    steps: int = 1200
    batch: int = 1 << 14
    optimiser: str = "muon"
    learning_rate: float = 1.5e-3
    muon_rate: float = 2e-3
    target_bytes: float | None = None
    noise: float = 0.5
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is: PSNR in dB on its grid (peak: the range), and the seconds that are left."""

    step: int
    steps: int
    psnr: float
    seconds_left: float


@dataclass(frozen=True)
class FitResult:
    """The exact network, its float original, and how the fit went."""

    network: Network
    float_net: FloatSiren
    sensitivity: list[float]
    noise: float
    steps: int
    seconds: float
    history: list[tuple[int, float]]

    def requantised(self, noise: float) -> FitResult:
        """The same weights, rounded with another noise."""
        steps = quantise.layer_steps(self.float_net, self.sensitivity, noise)
        return replace(self, noise=noise, network=quantise.to_network(self.float_net, steps))


def flat() -> FitResult:
    """The smallest network, of zeros: for a volume whose voxels are all the same."""
    zeros = FloatSiren([torch.zeros(s) for s in shapes(8, 1)], [torch.zeros(s[0]) for s in shapes(8, 1)])
    result = FitResult(Network(()), zeros, [1.0, 1.0], 1e-3, 0, 0.0, [])
    return result.requantised(1e-3)


def fit(
    grid: Tensor,
    settings: FitSettings,
    device: torch.device,
    progress: Callable[[FitProgress], None] | None = None,
) -> FitResult:
    """Fit a SIREN to `grid` (z, y, x), float in [0, 1] (a little beyond is fine), and quantise it."""
    generator = torch.Generator().manual_seed(settings.seed)
    sampler = _Sampler(grid, settings.batch, settings.seed, device)
    extent = torch.tensor(grid.shape) / max(grid.shape)
    net = initialise(settings.width, settings.depth, settings.omega, extent, generator, device)
    run = _Run(net, sampler, settings, device)
    started, history = time.monotonic(), list[tuple[int, float]]()
    smooth: Tensor | None = None  # stays on the device: reading it would make the device wait
    done, step = 0.0, 0
    while done < 1:
        if run.steps is None and done >= FLOAT_SHARE:
            run.start_rounding()
        loss = run.step(step, done)
        step += 1
        elapsed = time.monotonic() - started
        done = max(step / settings.steps, elapsed / settings.seconds if settings.seconds else 0.0)
        smooth = loss if smooth is None else smooth.lerp(loss, 1 - SMOOTHING)
        if step % 50 == 0 or done >= 1:
            psnr = 10 * math.log10(4 / max(float(smooth), 1e-12))
            history.append((step, psnr))
            if progress:
                progress(FitProgress(step, settings.steps, psnr, elapsed * (1 / done - 1)))
    if run.steps is None:
        run.start_rounding()
    network = quantise.to_network(net, run.steps or [])
    seconds = time.monotonic() - started
    return FitResult(network, net, run.sensitivity, run.noise, step, seconds, history)


class _Sampler:
    """Random voxels of a grid, as coordinates in [-1, 1] and values in [-1, 1]."""

    def __init__(self, grid: Tensor, batch: int, seed: int, device: torch.device) -> None:
        home = device if grid.numel() <= HELD_VALUES else grid.device
        self.values = (grid.to(home) * 2 - 1).flatten()
        self.shape = torch.tensor(grid.shape, device=home)
        self.batch = min(batch, grid.numel())
        self.device = device
        self.generator = torch.Generator(home).manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` of them, with replacement: (count, 3) and (count), on the device."""
        home = self.values.device
        index = torch.randint(len(self.values), (count,), generator=self.generator, device=home)
        _, ny, nx = self.shape
        places = torch.stack((index // (ny * nx), index // nx % ny, index % nx), dim=1)
        x = ((2 * places + 1 - self.shape) / self.shape).float()
        return x.to(self.device), self.values[index].to(self.device)


class _Run:
    """The state of a fit. `steps` are the quantisation steps, None as long as the weights are not rounded."""

    def __init__(
        self, net: FloatSiren, sampler: _Sampler, settings: FitSettings, device: torch.device
    ) -> None:
        self.net, self.sampler, self.settings = net, sampler, settings
        self.dtype = fast_dtype(device) if settings.optimiser == "muon" else torch.float32
        self.steps: list[quantise.LayerSteps] | None = None
        self.sensitivity: list[float] = []
        self.noise = 0.0
        self.params = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
        rate, omega = settings.learning_rate, settings.omega
        hidden = net.weights[1:-1] if settings.optimiser == "muon" else []
        rest = [p for p in self.params[:-2] if not any(p is h for h in hidden)]
        groups = [{"params": rest, "lr": rate * omega}, {"params": self.params[-2:], "lr": rate}]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-10)
        ]
        if hidden:
            muon = torch.optim.Muon(hidden, lr=settings.muon_rate * omega, weight_decay=0.0)
            self.optimisers.append(muon)
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimisers]

    def step(self, step: int, done: float) -> Tensor:
        """One step at `done` (0 to 1) of the schedule; the loss before it."""
        x, target = self.sampler.draw(self.sampler.batch)
        net = self.net if self.steps is None else quantise.rounded(self.net, self.steps)
        loss, grads = self._gradients(net, x, target)
        for p, g in zip(self.params, grads, strict=True):
            p.grad = g.reshape(p.shape)
        factor = min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
        if self.settings.optimiser == "adam":
            factor = 1.0
        for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimiser.step()
        return loss

    def _gradients(self, net: FloatSiren, x: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`gradients` of a batch; on a CPU piece by piece, on all cores."""
        if x.device.type != "cpu":
            return gradients(net, x, target, self.dtype)
        pieces = zip(torch.split(x, PIECE), torch.split(target, PIECE), strict=True)
        parts = map_on_cores(lambda p: gradients(net, *p, self.dtype, len(target)), pieces)
        losses, grads = zip(*parts, strict=True)
        # Summed in order, so that the number of cores makes no difference.
        return sum(losses[1:], losses[0]), [sum(g[1:], g[0]) for g in zip(*grads, strict=True)]

    def start_rounding(self) -> None:
        """Choose the steps: for the bytes that were asked for, or for a noise in proportion to the error."""
        x, target = self.sampler.draw(min(SENSITIVITY_SAMPLES, self.sampler.values.numel()))
        self.sensitivity = sensitivities(self.net, x)
        settings = self.settings
        if settings.target_bytes is not None:
            self.noise = quantise.noise_for_bytes(self.net, self.sensitivity, settings.target_bytes)
        else:
            error, _ = gradients(self.net, x, target, torch.float32)
            parameters = sum(p.numel() for p in self.params)
            self.noise = settings.noise * math.sqrt(12 * float(error) / parameters)
        self.steps = quantise.layer_steps(self.net, self.sensitivity, self.noise)
