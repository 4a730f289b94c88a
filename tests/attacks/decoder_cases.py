"""The attacks on the whole decoder: files whose every checksum is right, each with the one error it must give.

`README.md` lists them by number; `test_decoder_attacks.py` runs them.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from container_cases import Attack

import inrformat
from inrformat.container import Limits, ModelReference, build, pack_tensors, records
from inrformat.models import registry

sys.path.insert(0, str(Path(__file__).parents[2] / "spec"))
import make_vectors as vectors

ATTACKS: list[Attack] = []
NETWORK = vectors.random_network(1, 8, 2)
SIREN = vectors.base_network(NETWORK)
LIGHT = vectors.small_model("light", half=True, channels=2, layers=1)
SMALL = Limits(max_work=2**32, max_activations=2**24)


def attack(name: str, code: str, what: str, run: Callable[[], object]) -> None:
    ATTACKS.append(Attack(name, what, code, run))


def file(name: str, code: str, what: str, data: bytes, limits: Limits = SMALL, level: str = "full") -> None:
    """An attack that is a file, decoded."""
    attack(name, code, what, lambda: inrformat.decode(data, level=level, device="cpu", limits=limits))


def volume(
    shape: tuple[int, int, int], siren: bytes = SIREN, *more: tuple[str, bytes], **header: Any
) -> bytes:
    head = vectors.header(shape, **header)
    return build([("HEAD", head.pack()), ("SIRN", siren), *more])


def network(width: int, depth: int, payload: bytes, level: int = 0, layers: int | None = None) -> bytes:
    """Section SIRN that announces a network without having it."""
    layer = {"scale": 1, "shift": 0, "bias_shift": 0, "weights": [0, level], "biases": [0, level]}
    count = depth + 1 if layers is None else layers
    head = records.pack({"width": width, "depth": depth, "layers": [layer] * count})
    return struct.pack("<I", len(head)) + head + payload


def embedded(model: bytes, shape: tuple[int, int, int], factors: tuple[int, int, int]) -> bytes:
    reference = ModelReference("attack", 1, hashlib.sha256(model).digest())
    return volume(shape, SIREN, ("SRMD", model), factors=factors, sr=reference)


# --- work and memory of the base network --------------------------------------------------------------------
LARGE = (2048, 2048, 2048)
file(
    "work-preview",
    "too-much-work",
    "2^33 points to evaluate in a file of 600 bytes (preview)",
    volume(LARGE),
    level="preview",
)
file(
    "work-full", "too-much-work", "2^33 points to evaluate in a file of 600 bytes (full level)", volume(LARGE)
)
file(
    "work-verify",
    "too-much-work",
    "the same, a factor smaller along each axis",
    volume((32768, 512, 512), factors=(1, 1, 1)),
)
attack(
    "work-info",
    "too-much-work",
    "the same, asked for by info",
    lambda: inrformat.info(volume(LARGE), limits=SMALL),
)
file(
    "network-hollow",
    "rans-truncated",
    "15 million parameters announced, their code is the lanes' states alone",
    volume((1, 1, 1), network(1024, 15, b"\0\0\1\0" * 64)),
)
file(
    "network-starved",
    "rans-truncated",
    "15 million parameters announced, a hundred words there",
    volume((1, 1, 1), network(1024, 15, b"\0\x80\1\0" * 64 + bytes(200))),
)
file(
    "network-low-bits",
    "rans-truncated",
    "15 million parameters with 16 low bits each, none there",
    volume((1, 1, 1), network(1024, 15, b"\0\0\1\0" * 64, level=92)),
)
file(
    "network-too-wide",
    "too-many-parameters",
    "16 layers of 1024 rows more than the parameters allow",
    volume((1, 1, 1), network(1024, 17, b"")),
)
file(
    "network-deep",
    "too-many-layers",
    "2^31 layers announced, one there",
    volume((1, 1, 1), network(1, 2**31, b"", layers=1)),
)
file(
    "network-layers-many",
    "out-of-range",
    "60,000 layers there, 2 announced",
    volume((1, 1, 1), network(1, 1, b"", layers=12_000)),
)

# --- super-resolution models ---------------------------------------------------------------------------------
file(
    "model-unknown",
    "not here",
    "a model that nobody has: no look at a name, no fetching",
    volume((4, 4, 4), factors=(2, 2, 2), sr=ModelReference("passwd", 1, bytes(32))),
)
file(
    "model-swapped",
    "model-hash-mismatch",
    "an embedded model with another hash",
    volume((4, 4, 4), SIREN, ("SRMD", LIGHT), factors=(2, 2, 2), sr=ModelReference("a", 1, bytes(32))),
)
file(
    "model-not-a-file",
    "bad-magic",
    "an embedded model that is no model file",
    embedded(b"\x80\x04pickle" * 9, (4, 4, 4), (2, 2, 2)),
)
file(
    "model-a-volume",
    "bad-first-section",
    "an embedded model that is a volume",
    embedded(volume((4, 4, 4)), (4, 4, 4), (2, 2, 2)),
)
file(
    "model-work",
    "too-much-work",
    "more work by the model than the caller allows",
    embedded(LIGHT, (512, 512, 512), (2, 2, 2)),
    Limits(max_work=2**32),
)
WIDE = vectors.small_model("srdensenet", half=True, blocks=1, layers=1, growth=1, maps=64)
file(
    "model-slices",
    "too-much-memory",
    "whole slices of 16384 x 16384 through 64 maps at full size",
    embedded(WIDE, (1, 65536, 65536), (1, 4, 4)),
    Limits(),
)
DEEP = vectors.small_model("light", half=True, channels=64, layers=32)
file(
    "model-halo",
    "too-much-memory",
    "a halo of 33 voxels, 64 channels",
    embedded(DEEP, (64, 64, 64), (2, 2, 2)),
    Limits(max_activations=2**24),
)


def lying_model(config: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A model file whose config asks for another network than its tensors are."""
    infos, body = pack_tensors({name: np.zeros(shape, np.float16) for name, shape in shapes.items()})
    header = registry.ModelHeader("lie", 1, "light", config, "CC0-1.0", "nothing", infos)
    return build([("MODL", header.pack()), ("TENS", body)])


file(
    "model-config-memory",
    "out-of-range",
    "a config of 256 channels and 32 layers, one number there",
    embedded(lying_model({"channels": 256, "layers": 32}, {"first.weight": (1,)}), (4, 4, 4), (2, 2, 2)),
)
file(
    "model-config-huge",
    "out-of-range",
    "a config of 2^31 - 1 channels",
    embedded(lying_model({"channels": 2**31 - 1, "layers": 1}, {"first.weight": (1,)}), (4, 4, 4), (2, 2, 2)),
)
file(
    "model-config-negative",
    "out-of-range",
    "a config of -1 layers",
    embedded(lying_model({"channels": 1, "layers": -1}, {"first.weight": (1,)}), (4, 4, 4), (2, 2, 2)),
)
file(
    "model-tensor-path",
    "out-of-range",
    "a tensor named like a path",
    embedded(lying_model({"channels": 1, "layers": 1}, {"../../first.weight": (1,)}), (4, 4, 4), (2, 2, 2)),
)


def readme_lines() -> list[str]:
    """The attacks as README.md lists them."""
    return [
        f"{n}. {a.what}: `{a.code}`. Test: `test_decoder_attack[{a.name}]`." for n, a in enumerate(ATTACKS, 1)
    ]


if __name__ == "__main__":  # what to paste into README.md after a change
    print("\n".join(readme_lines()))
