"""A trained integer model with more rows in its layers, to be trained on."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from inrformat.models.integers import LARGEST_WEIGHT, SCALE, IntegerModel

M = TypeVar("M", bound=IntegerModel)


def widened(model: M, first_rows: int, second_rows: int, seed: int) -> M:
    """The model with so many rows in its hidden layers; it predicts what it did.

    New rows begin with random weights that nothing reads yet.
    """
    rng, weights = np.random.default_rng(seed), {}
    for name in model.networks_of:
        first, second, last = (model.weights[f"{name}.{part}"] for part in ("first", "second", "last"))
        (old_first, inputs), old_second = first.shape, len(second)
        new = rng.normal(0, SCALE / inputs**0.5, (first_rows, inputs))
        new[:old_first] = first
        weights[f"{name}.first"] = new
        new = np.zeros((second_rows, first_rows + 1))
        new[old_second:, :-1] = rng.normal(0, SCALE / first_rows**0.5, (second_rows - old_second, first_rows))
        new[:old_second, :old_first], new[:old_second, -1] = second[:, :-1], second[:, -1]
        weights[f"{name}.second"] = new
        new = np.zeros((len(last), second_rows + inputs))
        new[:, :old_second], new[:, second_rows:] = last[:, :old_second], last[:, old_second:]
        weights[f"{name}.last"] = new
    whole = {
        name: np.rint(new).clip(-LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int16)
        for name, new in weights.items()
    }
    model.check(whole)
    return type(model)(whole)
