"""Bytes <-> checked sections and records. Knows no network and imports no torch."""

from .codes import CODES, fail, show
from .files import atomic_write, write_bytes
from .headers import (
    MODEL_CRITICAL,
    VOLUME_CRITICAL,
    Measured,
    ModelHeader,
    ModelReference,
    Promise,
    Provenance,
    TensorInfo,
    VolumeHeader,
    pack_tensors,
)
from .layout import Layout, Reader, SectionInfo, build
from .limits import DEFAULT_LIMITS, Limits
from .metadata import pack_metadata, unpack_metadata

__all__ = [
    "CODES",
    "DEFAULT_LIMITS",
    "MODEL_CRITICAL",
    "VOLUME_CRITICAL",
    "Layout",
    "Limits",
    "Measured",
    "ModelHeader",
    "ModelReference",
    "Promise",
    "Provenance",
    "Reader",
    "SectionInfo",
    "TensorInfo",
    "VolumeHeader",
    "atomic_write",
    "build",
    "fail",
    "pack_metadata",
    "pack_tensors",
    "show",
    "unpack_metadata",
    "write_bytes",
]
