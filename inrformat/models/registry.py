"""Models as files (.inrm): saved, loaded, found by their SHA-256. Nothing is ever fetched.

A model file is a container with two sections: MODL, which names the network, its numbers and its tensors,
and TENS, the tensors' raw values. There is no pickle in it. The SHA-256 of the file's bytes is what a
volume refers to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..container import layout
from ..container.codes import fail, show
from ..container.files import write_bytes
from ..container.headers import MODEL_CRITICAL, ModelHeader, ModelReference, pack_tensors
from ..container.limits import DEFAULT_LIMITS, Limits
from ..errors import InputError, LimitError, ModelNotFoundError, UsageError
from .context import ContextModel
from .integers import LARGEST_WEIGHT, IntegerModel
from .latents import LatentModel
from .light import LightSR
from .sr import SRModel
from .srdensenet import SRDenseNet

M = TypeVar("M", bound=IntegerModel)

KINDS: Mapping[str, type[SRModel]] = {kind.kind: kind for kind in (LightSR, SRDenseNet)}
SHIPPED = Path(__file__).parent / "weights"
DEFAULT = "light-4.inrm"
DEFAULT_RESTORER = "restore-1.inrm"
DEFAULT_CONTEXT = "context-2.inrm"
DEFAULT_LATENTS = "latents-4.inrm"
SUFFIX = ".inrm"
FOLDERS = "INRFORMAT_MODELS"
"""The environment variable that names further folders with models, separated as in PATH."""


def create_model(kind: str, config: Mapping[str, int] | None = None) -> SRModel:
    """A new, untrained model, with the default numbers where `config` has none; UsageError."""
    if kind not in KINDS:
        raise UsageError(f"unknown kind of model {show(kind)}; there are {', '.join(KINDS)}")
    config = dict(config or {})
    for key, value in config.items():
        low, high = KINDS[kind].bounds.get(key, (1, 0))
        if not low <= value <= high:
            raise UsageError(f"{show(key)} = {show(value)} is nothing that a model of kind {kind} can have")
    return KINDS[kind](**config)


def pack_model(
    model: SRModel, *, name: str, version: int, licence: str, trained_on: str, half: bool = True
) -> bytes:
    """The bytes of a model file. Weights are stored as float16 unless `half` is false."""
    dtype = np.float16 if half else np.float32
    arrays = {key: value.detach().cpu().numpy().astype(dtype) for key, value in model.state_dict().items()}
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise UsageError("the model has weights that are not finite, or too large for float16")
    tensors, body = pack_tensors(arrays)
    header = ModelHeader(name, version, model.kind, model.config, licence, trained_on, tensors)
    return layout.build([("MODL", header.pack()), ("TENS", body)])


def save_model(
    path: str | os.PathLike[str],
    model: SRModel,
    *,
    name: str,
    version: int = 1,
    licence: str = "LicenseRef-unknown",
    trained_on: str = "not stated",
    half: bool = True,
) -> SRModel:
    """Write a model file, whole or not at all, and return the model as that file holds it."""
    data = pack_model(model, name=name, version=version, licence=licence, trained_on=trained_on, half=half)
    write_bytes(path, data)
    return load_model(data)


def load_model(source: bytes | str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> SRModel:
    """The super-resolution model in a file, given by its bytes or path: on the CPU, in eval mode, float32.

    Every checksum, the config's bounds and the shape of every tensor are checked before the network takes
    memory. Raises FormatError, LimitError, UnsupportedError and InputError (the file cannot be read).
    """
    data, header, arrays = _open(source, limits)
    if header.kind not in KINDS:
        raise fail("model-mismatch", f"a {header.kind} model does no super-resolution", section="MODL")
    model = _empty(header)
    weights = {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()}
    model.load_state_dict(weights, assign=True)
    model.header, model.file = header, data
    return model.eval().requires_grad_(False)


def pack_integers(model: IntegerModel, *, name: str, version: int, licence: str, trained_on: str) -> bytes:
    """The bytes of a context or latent model's file: whole numbers, which float16 holds exactly."""
    tensors, body = pack_tensors({key: value.astype(np.float16) for key, value in model.weights.items()})
    header = ModelHeader(name, version, model.kind, {}, licence, trained_on, tensors)
    return layout.build([("MODL", header.pack()), ("TENS", body)])


