"""Settings of torch that a caller may have made, and that must not change what a file decodes to."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def as_written(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, which would take float32 products in fewer bits."""
    return torch.autocast(device.type, enabled=False)


def full() -> bool:
    """Whether products of float32 are products of float32, and not of TF32 or bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by the newer interface, for some libraries alone
        return False
