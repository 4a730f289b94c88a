"""Go on training a light model on grids as the coder of latents gives them back: half an hour of two cores, or more.

    python benchmarks/train_coded.py OUT.inrm --start FILE.inrm --name light --version 3 [--seconds 2400]
                                     [--rate 1e-3] [--seed 0] [--cache DIR]

`train-sr` damages blocks by rounding alone; here whole grids are coded, every latent chosen by its cost, at steps that
files of 100:1 to 3,000:1 take; half of those of the series are corrected for the model that is gone on from, before
and after, as `balanced` corrects them. On the public series but for the chest CT and the FSE, on which it is measured, and on
volumes made by code (leaves.py). What the model to go on from saw, it has seen too: light-2 the FSE. The grids are coded
once, into DIR (about 1 GiB).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import cycle, product
from math import inf
from pathlib import Path

import leaves
import numpy as np
import numpy.typing as npt
import torch
from series import HOW, load
from torch import Tensor

from inrformat.coding import latent_code
from inrformat.coding.network import CODE_BITS
from inrformat.fit.budget import Budget
from inrformat.fit.latents import Analysis
from inrformat.fit.plan import normalised_grid
from inrformat.fit.projection import corrected, projected
from inrformat.fit.sr_tuning import Target
from inrformat.models.registry import default_latents, load_model, save_model
from inrformat.models.sr import SRModel, block_of, super_resolve
from inrformat.resample import Shape
from inrformat.train_sr import Lesson, TrainProgress, learn

FACTORS: dict[Shape, tuple[float, tuple[float, ...]]] = {
    (2, 2, 2): (0.34, (0.02, 0.04, 0.08, 0.14, 0.24)),
    (1, 2, 2): (0.3, (0.025, 0.05, 0.1, 0.18, 0.35)),
    (2, 4, 4): (0.12, (0.03, 0.07, 0.15)),
    (1, 4, 4): (0.12, (0.04, 0.09, 0.18)),
    (4, 4, 4): (0.12, (0.02, 0.06, 0.14)),
}
"""How often each factors are trained, and the steps of the latents, in parts of the range."""
HELD_OUT = {"chest-ct": (0.095, 0.2), "brain-mr-fse": (0.14,)}
"""Measured on at these steps, and not trained on here."""
PROJECTIONS = 2
SIDE, BATCH = 24, 2
EVERY, SLICES = 1000, 8
TRAINED_ON = (
    "MPRAGE brain MR of FNNDSC/data, T1-weighted MR at 7 T of Hanke et al. 2014, CT of a head phantom of dcm_qa_ct, "
    "volumes made by code"
)


@dataclass(frozen=True)
class Series:
    """A volume (z, y, x), its range, and its spacing; how often it is trained on; whether it was made by code."""

    name: str
    data: npt.NDArray[np.generic]
    span: tuple[float, float]
    spacing: tuple[float, float, float]
    weight: float
    made: bool = False

    @classmethod
    def of(cls, name: str) -> Series:
        volume = load(name)
        span = (float(volume.data.min()), float(volume.data.max()))
        return cls(name, volume.data, span, volume.spacing, 1.0 + (volume.data.size > 2e7))

    @classmethod
    def of_leaves(cls, number: int) -> Series:
        data, spacing = leaves.leaves(number)
        return cls(f"synth{number}", data, (0.0, float(leaves.WHITE)), spacing, 0.3, made=True)

    def coded(self, factors: Shape, share: float, cache: Path, model: SRModel | None = None) -> Target:
        """The volume with its LR grid as latents of a step give it back; corrected for a model, if any."""
        kind = "" if model is None else "-corrected"
        path = cache / f"{self.name}-{''.join(map(str, factors))}-{share:.3f}{kind}.npy"
        if not path.exists():
            grid = normalised_grid(self.data, self.span, factors, torch.device("cpu"))
            if model is None:
                grid = self._latents(grid, factors, share)
            else:
                to = self.data, self.span, factors, model
                grid = self._latents(projected(grid, *to, PROJECTIONS), factors, share)
                grid = self._latents(corrected(grid, *to), factors, share)
            np.save(path, grid.mul(1 << CODE_BITS).numpy().astype(np.int32))
        lr = torch.from_numpy(np.load(path)).float() / (1 << CODE_BITS)
        return Target(lr, factors, self.data, self.span, inf)

    def _latents(self, grid: Tensor, factors: Shape, share: float) -> Tensor:
        """An LR grid, 0 to 1, as latents of a step give it back."""
        scale = 1 << CODE_BITS
        spacing = [s * f for s, f in zip(self.spacing, factors, strict=True)]
        latents = Analysis(grid * scale, spacing).latents(share * scale)
        parts = latents.pyramid, latents.smooth, latents.bands
        _, _, codes = latent_code.encode(*parts, default_latents(), latents.wanted)
        return codes.clamp(-scale, 2 * scale - 1).float() / scale


def drawing(model: SRModel, targets: list[tuple[float, Target]], seed: int) -> Callable[[], Lesson]:
    """Blocks of one target at a time, turned at random."""
    rng = np.random.default_rng(seed)
    chances = np.array([chance for chance, _ in targets])
    chances /= chances.sum()

    def draw() -> Lesson:
        which = int(rng.choice(len(targets), p=chances))
        target = targets[which][1]
        flips = [axis for axis in range(3) if rng.random() < 0.5]
        turned = rng.random() < 0.5 and target.factors[1] == target.factors[2]
        blocks: list[tuple[Tensor, Tensor]] = []
        for _ in range(BATCH):
            z, y, x = (int(rng.integers(0, max(1, n - SIDE + 1))) for n in target.lr.shape)
            lr = block_of(target.lr, [(a, a + SIDE) for a in (z, y, x)], model.halo(target.factors))
            both = [part.flip(flips) for part in (lr, target.block((z, y, x), SIDE)[0])]
            blocks.append(tuple(part.transpose(1, 2) if turned else part for part in both))  # type: ignore[arg-type]
        lrs, lackings = zip(*blocks, strict=True)
        return Lesson(which, target.factors, torch.stack(lrs), torch.stack(lackings))

    return draw


def psnr(model: SRModel | None, target: Target) -> float:
    """dB, of some slices."""
    total, count = 0.0, 0
    low, high = target.span
    for z0 in np.linspace(0, len(target.data) - SLICES, 3).astype(int).tolist():
        box = target.data.shape, z0, z0 + SLICES
        found = super_resolve(model, target.lr, target.factors, *box).clamp_(0, 1).numpy()
        original = (target.data[z0 : z0 + SLICES].astype(np.float32) - low) / (high - low)
        total += float(np.square(found - original).sum(dtype=np.float64))
        count += found.size
    return float(-10 * np.log10(total / count))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True, help="a model of kind light to go on from")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=2400.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="where coded grids are kept from run to run")
    args = parser.parse_args()
    start = load_model(args.start)
    assert start.header is not None
    model, seen = deepcopy(start), start.header.trained_on
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        names = [name for name in HOW if name not in HELD_OUT]
        series = [Series.of(name) for name in names] + [Series.of_leaves(i) for i in range(leaves.COUNT)]
        targets = [
            (chance * one.weight / len(shares), one.coded(factors, share, cache, None if one.made else way))
            for factors, (chance, shares) in FACTORS.items()
            for (one, share), way in zip(product(series, shares), cycle((None, start)), strict=False)
        ]
        held = {
            (name, factors, share): Series.of(name).coded(factors, share, cache)
            for name, shares in HELD_OUT.items()
            for factors in list(FACTORS)[:2]
            for share in shares
        }
    print(
        {key: [round(psnr(m, target), 3) for m in (None, model)] for key, target in held.items()}, flush=True
    )

    def show(done: TrainProgress) -> None:
        if done.step % EVERY == 0:
            print(
                f"{100 * done.done:.0f}%, step {done.step}: {done.loss:.4f} of the squared error", flush=True
            )

    draw = drawing(model, targets, args.seed)
    trained = learn(model, draw, Budget(seconds=args.seconds), rate=args.rate, progress=show)
    saved = save_model(
        args.out,
        trained,
        name=args.name,
        version=args.version,
        licence="Apache-2.0",
        trained_on=f"{TRAINED_ON}; before that: {seen}",
    )
    print({key: round(psnr(saved, target), 3) for key, target in held.items()})


if __name__ == "__main__":
    main()
