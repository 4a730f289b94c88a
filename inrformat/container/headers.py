"""The records of a file: what each holds, its types and its ranges (spec/inrv.md, "The records").

Every record is a frozen dataclass with `pack()` and `unpack(data)`. What cannot be read back is not written:
`pack` checks by the same rules as `unpack`.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from . import records
from .codes import fail
from .fields import NAME, Fields
from .limits import DEFAULT_LIMITS, Limits

VOLUME_CRITICAL = (
    *("HEAD", "SIRN", "SRMD", "SRTU", "LATN", "LATD", "LATM", "LATU"),
    *("LATT", "CTXM", "PRED", "TUNE", "ZONE", "BIDX", "BRIX"),
)
"""Critical sections of a volume that this chapter of the specification knows."""
BUNDLED = ("HEAD", "LATN", "LATT", "meas", "prov")
"""The sections of a volume that are written as a bundle."""
MODEL_CRITICAL = ("MODL", "TENS")
"""Critical sections of a model."""

LARGEST_LEVEL = 65535
LARGEST_ERROR = 32767
MOST_SPLITS = 5
"""How often the lattice of a brick is split along one axis, at the most."""

MOST_HALVINGS = 6
"""How often the pyramid of an LR grid's latents halves an axis, at the most, and how many levels it has."""
LARGEST_STEP = 65535
LARGEST_BIAS = 127
MOST_LANES = 4096