def load_context(source: bytes | str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ContextModel:
    """The context model in a file, given by its bytes or path; raises what `load_model` does."""
    return _load_integers(ContextModel, source, limits)


def load_latents(source: bytes | str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> LatentModel:
    """The latent model in a file, given by its bytes or path; raises what `load_model` does."""
    return _load_integers(LatentModel, source, limits)


def _load_integers(kind: type[M], source: bytes | str | os.PathLike[str], limits: Limits) -> M:
    data, header, arrays = _open(source, limits)
    if header.kind != kind.kind:
        raise fail("model-mismatch", f"a {header.kind} model is no {kind.kind} model", section="MODL")
    if header.config:
        raise fail("out-of-range", f"the config of a {kind.kind} model is empty", section="MODL")
    if any((a != np.rint(a)).any() for a in arrays.values()):
        raise fail("out-of-range", "a weight is not a whole number", section="TENS")
    if any(np.abs(a.astype(np.float64)).max() > LARGEST_WEIGHT for a in arrays.values()):
        raise fail("out-of-range", "weights are too large to be exact", section="TENS")
    weights = {name: a.astype(np.int16) for name, a in arrays.items()}
    kind.check(weights)
    model = kind(weights)
    model.header, model.file = header, data
    return model


def find_model(
    reference: ModelReference, search: Sequence[str | os.PathLike[str]] = (), limits: Limits = DEFAULT_LIMITS
) -> SRModel:
    """The super-resolution model with this SHA-256; see `find`."""
    return load_model(find(reference, search, limits), limits)


def find(
    reference: ModelReference, search: Sequence[str | os.PathLike[str]] = (), limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """The model file with this SHA-256: a shipped one, or one in a folder of `search` or $INRFORMAT_MODELS.

    Raises ModelNotFoundError, which says what to look for.
    """
    elsewhere = [*search, *filter(None, os.environ.get(FOLDERS, "").split(os.pathsep))]
    for folder in (SHIPPED, *map(Path, elsewhere)):
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []:
            try:
                data = _read(path, limits)
            except (InputError, LimitError):
                continue  # one file that cannot be read does not hide the others
            if hashlib.sha256(data).digest() == reference.sha256:
                return data
    raise ModelNotFoundError(
        f"the model {reference.name} {reference.version} is not here "
        f"(SHA-256 {reference.sha256.hex()}); put its {SUFFIX} file into a folder named by ${FOLDERS}"
    )


def default_model() -> SRModel:
    """The light super-resolution model that is shipped."""
    return load_model(SHIPPED / DEFAULT)


def default_restorer() -> SRModel:
    """The model that is shipped for factors of (1, 1, 1): it takes away some of what coding did."""
    return load_model(SHIPPED / DEFAULT_RESTORER)


def default_context() -> ContextModel:
    """The context model that is shipped."""
    return load_context(SHIPPED / DEFAULT_CONTEXT)


def default_latents() -> LatentModel:
    """The latent model that is shipped."""
    return load_latents(SHIPPED / DEFAULT_LATENTS)


def _open(
    source: bytes | str | os.PathLike[str], limits: Limits
) -> tuple[bytes, ModelHeader, dict[str, npt.NDArray[np.generic]]]:
    """The bytes, the header and the tensors of a model file, all checked."""
    data = source if isinstance(source, bytes) else _read(Path(source), limits)
    with layout.Reader(data, limits) as reader:
        if reader.kind != "model":
            raise fail("bad-first-section", f"this is a {reader.kind}, not a model")
        reader.check_known(MODEL_CRITICAL)
        reader.check_all()
        header = ModelHeader.unpack(reader.read("MODL"), limits)
        return data, header, header.read_tensors(reader.read("TENS"))


def _empty(header: ModelHeader) -> SRModel:
    """The network that the header describes, without memory for weights; FormatError if they do not fit."""
    kind = KINDS[header.kind]
    if set(header.config) != set(kind.bounds):
        raise fail("out-of-range", f"config of kind {header.kind} has other keys", section="MODL")
    for key, (low, high) in kind.bounds.items():
        if not low <= header.config[key] <= high:
            raise fail(
                "out-of-range", f"config {key} is {header.config[key]}, not {low} to {high}", section="MODL"
            )
    with torch.device("meta"):
        model = kind(**header.config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if expected != {t.name: t.shape for t in header.tensors}:
        raise fail("out-of-range", "the tensors are not those of such a network", section="MODL")
    return model


def _read(path: Path, limits: Limits) -> bytes:
    """A model file's bytes, if they are not too many."""
    try:
        if not path.is_file():  # a folder, nothing, or a pipe that would keep us waiting
            raise InputError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        if path.stat().st_size > limits.max_model_bytes + limits.max_record_bytes + 2**16:
            raise fail("model-too-large", f"{path} is larger than a model may be")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
