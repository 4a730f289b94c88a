"""What a volume changes in its latent model (spec section "LATU"): few bytes, and fewer for the latents.

To each layer of a network the product of two thin matrices of whole numbers is added (after Hu et al. 2021,
LoRA). The networks stay whole numbers, and so exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from ..coding import integers
from ..coding.latent_code import LAPLACE
from ..container.codes import fail
from .integers import LARGEST_WEIGHT, PARTS
from .latents import LatentModel

SECTION = "LATU"
MOST_RANK = 16

Ints = npt.NDArray[np.int64]
Product = tuple[Ints, Ints]
"""(rows, rank) and (rank, columns), which are added to a layer (rows, columns) multiplied."""
Changes = Mapping[str, Mapping[str, Product]]
"""Of some networks, by name: that of each layer."""


def rank_of(rank: int, rows: int) -> int:
    """Of a layer, in a network of that rank: more than it has rows would be of no use."""
    return min(rank, rows)


def pack(model: LatentModel, changes: Changes) -> bytes:
    """The section LATU. Each network that is changed has one rank, as far as its layers have as many rows."""
    ranks = dict.fromkeys(model.networks_of, 0)
    ranks |= {name: max(len(right) for _, right in layers.values()) for name, layers in changes.items()}
    matrices = [m.ravel() for name in ranks if name in changes for part in PARTS for m in changes[name][part]]
    kinds = [integers.best_level(matrix, [LAPLACE]) for matrix in matrices]
    values = np.concatenate([np.zeros(0, np.int64), *matrices])
    code = integers.encode(values, *integers.spread(kinds, [len(matrix) for matrix in matrices]))
    return bytes([*ranks.values(), *(level for _, level in kinds)]) + code


def apply(model: LatentModel, data: bytes) -> LatentModel:
    """The model that a section LATU makes of `model`; FormatError."""
    names = list(model.networks_of)
    ranks = np.frombuffer(data[: len(names)], np.uint8)
    end = len(names) + 2 * len(PARTS) * int(np.count_nonzero(ranks))
    if len(ranks) < len(names) or len(data) < end:
        raise fail("network-truncated", "the section ends before its levels do", section=SECTION)
    levels = list(data[len(names) : end])
    if ranks.max() > MOST_RANK or max(levels, default=0) >= integers.LEVELS:
        message = "a network has an unknown rank, or a matrix an unknown level"
        raise fail("out-of-range", message, section=SECTION)
    shapes = list(_shapes(model, dict(zip(names, ranks.tolist(), strict=True))))
    sizes = [rows * columns for _, pair in shapes for rows, columns in pair]
    values = integers.decode_runs(data[end:], [(LAPLACE, level) for level in levels], sizes, SECTION)
    weights, matrices = dict(model.weights), iter(np.split(values, np.cumsum(sizes)[:-1]))
    for name, (left, right) in shapes:
        total = weights[name] + next(matrices).reshape(left) @ next(matrices).reshape(right)
        if np.abs(total).max() > LARGEST_WEIGHT:
            raise fail("out-of-range", "weights are too large to be exact", section=SECTION)
        weights[name] = total.astype(np.int16)
    model.check(weights, SECTION)
    return model.changed(weights)


def _shapes(
    model: LatentModel, ranks: Mapping[str, int]
) -> Iterator[tuple[str, tuple[tuple[int, int], tuple[int, int]]]]:
    """(tensor, shapes of its two matrices) of the networks that are changed."""
    for name, rank in ranks.items():
        for part in PARTS if rank else ():
            rows, columns = model.weights[f"{name}.{part}"].shape
            own = rank_of(rank, rows)
            yield f"{name}.{part}", ((rows, own), (own, columns))
