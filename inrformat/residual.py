"""The bricks of a file: they bring a volume within a bound of its original, or to it (spec, "Bricks")."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from .coding import bricks
from .coding.bricks import Coder
from .coding.lattice import Shape, Span, schedule
from .coding.levels import Levels
from .container.codes import fail
from .container.headers import LatticeHeader, VolumeHeader
from .container.layout import Reader
from .container.limits import Limits
from .models import registry
from .models.context import (
    ContextModel,
    apply_centres,
    apply_changes,
    apply_zones,
    pack_centres,
    pack_changes,
    pack_zones,
)
from .parallel import map_on_cores
from .region import Box
from .volume import Array, Volume

if TYPE_CHECKING:
    import torch

ENTRY = struct.Struct("<II")  # length, CRC-32C
LEAST_BATCH, MOST_BATCH = 1 << 20, 1 << 22
"""Voxels of the bricks that are worked on together, by one core."""
GPU_BATCH = 1 << 26


def write(
    volume: Volume,
    levels: Levels,
    model: ContextModel,
    device: torch.device,
    progress: Callable[[float], None],
    *,
    tuned: ContextModel | None = None,
    embed: bool = False,
) -> list[tuple[str, bytes]]:
    """The sections that hold a volume's bricks; `progress` is told the share that is done.

    tuned   the model with weights of this volume's own.
    embed   store the model in the file.
    """
    shape = volume.shape
    counts = bricks.counts_for(shape)
    places = bricks.boxes(shape, counts)
    z, y, x = (-(-n // k) for n, k in zip(shape, counts, strict=True))
    order = schedule((z, y, x), volume.spacing)
    coder = Coder(order, Span(levels.greatest, 2 * levels.error + 1), (tuned or model).to(device), device)
    codes: list[bytes] = [b""] * len(places)
    done = 0

    def encode(numbers: Sequence[int]) -> None:
        nonlocal done
        data = np.stack([levels.of(volume.data[_slices(places[i])]) for i in numbers])
        for number, code in zip(numbers, coder.encode(data, _origins(places, numbers)), strict=True):
            codes[number] = code
        done += len(numbers)
        progress(done / len(places))

    _work(encode, places, range(len(places)), device)
    header = LatticeHeader(
        levels.error, levels.values, levels.grid, levels.greatest, order, counts, model.reference
    )
    index = b"".join(ENTRY.pack(len(code), google_crc32c.value(code)) for code in codes)
    sections = [(LatticeHeader.SECTION, header.pack())]
    if embed:
        sections.append(("CTXM", model.file or b""))
    if tuned is not None:
        if tuned.centres != model.centres:
            sections.append(("PRED", pack_centres(tuned)))
        sections.append(("TUNE", pack_changes(model.centred(tuned.centres), tuned)))
        if tuned.zones is not None:
            sections.append(("ZONE", pack_zones(tuned)))
    return [*sections, ("BIDX", index), ("BRIX", b"".join(codes))]


def _work(
    function: Callable[[Sequence[int]], None],
    places: Sequence[Box],
    numbers: Iterable[int],
    device: torch.device,
) -> None:
    """`function` of batches of bricks, on all cores, or on the GPU."""
    import torch

    numbers = list(numbers)
    if device.type != "cpu":
        for batch in bricks.batches(places, numbers, GPU_BATCH):
            function(batch)
        return
    voxels = sum(int(np.prod([b - a for a, b in places[i]])) for i in numbers)
    size = min(MOST_BATCH, max(LEAST_BATCH, voxels // (2 * torch.get_num_threads())))
    map_on_cores(function, bricks.batches(places, numbers, size))


@dataclass
class Bricks:
    """The bricks of an open file; one is read and checked when it is needed.

    index     where each brick starts in section BRIX and the last one ends, and their CRCs.
    """

    reader: Reader
    header: LatticeHeader
    volume: VolumeHeader
    index: tuple[Array, Array]
    dtype: np.dtype[Any]
    device: torch.device
    model: ContextModel

    def __post_init__(self) -> None:
        header = self.header
        self.shape = self.volume.shape
        self.places = bricks.boxes(self.shape, header.bricks)
        self.levels = Levels(header.greatest, header.error, header.values, header.grid, self.volume.range)
        self.coder = Coder(header.order, Span(header.greatest, header.step), self.model, self.device)
        self._starts, self._crcs = self.index
        self._damaged: set[int] = set()

    @classmethod
    def open(
        cls,
        reader: Reader,
        header: LatticeHeader,
        volume: VolumeHeader,
        dtype: np.dtype[Any],
        device: torch.device,
        models: Sequence[str | os.PathLike[str]],
        limits: Limits,
    ) -> Bricks:
        """Check all that says how the bricks are coded, and find the context model; ModelNotFoundError."""
        index = _index(reader, header)
        if reader.has("CTXM"):
            data = reader.read("CTXM")
            header.model.check(data, "CTXM")
        else:
            data = registry.find(header.model, models, limits)
        model = registry.load_context(data, limits)
        if reader.has("PRED"):
            model = apply_centres(model, reader.read("PRED"))
        if reader.has("TUNE"):
            model = apply_changes(model, reader.read("TUNE"))
        if reader.has("ZONE"):
            model = apply_zones(model, reader.read("ZONE"), volume.shape)
        work = model.work * int(np.prod(volume.shape, dtype=object))
        if work > limits.max_work:
            message = f"the bricks take {work} multiply-adds, at most {limits.max_work} are allowed"
            raise fail("too-much-work", message, section="LATT")
        return cls(reader, header, volume, index, dtype, device, model.to(device))

    def layers(self, span: tuple[int, int], depth: int) -> Iterator[tuple[int, int]]:
        """The slices of a span in parts of whole layers of bricks, of about `depth` slices."""
        first, stop = span
        ends = [b for _, b in bricks.cuts(self.shape[0], self.header.bricks[0])]
        for end, after in zip(ends, [*ends[1:], 2 * self.shape[0] + depth], strict=True):
            if end > first and (after - first > depth or end >= stop):
                yield first, min(end, stop)
                first = end
                if first >= stop:
                    return

    def region(self, box: Box, *, fill: Callable[[Box], Array] | None = None) -> Array:
        """The voxels of a region; FormatError for a damaged brick, or what `fill` gives in its place."""
        out = np.empty([b - a for a, b in box], self.dtype)
        numbers = [i for i, place in enumerate(self.places) if _overlap(place, box)]
        wrong: list[int] = []

        def decode(batch: Sequence[int]) -> None:
            z, y, x = (b - a for a, b in self.places[batch[0]])
            origins = _origins(self.places, batch)
            levels, damaged = self.coder.decode([self._code(i) for i in batch], (z, y, x), origins)
            for i, (number, brick) in enumerate(zip(batch, levels, strict=True)):
                if i in damaged:
                    wrong.append(number)
                else:
                    _paste(out, box, self.places[number], self.levels.to_values(brick, self.dtype))

        _work(decode, self.places, numbers, self.device)
        if wrong and fill is None:
            z, y, x = self.places[min(wrong)]
            message = f"brick {min(wrong)} (z {z[0]}:{z[1]}, y {y[0]}:{y[1]}, x {x[0]}:{x[1]}) is damaged"
            raise fail("damaged-brick", message, section="BRIX")
        if wrong and fill is not None:
            filling = fill(box)
            for number in wrong:
                inside, _ = _common(box, self.places[number])
                out[inside] = filling[inside]
            self._damaged.update(wrong)
        return out

    def damaged_in(self, box: Box) -> list[Box]:
        """The boxes of the bricks in a region that were found damaged, where they are not an error."""
        found = [self.places[number] for number in sorted(self._damaged)]
        return [
            place
            for place in found
            if all(a < d and c < b for (a, b), (c, d) in zip(place, box, strict=True))
        ]

    def _code(self, number: int) -> bytes:
        """A brick's bytes; none if they are damaged."""
        start, end = int(self._starts[number]), int(self._starts[number + 1])
        code = self.reader.read_part("BRIX", start, end - start)
        return code if google_crc32c.value(code) == self._crcs[number] else b""


