"""One point of a curve: a codec at one setting, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import InrError
from ..metrics import Comparison
from ..volume import Array, Volume
from .codec import Codec, Known

STATUS = Path("/proc/self/status")
MIB_IN_KIB = 1024


@dataclass(frozen=True)
class Point:
    """What was measured, in stored units. After `threads` all is None where `error` says why.

    bytes, ratio     of all that was coded; the stored values' bytes over them.
    model_bytes      of models that come with the library and that decoding takes; not in `bytes`.
    psnr             dB over the volume, None if exact, with the volume's own max - min as `peak`.
    ssim             the mean of the slices'.
    encode_s, decode_s   wall time. Our encoder decodes and measures what it wrote; that is in it.
    peak_mib         the greatest memory of the process, less what it had before encoding; None if unknown.
    """

    volume: str
    shape: tuple[int, int, int]
    raw_bytes: int
    codec: str
    unit: str
    setting: float
    threads: int
    bytes: int | None = None
    model_bytes: int | None = None
    ratio: float | None = None
    psnr: float | None = None
    peak: float | None = None
    ssim: float | None = None
    max_error: float | None = None
    worst_slice: int | None = None
    worst_slice_psnr: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    peak_mib: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """A point, and the decoded middle slice (y, x) for its picture; None with an error."""

    point: Point
    middle: Array | None


def measure(name: str, volume: Volume, codec: Codec, setting: float) -> Result:
    """Encode, decode and compare, in this process, on as many threads as torch is set to use."""
    threads, data = torch.get_num_threads(), volume.data
    started_with = _status("VmRSS")
    began = time.perf_counter()
    parts = codec.encode(volume, setting, threads)
    encoded = time.perf_counter()
    known = Known.of(data)
    decoding = time.perf_counter()
    decoded = codec.decode(parts, known, threads)
    done = time.perf_counter()
    most = _status("VmHWM")
    compared = Comparison(len(data), (known.low, known.high), data[0].size)
    compared.add(0, data, decoded)
    size = sum(map(len, parts))
    point = Point(
        **_what(name, volume, codec, setting),
        bytes=size,
        model_bytes=codec.model_bytes(parts),
        ratio=data.nbytes / size,
        psnr=compared.psnr,
        peak=known.peak,
        ssim=float(compared.ssim.mean()),
        max_error=compared.max_error,
        worst_slice=compared.worst_slice,
        worst_slice_psnr=compared.worst_slice_psnr,
        encode_s=encoded - began,
        decode_s=done - decoding,
        peak_mib=None if most is None or started_with is None else most - started_with,
    )
    return Result(point, decoded[len(data) // 2])


def measure_apart(name: str, volume: Volume, codec: Codec, setting: float) -> Result:
    """The same in a new process, for its memory's sake; whatever fails there becomes the point's error."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, torch.get_num_threads(), name, volume, codec, setting)
    process = context.Process(target=_apart, args=arguments, daemon=True)
    try:
        with _interrupts_later():
            process.start()
        sender.close()
        found: Result | str = receiver.recv()
    except (EOFError, OSError):  # it is gone, perhaps before it was told what to do
        if process.pid is not None:
            process.join()
        found = f"its process ended with exit code {process.exitcode}"
    finally:
        if process.pid is not None:
            process.terminate()
            process.join()
    if isinstance(found, Result):
        return found
    return Result(Point(**_what(name, volume, codec, setting), error=found), None)


def _apart(sender: Connection, threads: int, *what: Any) -> None:
    """In the new process: send the result, or what went wrong."""
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own would stay behind as a semaphore if this process is ended
    try:
        what[2].check()  # loads the codec, so that it is not part of what is measured
        sender.send(measure(*what))
    except InrError as error:
        sender.send(str(error))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C comes after the block, and never to processes that start in it: we end them ourselves."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # which, when it starts, lets interrupts through again
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which new processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


def _what(name: str, volume: Volume, codec: Codec, setting: float) -> dict[str, Any]:
    """The fields of a point that are known before it is measured."""
    return {
        "volume": name,
        "shape": volume.shape,
        "raw_bytes": volume.data.nbytes,
        "codec": codec.name,
        "unit": codec.unit,
        "setting": setting,
        "threads": torch.get_num_threads(),
    }


def _status(key: str) -> float | None:
    """A figure of this process's memory, MiB: VmRSS, now; VmHWM, the greatest so far."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    values = (line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return next((int(value) / MIB_IN_KIB for value in values), None)
