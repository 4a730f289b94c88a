"""Peers through imagecodecs: codecs of pictures, on each slice alone, and of floats, on the volume."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np

from ..volume import Array, Volume
from .codec import Codec, Known, need, pictures

LEAST_DEPTH = 9
"""Bits that samples are said to have at least: with fewer, imagecodecs would want them as uint8."""
LOSSLESS = 0.0
"""The setting of a codec of pictures at which every voxel is exact."""


def _imagecodecs() -> Any:
    return need("imagecodecs", "imagecodecs")


class Slices(Codec):
    """A codec of grey pictures: integers above the volume's least, each slice a stream of its own."""

    def check(self) -> None:
        """That imagecodecs is there."""
        _imagecodecs()

    def encode(self, volume: Volume, setting: float, threads: int) -> list[bytes]:
        """A stream for each slice."""
        known = Known.of(volume.data)
        return [self.encode_slice(picture, setting, known, threads) for picture in pictures(volume.data)]

    def decode(self, parts: list[bytes], known: Known, threads: int) -> Array:
        """The slices on each other."""
        return known.stored(self.decode_slice(part, threads) + known.low for part in parts)

    @abstractmethod
    def encode_slice(self, picture: Array, setting: float, known: Known, threads: int) -> bytes:
        """The stream of one slice, uint16 (y, x)."""

    @abstractmethod
    def decode_slice(self, part: bytes, threads: int) -> Array:
        """The slice of one stream."""


class Jpeg2000(Slices):
    """OpenJPEG. The setting is a PSNR for each slice, with the volume's peak."""

    name, unit = "jpeg2000", "dB"
    settings = (22.0, 26.0, 30.0, 34.0, 38.0, 42.0)

    def encode_slice(self, picture: Array, setting: float, known: Known, threads: int) -> bytes:
        """OpenJPEG's own peak is that of the bit depth."""
        depth = max(LEAST_DEPTH, known.bits)
        level = setting + 20 * math.log10((2**depth - 1) / max(known.peak, 1))
        coded: bytes = _imagecodecs().jpeg2k_encode(
            picture,
            level=0 if setting == LOSSLESS else level,
            codecformat="j2k",
            reversible=setting == LOSSLESS,
            bitspersample=depth,
            numthreads=threads,
        )
        return coded

    def decode_slice(self, part: bytes, threads: int) -> Array:
        """As uint8 or uint16."""
        picture: Array = _imagecodecs().jpeg2k_decode(part, numthreads=threads)
        return picture


class JpegXL(Slices):
    """libjxl with its default effort, 7. The setting is its Butteraugli distance.

    White is sixteen times the volume's range, as far as 16 bits go: among dark greys what libjxl minds is
    nearest to the squared error (with white at the range, a chest CT takes a quarter more bytes).
    """

    name, unit = "jpeg-xl", "distance"
    settings = (25.0, 15.0, 8.0, 4.0, 2.0, 1.0)

    def encode_slice(self, picture: Array, setting: float, known: Known, threads: int) -> bytes:
        """White is what the depth can hold."""
        coded: bytes = _imagecodecs().jpegxl_encode(
            picture,
            distance=setting,
            lossless=setting == LOSSLESS,
            effort=7,
            bitspersample=max(LEAST_DEPTH, min(16, known.bits + 4)),
            numthreads=threads,
        )
        return coded

    def decode_slice(self, part: bytes, threads: int) -> Array:
        """As uint8 or uint16."""
        picture: Array = _imagecodecs().jpegxl_decode(part, numthreads=threads)
        return picture


class Floats(Codec):
    """A codec of float32 volumes. The result is rounded to integers where the original has them."""

    def check(self) -> None:
        """That imagecodecs is there."""
        _imagecodecs()

    def encode(self, volume: Volume, setting: float, threads: int) -> list[bytes]:
        """One stream."""
        values = np.ascontiguousarray(volume.data, np.float32)
        return [self.encode_floats(values, setting, Known.of(volume.data), threads)]

    def decode(self, parts: list[bytes], known: Known, threads: int) -> Array:
        """The one stream's volume."""
        return known.stored(self.decode_floats(parts[0], known, threads))

    @abstractmethod
    def encode_floats(self, values: Array, setting: float, known: Known, threads: int) -> bytes:
        """The stream of a float32 volume (z, y, x)."""

    @abstractmethod
    def decode_floats(self, part: bytes, known: Known, threads: int) -> Array:
        """The volume of a stream."""


class Sperr(Floats):
    """The wavelet coder SPERR, in its chunks of 256 voxels along each axis. The setting is its rate."""

    name, unit = "sperr", "bits a voxel"
    settings = (0.0032, 0.01, 0.03, 0.1, 0.3, 0.5)

    def encode_floats(self, values: Array, setting: float, known: Known, threads: int) -> bytes:
        """At a fixed rate, where it does no worse than with a PSNR to reach, and goes lower."""
        coded: bytes = _imagecodecs().sperr_encode(values, setting, "bpp", numthreads=threads)
        return coded

    def decode_floats(self, part: bytes, known: Known, threads: int) -> Array:
        """As float32."""
        values: Array = _imagecodecs().sperr_decode(part, numthreads=threads)
        return values


class Sz3(Floats):
    """SZ3. The setting is its bound on every voxel's error, as a share of the volume's peak."""

    name, unit = "sz3", "error / peak"
    settings = (0.4, 0.3, 0.2, 0.1, 0.05, 0.02)

    def encode_floats(self, values: Array, setting: float, known: Known, threads: int) -> bytes:
        """With an absolute bound."""
        coded: bytes = _imagecodecs().sz3_encode(values, mode="abs", abs=setting * known.peak)
        return coded

    def decode_floats(self, part: bytes, known: Known, threads: int) -> Array:
        """As float32."""
        values: Array = _imagecodecs().sz3_decode(part, shape=known.shape, dtype=np.dtype(np.float32))
        return values


class Zfp(Floats):
    """ZFP with a tolerance, as a share of the volume's peak; its errors are far smaller."""

    name, unit = "zfp", "tolerance / peak"
    settings = (64.0, 16.0, 4.0, 2.0, 1.0)

    def encode_floats(self, values: Array, setting: float, known: Known, threads: int) -> bytes:
        """In fixed-accuracy mode."""
        level = setting * known.peak
        coded: bytes = _imagecodecs().zfp_encode(values, level=level, mode="accuracy", numthreads=threads)
        return coded

    def decode_floats(self, part: bytes, known: Known, threads: int) -> Array:
        """As float32."""
        values: Array = _imagecodecs().zfp_decode(part, numthreads=threads)
        return values
