"""The README's table of curves: `python benchmarks/curves_table.py RESULTS.json...`, of `curves.py`'s results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from inrformat.bench.curves import best, pchip

PEERS = ("svt-av1", "x265", "x265-psnr", "sperr", "jpeg2000")
RATES = (*PEERS, "jpeg-xl", "sz3", "zfp")


def at_bytes(points: list[dict[str, Any]], size: float) -> str:
    """dB of a peer at so many bytes, between its points; a dash beyond them."""
    psnr, size_log = best([(p["bytes"], p["psnr"]) for p in points if p["psnr"] is not None])
    place = np.log(size)
    if len(psnr) < 2 or not size_log[0] <= place <= size_log[-1]:
        return "-"
    return f"{pchip(size_log, psnr, np.array([place]))[0]:.2f}"


def ours(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of our own presets."""
    return [entry for entry in entries if entry["codec"].startswith("inrformat")]


def named(entry: dict[str, Any]) -> str:
    """The volume, and the preset where it is not `fast`."""
    preset = entry["codec"].removeprefix("inrformat ")
    return str(entry["volume"]) + ("" if preset == "fast" else f", {preset}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    documents = [json.loads(path.read_text()) for path in parser.parse_args().results]
    print("| series | bytes | ratio | ours, dB | SSIM | encode, decode s |", " | ".join(PEERS), "|")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", " | ".join("---:" for _ in PEERS), "|")
    for document in documents:
        points = document["points"]
        peers = {peer: [p for p in points if p["codec"] == peer] for peer in PEERS}
        for p in points:
            if p in ours(points) and p["error"] is None:
                psnr = "exact" if p["psnr"] is None else f"{p['psnr']:.2f}"
                own = f"| {named(p)} | {p['bytes']:,} | {p['ratio']:,.0f}:1 | {psnr} | {p['ssim']:.3f}"
                seconds = f"{p['encode_s']:.0f}, {p['decode_s']:.1f}"
                print(own, seconds, *(at_bytes(peers[k], p["bytes"]) for k in PEERS), sep=" | ", end=" |\n")
    print("\n| series |", " | ".join(RATES), "|\n| --- |", " | ".join("---:" for _ in RATES), "|")
    for document in documents:
        for own in dict.fromkeys(map(named, ours(document["bd_rate"]))):
            here = [r for r in ours(document["bd_rate"]) if named(r) == own and r["percent"] is not None]
            if here:  # a single point has none
                rates = {r["peer"]: f"{r['percent']:+.0f}%" for r in here}
                print("|", own, "|", " | ".join(rates.get(peer, "-") for peer in RATES), "|")


if __name__ == "__main__":
    main()
