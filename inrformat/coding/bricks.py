"""A volume's levels as bricks that are coded each on its own (spec, "Bricks").

A brick is one byte that says how it is coded, and then

    0   its levels as they are, u8 where the greatest level is below 256, u16 otherwise;
    1   one level, u16, that all its voxels have;
    2   three counts, u32: words, bytes of low bits, escapes; then the levels of the coarsest lattice, u16;
        the lanes' final states, u32; the words, u16; the low bits; the escapes, u8; those that are too large
        for that, u32. All little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from . import lanes
from .lattice import Context, Lattice, Prediction, Shape, Span, Split, order_of_classes, roots
from .residuals import Code, Residuals, Source
from .zones import Choice, Zones

RAW, CONSTANT, CODED = 0, 1, 2
PART = 1 << 14
"""Points that are predicted at a time on a CPU: more no longer fit its cache, fewer take more steps."""
PART_GPU = 1 << 20
BRICK = (64, 256, 256)
"""Voxels (z, y, x) that a brick has at the most, as our encoder cuts them. At their faces bricks know less: a
chest CT in bricks of half the width and height takes 0.2% more bytes."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Levels = npt.NDArray[np.uint16]
Origins = npt.NDArray[np.int64]
"""(bricks, 3): where in the volume each brick begins, z, y, x."""


class Model(Protocol):
    """What the coder needs of a context model; see models.context.ContextModel."""

    zones: Zones | None

    def taps(self, split: Split, kind: int) -> Sequence[int] | None:
        """The weights of the class's linear predictor, where it has one."""

    def predict(
        self, context: Context, split: Split, kind: int, span: Span, choice: Choice | None = None
    ) -> Prediction:
        """The distributions of the points of a context, in their zones' sets."""


