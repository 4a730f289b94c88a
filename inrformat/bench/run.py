"""All points of all volumes, and what is written of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..container.codes import show
from ..container.files import write_bytes
from ..errors import InputError, OutputError, UsageError
from ..fit.plan import PRESETS
from ..volume import Volume
from . import report
from .codec import Codec, need
from .measure import Point, Result, measure_apart
from .ours import RATIOS, Ours
from .still import Jpeg2000, JpegXL, Sperr, Sz3, Zfp
from .video import VIDEOS

OURS = "inrformat"
PEERS: dict[str, Codec] = {
    codec.name: codec for codec in (*VIDEOS, Jpeg2000(), JpegXL(), Sperr(), Sz3(), Zfp())
}
CODECS = (OURS, *PEERS)
"""The names that `choose` knows."""


def choose(
    codecs: Sequence[str] = CODECS,
    *,
    ratios: Sequence[float] = RATIOS,
    presets: Sequence[str] = ("fast",),
    device: str = "auto",
) -> list[Codec]:
    """The codecs of these names, ours once for each preset.

    Raises UsageError (an unknown name or preset, a ratio that is none) and UnsupportedError (what one of them
    needs is absent).
    """
    _check_names("codec", codecs, CODECS)
    _check_names("preset", presets, PRESETS)
    if not all(ratio > 0 and math.isfinite(ratio) for ratio in ratios):
        raise UsageError("every ratio is a positive number")
    chosen: list[Codec] = []
    for name in dict.fromkeys(codecs):
        if name == OURS:
            chosen += [Ours(preset, tuple(ratios), device) for preset in dict.fromkeys(presets)]
        else:
            chosen.append(PEERS[name])
    for codec in chosen:
        codec.check()
    return chosen


def _check_names(what: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {what} {show(name)}; there are {', '.join(known)}")


def bench(
    volumes: Mapping[str, Volume],
    folder: Path,
    codecs: Sequence[Codec],
    *,
    ratios: Sequence[float] = RATIOS,
    progress: Callable[[Point], None] = lambda point: None,
) -> tuple[list[Point], dict[str, Any]]:
    """Measure every codec at each of its settings on every volume, each in a process of its own.

    Into the folder, which is made, go results.csv and results.json, anew after every point; and for each
    volume NAME-curves.png, and NAME-at-RATIO.png for each of `ratios`, with what each codec decoded to at the
    nearest bytes. Returns the points, and the document that results.json holds.

    Raises InputError (voxels that are not finite), OutputError, and UnsupportedError without matplotlib. What
    goes wrong with a point is in the point.
    """
    need("matplotlib", "matplotlib")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    for name, volume in volumes.items():
        if not np.isfinite(volume.data).all():
            raise InputError(f"{name} has voxels that are NaN or infinite")
    ours = [codec.name for codec in codecs if isinstance(codec, Ours)]
    points: list[Point] = []
    document = _tables(folder, points, ours)
    for name, volume in volumes.items():
        results: list[Result] = []
        for codec in codecs:
            for setting in codec.settings:
                results.append(measure_apart(name, volume, codec, setting))
                points.append(results[-1].point)
                document = _tables(folder, points, ours)
                progress(points[-1])
        _draw(folder, name, volume, results, ratios)
    return points, document


def _tables(folder: Path, points: Sequence[Point], ours: Sequence[str]) -> dict[str, Any]:
    """Write what there is so far, and return the document."""
    document = report.as_json(points, ours)
    write_bytes(folder / "results.csv", report.as_csv(points))
    write_bytes(folder / "results.json", report.as_bytes(document))
    return document


def _draw(
    folder: Path, name: str, volume: Volume, results: Sequence[Result], ratios: Sequence[float]
) -> None:
    """The pictures of one volume."""
    write_bytes(folder / f"{name}-curves.png", report.curves_png([result.point for result in results]))
    original = volume.data[len(volume.data) // 2]
    for ratio in ratios:
        picture = report.pictures_png(original, results, volume.data.nbytes / ratio)
        write_bytes(folder / f"{name}-at-{ratio:g}.png", picture)
