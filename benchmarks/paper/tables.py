"""The paper's Tables 4, 5 and 6, on a 512x512 slice of a CT series, with ours beside each row.

    python benchmarks/paper/tables.py OUT [--series chest-ct] [--slice Z] [--iterations 50000] [--sr-model FILE]

"With the architecture": Lanczos x4 down, a SIREN on the LR slice, SRDenseNet-All back up. "Without": the same SIREN
on the slice itself. First SRDenseNet-All is trained on slices of the series in --sr-train, and tested on those in
--sr-test; --sr-model takes the one that an earlier run left in its OUT instead. OUT gets results.json, tables.md, the
figures (with matplotlib: the extra `bench`) and that model. The settings are the paper's; see README.md beside this
file for what differs.

PSNR is of the slice, with its own max - min as peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from paper import dense, fitting, report
from series import DATA, HOW, load

import inrformat
from inrformat.decode import resolve_device
from inrformat.metrics import psnr as decibels
from inrformat.models.registry import default_model, load_model, save_model
from inrformat.models.sr import SRModel, super_resolve
from inrformat.resample import downsample

TRAIN = ("head-phantom-ct", "brain-mr-memprage", "brain-mr-fse", "mr-t1-7t")
TEST = ("chest-ct",)
SLICES, TESTED = 40, 8
"""Of each series that SRDenseNet is trained on, and of each that it is tested on."""


def say(text: str) -> None:
    print(text, flush=True)


def super_resolution(out: Path, train: list[str], test: list[str], steps: int, device: str) -> dict[str, Any]:
    """Train, save to OUT/srdensenet.inrm and test; what was found goes into OUT/srdensenet.json."""
    slices, unseen = [], {}
    for name in train:
        chosen = dense.some_slices(load(name), 2 * SLICES)
        slices += chosen[::2]
        unseen[name] = chosen[1 :: 2 * max(1, SLICES // TESTED)]  # between those that are trained on
    model, facts = dense.train(slices, steps, device, say)
    model = save_model(out / "srdensenet.inrm", model, name="srdensenet-paper", trained_on=", ".join(train))
    models = {"srdensenet": model, "light": default_model()}
    facts["trained_on"], facts["tests"] = train, []
    for name in [*test, *train]:
        chosen = unseen.get(name) or dense.some_slices(load(name), TESTED)
        found = dense.gains(models, chosen)
        facts["tests"].append({"series": name, "trained_on": name in train, "slices": len(chosen), **found})
        say(f"{name}: {found}")
    (out / "srdensenet.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def of_slice(made: Tensor, original: Tensor) -> float:
    """PSNR, both (y, x) in [0, 1] of the slice's range."""
    found = decibels(float((made.clamp(0, 1) - original).double().square().mean()), 1.0)
    assert found is not None
    return found


