"""Looking at a file without decoding it all: `info` and `verify`."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from .container import bundle
from .container.headers import (
    PSNR_SLACK,
    RATIO_TOLERANCE,
    LatticeHeader,
    Measured,
    ModelReference,
    Provenance,
)
from .container.limits import DEFAULT_LIMITS, Limits
from .container.originals import read_originals
from .decode import File, Source
from .errors import InputError, ModelNotFoundError, PromiseError
from .metrics import Comparison
from .volume import Volume

DRIFT = 0.02
"""dB by which a decode may differ from the recorded PSNR: super-resolution is float arithmetic."""


@dataclass(frozen=True)
class Info:
    """What a file says of itself. `shape`, `spacing` (mm), `factors` and `lr_shape` are (z, y, x).

    bytes, ratio   of the file, and the stored values' bytes over them.
    sections       type, offset, length and CRC-32C of each section, in file order; what a bundle holds.
    sr             the super-resolution model that the full level needs; None: Lanczos.
    bound          of a lossless or bounded file: whether it is lossless, by how much a value may differ from
                   the original's in stored units (floats: before rounding to float32), and into how many
                   bricks each axis is cut; None: nothing bounds the full level.
    latents        the latent model that an LR grid of latents needs; None: the base is a SIREN, of so many
                   `parameters`, `width` and `depth`.
    context        the context model that the full level of such a file needs; None: it is no such file.
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
    latents: dict[str, Any] | None
    bound: dict[str, Any] | None
    context: dict[str, Any] | None
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
    header, layout, network = (
        file.header,
        file.reader.layout,
        file.network() if file.header.base == "siren" else None,
    )
    sr, lattice = header.sr, file.lattice
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
        width=network.width if network else 0,
        depth=network.depth if network else 0,
        parameters=network.parameters if network else 0,
        sr=None if sr is None else {**_model(sr, file, "SRMD"), "adapted": file.reader.has("SRTU")},
        latents=None
        if file.latent_header is None
        else {**_model(file.latent_header.model, file, "LATM"), "adapted": file.reader.has("LATU")},
        bound=None if lattice is None else _bound(file, lattice),
        context=None
        if lattice is None
        else {**_model(lattice.model, file, "CTXM"), "tuned": file.reader.has("TUNE")},
        measured=file.measured,
        provenance=file.provenance,
        sections=tuple(
            {"type": s.type, "offset": s.offset, "length": s.length, "crc32c": f"{s.crc:08x}"}
            | ({"holds": list(file.reader.bundled)} if s.type == bundle.SECTION else {})
            for s in layout.sections
        ),
    )


def _model(model: ModelReference, file: File, section: str) -> dict[str, Any]:
    """A model that a file names, and whether the file holds it."""
    digest = model.sha256.hex()
    return {
        "name": model.name,
        "version": model.version,
        "sha256": digest,
        "embedded": file.reader.has(section),
    }


def _bound(file: File, lattice: LatticeHeader) -> dict[str, Any]:
    """How far the full level may be from the original."""
    error = float(lattice.error) if lattice.grid is None else (lattice.error + 0.5) * lattice.grid[1]
    return {"lossless": file.lossless, "max_error": error, "bricks": lattice.bricks}


def verify(
    source: Source,
    *,
    original: Any = None,
    device: str = "auto",
    limits: Limits = DEFAULT_LIMITS,
) -> Info:
    """Check every checksum and every record of a file; with the original, its figures and promise too.

    That includes the models that are here, and the changes to them; of a lossless or bounded file how its
    bricks are coded and their index. Of the bricks themselves only the checksums are compared: that their
    codes are whole shows when they are decoded, which is what the comparison with an original does. That is
    whatever `encode` takes.

    Raises FormatError (which section and offset), PromiseError (a figure that a decode does not reach),
    InputError (the original is of another shape or type), ModelNotFoundError.
    """
    with File(source, device=device, limits=limits) as file:
        file.reader.check_all()
        found = info_of(file)
        file.metadata  # noqa: B018 - reading it checks it
        read_originals(file.reader, file.shape[0], file.shape[1] * file.shape[2] * file.dtype.itemsize)
        with suppress(ModelNotFoundError):
            file.model  # noqa: B018
        with suppress(ModelNotFoundError):
            file.evaluator  # noqa: B018
        with suppress(ModelNotFoundError):
            file.bricks  # noqa: B018
        if original is not None:
            volume = original if isinstance(original, Volume) else Volume(original)
            _verify_original(file, found, volume)
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
    span = float(data.min()), float(data.max())
    if not all(map(math.isfinite, span)):
        raise InputError("the original has NaN or infinity; compare with what was encoded in their place")
    if span != file.header.range:
        low, high = file.header.range
        raise PromiseError(
            f"this is another original: its values are {span[0]:g} to {span[1]:g}, not {low:g} to {high:g}"
        )
    result = Comparison(len(data), span, data[0].size)
    for z0, z1, slab in file.slabs():
        result.add(z0, data[z0:z1], slab)
    reached = math.inf if result.max_error == 0 else (result.psnr or -math.inf)
    recorded = measured.psnr if measured.psnr is not None else math.inf
    if reached < recorded - DRIFT:
        raise PromiseError(f"the file records a PSNR of {recorded:.2f} dB; it decodes to {reached:.2f} dB")
    promise = measured.promise
    if promise is None:
        return
    if promise.kind == "ratio" and abs(found.ratio / promise.value - 1) > RATIO_TOLERANCE:
        raise PromiseError(f"the file promises a ratio of {promise.value:g}; it has {found.ratio:.4g}")
    if promise.kind == "max_error" and result.max_error > promise.value:
        raise PromiseError(
            f"the file promises errors of at most {promise.value:g}; it decodes to {result.max_error:g}"
        )
    if promise.kind == "psnr" and reached < promise.value - PSNR_SLACK - DRIFT:
        raise PromiseError(f"the file promises {promise.value:g} dB; it decodes to {reached:.2f} dB")
