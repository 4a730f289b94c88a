"""SRDenseNet-All x4 (Tong, Li, Liu, Gao 2017; section 3.4 of Sheibanifard & Yu 2023), slice by slice.

69 weight layers: a first 3x3 convolution to 128 maps (as many as a block makes); 8 dense blocks of 8 layers
of 16 maps; every level joined (1,152 maps) and brought to 256 by a 1x1 bottleneck; two transposed
convolutions, 3x3, stride 2, 256 maps; a 3x3 reconstruction to one channel. ReLU after all but the last. In
a block, the first layer sees all levels before the block, each further layer what the block's earlier
layers made; the block's output is those 8 x 16 maps.

The paper lets the network make the image; here, as for every model (sr.py), it makes what Lanczos lacks. It
works in plane; the factor along z, if any, is left to Lanczos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..resample import SUPPORT, Shape, lanczos_matrix
from .sr import SRModel, random_kernel


class DenseBlock(nn.Module):
    """`layers` 3x3 convolutions of `growth` maps: (b, inputs, y, x) -> (b, layers * growth, y, x)."""

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        widths = [inputs, *(growth * i for i in range(1, layers))]
        self.convs = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        made = functional.relu(self.convs[0](x))  # (b, growth, y, x)
        for conv in self.convs[1:]:
            made = torch.cat([made, functional.relu(conv(made))], dim=1)
        return made


class SRDenseNet(SRModel):
    """SRDenseNet-All; the defaults are the paper's network, with 2,659,585 parameters."""

    kind = "srdensenet"
    whole_slices = True
    bounds: ClassVar = {"blocks": (1, 32), "layers": (1, 32), "growth": (1, 128), "maps": (1, 1024)}

    def __init__(self, blocks: int = 8, layers: int = 8, growth: int = 16, maps: int = 256) -> None:
        super().__init__()
        self.config = {"blocks": blocks, "layers": layers, "growth": growth, "maps": maps}
        level = layers * growth  # 128
        self.low = nn.Conv2d(1, level, 3, padding=1)
        self.blocks = nn.ModuleList(DenseBlock(level * (i + 1), layers, growth) for i in range(blocks))
        self.bottleneck = nn.Conv2d(level * (blocks + 1), maps, 1)
        self.up1 = nn.ConvTranspose2d(maps, maps, 3, stride=2, padding=1, output_padding=1)
        self.up2 = nn.ConvTranspose2d(maps, maps, 3, stride=2, padding=1, output_padding=1)
        self.reconstruction = nn.Conv2d(maps, 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                random_kernel(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.reconstruction.weight)

    def halo(self, factors: Shape) -> Shape:
        """Lanczos along z needs its support; in plane the model sees all."""
        return (SUPPORT if factors[0] > 1 else 0, 0, 0)

    def supports(self, factors: Sequence[int]) -> bool:
        """(any, 4, 4)."""
        return tuple(factors[1:]) == (4, 4)

    def activations(self, block: Shape, factors: Shape) -> int:
        """One slice's, at its own size or at full size; or the detail of all slices."""
        z, y, x = block
        config = self.config
        joined = config["layers"] * config["growth"] * (config["blocks"] + 1)
        return y * x * max(joined, 16 * config["maps"], 16 * z * factors[0])

    def network(self, x: Tensor) -> Tensor:
        """The 69 layers: (b, 1, y, x) -> (b, 1, 4 y, 4 x)."""
        x = functional.relu(self.low(x))  # (b, 128, y, x)
        for block in self.blocks:
            x = torch.cat([x, block(x)], dim=1)  # 256, 384, ... 1152 maps
        x = functional.relu(self.bottleneck(x))  # (b, 256, y, x)
        x = functional.relu(self.up1(x))  # (b, 256, 2 y, 2 x)
        x = functional.relu(self.up2(x))  # (b, 256, 4 y, 4 x)
        out: Tensor = self.reconstruction(x)
        return out

    def forward(self, lr: Tensor, factors: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
        """(b, z + 2 hz, y, x) -> (b, z fz, 4 y, 4 x). See SRModel."""
        b, z, y, x = lr.shape
        slices = lr.reshape(b * z, 1, y, x)
        with torch.autocast(lr.device.type, dtype, enabled=dtype != torch.float32):
            # one slice after the other, except in training: 256 maps at full size are large
            groups = [slices] if self.training else list(torch.split(slices, 1))
            detail = torch.cat([self.network(group).float() for group in groups]).reshape(b, z, 4 * y, 4 * x)
        fz = factors[0]
        if fz == 1:
            return detail
        up = lanczos_matrix(z * fz, fz, up=True)[SUPPORT * fz : (z - SUPPORT) * fz]
        weights = torch.from_numpy(up.astype("float32")).to(lr.device)  # (z fz without the halo, z)
        return torch.einsum("oz,bzyx->boyx", weights, detail)
