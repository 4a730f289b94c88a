"""All cores at once: a Python thread for each, in which torch uses that core alone.

torch's own threads wait for each other after every operation. Where operations are small that costs more than
it gains, and on a machine that is busy with something else it is slower by an order of magnitude, for one of
the threads is always waiting for its turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import torch

_cores: ContextVar[int | None] = ContextVar("cores", default=None)
"""How many `map_on_cores` uses, where torch itself is set to use one."""
_inside: list[int] = []
"""How many cores there were before anything was `alone`; and that once more for each that is."""
_lock = threading.Lock()
T = TypeVar("T")
R = TypeVar("R")


def map_on_cores(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of every item, in order, on as many cores as torch is set to use. On the CPU only."""
    before = torch.get_num_threads()
    cores = _cores.get() or before
    if cores == 1:
        return [function(item) for item in items]

    inference = (
        torch.is_inference_mode_enabled()
    )  # of this thread: what it made may be changed in there alone

    def on_one_core(item: T) -> R:
        torch.set_num_threads(1)  # of this thread; MKL's number is one for the whole process
        with torch.inference_mode(inference):
            return function(item)

    try:
        return list(_pool(cores).map(on_one_core, items))
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone() -> Iterator[None]:
    """For many small operations: torch uses one core meanwhile, `map_on_cores` as many as it did before.

    A thread's number is also what new threads begin with: one that begins while others are in here must not
    take that for what it is to go back to.
    """
    with _lock:
        now = torch.get_num_threads()  # asked always: a thread's first answer would undo what was set before
        if not _inside:
            _inside.append(now)
        _inside.append(_inside[0])
        before = _inside[0]
    own = _cores.get()
    token = _cores.set(own or before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _cores.reset(token)
        with _lock:
            _inside.pop()
            if len(_inside) == 1:
                _inside.clear()
            torch.set_num_threads(1 if own else before)


@cache
def _pool(cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores, thread_name_prefix="inrformat")
