"""The latents of a file: they make the LR grid (spec, "Latents")."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .coding import latent_code, network
from .coding.latents import Pyramid
from .container.codes import fail
from .container.headers import LatentHeader
from .container.layout import Reader
from .container.limits import Limits
from .models import latent_changes, registry
from .models.latents import LatentModel
from .region import Box

if TYPE_CHECKING:
    import torch

    from .fit.latents import Latents

EMBEDDED = "LATM"
"""The section of a latent model that the file brings along."""


def write(
    latents: Latents, model: LatentModel, changes: bytes = b""
) -> tuple[list[tuple[str, bytes]], torch.Tensor]:
    """The sections that hold latents, and the codes (z, y, x) that they decode to.

    changes   the section LATU, if the model is to be changed.
    """
    pyramid, sections = latents.pyramid, []
    if changes:
        model = latent_changes.apply(model, changes)
        sections.append((latent_changes.SECTION, changes))
    data, lanes, grid = latent_code.encode(pyramid, latents.smooth, latents.bands, model, latents.wanted)
    header = LatentHeader(pyramid.masks, pyramid.steps, pyramid.bias, lanes, model.reference)
    return [
        (LatentHeader.SECTION, header.pack()),
        *sections,
        (latent_code.SECTION, data),
    ], _clamped(grid)


class Evaluator:
    """Makes the codes of an LR grid out of the latents of an open file: all of them, when first asked."""

    def __init__(
        self,
        reader: Reader,
        header: LatentHeader,
        lr_shape: tuple[int, int, int],
        device: torch.device,
        models: Sequence[str | os.PathLike[str]],
        limits: Limits,
    ) -> None:
        voxels = int(np.prod(lr_shape, dtype=object))
        if voxels > limits.max_latents:
            message = f"an LR grid of {voxels} latents, at most {limits.max_latents} are allowed"
            raise fail("too-many-latents", message, section=header.SECTION)
        if reader.has(EMBEDDED):
            data = reader.read(EMBEDDED)
            header.model.check(data, EMBEDDED)
        else:
            data = registry.find(header.model, models, limits)
        self.model = registry.load_latents(data, limits)
        if reader.has(latent_changes.SECTION):
            self.model = latent_changes.apply(self.model, reader.read(latent_changes.SECTION))
        self.model = self.model.to(device)
        work = self.model.work * voxels
        if work > limits.max_work:
            message = f"the latents take {work} multiply-adds, at most {limits.max_work} are allowed"
            raise fail("too-much-work", message, section=header.SECTION)
        self.pyramid = Pyramid(lr_shape, header.masks, header.steps, header.bias)
        self.lanes, self.device = header.lanes, device
        self._reader = reader
        self._codes: torch.Tensor | None = None

    def preview(self) -> tuple[torch.Tensor, tuple[int, int, int]] | None:
        """The codes of the preview, int32, and its points' strides. None: it is the LR grid. FormatError."""
        finest = self.pyramid.preview
        return (self._decode(finest), self.pyramid.strides_of_levels[finest]) if finest else None

    def codes(self, box: Box | None = None) -> torch.Tensor:
        """The codes in a box of the LR grid, or in all of it: int32; see coding.network. FormatError."""
        if self._codes is None:
            self._codes = self._decode(0)
        return self._codes if box is None else self._codes[tuple(slice(a, b) for a, b in box)]

    def _decode(self, finest: int) -> torch.Tensor:
        """The codes of all points of a level."""
        data = self._reader.read(latent_code.SECTION)
        return _clamped(latent_code.decode(data, self.pyramid, self.lanes, self.model, self.device, finest))


def _clamped(grid: torch.Tensor) -> torch.Tensor:
    return grid.clamp_(network.LEAST_CODE, network.GREATEST_CODE)
