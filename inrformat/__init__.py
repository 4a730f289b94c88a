"""inrformat: a compressed format for medical volumes. See README.md, and spec/inrv.md for the format."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decode import File, decode
    from .decode import File as open  # noqa: N813
    from .encode import encode
    from .errors import InrError
    from .inspect import Info, info, verify
    from .io import read, write
    from .phantom import head_phantom
    from .volume import Volume

__all__ = [
    "File",
    "Info",
    "InrError",
    "Volume",
    "decode",
    "encode",
    "head_phantom",
    "info",
    "open",
    "read",
    "verify",
    "write",
]

_HOMES = {
    **dict.fromkeys(("File", "decode"), "decode"),
    "encode": "encode",
    "InrError": "errors",
    **dict.fromkeys(("Info", "info", "verify"), "inspect"),
    **dict.fromkeys(("read", "write"), "io"),
    "head_phantom": "phantom",
    "Volume": "volume",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that importing inrformat costs nothing."""
    from importlib import import_module

    if name == "open":
        return import_module(".decode", __name__).File
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("." + _HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Importing the module inrformat.encode must not put it in the place of the function inrformat.encode."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