@dataclass(frozen=True)
class Coder:
    """How the bricks of one volume are coded.

    order   the schedule of the lattice.
    span    the greatest level, and the step 2 E + 1 between residuals.
    model   the context model, on the device that does the work.
    """

    order: tuple[int, ...]
    span: Span
    model: Model
    device: torch.device

    def encode(self, levels: Levels, origins: Sequence[Shape]) -> list[bytes]:
        """The codes of bricks of one shape (bricks, z, y, x), which begin there in the volume."""
        truth = torch.from_numpy(levels.astype(np.float32)).to(self.device)
        known = torch.zeros_like(truth)
        coarse = roots(known, self.order)
        coarse.copy_(roots(truth, self.order))
        residuals, begins = Residuals(self.span.step), np.array(origins, np.int64)
        for lattice, kind in order_of_classes(known, self.order):
            true = Lattice.points(truth, lattice.split, kind).long()
            values = residuals.push(true.flatten(1), self._predict(lattice, kind, begins))
            lattice.set(kind, values.clamp_(0, self.span.greatest).view_as(true).float())
        codes = residuals.codes(_u16(coarse), lanes.lanes_for(known[0].numel()))
        codes = [bytes([CODED]) + code for code in codes]
        plain = (self._plain(brick) for brick in levels)
        return [min(pair, key=len) for pair in zip(plain, codes, strict=True)]

    def _plain(self, levels: Levels) -> bytes:
        """The brick without an entropy code."""
        if (levels == levels.flat[0]).all():
            return bytes([CONSTANT]) + levels.flat[:1].astype("<u2").tobytes()
        return bytes([RAW]) + levels.astype(self._raw_type).tobytes()

    @property
    def _raw_type(self) -> str:
        return "u1" if self.span.greatest < 256 else "<u2"

    def decode(
        self, codes: Sequence[bytes], shape: Shape, origins: Sequence[Shape]
    ) -> tuple[Levels, list[int]]:
        """The levels (bricks, z, y, x) of bricks of one shape, and which of the codes are wrong.

        origins   where in the volume each brick begins.
        """
        levels = np.zeros((len(codes), *shape), np.uint16)
        wrong, coded = [], []
        for i, code in enumerate(codes):
            if code[:1] == bytes([CODED]):
                coded.append(i)
            elif not self._decode_plain(code, levels[i]):
                wrong.append(i)
        parsed = [(i, self._parse(codes[i][1:], shape)) for i in coded]
        wrong += [i for i, parts in parsed if parts is None]
        good = [(i, parts) for i, parts in parsed if parts is not None]
        if good:
            numbers = [i for i, _ in good]
            begins = np.array([origins[i] for i in numbers], np.int64)
            levels[numbers], damaged = self._decode([parts for _, parts in good], shape, begins)
            wrong += [numbers[i] for i in damaged]
        return levels, sorted(wrong)

    def _decode_plain(self, code: bytes, out: Levels) -> bool:
        """Fill in a brick that has no entropy code; False if the code is wrong."""
        kind, body = code[:1], code[1:]
        if kind == bytes([CONSTANT]) and len(body) == 2:
            out[:] = int.from_bytes(body, "little")
        elif kind == bytes([RAW]) and len(body) == out.size * np.dtype(self._raw_type).itemsize:
            out[:] = np.frombuffer(body, self._raw_type).reshape(out.shape)
        else:
            return False
        return int(out.max()) <= self.span.greatest

    def _parse(self, code: bytes, shape: Shape) -> Code | None:
        """The parts of a coded brick of that shape."""
        voxels = int(np.prod(shape))
        coarse = int(np.prod([-(-n // (1 << self.order.count(axis))) for axis, n in enumerate(shape)]))
        count = lanes.lanes_for(voxels) if voxels > coarse else 0
        return Code.parse(code, coarse, voxels - coarse, count, self.span.greatest)

    def _decode(self, codes: list[Code], shape: Shape, origins: Origins) -> tuple[Levels, list[int]]:
        known = torch.zeros(len(codes), *shape, dtype=torch.float32, device=self.device)
        coarse = roots(known, self.order)
        coarse.copy_(torch.from_numpy(np.stack([c.roots for c in codes]).astype(np.float32)).view_as(coarse))
        source = Source(codes, self.span.step, self.device)
        for lattice, kind in order_of_classes(known, self.order):
            values = source.take(self._predict(lattice, kind, origins)).clamp_(0, self.span.greatest)
            lattice.set(kind, values.view(len(codes), *lattice.class_shape(kind)).float())
        return known.cpu().numpy().astype(np.uint16), source.wrong()

    def _predict(self, lattice: Lattice, kind: int, origins: Origins) -> Prediction:
        """The predictions of a whole class, (bricks, n) each."""
        zones, split, shape = self.model.zones, lattice.split, lattice.class_shape(kind)
        bricks, n = len(lattice.values), int(np.prod(shape))
        result = Prediction(
            *(torch.empty(bricks, n, dtype=torch.int64, device=self.device) for _ in range(3))
        )
        width = n // shape[0]
        for part in lattice.parts(kind, PART if self.device.type == "cpu" else PART_GPU):
            context = Context.of(lattice, kind, part, self.span, self.model.taps(split, kind))
            choice = None
            if zones is not None and split.fine:
                choice = zones.of(split, kind, part, shape, origins, self.device)
            prediction = self.model.predict(context, split, kind, self.span, choice)
            at = part[0], slice(part[1].start * width, part[1].stop * width)
            for name in ("centre", "table", "bits"):
                place = getattr(result, name)[at]
                place.copy_(getattr(prediction, name).view_as(place))
        return result


def _u16(values: torch.Tensor) -> Levels:
    return values.flatten(1).cpu().numpy().astype(np.uint16)


def cuts(n: int, count: int) -> list[tuple[int, int]]:
    """An axis of n voxels in `count` nearly equal parts."""
    return [(i * n // count, (i + 1) * n // count) for i in range(count)]


def boxes(shape: Shape, counts: Shape) -> list[Box]:
    """The bricks of a volume, in the order of the index: along x first."""
    z, y, x = (cuts(n, k) for n, k in zip(shape, counts, strict=True))
    return list(product(z, y, x))


def counts_for(shape: Shape) -> Shape:
    """Into how many bricks our encoder cuts each axis."""
    z, y, x = (-(-n // most) for n, most in zip(shape, BRICK, strict=True))
    return z, y, x


def batches(places: Sequence[Box], numbers: Sequence[int], voxels: int) -> Iterator[list[int]]:
    """Bricks of one shape together, of about `voxels` in all."""
    groups: dict[Shape, list[int]] = {}
    for number in numbers:
        z, y, x = (b - a for a, b in places[number])
        groups.setdefault((z, y, x), []).append(number)
    for shape, members in groups.items():
        size = max(1, voxels // int(np.prod(shape)))
        for first in range(0, len(members), size):
            yield members[first : first + size]
