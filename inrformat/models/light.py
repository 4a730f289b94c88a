"""LightSR: a 3-D super-resolution network that two CPU cores can run, for any mix of factors 1, 2 and 4.

It has no biases, its activation is positively homogeneous and its first kernels sum to zero. So it is
equivariant, detail(s * lr + o) = s * detail(lr) for s > 0, whatever the modality's units and window: it
cannot learn what air or bone is called, only what edges look like. All convolutions run on the LR grid; the
last step writes one value per sub-voxel position (a sub-voxel shuffle, as in Shi et al. 2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..resample import Shape
from .sr import SRModel, random_kernel

FACTORS = (1, 2, 4)
POSITIONS = {1: slice(0, 1), 2: slice(1, 3), 4: slice(3, 7)}
"""Where the head keeps the sub-voxel positions of a factor, along each axis of its table."""


class LightSR(SRModel):
    """`layers` residual 3x3x3 convolutions of `channels` between a first convolution and a 1x1x1 head."""

    kind = "light"
    bounds: ClassVar = {"channels": (1, 256), "layers": (1, 32)}

    def __init__(self, channels: int = 32, layers: int = 4) -> None:
        super().__init__()
        self.config = {"channels": channels, "layers": layers}
        self.first = nn.Conv3d(1, channels, 3, bias=False)
        self.convs = nn.ModuleList(nn.Conv3d(channels, channels, 3, bias=False) for _ in range(layers))
        # what a factor changes in the trunk: a gain per layer and channel, one term per axis
        self.gains = nn.Parameter(torch.zeros(layers, 3, len(FACTORS), channels))
        # what it changes in the head: a row per sub-voxel position, for every mix of factors at once
        self.head = nn.Parameter(torch.zeros(7, 7, 7, channels))
        for weight in self.convs.parameters():
            random_kernel(weight)
            weight.data *= layers**-0.5

    def halo(self, factors: Shape) -> Shape:
        """One LR voxel per 3x3x3 convolution."""
        h = self.config["layers"] + 1
        return h, h, h

    def supports(self, factors: Sequence[int]) -> bool:
        """Any mix of 1, 2 and 4; at (1, 1, 1) it takes away what coding did."""
        return all(f in FACTORS for f in factors)

    def activations(self, block: Shape, factors: Shape) -> int:
        """The channels, or the sub-voxels where they are more."""
        return math.prod(block) * max(self.config["channels"], math.prod(factors))

    def forward(self, lr: Tensor, factors: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        """(b, z + 2h, y + 2h, x + 2h) -> (b, z fz, y fy, x fx), h = layers + 1. See SRModel."""
        fz, fy, fx = factors
        kernel = self.first.weight - self.first.weight.mean(dim=(2, 3, 4), keepdim=True)
        h = _first(lr, kernel).to(dtype)  # always float32: differences of large numbers
        gains = 1 + torch.stack([self.gains[:, a, FACTORS.index(f)] for a, f in enumerate(factors)]).sum(0)
        for weight, gain in zip(self.convs.parameters(), gains, strict=True):  # gains: (layers, c)
            scaled = (weight * gain[:, None, None, None, None]).to(
                dtype, memory_format=torch.channels_last_3d
            )
            h = functional.conv3d(functional.leaky_relu(h, 0.1), scaled).add_(h[:, :, 1:-1, 1:-1, 1:-1])
        head = self.head[POSITIONS[fz], POSITIONS[fy], POSITIONS[fx]].flatten(0, 2)  # (fz fy fx, c)
        out = functional.linear(h.permute(0, 2, 3, 4, 1), head.to(dtype))  # (b, z, y, x, fz fy fx)
        b, z, y, x, _ = out.shape
        out = out.view(b, z, y, x, fz, fy, fx).permute(0, 1, 4, 2, 5, 3, 6)
        return out.float().reshape(b, z * fz, y * fy, x * fx)


def _first(lr: Tensor, kernel: Tensor) -> Tensor:
    """(b, z, y, x), (c, 1, 3, 3, 3) -> (b, c, z - 2, y - 2, x - 2), channels last.

    By planes, whose neighbours along z are channels: in 3-D one channel takes three times as long.
    """
    b, z, y, x = lr.shape
    planes = lr.unfold(1, 3, 1).movedim(-1, 2).reshape(-1, 3, y, x)
    h = functional.conv2d(
        planes.contiguous(memory_format=torch.channels_last), kernel[:, 0]
    )  # (b z, c, y, x)
    return h.permute(0, 2, 3, 1).reshape(b, z - 2, y - 2, x - 2, -1).permute(0, 4, 1, 2, 3)
