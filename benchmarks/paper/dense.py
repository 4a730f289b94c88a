"""SRDenseNet-All x4 (the paper's section 3.4), trained on slices of some series and tested on others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrformat.models.sr import SRModel
from inrformat.models.srdensenet import SRDenseNet
from inrformat.resample import Shape
from inrformat.train_sr import gain_db, train_sr
from inrformat.volume import Volume

FACTORS: Shape = (1, 4, 4)
CONFIG: dict[str, int] = {}
"""Numbers of the network that are not the paper's: none, but in tests."""
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "batch": 4, "patch": 20}
"""LR blocks of 20 x 20 pixels, four at a time."""


class InPlane(SRDenseNet):
    """The paper's network, for slices alone: it is not trained with factors along z."""

    def supports(self, factors: Sequence[int]) -> bool:
        """(1, 4, 4)."""
        return tuple(factors) == FACTORS


def some_slices(volume: Volume, count: int, start: float = 0.15) -> list[npt.NDArray[Any]]:
    """`count` slices (1, y, x), evenly spread over the volume but for its ends."""
    last = len(volume.data) - 1
    places = np.unique(np.linspace(start * last, 0.9 * last, count).round().astype(int))
    return [np.ascontiguousarray(volume.data[z : z + 1]) for z in places]


def train(
    slices: Sequence[npt.NDArray[Any]], steps: int, device: str, say: Callable[[str], None]
) -> tuple[SRModel, dict[str, Any]]:
    """The trained model, and what is to be known of the training."""
    started, losses = time.perf_counter(), []
    every = max(1, steps // 20)

    def progress(now: Any) -> None:
        if now.step % every == 0:
            losses.append((now.step, now.loss))
            say(f"SRDenseNet: step {now.step}, loss {now.loss:.4f}, {time.perf_counter() - started:.0f} s")

    model = train_sr(
        slices, steps=steps, device=device, start=InPlane(**CONFIG), progress=progress, **SETTINGS
    )
    facts = {
        "steps": steps,
        **SETTINGS,
        "parameters": sum(p.numel() for p in model.parameters()),
        "slices": len(slices),
        "seconds": time.perf_counter() - started,
        "losses": losses,
    }
    return model, facts


def gains(models: Mapping[str, SRModel], slices: Sequence[npt.NDArray[Any]]) -> dict[str, dict[str, float]]:
    """dB over Lanczos, from the undamaged LR slice: mean, least and greatest for each model."""
    found = {}
    for name, model in models.items():
        each = [gain_db(model, one, FACTORS) for one in slices]
        assert all(map(math.isfinite, each))
        found[name] = {"mean": float(np.mean(each)), "least": min(each), "greatest": max(each)}
    return found
