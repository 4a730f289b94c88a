"""Put newly measured points of `curves.py` in the place of older ones, and draw the curves anew.

    python benchmarks/curves_join.py results/curves/chest-ct.json NEW/results.json...

For a volume's table OLD.json, whose OLD.csv and OLD-curves.png lie beside it. A point stands for the one of the same codec and
setting; the BD-rates follow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inrformat.bench import report
from inrformat.bench.measure import Point
from inrformat.container.files import write_bytes


def points_of(path: Path) -> list[Point]:
    """Of a table."""
    return [Point(**{**p, "shape": tuple(p["shape"])}) for p in json.loads(path.read_text())["points"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="+")
    args = parser.parse_args()
    old = points_of(args.old)
    points = {(p.codec, p.setting): p for p in old}
    for path in args.new:
        points |= {(p.codec, p.setting): p for p in points_of(path) if p.volume == old[0].volume}
    order = list(dict.fromkeys(p.codec for p in [*old, *points.values()]))
    joined = sorted(points.values(), key=lambda p: order.index(p.codec))
    ours = [codec for codec in order if codec.startswith("inrformat")]
    write_bytes(args.old, report.as_bytes(report.as_json(joined, ours)))
    write_bytes(args.old.with_suffix(".csv"), report.as_csv(joined))
    write_bytes(args.old.with_name(f"{args.old.stem}-curves.png"), report.curves_png(joined))


if __name__ == "__main__":
    main()
