"""What every super-resolution model has in common, and how one is applied tile by tile.

A model never replaces Lanczos, it adds to it: full size = upsample(LR) + detail(LR). So an untrained model is
Lanczos, and a model that is missing costs quality, not the image (design.md, section 2).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise, product
from typing import ClassVar

import torch
from torch import Tensor, nn

from .. import precision
from ..container.headers import ModelHeader, ModelReference
from ..errors import UsageError
from ..region import TILE
from ..resample import Shape, check_factors, upsample


class SRModel(nn.Module, ABC):
    """A network that predicts the detail that Lanczos lost.

    kind          the name of the architecture in a model file.
    bounds        the config's keys, and the least and greatest value of each.
    whole_slices  the model needs all of y and x at once (its receptive field is of the slices' size).
    config        the numbers that, with the kind, fix the shape of every tensor.
    header, file  what a loaded model says of itself, and the bytes it came from; None for a new one.
    """

    kind: ClassVar[str]
    bounds: ClassVar[Mapping[str, tuple[int, int]]]
    whole_slices: ClassVar[bool] = False
    config: Mapping[str, int]
    header: ModelHeader | None = None
    file: bytes | None = None

    @property
    def reference(self) -> ModelReference:
        """How a volume names this model; UsageError for a model that has no file yet."""
        if self.header is None or self.file is None:
            raise UsageError("a model is referred to by its file: save it and load it first")
        return ModelReference(self.header.name, self.header.version, hashlib.sha256(self.file).digest())

    def on(self, device: torch.device) -> SRModel:
        """The model on a device: a copy where it is on another, for it may be in use there."""
        here = next(self.parameters()).device
        return self if here == device else deepcopy(self).to(device)

    @abstractmethod
    def halo(self, factors: Shape) -> Shape:
        """(z, y, x): how many LR voxels around a tile its values depend on."""

    @abstractmethod
    def supports(self, factors: Sequence[int]) -> bool:
        """Whether the model can work at these factors (z, y, x)."""

    @abstractmethod
    def activations(self, block: Shape, factors: Shape) -> int:
        """How many numbers the largest layer makes for a block (z, y, x) of LR voxels, its halo included."""

    @abstractmethod
    def forward(self, lr: Tensor, factors: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        """The detail of blocks: (b, z + 2 hz, y + 2 hy, x + 2 hx) float32 -> (b, z fz, y fy, x fx) float32.

        (hz, hy, hx) is `halo(factors)`; what lies outside a volume is its border repeated. Intensities are
        normalised so that the volume's range is [0, 1]. `dtype` is that of the inner arithmetic.
        """


def random_kernel(weight: Tensor) -> None:
    """Begin with normal weights for a ReLU (He et al. 2015), unless the weight has no memory.

    There it would have no effect, but take a second: torch then imports its compiler.
    """
    if not weight.is_meta:
        torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where convolutions are faster in it, else float32.

    Only the detail is affected, by about 0.5% of itself: far below 0.01 dB of PSNR.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        fast = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    else:
        fast = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def super_resolve(
    model: SRModel | None,
    lr: Tensor,
    factors: Sequence[int],
    shape: Sequence[int],
    z0: int = 0,
    z1: int | None = None,
    *,
    y0: int = 0,
    y1: int | None = None,
    x0: int = 0,
    x1: int | None = None,
    tile: Sequence[int] = TILE,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The region [z0:z1, y0:y1, x0:x1] of the volume that an LR grid stands for: float32, not clipped.

    model  None, or one that does not support the factors: Lanczos. It must be on the device of `lr`.
    lr     (z, y, x), normalised so that the volume's range is [0, 1].
    shape  (z, y, x) of the volume.
    tile   LR voxels at a time: the memory is that of the region and of one tile (of whole slices, for a model
           that needs them). Regions of whole tiles waste least.
    dtype  of the network's inner arithmetic; default `fast_dtype`.

    Any way to cut the volume into regions or tiles gives the same values, to 1e-5 of the range in float32,
    and to 2% of the largest detail in bfloat16.
    """
    nz, ny, nx = shape
    box = ((z0, nz if z1 is None else z1), (y0, ny if y1 is None else y1), (x0, nx if x1 is None else x1))
    (z0, z1), (y0, y1), (x0, x1) = box
    out = upsample(lr, factors, shape, z0, z1, y0=y0, y1=y1, x0=x0, x1=x1)
    fs = check_factors(factors)
    if max(fs) == 1:
        out = out.clone()  # it may be the grid itself, of which each tile needs what lies around it
    if model is None or not model.supports(fs):
        return out
    dtype = fast_dtype(lr.device) if dtype is None else dtype
    tile = _longer(tile, -(-z1 // fs[0]) - z0 // fs[0], model.halo(fs))
    spans = [spans_of(a, b, f, t) for (a, b), f, t in zip(box, fs, tile, strict=True)]
    if model.whole_slices:
        spans[1:] = [[(0, n)] for n in lr.shape[1:]]
    with torch.inference_mode(), precision.as_written(lr.device):
        for corner in product(*spans):
            block = block_of(lr, corner, model.halo(fs))
            detail = model(block[None], fs, dtype)[0]  # (z fz, y fy, x fx), from LR voxel a of each axis on
            detail.nan_to_num_(0.0, 0.0, 0.0)  # what float32 does not hold is no detail
            into, take = [], []
            for (a, b), (start, stop), f in zip(corner, box, fs, strict=True):
                first, last = max(a * f, start), min(b * f, stop)
                into.append(slice(first - start, last - start))
                take.append(slice(first - a * f, last - a * f))
            out[tuple(into)] += detail[tuple(take)]
    return out


def _longer(tile: Sequence[int], depth: int, halo: Shape) -> Shape:
    """The tile (z, y, x) for `depth` LR slices: where they are few it is longer along y, of as many voxels.

    Less of it is halo then; and torch takes float32 blocks of up to 640 rows (z times y) by a path that is 2
    to 9 times as slow.
    """
    z, y, x = tile
    if depth < z:
        y = (z + 2 * halo[0]) * (y + 2 * halo[1]) // (depth + 2 * halo[0]) - 2 * halo[1]
    return z, y, x


def most_activations(model: SRModel, lr_shape: Shape, factors: Shape, tile: Sequence[int]) -> int:
    """How many numbers the largest layer makes at a time in `super_resolve`, at most."""
    (nz, ny, nx), (hz, hy, hx) = lr_shape, model.halo(factors)
    depth = min(tile[0], nz) + 2 * hz
    if model.whole_slices:
        return model.activations((depth, ny + 2 * hy, nx + 2 * hx), factors)
    rows = min((tile[0] + 2 * hz) * (tile[1] + 2 * hy), depth * (ny + 2 * hy))  # see `_longer`
    return model.activations((1, rows, min(tile[2], nx) + 2 * hx), factors)


def spans_of(start: int, stop: int, f: int, size: int) -> list[tuple[int, int]]:
    """Tiles of about equal length, at most `size` LR voxels, that cover [start, stop) of one axis."""
    first, last = start // f, -(-stop // f)
    count = -(-(last - first) // size)
    ends = [first + (last - first) * i // count for i in range(count + 1)]
    return list(pairwise(ends))


def block_of(lr: Tensor, box: Sequence[tuple[int, int]], halo: Shape) -> Tensor:
    """A box ((z0, z1), ...) of an LR grid with a halo; beyond the grid its border is repeated.

    A view of the grid, or a copy of no more than the block.
    """
    ends = [(start - h, stop + h) for (start, stop), h in zip(box, halo, strict=True)]
    inside = [(max(start, 0), min(stop, n)) for (start, stop), n in zip(ends, lr.shape, strict=True)]
    block = lr[tuple(slice(*part) for part in inside)]
    for axis, ((start, stop), (first, last)) in enumerate(zip(ends, inside, strict=True)):
        if (start, stop) != (first, last):
            at = torch.arange(start, stop, device=lr.device).clamp_(first, last - 1)
            block = block.index_select(axis, at - first)
    return block
