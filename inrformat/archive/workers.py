"""Work on many items by a `concurrent.futures.Executor`: this process, a pool, or a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InrError, UnsupportedError, UsageError
from . import pixels

T = TypeVar("T")
R = TypeVar("R")
ATTEMPTS = 2
"""How often an item is tried whose worker dies; the second time alone, to know which one it was."""


@dataclass(frozen=True)
class Workers:
    """Where the work is done.

    count   processes; None: one for each core; 1: this process.
    dask    the address of a Dask scheduler, instead of processes.
    device  as for `encode`: with "cuda" a Dask worker needs the resource GPU=1, and holds it meanwhile.
    """

    count: int | None = None
    dask: str | None = None
    device: str = "auto"

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Exception]]:
        """Each item with what `function` makes of it, or its error, as they are done.

        A worker that dies takes down a pool of processes: it is made anew, and what was under way is tried
        again.
        """
        waiting = deque((item, 1) for item in items)
        while waiting:
            with self._executor() as (executor, room):
                running: dict[Future[R], tuple[T, int]] = {}
                while waiting or running:
                    try:
                        while waiting and len(running) < _room(room, [*running.values(), waiting[0]]):
                            future = executor.submit(function, waiting[0][0])
                            running[future] = waiting.popleft()
                    except BrokenExecutor:
                        if not running:
                            break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        item, attempt = running.pop(future)
                        error = future.exception()
                        if isinstance(error, BrokenExecutor) and attempt < ATTEMPTS:
                            waiting.append((item, attempt + 1))
                        elif error is None:
                            yield item, future.result()
                        elif isinstance(error, Exception):
                            yield item, error
                        else:
                            raise error

    @contextlib.contextmanager
    def _executor(self) -> Iterator[tuple[Executor, int]]:
        """An executor, and how many items it is given at a time."""
        if self.dask is not None:
            with _dask_client(self.dask) as client:
                resources = {"resources": {"GPU": 1}} if self.device.startswith("cuda") else {}
                yield client.get_executor(**resources), 2 * max(1, sum(client.ncores().values()))
            return
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = cores if self.count is None else self.count
        if count < 1:
            raise UsageError("workers= is 1 or more")
        if count == 1:
            yield _Here(), 1
            return
        context = multiprocessing.get_context("spawn")
        setup = (max(1, cores // count), context.Lock())
        pool = _Pool(count, context, initializer=_begin, initargs=setup)
        try:
            yield pool, count + 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _room(room: int, items: list[tuple[Any, int]]) -> int:
    """How many of these items, with the number of their attempt, may be under way at a time."""
    return 1 if any(attempt > 1 for _, attempt in items) else room


class _Here(Executor):
    """Does the work when it is submitted."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Pool(ProcessPoolExecutor):
    """Processes that Ctrl-C interrupts only in their work, which then cleans up; the parent tells of it."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        return super().submit(_interruptible, fn, *args, **kwargs)


def _interruptible(function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """In a worker process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function(*args, **kwargs)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin(threads: int, gpu: Any) -> None:
    """A new worker process: its share of the cores, one GPU for all, and no life after its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        pixels.gpu = gpu


def _dask_client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise UnsupportedError("a Dask cluster needs pip install inrformat[dask]") from None
    connect: Any = Client
    try:
        return connect(address, timeout=20)
    except (OSError, ValueError) as error:
        raise UnsupportedError(f"no Dask scheduler answers ({type(error).__name__})") from None


def reason_of(error: Exception) -> str:
    """What may be said of an error: nothing that quotes a file's name or content."""
    if isinstance(error, InrError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
