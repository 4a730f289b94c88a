"""Train a context model on the public series, going on from one that is there, with more rows in its layers.

    python benchmarks/train_context.py OUT.inrm --start inrformat/models/weights/context-1.inrm [--hidden 160 48]
                                       [--steps 150000] [--name context --version 2]

The shipped context-2 took 150,000 steps, 81 minutes of a core that was shared with other work, and also saw two thick
series of the head phantom.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from series import HOW, load
from widen import widened

from inrformat.container.files import write_bytes
from inrformat.fit.context import TrainProgress, train_context
from inrformat.models import registry

TRAINED_ON = (
    "chest CT and brain MR (FNNDSC/data, Apache-2.0), T1-weighted MR at 7 T (Hanke et al. 2014, PDDL), CT of a head "
    "phantom (neurolabusc/dcm_qa_ct, BSD-2-Clause)"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--hidden", nargs=2, type=int, default=[160, 48])
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--name", default="context")
    parser.add_argument("--version", type=int, default=2)
    parser.add_argument("--series", nargs="+", default=list(HOW))
    args = parser.parse_args()
    last = 0.0

    def show(at: TrainProgress) -> None:
        nonlocal last
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"step {at.step}, {at.bits:.4f} bits", flush=True)

    start = widened(registry.load_context(args.start.read_bytes()), *args.hidden, seed=5)
    volumes = [load(name) for name in args.series]
    model = train_context(volumes, steps=args.steps, seed=11, start=start, progress=show)
    data = registry.pack_integers(
        model, name=args.name, version=args.version, licence="Apache-2.0", trained_on=TRAINED_ON
    )
    write_bytes(args.out, data)
    print(f"{args.out}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
