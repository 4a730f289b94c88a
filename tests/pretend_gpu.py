"""A device that is a CPU and refuses what a CUDA one would: the path of a GPU, without a GPU.

Its tensors wrap ordinary ones. So that nothing but the rules is tested here, all arithmetic is the CPU's.
What it refuses:

- operands on two devices, but for a scalar, a copy and an index;
- products and convolutions of integers, which CUDA has not, and `_int_mm` of shapes that it does not take;
- arithmetic of unsigned integers of 16 bits and more.

It does not see whether a generator of random numbers is of the right device. It stands on what torch has for
devices that are written in Python (`PrivateUse1`), which is private.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import chain
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NAME = "pretend"
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.addmm_, aten.baddbmm, aten.mv, aten.dot, aten.convolution}
MOVES = COPIES | {aten.empty, aten.zeros, aten.view, aten.slice, aten.select, aten.detach, aten.alias}
"""All that CUDA does to an unsigned integer of 16 bits or more, of what is used here."""
WIDE = {torch.uint16, torch.uint32, torch.uint64}


class OnDevice(torch.Tensor):
    """A tensor of the device; `inner` is of the CPU and holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    def tolist(self) -> list:
        """Numbers, of the CPU as they always are."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Generator(torch.Generator):
    """Of the CPU, whatever the device."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")


class _Mode(TorchDispatchMode):
    """Makes tensors of the device where the CPU's are moved to it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    tensors = _tensors((*args, *kwargs.values()))
    there = any(isinstance(tensor, OnDevice) for tensor in tensors)
    if there:
        _check(function, args, tensors)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == NAME
        kwargs = dict(kwargs, device="cpu")
    elif function.overloadpacket is aten.copy_:
        there = isinstance(args[0], OnDevice)
    out = function(*map(_inner, args), **{name: _inner(value) for name, value in kwargs.items()})
    if not there:
        return out
    known = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, OnDevice)}
    return tree_map(lambda leaf: _outer(leaf, known), out)


def _tensors(values) -> list[torch.Tensor]:
    """All of an operation's tensors, which are its arguments, or in lists that are."""
    lists = (value for value in values if isinstance(value, list | tuple))
    return [v for v in (*values, *chain.from_iterable(lists)) if isinstance(v, torch.Tensor)]


def _inner(value):
    """The operand as one of the CPU."""
    if isinstance(value, list | tuple):
        return type(value)(map(_inner, value))
    return value.inner if isinstance(value, OnDevice) else value


def _outer(leaf, known):
    """A result as one of the device; the very tensor where an operation gave back its operand."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return known[id(leaf)] if id(leaf) in known else OnDevice(leaf)


def _check(function, args, tensors) -> None:
    packet = function.overloadpacket
    if packet in INDEXED:
        tensors = [args[i] for i in (0, 2) if i < len(args)]  # what is indexed, and what is put there
        if not isinstance(tensors[0], OnDevice):
            raise RuntimeError(f"{function}: an index on the device into a tensor of the CPU")
    if packet not in COPIES and any(t.dim() and not isinstance(t, OnDevice) for t in tensors):
        raise RuntimeError(f"{function}: tensors on two devices")
    whole = [t for t in tensors if not t.is_floating_point() and not t.is_complex()]
    if packet in PRODUCTS and whole:
        raise RuntimeError(f"{function}: not implemented for integers")
    if packet not in MOVES and any(t.dtype in WIDE for t in tensors):
        raise RuntimeError(f"{function}: not implemented for wide unsigned integers")
    if packet is aten._int_mm:
        (rows, inner), columns = args[0].shape, args[1].shape[1]
        if rows <= 16 or inner % 8 or columns % 8:
            raise RuntimeError(f"_int_mm of {rows} x {inner} x {columns}")


@cache
def _register() -> None:
    """Tell torch of the device: once in a process."""
    from torch.utils import backend_registration as registration

    class Module(registration._DummyBackendModule):
        def get_amp_supported_dtype(self):
            return [torch.float16, torch.bfloat16]

    registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module())


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """The device, as long as the context lasts."""
    _register()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with (
            _Mode(),
            patch.object(torch, "inference_mode", _no_grad),
            patch.object(torch, "Generator", _Generator),
        ):
            yield torch.device(NAME, 0)
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def _no_grad(mode: bool = True):
    """In the place of inference mode, in which there can be no views of such tensors."""
    return torch.no_grad() if mode else nullcontext()
