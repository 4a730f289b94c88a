"""The format itself, through the public functions."""

from __future__ import annotations

from dataclasses import dataclass

from ..container.headers import ModelReference
from ..decode import decode, resolve_device
from ..encode import encode
from ..inspect import info
from ..models import registry
from ..volume import Array, Volume
from .codec import Codec, Known

RATIOS = (3000.0, 1000.0, 300.0, 100.0)


@dataclass(frozen=True)
class Ours(Codec):
    """One preset at some ratios. A part is the whole file; model_bytes are those of the shipped models."""

    preset: str = "fast"
    settings: tuple[float, ...] = RATIOS
    device: str = "auto"
    unit: str = "ratio"

    @property
    def name(self) -> str:  # type: ignore[override]
        """With the preset."""
        return f"inrformat {self.preset}"

    def check(self) -> None:
        """That the device is there."""
        resolve_device(self.device)

    def encode(self, volume: Volume, setting: float, threads: int) -> list[bytes]:
        """EncodeError where the ratio is out of reach."""
        return [encode(volume, ratio=setting, preset=self.preset, device=self.device, progress=False)]

    def decode(self, parts: list[bytes], known: Known, threads: int) -> Array:
        """At full size."""
        return decode(parts[0], device=self.device).data

    def model_bytes(self, parts: list[bytes]) -> int:
        """Of the models that the file names and does not hold: super-resolution, latents, context."""
        found = info(parts[0])
        models = [m for m in (found.sr, found.latents, found.context) if m is not None and not m["embedded"]]
        references = (ModelReference(m["name"], m["version"], bytes.fromhex(m["sha256"])) for m in models)
        return sum(len(registry.find(reference)) for reference in references)
