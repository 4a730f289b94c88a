"""Train a model for full size, (1, 1, 1), such as the shipped `restore`: it undoes some of what coding did.

    python benchmarks/train_restorer.py OUT.inrm [--seconds 1500]    # so long on one core

On the public series without the chest CT, on which it is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from series import HOW, load

from inrformat.models.registry import save_model
from inrformat.train_sr import TrainProgress, train_sr

CONFIG = {"channels": 16, "layers": 3}
HELD_OUT = "chest-ct"
TRAINED_ON = (
    "Brain MR of FNNDSC/data, T1-weighted MR at 7 T of Hanke et al. 2014, CT of a head phantom of dcm_qa_ct"
)


def show(done: TrainProgress) -> None:
    if done.step % 500 == 0:
        print(f"{100 * done.done:.0f}%, step {done.step}: {done.loss:.4f} of the squared error", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1500.0)
    args = parser.parse_args()
    model = train_sr(
        [load(name) for name in HOW if name != HELD_OUT],
        config=CONFIG,
        factors=[(1, 1, 1)],
        seconds=args.seconds,
        learning_rate=3e-3,
        patch=32,
        progress=show,
    )
    save_model(args.out, model, name="restore", version=1, licence="Apache-2.0", trained_on=TRAINED_ON)


if __name__ == "__main__":
    main()
