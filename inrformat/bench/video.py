"""Peers through PyAV: codecs of video, with the slices as frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..volume import Array, Volume
from .codec import Codec, Known, need, pictures

FRAMES_A_SECOND = 25
"""What x265 takes as given: how it spreads its bits depends on it. For SVT-AV1 it makes no difference."""


@dataclass(frozen=True)
class Video(Codec):
    """One encoder and its decoder, by FFmpeg's names. The setting is a CRF.

    Samples are shifted, left or right, so that the volume's peak fills the bit depth. Slices are padded to
    even sides with their own border; chroma, where the pixels have it, is flat.
    """

    name: str
    encoder: str
    decoder: str
    pixels: str
    bits: int
    options: dict[str, str]
    """The encoder's, with `{setting}` and `{threads}` where they go."""
    settings: tuple[float, ...]
    unit: str = "crf"
    needless: bytes = b""
    """What each packet begins with and no file keeps."""

    def check(self) -> None:
        """That PyAV is there, and its FFmpeg has both codecs and the kind of pixels."""
        av = need("av", "PyAV")
        try:
            formats = av.codec.Codec(self.encoder, "w").video_formats or ()
            av.codec.Codec(self.decoder, "r")
        except av.codec.codec.UnknownCodecError as error:
            raise UnsupportedError(f"{self.name} needs a PyAV with {self.encoder}, {self.decoder}") from error
        if self.pixels not in {f.name for f in formats}:
            raise UnsupportedError(f"{self.name} needs a PyAV whose {self.encoder} takes {self.pixels}")

    def encode(self, volume: Volume, setting: float, threads: int) -> list[bytes]:
        """The packets, with every header that a decoder needs."""
        av = need("av", "PyAV")
        os.environ.setdefault("SVT_LOG", "1")  # errors alone
        _, height, width = volume.shape
        context = av.CodecContext.create(self.encoder, "w")
        context.height, context.width = height + height % 2, width + width % 2
        context.pix_fmt = self.pixels
        context.time_base, context.framerate = Fraction(1, FRAMES_A_SECOND), Fraction(FRAMES_A_SECOND)
        numbers = {"setting": f"{setting:g}", "threads": threads}
        context.options = {key: value.format(**numbers) for key, value in self.options.items()}
        with _usual_priority():
            context.open()
        shift, packets = self._shift(Known.of(volume.data)), []
        for i, picture in enumerate(pictures(volume.data)):
            packets += context.encode(self._frame(av, self._samples(picture, shift), i))
        packets += context.encode(None)
        return [bytes(packet).removeprefix(self.needless) for packet in packets]

    def decode(self, parts: list[bytes], known: Known, threads: int) -> Array:
        """The frames on each other."""
        av = need("av", "PyAV")
        context = av.CodecContext.create(self.decoder, "r")
        context.thread_count = threads
        _, height, width = known.shape
        unit = np.float32(2.0 ** -self._shift(known))
        samples = (_luma(frame)[:height, :width] for frame in _frames(av, context, parts))
        return known.stored(picture * unit + known.low for picture in samples)

    def _shift(self, known: Known) -> int:
        """By how many bits samples move to the left."""
        return self.bits - known.bits

    def _samples(self, picture: Array, shift: int) -> Array:
        """A slice in the codec's bit depth, padded."""
        if shift < 0:  # to the nearest of the fewer levels
            picture = np.minimum((picture + (1 << -shift) // 2.0) // (1 << -shift), (1 << self.bits) - 1)
        else:
            picture = picture << shift
        return np.pad(picture.astype(np.uint16), [(0, n % 2) for n in picture.shape], "edge")

    def _frame(self, av: Any, picture: Array, index: int) -> Any:
        height, width = picture.shape
        frame = av.VideoFrame(width, height, self.pixels)
        frame.pts = index
        for i, plane in enumerate(frame.planes):
            rows = np.full((plane.height, plane.line_size // 2), 1 << (self.bits - 1), np.uint16)
            if i == 0:
                rows[:, :width] = picture
            plane.update(rows)
        return frame


@contextmanager
def _usual_priority() -> Iterator[None]:
    """What SVT-AV1 does when it is run by root is taken back: it makes its caller a real-time thread."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, policy, parameters)


def _frames(av: Any, context: Any, parts: list[bytes]) -> Iterator[Any]:
    for part in parts:
        yield from context.decode(av.Packet(part))
    yield from context.decode(None)


def _luma(frame: Any) -> Array:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2).copy()


_ONE_KEY_FRAME = {"g": "9999"}
_X265 = {
    **_ONE_KEY_FRAME,
    "preset": "slow",
    "crf": "{setting}",
    "x265-params": "log-level=none:info=0:pools={threads}",  # without its version and options, 2 kB of text
}
_SVT_AV1 = {**_ONE_KEY_FRAME, "preset": "4", "svtav1-params": "crf={setting}:lp={threads}"}
_DELIMITER = b"\x12\x00"
"""A temporal delimiter of AV1, which containers leave out (AV1 in ISOBMFF and Matroska)."""
_CRFS = (46.0, 42.0, 38.0, 32.0, 26.0, 20.0, 14.0)
_AV1_CRFS = (70.0, 63.0, 58.0, 50.0, 42.0, 34.0, 26.0, 18.0, 6.0)

VIDEOS = (
    Video("x265", "libx265", "hevc", "gray12le", 12, _X265, _CRFS),
    Video("x265-psnr", "libx265", "hevc", "gray12le", 12, {**_X265, "tune": "psnr"}, _CRFS),
    Video("svt-av1", "libsvtav1", "libdav1d", "yuv420p10le", 10, _SVT_AV1, _AV1_CRFS, needless=_DELIMITER),
)
