"""Put newly measured points of `curves.py` in the place of older ones, and draw the curves anew.

    python benchmarks/curves_join.py results/curves/chest-ct.json NEW/results.json...

For a volume's table OLD.json, whose OLD.csv and OLD-curves.png lie beside it. A point stands for the one of the same codec and
setting, unless it failed; the BD-rates follow, and versions of packages are those of all the tables.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from inrformat.bench import report
from inrformat.bench.measure import Point
from inrformat.container.files import write_bytes


def points_of(document: dict[str, Any]) -> list[Point]:
    """Of a table, those that did not fail."""
    points = [Point(**{**p, "shape": tuple(p["shape"])}) for p in document["points"]]
    return [point for point in points if point.error is None]


def versions_of(documents: list[dict[str, Any]]) -> dict[str, str]:
    """Of each package all that points were measured with."""
    names = dict.fromkeys(name for document in documents for name in document["versions"])
    found: dict[str, str] = {}
    for name in names:
        texts = [d["versions"][name].split(", ") for d in documents if d["versions"].get(name)]
        found[name] = ", ".join(dict.fromkeys(text for part in texts for text in part))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="+")
    args = parser.parse_args()
    documents = [json.loads(path.read_text()) for path in (args.old, *args.new)]
    old = points_of(documents[0])
    points = {(p.codec, p.setting): p for p in old}
    for document in documents[1:]:
        points |= {(p.codec, p.setting): p for p in points_of(document) if p.volume == old[0].volume}
    order = list(dict.fromkeys(p.codec for p in [*old, *points.values()]))
    joined = sorted(points.values(), key=lambda p: order.index(p.codec))
    ours = [codec for codec in order if codec.startswith("inrformat")]
    table = {**report.as_json(joined, ours), "versions": versions_of(documents)}
    write_bytes(args.old, report.as_bytes(table))
    write_bytes(args.old.with_suffix(".csv"), report.as_csv(joined))
    write_bytes(args.old.with_name(f"{args.old.stem}-curves.png"), report.curves_png(joined))


if __name__ == "__main__":
    main()
