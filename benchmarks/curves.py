"""Rate and distortion of the public series, ours and the peers: `inrformat bench`, by the README's names of them.

    python benchmarks/curves.py OUT [--series chest-ct ...] [--codecs inrformat svt-av1 ...] [--presets fast balanced]
                                [--ratios 3000 1000 300 100]

OUT gets what `inrformat bench` writes. For volumes of your own take that command. As the peers code the voxels alone,
ours gets them with their geometry and without what DICOM says beside them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from series import HOW, load

from inrformat.bench import CODECS, RATIOS, bench, choose
from inrformat.bench.measure import Point
from inrformat.bench.report import lines, rate_lines


def show(point: Point) -> None:
    print(lines([point])[1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--series", nargs="+", default=list(HOW))
    parser.add_argument("--codecs", nargs="+", default=list(CODECS))
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    parser.add_argument("--ratios", nargs="+", type=float, default=list(RATIOS))
    args = parser.parse_args()
    codecs = choose(args.codecs, ratios=args.ratios, presets=args.presets)
    volumes = {name: replace(load(name), metadata={}) for name in args.series}
    _, document = bench(volumes, args.out, codecs, ratios=args.ratios, progress=show)
    print("\n".join(rate_lines(document["bd_rate"])))


if __name__ == "__main__":
    main()