def _index(reader: Reader, header: LatticeHeader) -> tuple[Array, Array]:
    """(where each brick starts in section BRIX and the last one ends, their CRCs)."""
    count = int(np.prod(header.bricks, dtype=object))
    if reader.info("BIDX").length != ENTRY.size * count:
        raise fail("bad-index", f"the index is not one of {count} bricks", section="BIDX")
    entries = np.frombuffer(reader.read("BIDX"), "<u4").reshape(-1, 2).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(entries[:, 0])])
    if starts[-1] != reader.info("BRIX").length:
        raise fail("bad-index", "the bricks' lengths do not fill section BRIX", section="BIDX")
    return starts, entries[:, 1]


def _origins(places: Sequence[Box], numbers: Sequence[int]) -> list[Shape]:
    """Where in the volume some bricks begin."""
    return [(z, y, x) for (z, _), (y, _), (x, _) in (places[i] for i in numbers)]


def _slices(box: Box) -> tuple[slice, slice, slice]:
    z, y, x = (slice(a, b) for a, b in box)
    return z, y, x


def _overlap(one: Box, other: Box) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))


def _paste(out: Array, box: Box, place: Box, values: Array) -> None:
    """Put the values of a place into a box's array, where they overlap."""
    inside, there = _common(box, place)
    out[inside] = values[there]


def _common(box: Box, place: Box) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a box and a place overlap, in each of them."""
    common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, place, strict=True)]
    inside, there = (
        tuple(slice(a - o, b - o) for (a, b), (o, _) in zip(common, whole, strict=True))
        for whole in (box, place)
    )
    return inside, there
