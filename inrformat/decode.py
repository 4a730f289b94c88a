"""From the bytes of a file back to a volume, a region or a preview. Knows nothing of encoding."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .coding import network as base_network
from .container.codes import fail
from .container.headers import (
    VOLUME_CRITICAL,
    LatentHeader,
    LatticeHeader,
    Measured,
    ModelReference,
    Provenance,
    VolumeHeader,
)
from .container.layout import Reader
from .container.limits import DEFAULT_LIMITS, Limits
from .container.metadata import unpack_metadata
from .container.originals import LIST, REST
from .errors import ModelNotFoundError, UnsupportedError, UsageError
from .positions import filled
from .region import TILE, Box, crop
from .volume import DTYPES, Array, Volume

if TYPE_CHECKING:
    import torch

    from .models.sr import SRModel
    from .residual import Bricks

LEVELS = ("preview", "full")
DAMAGED = ("raise", "fill")
LATTICE_SECTIONS = ("LATT", "CTXM", "PRED", "TUNE", "ZONE", "BIDX", "BRIX")
SLAB_VOXELS = 1 << 25
"""Voxels at full size that are decoded at a time."""
HELD_CODES = 1 << 27
"""Codes of an LR grid that are kept while a whole volume is decoded; of a larger grid some are made twice."""

Source = bytes | bytearray | memoryview | str | os.PathLike[str]


def decode(
    source: Source,
    *,
    level: str = "full",
    device: str = "auto",
    tile: Sequence[int] = TILE,
    models: Sequence[str | os.PathLike[str]] = (),
    damaged: str = "raise",
    limits: Limits = DEFAULT_LIMITS,
) -> Volume:
    """The volume in an .inrv file, given by its bytes or its path.

    level   "full": the original's shape. "preview": the LR grid, or a coarser level of its latents where
            it is large; exact on every machine.
    device  "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
    tile    LR voxels (z, y, x) that super-resolution works on at a time: it bounds the memory of a GPU.
    models  folders to look for models in, besides the shipped ones and $INRFORMAT_MODELS.
    damaged what to do about a brick of a lossless or bounded file that is damaged: "raise", or "fill" it with
            the base network's picture and name its box in the volume's metadata["damaged"].

    Raises FormatError, LimitError, UnsupportedError, ModelNotFoundError, InputError (no such file).
    """
    if level not in LEVELS:
        raise UsageError(f"unknown level {level!r}; there are {', '.join(LEVELS)}")
    with File(source, device=device, tile=tile, models=models, damaged=damaged, limits=limits) as file:
        return file.preview() if level == "preview" else file.full()


class File:
    """An open .inrv file; nothing is decoded until it is asked for. `inrformat.open` gives one.

    shape      (z, y, x) at full size; `lr_shape` that of the LR grid.
    header, measured, provenance   the file's records; the latter two may be None.
    damaged    "raise" or "fill": what to do about a damaged brick; see `decode`.
    use_sr     False: bring the LR grid to full size with Lanczos, even when the file names a model.
    model      the model that the file refers to, where the caller has it at hand; `codes`: so the LR grid's.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: str = "auto",
        models: Sequence[str | os.PathLike[str]] = (),
        tile: Sequence[int] = TILE,
        use_sr: bool = True,
        model: SRModel | None = None,
        codes: torch.Tensor | None = None,
        damaged: str = "raise",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if damaged not in DAMAGED:
            raise UsageError(f"damaged= is one of {', '.join(DAMAGED)}, not {damaged!r}")
        if (
            not isinstance(tile, Sequence)
            or len(tile) != 3
            or not all(type(n) is int and n > 0 for n in tile)
        ):
            raise UsageError(f"tile= are three whole numbers of at least 1 (z, y, x), not {tile}")
        self.limits, self.tile, self.use_sr = limits, tuple(tile), use_sr
        self._fill = damaged == "fill"
        self._bricks: Bricks | None = None
        self._lattice: LatticeHeader | None = None
        self._device_name, self._models = device, models
        self._evaluator: Any = None
        self._model: SRModel | None = None
        self._named = model
        self._codes = codes
        self._reader = Reader(source, limits)
        try:
            if self._reader.kind != "volume":
                raise fail("bad-first-section", f"this is a {self._reader.kind}, not a volume")
            self._reader.check_known(VOLUME_CRITICAL)
            self._check_parts()
            self.header = VolumeHeader.unpack(self._reader.read("HEAD"), limits)
            self._check_base()
            for section in ("SRMD", "SRTU") if self.header.sr is None else ():
                if self._reader.has(section):
                    message = "of a model that the header does not name"
                    raise fail("model-hash-mismatch", message, section=section)
            self.measured = self._record("meas", Measured)
            self.provenance = self._record("prov", Provenance)
        except BaseException:
            self._reader.close()
            raise
        self.shape, self.lr_shape = self.header.shape, self.header.lr_shape

    def _check_parts(self) -> None:
        """FormatError where one of the sections that belong together is missing."""
        for names, together in ((LATTICE_SECTIONS, ("LATT", "BIDX", "BRIX")), ((LIST, REST), (LIST, REST))):
            for needed in together if any(self._reader.has(name) for name in names) else ():
                self._reader.info(needed)

    def _check_base(self) -> None:
        """FormatError unless what makes the LR grid is there, and nothing else that would."""
        of_latents = self.header.base == "latents"
        for needed in ("LATN", "LATD") if of_latents else (base_network.SECTION,):
            self._reader.info(needed)
        for other in (base_network.SECTION,) if of_latents else ("LATN", "LATD", "LATM", "LATU"):
            if self._reader.has(other):
                message = f"section {other} is not of the base {self.header.base}"
                raise fail("base-mismatch", message, section=other)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def __getitem__(self, key: Any) -> Array:
        """The voxels of a region, in stored values: f[40:80, :, 100:200]. Slices of step 1, and integers."""
        keys = [*(key if isinstance(key, tuple) else (key,))]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (4 - len(keys))
        keys += [slice(None)] * (3 - len(keys))
        if len(keys) != 3:
            raise UsageError("a region has three axes (z, y, x)")
        box, squeezed = [], []
        for axis, (k, n) in enumerate(zip(keys, self.shape, strict=True)):
            start, stop, single = _span(k, n)
            box.append((start, stop))
            squeezed += [axis] if single else []
        z, y, x = box
        return np.squeeze(self.region((z, y, x)), axis=tuple(squeezed))

    def region(self, box: Box) -> Array:
        """The voxels in ((z0, z1), (y0, y1), (x0, x1)) at full size, in stored values; UsageError."""
        if not all(0 <= a <= b <= n for (a, b), n in zip(box, self.shape, strict=True)):
            raise UsageError(f"the region {box} is not one of the volume of {self.shape}")
        self._prepare()
        size = [b - a for a, b in box]
        out = np.empty(size, self.dtype)
        if out.size:
            z0 = box[0][0]
            for a, b, slab in self._slabs(box):
                out[a - z0 : b - z0] = slab
        return out

    def cut(self, box: Box) -> Volume:
        """A region at full size as a volume of its own: spacing, affine and slices' metadata fit it."""
        data = self.region(box)  # first: it finds what is damaged
        nothing = np.broadcast_to(np.zeros((), self.dtype), self.shape)  # takes no memory
        return replace(crop(self._volume(nothing, box), box), data=data)

    def full(self) -> Volume:
        """The whole volume at full size, decoded slab by slab."""
        self._prepare()
        out = np.empty(self.shape, self.dtype)
        for a, b, slab in self.slabs():
            out[a:b] = slab
        return self._volume(out, self._everywhere)

    @property
    def _everywhere(self) -> Box:
        z, y, x = self.shape
        return (0, z), (0, y), (0, x)

    def slabs(self) -> Iterator[tuple[int, int, Array]]:
        """(z0, z1, voxels) from the first slice to the last: the whole volume in bounded memory."""
        self._prepare()
        if self.bricks is None and self._codes is None and np.prod(self.lr_shape, dtype=object) <= HELD_CODES:
            self._codes = self.evaluator.codes().cpu()
        return self._slabs(self._everywhere)

    def _prepare(self) -> None:
        """Refuse a network or a model that is missing, broken or too large before anything is made of it."""
        with suppress(*[ModelNotFoundError] if self.bounded else []):  # the full level does not need it
            self.evaluator  # noqa: B018
        with suppress(*[ModelNotFoundError] if self.bounded else []):
            self.model  # noqa: B018
        self.bricks  # noqa: B018

    def preview(self) -> Volume:
        """The LR grid in stored values, and its own spacing and affine: the same bytes on every machine.

        Of a large grid of latents a coarser level of their pyramid, which is made sooner.
        """
        coarser = self.evaluator.preview() if self.header.base == "latents" else None
        codes, strides = coarser or (self.codes(), (1, 1, 1))
        factors = np.array(self.header.factors, float)
        steps = factors * strides
        step = np.eye(4)
        step[:3, :3] = np.diag(steps)
        step[:3, 3] = (factors - 1) / 2
        volume = self._volume(self.values_of(codes.cpu().numpy()))
        z, y, x = (float(s * f) for s, f in zip(volume.spacing, steps, strict=True))
        slope, intercept = (
            _of_slices(values, self.lr_shape[0])[:: strides[0]]
            for values in (self.header.slope, self.header.intercept)
        )
        affine = volume.affine @ step
        return replace(volume, spacing=(z, y, x), affine=affine, slope=slope, intercept=intercept)

    def codes(self, box: Box | None = None) -> torch.Tensor:
        """The base network's codes in a box of the LR grid, or in all of it: int32; see coding.network."""
        if box is None:
            z, y, x = self.lr_shape
            box = (0, z), (0, y), (0, x)
        if self._codes is not None:
            return self._codes[tuple(slice(a, b) for a, b in box)]
        codes: torch.Tensor = self.evaluator.codes(box)
        return codes

    def values_of(self, codes: Array) -> Array:
        """Stored values of codes: low + u (high - low) / 2^16 in float64, rounded half to even, in range."""
        low, high = self.header.range
        values = codes.astype(np.float64)
        values *= high - low
        values /= 1 << base_network.CODE_BITS
        values += low
        if self.dtype.kind != "f":
            return np.clip(np.rint(values, out=values), low, high, out=values).astype(self.dtype)
        result: Array = np.clip(values, low, high, out=values).astype(self.dtype)
        result += self.dtype.type(0)  # -0 becomes +0
        return result

    @property
    def evaluator(self) -> Any:
        """What makes the LR grid, checked on first use: models.siren.Evaluator or latents.Evaluator."""
        if self._evaluator is None:
            if (header := self.latent_header) is not None:
                from . import latents

                self._evaluator = latents.Evaluator(
                    self._reader, header, self.lr_shape, self.device, self._models, self.limits
                )
            else:
                from .models.siren import Evaluator

                self._evaluator = Evaluator(self.network(), self.lr_shape, self.device)
        return self._evaluator

    @property
    def latent_header(self) -> LatentHeader | None:
        """How the latents make the LR grid; None: a SIREN does. FormatError."""
        if self.header.base != "latents":
            return None
        return LatentHeader.unpack(self._reader.read(LatentHeader.SECTION), self.limits)

    def network(self) -> base_network.Network:
        """The base network; LimitError when evaluating it takes more than the limits allow."""
        net = base_network.unpack(self._reader.read(base_network.SECTION), self.limits)
        work = net.parameters * int(np.prod(self.lr_shape, dtype=object))
        if work > self.limits.max_work:
            message = f"{work} multiply-adds, at most {self.limits.max_work} are allowed"
            raise fail("too-much-work", message, section=base_network.SECTION)
        return net

    @property
    def model(self) -> SRModel | None:
        """The super-resolution model, embedded or found by its hash; None: Lanczos. ModelNotFoundError."""
        if self.header.sr is None or not self.use_sr:
            return None
        if self._model is None:
            from .models import sr_changes

            model = self._named if self._named is not None else self._find_model(self.header.sr)
            if not model.supports(self.header.factors):
                raise fail("model-mismatch", "the model does not do these factors", section="HEAD")
            self._check_effort(model)
            if self._reader.has(sr_changes.SECTION):
                model = sr_changes.apply(model, self._reader.read(sr_changes.SECTION))
            self._model = model.on(self.device)
        return self._model

    def _find_model(self, reference: ModelReference) -> SRModel:
        """The model as its own file has it."""
        from .models import registry

        if not self._reader.has("SRMD"):
            return registry.find_model(reference, self._models, self.limits)
        data = self._reader.read("SRMD")
        reference.check(data, "SRMD")
        return registry.load_model(data, self.limits)

    @property
    def bounded(self) -> bool:
        """Whether bricks bring the full level within a bound of the original."""
        return self._reader.has("LATT")

    @property
    def lossless(self) -> bool:
        """Whether the full level is the original; FormatError if the file's parts do not say."""
        return self.lattice is not None and self.lattice.error == 0 and self.dtype.kind != "f"

    @property
    def lattice(self) -> LatticeHeader | None:
        """How the bricks are coded, checked on first use; None: there are none. FormatError, LimitError."""
        if self._lattice is None and self.bounded:
            header = LatticeHeader.unpack(self._reader.read(LatticeHeader.SECTION), self.limits)
            header.check(self.header, self.limits)
            self._lattice = header
        return self._lattice

    @property
    def bricks(self) -> Bricks | None:
        """The bricks of a lossless or bounded file, read and checked on first use; None: it has none."""
        if self._bricks is None and self.lattice is not None:
            from .residual import Bricks

            self._bricks = Bricks.open(
                self._reader, self.lattice, self.header, self.dtype, self.device, self._models, self.limits
            )
        return self._bricks

    def _check_effort(self, model: SRModel) -> None:
        """LimitError when the model takes more work or memory than the limits allow."""
        from .models.sr import most_activations

        work = sum(p.numel() for p in model.parameters()) * math.prod(self.lr_shape)
        if work > self.limits.max_work:
            message = f"the model takes {work} multiply-adds, at most {self.limits.max_work} are allowed"
            raise fail("too-much-work", message, section="HEAD")
        numbers = most_activations(model, self.lr_shape, self.header.factors, self.tile)
        if numbers > self.limits.max_activations:
            most = self.limits.max_activations
            message = f"the model makes {numbers} numbers at a time, at most {most} are allowed"
            raise fail("too-much-memory", message, section="HEAD")

    @property
    def device(self) -> torch.device:
        """Where the decoding runs."""
        return resolve_device(self._device_name)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the source said of itself; empty where the file has nothing of it."""
        if not self._reader.has("meta"):
            return {}
        return filled(unpack_metadata(self._reader.read("meta"), self.limits), self.shape[0])

    @property
    def reader(self) -> Reader:
        """The container, for its section table and its checks."""
        return self._reader

    def _record(self, section: str, kind: Any) -> Any:
        return kind.unpack(self._reader.read(section), self.limits) if self._reader.has(section) else None

    def _volume(self, data: Array, box: Box | None = None) -> Volume:
        """`data` with what is said of it; `box`: what of it was decoded at full size, and may be damaged."""
        header, metadata = self.header, self.metadata
        damaged = self._bricks.damaged_in(box) if box and self._bricks is not None else []
        metadata.pop("damaged", None)  # what the file may say of it
        if damaged or not (box and self.lossless):
            metadata["lossy"] = {"ratio": self.raw_bytes / self._reader.layout.file_length}
            if self.measured and self.measured.psnr is not None and not damaged:
                metadata["lossy"]["psnr"] = self.measured.psnr
        if damaged:
            metadata["damaged"] = [[list(ends) for ends in box] for box in damaged]
        return Volume(
            data,
            spacing=header.spacing,
            affine=np.vstack([np.reshape(header.affine, (3, 4)), [0, 0, 0, 1]]),
            slope=_of_slices(header.slope, len(data)),
            intercept=_of_slices(header.intercept, len(data)),
            metadata=metadata,
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored values."""
        return DTYPES[self.header.dtype]

    @property
    def raw_bytes(self) -> int:
        """Bytes of the volume's stored values."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def _slabs(self, box: Box) -> Iterator[tuple[int, int, Array]]:
        (z0, z1), y, x = box
        if self.bricks is not None:
            for a, b in self.bricks.layers((z0, z1), SLAB_VOXELS // ((y[1] - y[0]) * (x[1] - x[0]))):
                fill = self._decode_slab if self._fill else None
                yield a, b, self.bricks.region(((a, b), y, x), fill=fill)
            return
        fz = self.header.factors[0]
        rows, tile = SLAB_VOXELS // ((y[1] - y[0]) * (x[1] - x[0])), self.tile[0] * fz
        step = rows // tile * tile or max(fz, rows // fz * fz)  # whole tiles, at best
        for a in range(z0, z1, step):
            b = min(a + step, z1)
            yield a, b, self._decode_slab(((a, b), y, x))

    def _decode_slab(self, box: Box) -> Array:
        """One slab, in strips along y where its slices are very large."""
        z, (y0, y1), x = box
        line, tile = (z[1] - z[0]) * (x[1] - x[0]), self.tile[1] * self.header.factors[1]
        step = max(1, SLAB_VOXELS // line // tile) * tile
        if y1 - y0 <= 2 * step or (self.model is not None and self.model.whole_slices):
            return self._decode_box(box)
        out = np.empty((z[1] - z[0], y1 - y0, x[1] - x[0]), self.dtype)
        for a in range(y0, y1, step):
            b = min(a + step, y1)
            out[:, a - y0 : b - y0] = self._decode_box((z, (a, b), x))
        return out

    def _decode_box(self, box: Box) -> Array:
        """One box at full size: decoded as a volume of its own, cut out with the margin that it needs."""
        import torch

        from .models.sr import super_resolve

        model, factors = self.model, self.header.factors
        halo = model.halo(factors) if model else (0, 0, 0)
        whole = (False, *([bool(model and model.whole_slices)] * 2))
        cut, inner, shape = [], [], []
        for (a, b), f, n, n_lr, h, all_of_it in zip(
            box, factors, self.shape, self.lr_shape, halo, whole, strict=True
        ):
            margin = n_lr if all_of_it else max(h, 3) + 1
            first, last = max(0, a // f - margin), min(n_lr, -(-b // f) + margin)
            cut.append((first, last))
            inner.append((a - first * f, b - first * f))
            shape.append(min(n, last * f) - first * f)
        z, y, x = cut
        lr = self.codes((z, y, x)).to(self.device, torch.float32) / (1 << base_network.CODE_BITS)
        (z0, z1), (y0, y1), (x0, x1) = inner
        with torch.inference_mode():
            full = super_resolve(
                model, lr, factors, shape, z0, z1, y0=y0, y1=y1, x0=x0, x1=x1, tile=self.tile
            )
            low, high = self.header.range
            if self.dtype.kind == "f":  # the range itself may be beyond float32
                return full.double().mul_(high - low).add_(low).clamp_(low, high).float().cpu().numpy()
            full = full.mul_(high - low).add_(low).clamp_(low, high)
            return full.round_().cpu().numpy().astype(self.dtype)


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. UnsupportedError if it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; there are auto, cpu, cuda, cuda:0, ...") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported; there are auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnsupportedError(f"the device {name} is not available here")
    return device


def _of_slices(values: tuple[float, ...], slices: int) -> tuple[float, ...]:
    """The values of the original's slices, or of those in the middle of `slices` equal parts."""
    if len(values) in (1, slices):
        return values
    middle = (np.arange(slices) + 0.5) * len(values) / slices
    return tuple(values[int(i)] for i in middle)


def _span(key: Any, n: int) -> tuple[int, int, bool]:
    """(start, stop, whether it was one index) of one axis's key; UsageError."""
    if isinstance(key, slice):
        if key.step not in (None, 1):
            raise UsageError("a region is cut with step 1")
        start, stop, _ = key.indices(n)
        return start, max(start, stop), False
    try:
        index = int(key.__index__())
    except AttributeError:
        raise UsageError(f"a region is cut with slices and whole numbers, not {type(key).__name__}") from None
    if not -n <= index < n:
        raise UsageError(f"index {index} is out of an axis of {n}")
    return index % n, index % n + 1, True
