"""Settings of torch that a caller may have made, and that must not change what is written or decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def as_written(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, which would take float32 products in fewer bits."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def as_fitted(device: torch.device) -> Iterator[None]:
    """A context in which gradients can be taken, as by default, and without autocast."""
    with torch.inference_mode(False), torch.enable_grad(), as_written(device):
        yield


def full() -> bool:
    """Whether products of float32 are products of float32, and not of TF32 or bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by the newer interface, for some libraries alone
        return False
