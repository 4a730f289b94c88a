"""All cores at once: a Python thread for each, in which torch uses that core alone.

torch's own threads wait for each other after every operation. Where operations are small that costs more than
it gains, and on a machine that is busy with something else it is slower by an order of magnitude, for one of
the threads is always waiting for its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import torch

_cores: ContextVar[int | None] = ContextVar("cores", default=None)
"""How many `map_on_cores` uses, where torch itself is set to use one."""
T = TypeVar("T")
R = TypeVar("R")


def map_on_cores(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of every item, in order, on as many cores as torch is set to use. On the CPU only."""
    before = torch.get_num_threads()
    cores = _cores.get() or before
    if cores == 1:
        return [function(item) for item in items]

    def alone(item: T) -> R:
        torch.set_num_threads(1)  # of this thread; MKL's number is one for the whole process
        return function(item)

    try:
        return list(_pool(cores).map(alone, items))
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone() -> Iterator[None]:
    """For many small operations: torch uses one core meanwhile, `map_on_cores` as many as it did before."""
    before = torch.get_num_threads()
    token = _cores.set(_cores.get() or before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _cores.reset(token)


@cache
def _pool(cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores, thread_name_prefix="inrformat")
