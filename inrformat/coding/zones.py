"""Zones: parts of a volume whose points are predicted by last layers of their own (spec, "`ZONE`")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .lattice import CLASSES, Part, Shape, Split


@dataclass(frozen=True)
class Choice:
    """Which set of last layers each of n points has: sets[index[i]]; index (n) int64."""

    sets: tuple[int, ...]
    index: torch.Tensor


@dataclass(frozen=True, eq=False)
class Zones:
    """Each axis of a volume of that shape is cut into nearly equal parts, as bricks are.

    sets   (z, y, x) uint8: which set of last layers each zone has.
    """

    shape: Shape
    sets: npt.NDArray[np.uint8]

    def of(
        self,
        split: Split,
        kind: int,
        part: Part,
        class_shape: Shape,
        origins: npt.NDArray[np.int64],
        device: torch.device,
    ) -> Choice:
        """The sets of the points of a part of a class.

        origins   (bricks, 3): where in the volume each brick of the lattice begins, z, y, x.
        """
        bricks, rows = part
        _, mc, ma = class_shape
        axes = [axis for axis in range(3) if axis != split.axis] + [split.axis]
        spans = (np.arange(rows.start, rows.stop), np.arange(mc), np.arange(ma))
        along = []
        for axis, span, parity in zip(axes, spans, (*CLASSES[kind], 1), strict=True):
            places = origins[bricks, axis, None] + split.strides[axis] * (2 * span + parity)
            along.append(self._zone(places, axis))
        corners, inverses = zip(*(np.unique(zones, return_inverse=True) for zones in along), strict=True)
        near = self.sets.transpose(axes)[np.ix_(*corners)]
        present, numbers = np.unique(near, return_inverse=True)
        b, c, a = (
            torch.from_numpy(inverse.reshape(zones.shape)).to(device)
            for inverse, zones in zip(inverses, along, strict=True)
        )
        _, nc, na = near.shape
        index = (b[:, :, None, None] * nc + c[:, None, :, None]) * na + a[:, None, None, :]
        sets = torch.from_numpy(numbers.reshape(-1)).to(device)
        return Choice(tuple(present.tolist()), sets[index.flatten()])

    def _zone(self, places: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
        """Zone i of k begins at floor(i n / k) of n: the last one that begins no later than a place."""
        n, k = self.shape[axis], self.sets.shape[axis]
        zones: npt.NDArray[np.int64] = ((places + 1) * k - 1) // n
        return zones
