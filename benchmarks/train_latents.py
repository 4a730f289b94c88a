"""Train the latent model that is shipped, on the public series: most of an hour of two cores, or more.

    python benchmarks/train_latents.py OUT.inrm --version N [--seconds 3600] [--seed 0]
                                       [--start FILE.inrm [--hidden 128 48]]

The grids are the volumes themselves and what Lanczos makes of them by several factors, as it is and, of those of
PROJECTED, corrected for the shipped super-resolution, as `balanced` does. With a model to start from the latents are
chosen by what they cost in what it has become, as an encoder does. latents-1 to latents-3 are of this script before it
corrected grids, and stay for files that name them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from series import HOW, load
from widen import widened

from inrformat.coding.network import CODE_BITS
from inrformat.container.files import write_bytes
from inrformat.fit.context import TrainProgress
from inrformat.fit.latents import Grid, train_latents
from inrformat.fit.plan import normalised_grid
from inrformat.fit.projection import projected
from inrformat.models.registry import default_model, load_latents, pack_integers
from inrformat.volume import Volume

FACTORS = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (4, 4, 4))
PROJECTED, PROJECTIONS = ((1, 2, 2), (2, 2, 2)), 2
LEAST_SLICES = 12
TRAINED_ON = (
    "Chest CT and brain MR of FNNDSC/data, T1-weighted MR at 7 T of Hanke et al. 2014, "
    "CT of a head phantom of dcm_qa_ct"
)


def grids_of(volume: Volume) -> list[Grid]:
    """The volume's LR grids as codes, with their spacing."""
    low, high = float(volume.data.min()), float(volume.data.max())
    sz, sy, sx = volume.spacing
    model, grids = default_model(), []
    for factors, rounds in [*((f, 0) for f in FACTORS), *((f, PROJECTIONS) for f in PROJECTED)]:
        z, y, x = factors
        if len(volume.data) // z < LEAST_SLICES:
            continue
        grid = normalised_grid(volume.data, (low, high), factors, torch.device("cpu"))
        grid = projected(grid, volume.data, (low, high), factors, model, rounds)
        codes = (grid * (1 << CODE_BITS)).clamp_(0, (1 << CODE_BITS) - 1)
        grids.append((codes.numpy().astype(np.uint16), (z * sz, y * sy, x * sx)))
    return grids


def show(done: TrainProgress) -> None:
    if done.step % 500 == 0:
        print(f"{100 * done.done:.0f}%, step {done.step}: {done.bits:.3f} bits a point", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--start", type=Path, help="a model to go on from")
    parser.add_argument("--hidden", nargs=2, type=int, help="give its layers so many rows")
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the pieces, their order, and the first weights"
    )
    args = parser.parse_args()
    if args.hidden and not args.start:
        parser.error("--hidden needs --start")
    grids = [grid for name in HOW for grid in grids_of(load(name))]
    start = load_latents(args.start) if args.start else None
    if start is not None and args.hidden:
        start = widened(start, *args.hidden, seed=5)
    model = train_latents(grids, seconds=args.seconds, seed=args.seed, start=start, progress=show)
    write_bytes(
        args.out,
        pack_integers(
            model, name="latents", version=args.version, licence="Apache-2.0", trained_on=TRAINED_ON
        ),
    )


if __name__ == "__main__":
    main()
