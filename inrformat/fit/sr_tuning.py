"""A super-resolution model fitted to one volume, in few bytes (section SRTU).

The model's kernels get a change of low rank, its other tensors one of single numbers. All are whole numbers
from the first step on (rounded in the forward pass, as if not in the backward one), and what they cost is in
the loss, beside the error that they save.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..models.sr import SRModel, block_of, fast_dtype
from ..models.sr_changes import LARGEST, MOST_RANK, Change, pack
from ..resample import Shape, upsample
from ..volume import Array
from .budget import Budget
from .changes import bits, rounded

EXPONENT, FACTOR_EXPONENT = 8, 11
"""Of changes by single numbers, and of products of two."""
RATE, WARM = 2e-3, 0.05
"""Adam's, in units of the weights; the share of the time in which it is reached."""
BATCH = 2
BLOCK_WORK = 1.7e9
"""Multiply-adds of a block, about."""
LEAST_SIDE, MOST_SIDE = 12, 48
PROBES = 256
"""Blocks whose error is measured, to draw those more often where more is to be won."""
SHARE = 0.01
"""Times the cube root of the steps: the share of a file that the kernels' changes should take, at most."""
BYTES_PER_NUMBER = 0.53
FIRST = 8
"""Batches to measure the error before."""
WORTH = 0.7
"""By how many per cent the error falls when the bytes grow by one per cent, about."""


@dataclass(frozen=True)
class Target:
    """What a model is fitted to: the LR grid (z, y, x), 0 to 1; the volume, its range; the file's bytes."""

    lr: Tensor
    factors: Shape
    data: Array
    span: tuple[float, float]
    size: float

    def block(self, corner: Shape, side: int) -> tuple[Tensor, Tensor]:
        """(what Lanczos lacks, 1 where there is something) of `side` LR voxels each way, at full size."""
        box = [
            (a * f, min((a + side) * f, n))
            for a, f, n in zip(corner, self.factors, self.data.shape, strict=True)
        ]
        (z0, z1), (y0, y1), (x0, x1) = box
        low, high = self.span
        part = self.data[z0:z1, y0:y1, x0:x1].astype(np.float32)
        original = (torch.from_numpy(part).to(self.lr.device) - low) / (high - low)
        shape = self.data.shape
        lanczos = upsample(self.lr, self.factors, shape, z0, z1, y0=y0, y1=y1, x0=x0, x1=x1)
        lacking = torch.zeros([side * f for f in self.factors], device=self.lr.device)
        there = torch.zeros_like(lacking)
        inside = tuple(slice(0, b - a) for a, b in box)
        lacking[inside], there[inside] = original - lanczos, 1
        return lacking, there


def tune(
    model: SRModel,
    target: Target,
    steps: int,
    seed: int,
    progress: Callable[[float], None] | None = None,
    seconds: float = math.inf,
) -> bytes:
    """The section SRTU of a model that was fitted to the volume: in so many steps, and seconds at most."""
    numbers = _Numbers(model, SHARE * steps ** (1 / 3) * target.size, seed)
    blocks = _Blocks(target, model, seed)
    optimizer = torch.optim.Adam(numbers.free.values(), lr=1.0, betas=(0.9, 0.99))
    dtype = fast_dtype(target.lr.device)

    def error() -> Tensor:
        lr, lacking, weights = blocks.draw()
        detail = torch.func.functional_call(model, numbers.weights(), (lr, target.factors, dtype))
        mean: Tensor = ((detail - lacking).square() * weights).mean()
        return mean

    with torch.no_grad():
        before = max(float(sum(error() for _ in range(FIRST))) / FIRST, 1e-12)
    budget, step, done = Budget(steps, seconds), 0, 0.0
    while done < 1:
        optimizer.param_groups[0]["lr"] = RATE * 2**EXPONENT * _rate(done)
        loss = error() / before + WORTH / (8 * target.size) * bits(numbers.free.values())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        done = budget.used(step)
        if progress is not None:
            progress(done)
    return pack(model, numbers.changes())


def _rate(done: float) -> float:
    """The learning rate when that share is done, in parts of the greatest: up, and down for long."""
    if done < WARM:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM)) / 2
    return (1 + math.cos(math.pi * (done - WARM) / (1 - WARM))) / 2


