"""Lossless and error-bounded files of real series, beside the peers at the same bound.

    python benchmarks/lossless.py OUT [--series chest-ct ...] [--errors 0 1 2 4 8 16] [--peers]

Each of our runs is a process of its own. OUT gets lossless.json and lossless.md. An error of 0 is lossless. Bytes are
those of the whole file, or of all the coded slices; every peer's result is decoded, and its greatest error checked.
Peers, through imagecodecs, one thread: per slice JPEG XL (effort 7; for a bound, of the volume quantised to steps of
2 E + 1), JPEG-LS (near-lossless for a bound) and JPEG 2000 (lossless only); of the volume SZ3 and SPERR (bounds only).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from series import HOW, load


def peak_mib() -> float:
    """The most memory that this process has held, on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


ROOM = 0.49
"""By which codecs of floats may go beyond a bound on whole numbers: rounding brings them back."""


def ours(series: str, error: int) -> dict[str, object]:
    """One encode and one decode, in this process."""
    import torch

    import inrformat

    volume = load(series)
    loaded = peak_mib()
    started = time.perf_counter()
    target = {"lossless": True} if error == 0 else {"max_error": error}
    data = inrformat.encode(volume, **target)
    encoded = time.perf_counter()
    decoded = inrformat.decode(data).data
    finished = time.perf_counter()
    above = peak_mib() - loaded
    started_preview = time.perf_counter()
    inrformat.decode(data, level="preview")
    previewed = time.perf_counter()
    difference = decoded.astype(np.int64) - volume.data
    assert np.abs(difference).max() <= error
    return {
        "codec": "inrformat",
        "bytes": len(data),
        "greatest": int(np.abs(difference).max()),
        "mean": float(difference.mean()),
        "encode_s": encoded - started,
        "decode_s": finished - encoded,
        "preview_s": previewed - started_preview,
        "peak_mib_above_volume": above,
        "sections": {s["type"]: s["length"] for s in inrformat.info(data).sections},
        "threads": torch.get_num_threads(),
    }


def peers(series: str, error: int) -> list[dict[str, object]]:
    """Every peer that has this mode."""
    import imagecodecs

    data = load(series).data
    low = int(data.min())
    plain = (data.astype(np.int64) - low).astype(np.uint16)
    step = 2 * error + 1
    steps = ((plain.astype(np.int64) + error) // step).astype(np.uint16)
    float32 = data.astype(np.float32)

    def slices(encode: Callable, decode: Callable, volume: np.ndarray) -> Callable:
        def run() -> tuple[int, float, float, np.ndarray]:
            a = time.perf_counter()
            codes = [encode(np.ascontiguousarray(s)) for s in volume]
            b = time.perf_counter()
            back = np.stack([decode(c) for c in codes])
            return sum(map(len, codes)), b - a, time.perf_counter() - b, back

        return run

    def whole(encode: Callable, decode: Callable) -> Callable:
        def run() -> tuple[int, float, float, np.ndarray]:
            a = time.perf_counter()
            code = encode(float32)
            b = time.perf_counter()
            back = decode(code)
            return (
                len(code),
                b - a,
                time.perf_counter() - b,
                np.rint(back).reshape(data.shape).astype(np.int64) - low,
            )

        return run

    ic = imagecodecs
    runs = {
        "jpeg-xl e7": slices(
            lambda s: ic.jpegxl_encode(s, lossless=True, effort=7, numthreads=1),
            lambda c: np.clip(ic.jpegxl_decode(c, numthreads=1).astype(np.int64) * step, 0, int(plain.max())),
            steps,
        ),
        "jpeg-ls": slices(lambda s: ic.jpegls_encode(s, level=error), ic.jpegls_decode, plain),
    }
    if error == 0:
        runs["jpeg2000"] = slices(
            lambda s: ic.jpeg2k_encode(s, level=0, reversible=True, numthreads=1),
            lambda c: ic.jpeg2k_decode(c, numthreads=1),
            plain,
        )
    else:
        runs["sz3"] = whole(
            lambda v: ic.sz3_encode(v, mode="abs", abs=error + ROOM),
            lambda c: ic.sz3_decode(c, shape=data.shape, dtype=np.float32),
        )
        runs["sperr"] = whole(lambda v: ic.sperr_encode(v, level=error + ROOM, mode="pwe"), ic.sperr_decode)
    rows = []
    for name, run in runs.items():
        size, encode_s, decode_s, back = run()
        greatest = int(np.abs(back.astype(np.int64) - plain).max())
        rows.append(
            {"codec": name, "bytes": size, "greatest": greatest, "encode_s": encode_s, "decode_s": decode_s}
        )
        if greatest > error:
            rows[-1]["codec"] = f"{name} (breaks the bound: {greatest})"
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: a line for each series and error."""
    lines = [
        "| series | E | ours, bytes | bits a voxel | JPEG XL | JPEG-LS | best other | encode s | decode s | MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key in dict.fromkeys((r["series"], r["error"]) for r in rows if r["codec"] == "inrformat"):
        here = {r["codec"]: r for r in rows if (r["series"], r["error"]) == key}
        own = here.pop("inrformat")
        cells = [_against(own, here.pop(name, None)) for name in ("jpeg-xl e7", "jpeg-ls")]
        other = min(
            (r for r in here.values() if "breaks" not in r["codec"]), key=lambda r: r["bytes"], default=None
        )
        cells.append(_against(own, other) + (f", {other['codec']}" if other else ""))
        lines.append(
            f"| {key[0]} | {key[1]} | {own['bytes']:,} | {8 * own['bytes'] / own['voxels']:.3f} | {' | '.join(cells)} | "
            f"{own['encode_s']:.0f} | {own['decode_s']:.0f} | {own['peak_mib_above_volume']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _against(own: dict, peer: dict | None) -> str:
    """The peer's bytes, and ours over them."""
    return "" if peer is None else f"{peer['bytes']:,} ({own['bytes'] / peer['bytes'] - 1:+.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--series", nargs="+", default=list(HOW))
    parser.add_argument("--errors", nargs="+", type=int, default=[0, 1, 2, 4, 8, 16])
    parser.add_argument("--peers", action="store_true", help="measure the peers too")
    parser.add_argument("--one", choices=("ours", "peers"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        series, error = args.series[0], args.errors[0]
        print(json.dumps([ours(series, error)] if args.one == "ours" else peers(series, error)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "lossless.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    for series in args.series:
        voxels = int(load(series).data.size)
        for error in args.errors:
            for kind in ("ours", *(["peers"] if args.peers else [])):
                command = [sys.executable, __file__, str(args.out), "--one", kind, "--series", series]
                command += ["--errors", str(error)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                for found in json.loads(done.stdout):
                    row = {"series": series, "error": error, "voxels": voxels, **found}
                    same = ("series", "error", "codec")
                    rows = [r for r in rows if any(r[k] != row[k] for k in same)] + [row]
                    print(
                        series, error, row["codec"], f"{row['bytes']:,}", f"{row['encode_s']:.1f}", flush=True
                    )
            path.write_text(json.dumps(rows, indent=1) + "\n")
    if any(r["codec"] == "inrformat" for r in rows):
        (args.out / "lossless.md").write_text(table(rows))


if __name__ == "__main__":
    main()