def row(
    original: Tensor, layers: int, model: SRModel | None, iterations: int, batch: int, device: torch.device
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One row of Table 4 (with a model), or of Table 5 (without); and its pictures."""
    shape, pictures = (1, *original.shape), {}
    target = original if model is None else downsample(original[None], dense.FACTORS)[0]
    fit = fitting.fit(target, layers, iterations, batch=batch, device=device)
    found: dict[str, Any] = {
        "way": "without" if model is None else "with",
        "layers": layers,
        "parameters": fit.parameters,
        "float32_bytes": 4 * fit.parameters,
        "rate_8_bits": original.numel() / (4 * fit.parameters),
        "rate_16_bits": 2 * original.numel() / (4 * fit.parameters),
        "iterations": iterations,
        "batch": min(batch, target.numel()),
        "seconds": fit.seconds,
        "cpu_seconds": fit.cpu_seconds,
        "gpu_held_kib": fit.held_kib,
        "gpu_peak_kib": fit.peak_kib,
        "curve": fit.curve,
    }
    if model is None:
        pictures["without"] = fit.picture
        found["psnr"] = of_slice(fit.picture, original)
    else:
        started = time.perf_counter()
        pictures["lr"] = fit.picture
        pictures["with"] = super_resolve(model, fit.picture[None], dense.FACTORS, shape)[0]
        found["sr_seconds"] = time.perf_counter() - started
        lanczos = super_resolve(None, fit.picture[None], dense.FACTORS, shape)[0]
        found["lr_psnr"] = fit.psnr
        found["psnr"], found["psnr_lanczos"] = (of_slice(x, original) for x in (pictures["with"], lanczos))
    return found, pictures


def ours(stored: npt.NDArray[Any], psnr: float, device: str) -> tuple[dict[str, Any], Tensor]:
    """Our file of a slice (1, y, x) of this PSNR or a little more, and what it decodes to, in [0, 1] of its range."""
    started, cpu = time.perf_counter(), time.process_time()
    data = inrformat.encode(stored, psnr=psnr, device=device, progress=False)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    decoded = inrformat.decode(data, device=device).data.astype(np.float64)
    low, high = float(stored.min()), float(stored.max())
    reached = decibels(float(np.square(decoded - stored).mean()), high - low)
    info = inrformat.info(data)
    found = {
        "psnr": reached,
        "bytes": len(data),
        "encode_seconds": seconds,
        "encode_cpu_seconds": cpu,
        "decode_seconds": time.perf_counter() - started,
        "factors": list(info.factors),
        "sr": info.sr["name"] if info.sr else None,
    }
    say(f"  ours: {found}")
    return found, torch.from_numpy((decoded[0] - low) / (high - low))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--series", default="chest-ct")
    parser.add_argument("--slice", type=int, help="default: the middle one")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--iterations", type=int, default=fitting.ITERATIONS)
    parser.add_argument("--batch", type=int, default=fitting.BATCH)
    parser.add_argument("--sr-train", nargs="+", default=list(TRAIN))
    parser.add_argument("--sr-test", nargs="+", default=list(TEST))
    parser.add_argument("--sr-steps", type=int, default=50_000)
    parser.add_argument("--sr-model", type=Path, help="OUT/srdensenet.inrm of an earlier run")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    wanted = {args.series, *args.sr_train, *args.sr_test} if args.sr_model is None else {args.series}
    missing = sorted(name for name in wanted if name in HOW and not (DATA / HOW[name][0]).is_dir())
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not in {DATA}; see the README's section on data")
    device = resolve_device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.sr_model is None:
        facts = super_resolution(args.out, args.sr_train, args.sr_test, args.sr_steps, str(device))
        args.sr_model = args.out / "srdensenet.inrm"
    else:
        facts = json.loads(args.sr_model.with_suffix(".json").read_text())
    model = load_model(args.sr_model)

    volume = load(args.series)
    z = len(volume.data) // 2 if args.slice is None else args.slice
    stored = np.ascontiguousarray(volume.data[z : z + 1])
    low, high = float(stored.min()), float(stored.max())
    original = (torch.from_numpy(stored[0].astype(np.float32)) - low) / (high - low)
    lr = downsample(original[None], dense.FACTORS)
    results: dict[str, Any] = {
        "series": args.series,
        "slice": z,
        "shape": list(original.shape),
        "peak": high - low,
        "lr_intact": {
            name: of_slice(super_resolve(m, lr, dense.FACTORS, stored.shape)[0], original)
            for name, m in (("srdensenet", model), ("lanczos", None), ("light", default_model()))
        },
        "device": device.type,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "srdensenet": facts,
        "rows": [],
    }
    pictures: dict[str, Tensor] = {"original": original, "lr": lr[0]}
    for layers in args.layers:
        for sr in (model, None):
            found, made = row(original, layers, sr, args.iterations, args.batch, device)
            say(
                f"{layers} layers, {found['way']}: {found['psnr']:.2f} dB, {found['seconds']:.0f} s; ours follows"
            )
            best = max(found["psnr"], found.get("psnr_lanczos", 0.0))
            found["ours"], decoded = ours(stored, best, str(device))
            pictures |= {f"{name}-{layers}": picture for name, picture in made.items()}
            pictures[f"ours-{found['way']}-{layers}"] = decoded
            results["rows"].append(found)
            (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "tables.md").write_text(report.tables(results))
    report.figures(results, pictures, args.out)
    say(report.tables(results))


if __name__ == "__main__":
    main()