class _Numbers:
    """The changes while they are fitted: in steps, not rounded."""

    def __init__(self, model: SRModel, room: float, seed: int) -> None:
        self.fixed = {name: weight.detach() for name, weight in model.named_parameters()}
        self.rank = _rank([w for w in self.fixed.values() if _is_kernel(w)], room)
        random = torch.Generator().manual_seed(seed)
        self.free: dict[str, Tensor] = {}
        for name, weight in self.fixed.items():
            if not _is_kernel(weight):
                self.free[name] = torch.zeros_like(weight)
            elif self.rank:
                rows, columns = len(weight), weight[0].numel()
                start = 3 * torch.randn(self.rank, columns, generator=random)
                self.free[name + ".0"] = weight.new_zeros(rows, self.rank)
                self.free[name + ".1"] = start.to(weight)
        for values in self.free.values():
            values.requires_grad_(True)

    def weights(self) -> dict[str, Tensor]:
        """The changed weights, with gradients that pass the rounding by."""
        changed = {}
        for name, weight in self.fixed.items():
            if name in self.free:
                changed[name] = weight + rounded(self.free[name]) * 2.0**-EXPONENT
            elif self.rank:
                product = rounded(self.free[name + ".0"]) @ rounded(self.free[name + ".1"])
                changed[name] = weight + (product * 2.0**-FACTOR_EXPONENT).view_as(weight)
            else:
                changed[name] = weight
        return changed

    def changes(self) -> dict[str, Change]:
        """The changes, rounded; whatever became of the fit, within what the format holds."""
        whole = {
            name: v.detach().nan_to_num(0).round().clamp(-LARGEST, LARGEST).cpu().numpy().astype(np.int64)
            for name, v in self.free.items()
        }
        changes = {}
        for name, weight in self.fixed.items():
            if name in whole:
                changes[name] = Change(EXPONENT, (whole[name].reshape(len(weight), -1),))
            elif self.rank:
                changes[name] = Change(FACTOR_EXPONENT, (whole[name + ".0"], whole[name + ".1"]))
        return changes


def _is_kernel(weight: Tensor) -> bool:
    """A convolution of several channels: too many numbers to change one by one."""
    return weight.ndim == 5 and weight.shape[1] > 1


def _rank(kernels: list[Tensor], room: float) -> int:
    """As great as so many bytes will hold, and the format; beyond half a kernel's rows it saves nothing."""
    each = BYTES_PER_NUMBER * sum(len(kernel) + kernel[0].numel() for kernel in kernels)
    return min(MOST_RANK, int(room / each), *(len(kernel) // 2 for kernel in kernels)) if kernels else 0


class _Blocks:
    """Blocks of the volume, drawn more often where Lanczos gets more wrong; weights make up for that."""

    def __init__(self, target: Target, model: SRModel, seed: int) -> None:
        self.target, self.halo = target, model.halo(target.factors)
        work = sum(weight.numel() for weight in model.parameters())
        self.side = int(min(max((BLOCK_WORK / work) ** (1 / 3), LEAST_SIDE), MOST_SIDE))
        self.random = np.random.default_rng(seed)
        starts = [range(0, max(1, n - self.side // 2), self.side) for n in target.lr.shape]
        corners = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3)
        self.corners = self.random.permutation(corners)[:PROBES]
        errors = np.array([self._error(corner) for corner in self.corners])
        chance = np.sqrt(errors) + 1e-3 * np.sqrt(errors.mean()) + 1e-9
        self.chance = chance / chance.sum()

    def _error(self, corner: npt.NDArray[np.int64]) -> float:
        lacking, there = self.target.block((int(corner[0]), int(corner[1]), int(corner[2])), self.side)
        return float(lacking.square().sum() / there.sum())

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """(LR blocks with their halo, what Lanczos lacks there, weights)."""
        blocks = []
        for which in self.random.choice(len(self.corners), BATCH, p=self.chance):
            shift = self.random.integers(-self.side // 2, self.side // 2 + 1, 3)
            most = [max(n - self.side, 0) for n in self.target.lr.shape]
            z, y, x = np.clip(self.corners[which] + shift, 0, most).tolist()
            lr = block_of(self.target.lr, [(a, a + self.side) for a in (z, y, x)], self.halo)
            lacking, there = self.target.block((z, y, x), self.side)
            blocks.append((lr, lacking, there / (len(self.corners) * self.chance[which])))
        lrs, lackings, weights = zip(*blocks, strict=True)
        return torch.stack(lrs), torch.stack(lackings), torch.stack(weights)
