"""What is compared: a codec is a pair of functions, with the settings that make the points of its curve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import InputError, UnsupportedError
from ..volume import Array, Volume


@dataclass(frozen=True)
class Known:
    """What every decoder is told beside the coded bytes; it is not counted, some twenty bytes."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    low: float
    high: float

    @classmethod
    def of(cls, data: Array) -> Known:
        """Of the original, (z, y, x)."""
        z, y, x = data.shape
        return cls((z, y, x), data.dtype, float(data.min()), float(data.max()))

    @property
    def peak(self) -> float:
        """The volume's own max - min."""
        return self.high - self.low

    @property
    def bits(self) -> int:
        """Of the integers from 0 to the peak."""
        return max(1, int(self.peak).bit_length())

    def stored(self, slices: Iterable[Array]) -> Array:
        """Decoded slices as a volume of the original's kind, within its range; ValueError if one is gone."""
        volume: Array = np.empty(self.shape, self.dtype)
        for target, values in zip(volume, slices, strict=True):
            within = np.clip(values, self.low, self.high)
            target[:] = within if self.dtype.kind == "f" else np.rint(within)
        return volume


class Codec(ABC):
    """One codec, ours or a peer. Instances travel to other processes."""

    name: str
    unit: str
    """What a setting counts: dB, crf, ..."""
    settings: tuple[float, ...]
    """From few bytes to many."""

    @abstractmethod
    def check(self) -> None:
        """UnsupportedError if something that it needs is absent."""

    @abstractmethod
    def encode(self, volume: Volume, setting: float, threads: int) -> list[bytes]:
        """The coded parts: slices, packets, or one whole. InputError where it cannot code such values."""

    @abstractmethod
    def decode(self, parts: list[bytes], known: Known, threads: int) -> Array:
        """The volume again: (z, y, x), of the original's dtype."""

    def model_bytes(self, parts: list[bytes]) -> int:
        """Bytes of the models that are not in the parts, and that decoding takes."""
        return 0


def need(module: str, package: str) -> Any:
    """A module of the extra `bench`; UnsupportedError."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UnsupportedError(f"this needs {package}: pip install inrformat[bench]") from error


def pictures(data: Array) -> Iterator[Array]:
    """Each slice's values above the volume's least, uint16 (y, x); InputError if they are no integers."""
    if data.dtype.kind == "f":
        raise InputError("it codes integers alone")
    low = int(data.min())
    return ((picture.astype(np.int32) - low).astype(np.uint16) for picture in data)