LONGEST_AXIS = 65536
LARGEST_SPACING = 1e6
LARGEST_AFFINE = 1e9
"""mm: so that no arithmetic on a geometry can overflow."""
FACTORS = (1, 2, 4, 8)
BASES = ("siren", "latents")
MODEL_KINDS = ("light", "srdensenet", "context", "latents")
PROMISES = ("ratio", "psnr", "max_error")
VALUES: dict[str, tuple[float, float]] = {
    "u1": (0.0, 255.0),
    "i1": (-128.0, 127.0),
    "u2": (0.0, 65535.0),
    "i2": (-32768.0, 32767.0),
    "f4": (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)),
}
"""The stored types of a volume, and the least and the greatest value of each."""
LICENCE = re.compile(r"[A-Za-z0-9.+:() -]{1,64}")
CONFIG_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Record(ABC):
    """What all records share."""

    SECTION: ClassVar[str]

    @abstractmethod
    def to_record(self) -> dict[str, Any]:
        """The fields as `records.pack` takes them."""

    @classmethod
    @abstractmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> Self:
        """The checked fields of an unpacked record; FormatError or LimitError."""

    def pack(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The section's bytes; FormatError or LimitError when they would not be accepted."""
        data = records.pack(self.to_record())
        self.unpack(data, limits)
        return data

    @classmethod
    def unpack(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Self:
        """The record of a section; FormatError or LimitError."""
        return cls.from_record(records.unpack(data, limits, section=cls.SECTION), limits)


@dataclass(frozen=True)
class ModelReference:
    """Which model a volume needs: told by its hash, never fetched by its name."""

    name: str
    version: int
    sha256: bytes

    def to_record(self) -> dict[str, Any]:
        """The reference as `records.pack` takes it."""
        return {"name": self.name, "version": int(self.version), "sha256": self.sha256}

    def check(self, model: bytes, section: str = "HEAD") -> None:
        """FormatError unless these bytes, of this section, are the model's file."""
        if hashlib.sha256(model).digest() != self.sha256:
            message = f"this is not the model {self.name} {self.version}"
            raise fail("model-hash-mismatch", message, section=section)


@dataclass(frozen=True)
class VolumeHeader(Record):
    """HEAD, the first section of a volume.

    shape       (z, y, x) voxels at full size.
    dtype       the stored type, a key of `VALUES`.
    range       the least and the greatest stored value.
    factors     by how much each axis (z, y, x) is smaller in the grid that the base network describes.
    base        the kind of the base network.
    sr          the super-resolution model that brings the grid back to full size; None: Lanczos.
    spacing     mm between voxels along (z, y, x).
    affine      3x4, row-major: index (z, y, x, 1) -> patient position in mm, LPS.
    slope, intercept   from stored values to real-world units; one entry, or one per slice.
    """

    SECTION = "HEAD"

    shape: tuple[int, int, int]
    dtype: str
    range: tuple[float, float]
    factors: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: tuple[float, ...]
    slope: tuple[float, ...] = (1.0,)
    intercept: tuple[float, ...] = (0.0,)
    base: str = "siren"
    sr: ModelReference | None = None

    @property
    def lr_shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the base network's grid: each axis divided by its factor, rounded up."""
        z, y, x = (-(-n // f) for n, f in zip(self.shape, self.factors, strict=True))
        return z, y, x

    def to_record(self) -> dict[str, Any]:
        """See `Record`."""
        sr = self.sr
        return {
            "shape": [int(n) for n in self.shape],
            "dtype": self.dtype,
            "range": [float(v) for v in self.range],
            "factors": [int(f) for f in self.factors],
            "base": self.base,
            "sr": None if sr is None else sr.to_record(),
            "spacing": [float(v) for v in self.spacing],
            "affine": [float(v) for v in self.affine],
            "slope": [float(v) for v in self.slope],
            "intercept": [float(v) for v in self.intercept],
        }

    @classmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> VolumeHeader:
        """See `Record`."""
        fields = Fields(record, cls.SECTION)
        z, y, x = fields.take_ints("shape", 3, 1, LONGEST_AXIS)
        if z * y * x > limits.max_voxels:
            message = f"{z} x {y} x {x} voxels, at most {limits.max_voxels} are allowed"
            raise fail("too-many-voxels", message, section=cls.SECTION)
        dtype = fields.take_choice("dtype", tuple(VALUES))
        header = cls(
            shape=(z, y, x),
            dtype=dtype,
            range=_value_range(fields, dtype),
            factors=_factors(fields),
            base=fields.take_choice("base", BASES),
            sr=_model_reference(fields, "sr"),
            spacing=_spacing(fields),
            affine=fields.take_floats("affine", 12, low=-LARGEST_AFFINE, high=LARGEST_AFFINE),
            slope=fields.take_floats("slope", 1, z),
            intercept=fields.take_floats("intercept", 1, z),
        )
        fields.done()
        return header


def _value_range(fields: Fields, dtype: str) -> tuple[float, float]:
    low, high = fields.take_floats("range", 2)
    least, greatest = VALUES[dtype]
    whole = dtype == "f4" or (low.is_integer() and high.is_integer())
    if not (least <= low <= high <= greatest and whole):
        raise fields.error("out-of-range", f"range {low} to {high} is not one of values of type {dtype}")
    return low, high


def _factors(fields: Fields) -> tuple[int, int, int]:
    z, y, x = fields.take_ints("factors", 3, min(FACTORS), max(FACTORS))
    if not {z, y, x} <= set(FACTORS):
        raise fields.error("out-of-range", f"factors {z}, {y}, {x} are not all among {FACTORS}")
    return z, y, x


def _spacing(fields: Fields) -> tuple[float, float, float]:
    z, y, x = fields.take_floats("spacing", 3, low=0.0, high=LARGEST_SPACING)
    if 0.0 in (z, y, x):
        raise fields.error("out-of-range", "spacing is zero")
    return z, y, x


def _model_reference(fields: Fields, key: str) -> ModelReference | None:
    record = fields.take(key)
    if record is None:
        return None
    inner = Fields(record, fields.section)
    reference = ModelReference(
        name=inner.take_pattern("name", NAME),
        version=inner.take_int("version", 1, 65535),
        sha256=inner.take_bytes("sha256", 32),
    )
    inner.done()
    return reference


@dataclass(frozen=True)
class LatticeHeader(Record):
    """LATT: how the bricks bring the volume within a bound of the original, or to it.

    error     levels by which a decoded level differs from the original's, at most; 0: none differs.
    values    ascending runs (first, stride, count) of stored values: level k is the k-th. None: `grid`.
    grid      level k is origin + k * pitch; for float volumes.
    order     the axes (0 z, 1 y, 2 x) that a brick's lattice is split along, from coarse to fine.
    bricks    into how many nearly equal parts each axis (z, y, x) is cut.
    model     the context model.
    """

    SECTION = "LATT"

    error: int
    values: tuple[tuple[int, int, int], ...] | None
    grid: tuple[float, float] | None
    greatest: int
    order: tuple[int, ...]
    bricks: tuple[int, int, int]
    model: ModelReference

    @property
    def step(self) -> int:
        """Levels between the values that a residual can take."""
        return 2 * self.error + 1

    def to_record(self) -> dict[str, Any]:
        """See `Record`."""
        return {
            "error": int(self.error),
            "values": None if self.values is None else [[int(n) for n in run] for run in self.values],
            "grid": None if self.grid is None else [float(v) for v in self.grid],
            "greatest": int(self.greatest),
            "order": [int(axis) for axis in self.order],
            "bricks": [int(n) for n in self.bricks],
            "model": self.model.to_record(),
        }

    @classmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> LatticeHeader:
        """See `Record`."""
        fields = Fields(record, cls.SECTION)
        greatest = fields.take_int("greatest", 0, LARGEST_LEVEL)
        error = fields.take_int("error", 0, LARGEST_ERROR)
        values = _runs(fields, greatest)
        grid = fields.take("grid")
        if (values is None) == (grid is None):
            raise fields.error("out-of-range", "levels have values or a grid, one of them")
        if error and values is not None and (len(values) > 1 or values[0][1] != 1):
            raise fields.error("out-of-range", "a bound needs levels that are one apart")
        if grid is not None:
            again = Fields({"grid": grid}, cls.SECTION)
            origin, pitch = again.take_floats("grid", 2)
            if pitch <= 0 or not math.isfinite(origin + greatest * pitch):
                raise fields.error("out-of-range", f"the pitch {pitch} is not positive, or too large")
            grid = (origin, pitch)
        order = tuple(
            fields.int_of("order", axis, 0, 2) for axis in fields.take_list("order", 0, 3 * MOST_SPLITS)
        )
        if max(order.count(axis) for axis in range(3)) > MOST_SPLITS:
            raise fields.error("out-of-range", f"an axis is split more than {MOST_SPLITS} times")
        z, y, x = fields.take_ints("bricks", 3, 1, LONGEST_AXIS)
        model = _model_reference(fields, "model")
        if model is None:
            raise fields.error("bad-type", "the context model is not named")
        fields.done()
        return cls(error, values, grid, greatest, order, (z, y, x), model)

    def check(self, header: VolumeHeader, limits: Limits = DEFAULT_LIMITS) -> None:
        """FormatError unless levels and bricks are of such a volume; LimitError for too large a brick."""
        fields = Fields({}, self.SECTION)
        if (header.dtype == "f4") != (self.grid is not None):
            raise fields.error("out-of-range", "a grid is for float volumes, values are for the others")
        if self.values is not None:
            first, (last, stride, count) = self.values[0][0], self.values[-1]
            if (first, last + stride * (count - 1)) != header.range:
                raise fields.error("out-of-range", "the levels' values do not span the volume's range")
        if any(k > n for k, n in zip(self.bricks, header.shape, strict=True)):
            raise fields.error("out-of-range", "there are more bricks than voxels along an axis")
        largest = math.prod(-(-n // k) for n, k in zip(header.shape, self.bricks, strict=True))
        if largest > limits.max_brick_voxels:
            message = f"a brick of {largest} voxels, at most {limits.max_brick_voxels} are allowed"
            raise fields.error("brick-too-large", message)


@dataclass(frozen=True)
class LatentHeader(Record):
    """LATN: how the latents of section LATD make the LR grid.

    masks     the axes (4 z, 2 y, 1 x) that each level of the pyramid halves, from the finest.
    steps     codes that one unit of a latent stands for: of every band of the levels, from the finest, and
              last of the coarsest level's smooth points.
    bias      1/256 of a step that a latent's magnitude stands for less; of each as `steps`.
    lanes     of the entropy code; 0: there is none.
    model     the latent model.
    """

    SECTION = "LATN"

    masks: tuple[int, ...]
    steps: tuple[int, ...]
    bias: tuple[int, ...]
    lanes: int
    model: ModelReference

    def to_record(self) -> dict[str, Any]:
        """See `Record`."""
        return {
            "masks": [int(mask) for mask in self.masks],
            "steps": [int(step) for step in self.steps],
            "bias": [int(bias) for bias in self.bias],
            "lanes": int(self.lanes),
            "model": self.model.to_record(),
        }

    @classmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> LatentHeader:
        """See `Record`."""
        fields = Fields(record, cls.SECTION)
        masks = tuple(fields.int_of("masks", m, 1, 7) for m in fields.take_list("masks", 0, MOST_HALVINGS))
        bands = sum((1 << mask.bit_count()) - 1 for mask in masks) + 1
        steps = fields.take_ints("steps", bands, 1, LARGEST_STEP)
        bias = fields.take_ints("bias", bands, 0, LARGEST_BIAS)
        lanes = fields.take_int("lanes", 0, MOST_LANES)
        model = _model_reference(fields, "model")
        if model is None:
            raise fields.error("bad-type", "the latent model is not named")
        fields.done()
        return cls(masks, steps, bias, lanes, model)


def _runs(fields: Fields, greatest: int) -> tuple[tuple[int, int, int], ...] | None:
    """The runs of values: ascending, and as many values as there are levels."""
    if (entries := fields.take("values")) is None:
        return None
    runs, least, total = [], -32768, 0
    again = Fields({"values": entries}, fields.section)
    for entry in again.take_list("values", 1, LARGEST_LEVEL + 1):
        first, stride, count = Fields({"run": entry}, fields.section).take_ints("run", 3, -32768, 65536)
        last = first + stride * (count - 1)
        if first < least or stride < 1 or count < 1 or last > LARGEST_LEVEL:
            raise fields.error("out-of-range", "the runs of values do not ascend, or leave 16 bits")
        runs.append((first, stride, count))
        least, total = last + 1, total + count
    if total != greatest + 1:
        raise fields.error("out-of-range", f"{total} values for {greatest + 1} levels")
    return tuple(runs)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a model: little-endian, C order, directly after the previous one in section TENS."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in section TENS."""
        return self.size * int(self.dtype[1])


@dataclass(frozen=True)
class ModelHeader(Record):
    """MODL, the first section of a super-resolution model (.inrm).

    config      the integers that the kind of network is built from.
    licence     SPDX expression.
    trained_on  which data the weights were trained on, in a sentence.
    """

    SECTION = "MODL"

    name: str
    version: int
    kind: str
    config: Mapping[str, int]
    licence: str
    trained_on: str
    tensors: tuple[TensorInfo, ...]

    def to_record(self) -> dict[str, Any]:
        """See `Record`."""
        return {
            "name": self.name,
            "version": int(self.version),
            "kind": self.kind,
            "config": {key: int(value) for key, value in self.config.items()},
            "licence": self.licence,
            "trained_on": self.trained_on,
            "tensors": [[t.name, t.dtype, [int(n) for n in t.shape]] for t in self.tensors],
        }

    @classmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> ModelHeader:
        """See `Record`."""
        fields = Fields(record, cls.SECTION)
        header = cls(
            name=fields.take_pattern("name", NAME),
            version=fields.take_int("version", 1, 65535),
            kind=fields.take_choice("kind", MODEL_KINDS),
            config=_config(fields),
            licence=fields.take_pattern("licence", LICENCE),
            trained_on=fields.take_text("trained_on", 4096),
            tensors=_tensors(fields, limits),
        )
        fields.done()
        return header

    def read_tensors(self, data: bytes) -> dict[str, npt.NDArray[Any]]:
        """The tensors in section TENS, as read-only views; FormatError unless they fill it exactly."""
        if sum(tensor.nbytes for tensor in self.tensors) != len(data):
            message = f"the model's tensors do not add up to the {len(data)} bytes of the section"
            raise fail("tensor-size-mismatch", message, section="TENS")
        arrays, offset = {}, 0
        for tensor in self.tensors:
            values = np.frombuffer(data, f"<{tensor.dtype}", tensor.size, offset).reshape(tensor.shape)
            if not np.isfinite(values).all():
                raise fail("weight-not-finite", "a weight is not finite", section="TENS", offset=offset)
            arrays[tensor.name] = values
            offset += tensor.nbytes
        return arrays


def pack_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[tuple[TensorInfo, ...], bytes]:
    """The entries and the TENS section of these float32 or float16 arrays, in the mapping's order."""
    infos = tuple(TensorInfo(name, f"f{a.dtype.itemsize}", a.shape) for name, a in arrays.items())
    body = b"".join(
        np.ascontiguousarray(a, f"<{info.dtype}").tobytes()
        for info, a in zip(infos, arrays.values(), strict=True)
    )
    return infos, body


def _config(fields: Fields) -> dict[str, int]:
    record = fields.take("config")
    if not isinstance(record, dict):
        raise fields.error("bad-type", "config is not a map")
    if len(record) > 64 or not all(map(CONFIG_KEY.fullmatch, record)):
        raise fields.error("out-of-range", "config has too many keys, or one that is not allowed")
    return {key: fields.int_of("config", value, -(2**31), 2**31 - 1) for key, value in record.items()}


def _tensors(fields: Fields, limits: Limits) -> tuple[TensorInfo, ...]:
    tensors = tuple(_tensor(fields, entry) for entry in fields.take_list("tensors", 1, 4096))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise fields.error("duplicate-tensor", "two tensors have the same name")
    parameters, size = sum(tensor.size for tensor in tensors), sum(tensor.nbytes for tensor in tensors)
    if parameters > limits.max_parameters:
        message = f"{parameters} parameters, at most {limits.max_parameters} are allowed"
        raise fields.error("too-many-parameters", message)
    if size > limits.max_model_bytes:
        raise fields.error("model-too-large", f"{size} bytes, at most {limits.max_model_bytes} are allowed")
    return tensors


def _tensor(fields: Fields, entry: Any) -> TensorInfo:
    if type(entry) is not list or len(entry) != 3:
        raise fields.error("bad-type", "a tensor is not a list of name, dtype and shape")
    inner = Fields(dict(zip(("name", "dtype", "shape"), entry, strict=True)), fields.section)
    name = inner.take_text("name", 128)
    dtype = inner.take_choice("dtype", ("f4", "f2"))
    shape = inner.take_list("shape", 1, 5)
    return TensorInfo(name, dtype, tuple(inner.int_of("shape", n, 1, 2**31 - 1) for n in shape))


RATIO_TOLERANCE = 0.05
"""By which share a file may miss the ratio that it promises, either way."""
PSNR_TOLERANCE, PSNR_SLACK = 0.2, 0.01
"""dB by which a file may exceed the PSNR that it promises, or miss it."""


@dataclass(frozen=True)
class Promise:
    """What the encoder was asked to reach: a `ratio` or `psnr`, about; a `max_error` of at most `value`."""

    kind: str
    value: float


@dataclass(frozen=True)
class Measured(Record):
    """meas: what the encoder measured by decoding the file that it wrote. Errors are in stored units.

    psnr               dB over the whole volume; None: exact, so infinite.
    peak               the peak value in that PSNR (greatest minus least value of the volume).
    psnr_lanczos       the same by Lanczos instead of super-resolution; None: exact or not measured.
    lr_psnr            of the base network on its own grid; None: exact or not measured.
    ssim               mean structural similarity.
    max_error, mean_error   greatest and mean absolute difference.
    worst_slice, worst_slice_psnr   the slice of the lowest PSNR; None: exact.
    """

    SECTION = "meas"

    psnr: float | None
    peak: float
    psnr_lanczos: float | None
    lr_psnr: float | None
    ssim: float
    max_error: float
    mean_error: float
    worst_slice: int
    worst_slice_psnr: float | None
    promise: Promise | None = None

    def to_record(self) -> dict[str, Any]:
        """See `Record`."""
        promise = self.promise
        return {
            "psnr": _optional(self.psnr),
            "peak": float(self.peak),
            "psnr_lanczos": _optional(self.psnr_lanczos),
            "lr_psnr": _optional(self.lr_psnr),
            "ssim": max(-1.0, min(1.0, float(self.ssim))),  # rounding can leave it an ulp outside
            "max_error": float(self.max_error),
            "mean_error": float(self.mean_error),
            "worst_slice": int(self.worst_slice),
            "worst_slice_psnr": _optional(self.worst_slice_psnr),
            "promise": None if promise is None else {"kind": promise.kind, "value": float(promise.value)},
        }

    @classmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> Measured:
        """See `Record`."""
        fields = Fields(record, cls.SECTION)
        return cls(
            psnr=fields.take_optional_float("psnr"),
            peak=fields.take_float("peak", 0.0),
            psnr_lanczos=fields.take_optional_float("psnr_lanczos"),
            lr_psnr=fields.take_optional_float("lr_psnr"),
            ssim=fields.take_float("ssim", -1.0, 1.0),
            max_error=fields.take_float("max_error", 0.0),
            mean_error=fields.take_float("mean_error", 0.0),
            worst_slice=fields.take_int("worst_slice", 0, LONGEST_AXIS - 1),
            worst_slice_psnr=fields.take_optional_float("worst_slice_psnr"),
            promise=_promise(fields),
        )


def _optional(value: float | None) -> float | None:
    return None if value is None or value == math.inf else float(value)


def _promise(fields: Fields) -> Promise | None:
    record = fields.take("promise")
    if record is None:
        return None
    inner = Fields(record, fields.section)
    return Promise(inner.take_choice("kind", PROMISES), inner.take_float("value", 0.0))


@dataclass(frozen=True)
class Provenance(Record):
    """prov: how the file was made.

    omega     the frequency factor of the SIREN's first layer as it was trained.
    steps     steps of the optimiser.
    """

    SECTION = "prov"

    software: str
    preset: str
    seed: int
    device: str
    omega: float
    steps: int

    def to_record(self) -> dict[str, Any]:
        """See `Record`."""
        return {
            "software": self.software,
            "preset": self.preset,
            "seed": int(self.seed),
            "device": self.device,
            "omega": float(self.omega),
            "steps": int(self.steps),
        }

    @classmethod
    def from_record(cls, record: Any, limits: Limits = DEFAULT_LIMITS) -> Provenance:
        """See `Record`."""
        fields = Fields(record, cls.SECTION)
        return cls(
            software=fields.take_text("software", 256),
            preset=fields.take_text("preset", 64),
            seed=fields.take_int("seed", 0, 2**63 - 1),
            device=fields.take_text("device", 256),
            omega=fields.take_float("omega", 0.0),
            steps=fields.take_int("steps", 0, 2**63 - 1),
        )
