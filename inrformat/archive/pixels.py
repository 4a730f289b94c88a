"""The one door to the codec: a volume into the bytes of a file, and back."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..volume import Volume

gpu: AbstractContextManager[Any] = nullcontext()
"""What a worker holds while it encodes or decodes: a lock where several share a GPU."""


@dataclass(frozen=True)
class Quality:
    """What is asked of a volume: at most one of ratio, psnr and max_error; lossless with none."""

    ratio: float | None = None
    psnr: float | None = None
    max_error: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        asked = [v for v in (self.ratio, self.psnr, self.max_error) if v is not None]
        if len(asked) > 1 or not all(math.isfinite(v) and v > 0 for v in asked):
            raise UsageError("ratio=, psnr= and max_error= are positive numbers, and exclude each other")

    @property
    def lossless(self) -> bool:
        """Whether every file must come back byte for byte."""
        return self.ratio is None and self.psnr is None and self.max_error is None

    def __str__(self) -> str:
        """What decides the bytes of an object, for the manifest."""
        asked = {"ratio": self.ratio, "psnr": self.psnr, "max_error": self.max_error}
        return " ".join(f"{k}={v:g}" for k, v in asked.items() if v is not None) or "lossless"


def encode_volume(volume: Volume, quality: Quality) -> bytes:
    """The .inrv file of a volume; EncodeError, InputError, UnsupportedError."""
    from ..encode import encode

    with gpu:
        return encode(
            volume,
            lossless=quality.lossless,
            ratio=quality.ratio,
            psnr=quality.psnr,
            max_error=quality.max_error,
            device=quality.device,
            progress=False,
        )


def decode_volume(source: Path | bytes, use_sr: bool = False) -> Volume:
    """The volume; a lossless one is exact. `use_sr`: by the super-resolution model that the file names."""
    from ..decode import File

    with gpu, File(source, use_sr=use_sr) as file:
        return file.full()
