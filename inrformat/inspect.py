"""Looking at a file without decoding it all: `info` and `verify`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .container.headers import Measured, Provenance
from .container.limits import DEFAULT_LIMITS, Limits
from .decode import File, Source
from .errors import InputError, PromiseError
from .metrics import Comparison
from .volume import Volume

PSNR_TOLERANCE = 0.02
"""dB by which a decode may differ from the recorded PSNR: super-resolution is float arithmetic."""


@dataclass(frozen=True)
class Info:
    """What a file says of itself. `shape`, `spacing` (mm), `factors` and `lr_shape` are (z, y, x).

    bytes, ratio   of the file, and the stored values' bytes over them.
    sections       type, offset, length and CRC-32C of each section, in file order.
    sr             the super-resolution model that the full level needs; None: Lanczos.
    measured       what the encoder measured after decoding; None if the file does not tell.
    """

    bytes: int
    ratio: float
    version: str
    shape: tuple[int, int, int]
    dtype: str
    range: tuple[float, float]
    spacing: tuple[float, float, float]
    factors: tuple[int, int, int]
    lr_shape: tuple[int, int, int]
    base: str
    width: int
    depth: int
    parameters: int
    sr: dict[str, Any] | None
    measured: Measured | None
    provenance: Provenance | None
    sections: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain types, for `json.dumps`."""
        return asdict(self)


def info(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> Info:
    """What an .inrv file says of itself; nothing is decoded, and nothing of the patient is shown."""
    with File(source, limits=limits) as file:
        return info_of(file)


def info_of(file: File) -> Info:
    """What an open file says of itself."""
    header, layout, network = file.header, file.reader.layout, file.network()
    sr = header.sr
    return Info(
        bytes=layout.file_length,
        ratio=file.raw_bytes / layout.file_length,
        version=f"{layout.major}.{layout.minor}",
        shape=header.shape,
        dtype=header.dtype,
        range=header.range,
        spacing=header.spacing,
        factors=header.factors,
        lr_shape=header.lr_shape,
        base=header.base,
        width=network.width,
        depth=network.depth,
        parameters=network.parameters,
        sr=None
        if sr is None
        else {
            "name": sr.name,
            "version": sr.version,
            "sha256": sr.sha256.hex(),
            "embedded": file.reader.has("SRMD"),
        },
        measured=file.measured,
        provenance=file.provenance,
        sections=tuple(
            {"type": s.type, "offset": s.offset, "length": s.length, "crc32c": f"{s.crc:08x}"}
            for s in layout.sections
        ),
    )


def verify(
    source: Source,
    *,
    original: Volume | None = None,
    device: str = "auto",
    limits: Limits = DEFAULT_LIMITS,
) -> Info:
    """Check every checksum and every record of a file; with the original, its figures and promise too.

    Raises FormatError (which section and offset), PromiseError (a figure that a decode does not reach),
    InputError (the original is of another shape or type), ModelNotFoundError.
    """
    with File(source, device=device, limits=limits) as file:
        file.reader.check_all()
        found = info_of(file)
        file.metadata  # noqa: B018 - reading it checks it
        if file.reader.has("SRMD"):
            file.model  # noqa: B018
        if original is not None:
            _verify_original(file, found, original)
        return found


def _verify_original(file: File, found: Info, original: Volume) -> None:
    """PromiseError unless the decoded volume is as close to the original as the file says."""
    data = original.data
    if data.shape != file.shape or data.dtype != file.dtype:
        raise InputError(
            f"the original is {data.dtype} {data.shape}, the file {file.dtype} {tuple(file.shape)}"
        )
    measured = file.measured
    if measured is None:
        raise PromiseError("the file records no figures that could be checked")
    result = Comparison(len(data), float(data.max()) - float(data.min()), data[0].size)
    for z0, z1, slab in file.slabs():
        result.add(z0, data[z0:z1], slab)
    reached = result.psnr if result.psnr is not None else math.inf
    recorded = measured.psnr if measured.psnr is not None else math.inf
    if reached < recorded - PSNR_TOLERANCE:
        raise PromiseError(f"the file records a PSNR of {recorded:.2f} dB; it decodes to {reached:.2f} dB")
    promise = measured.promise
    if promise is not None and promise.kind == "ratio" and abs(found.ratio / promise.value - 1) > 0.05:
        raise PromiseError(f"the file promises a ratio of {promise.value:g}; it has {found.ratio:.4g}")
    if promise is not None and promise.kind == "psnr" and reached < promise.value - PSNR_TOLERANCE:
        raise PromiseError(f"the file promises {promise.value:g} dB; it decodes to {reached:.2f} dB")
