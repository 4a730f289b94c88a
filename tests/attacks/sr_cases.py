"""The attacks on what a volume changes in its super-resolution model: right checksums, each with its one error.

`README.md` lists them by number; `test_sr_attacks.py` runs them. Those of `VECTORS` are files of
spec/vectors/invalid too, under the same names.
"""

from __future__ import annotations

import math

import decoder_cases
import sr_vectors as sr
from container_cases import Attack
from make_vectors import small_model

import inrformat
from inrformat.container import Limits, ModelReference
from inrformat.models.registry import load_model
from inrformat.models.sr_changes import KIND_BYTES

ATTACKS: list[Attack] = []
SIREN, LIGHT, DEEP = decoder_cases.SIREN, decoder_cases.LIGHT, decoder_cases.DEEP
SMALL = Limits(max_work=2**32, max_activations=2**24)
FILES: dict[str, tuple[str, bytes, Limits]] = {}
sr.invalid(
    lambda name, code, data, **limits: FILES.update({name: (code, data, Limits(**limits))}),
    SIREN,
    small_model,
)

VECTORS = {
    "changes-not-named": "changes to a model, but no model",
    "changes-empty": "changes of no bytes",
    "changes-short": "changes that end inside their kinds",
    "changes-rank-17": "a rank of 17",
    "changes-rank-beyond-rows": "a rank of more than a tensor's rows",
    "changes-rank-beyond-columns": "a rank of more than a tensor's columns",
    "changes-exponent-25": "an exponent of 25",
    "changes-family-2": "numbers of a family that the bank does not have",
    "changes-level-93": "numbers of a level that the bank does not have",
    "changes-second-family-2": "a second matrix of a family that the bank does not have",
    "changes-second-level-93": "a second matrix of a level that the bank does not have",
    "changes-family-of-none": "the family of a second matrix that there is not",
    "changes-level-of-none": "the level of a second matrix that there is not",
    "changes-of-another-rank": "a rank that asks for more numbers than there are",
    "changes-cut": "changes whose code is cut short",
    "changes-state-low": "changes whose lane's state is below 2^16",
    "changes-appended": "changes with a word too many",
    "changes-padding": "a bit after the last low bit of changes",
    "changes-32768": "a change of 32768",
    "changes-minus-32768": "a change of -32768",
    "changes-32768-of-a-product": "a product with a number of 32768",
    "srdensenet-1-1-1": "a grid of full size for a model that enlarges y and x by four",
    "srdensenet-1-2-2": "factors of two for a model that enlarges y and x by four",
}


def file(name: str, code: str, what: str, data: bytes, limits: Limits = SMALL) -> None:
    """An attack that is a file, decoded."""
    run = lambda: inrformat.decode(data, device="cpu", limits=limits)  # noqa: E731
    ATTACKS.append(Attack(f"sr-{name}", what, code, run))


for _name, _what in VECTORS.items():
    _code, _data, _limits = FILES[f"sr-{_name}"]
    file(_name, _code, _what, _data, _limits)


# --- much for little -----------------------------------------------------------------------------------------
def announced(model: bytes, level: int, code: bytes) -> bytes:
    """A file whose changes are of the greatest ranks, with two matrices of this level, and this as their code."""
    kinds = b""
    for tensor in load_model(model).header.tensors:
        rank = min(16, tensor.shape[0], math.prod(tensor.shape[1:]))
        kinds += bytes([rank, 8, 0, level, 0, level])
    return sr.volume(SIREN, (4, 4, 4), (2, 2, 2), model, kinds + code)


def unchanged(model: bytes, level: int, code: bytes) -> bytes:
    """A file whose changes are single numbers of this level."""
    kinds = bytes([0, 8, 0, level, 0, 0]) * len(load_model(model).header.tensors)
    return sr.volume(SIREN, (4, 4, 4), (2, 2, 2), model, kinds + code)


STATES = b"\0\0\1\0" * 64
file(
    "changes-hollow",
    "rans-truncated",
    "3.6 million changes announced, their code is the lanes' states alone",
    unchanged(DEEP, 0, STATES),
    Limits(),
)
file(
    "changes-starved",
    "rans-truncated",
    "3.6 million changes announced, a hundred words there",
    unchanged(DEEP, 0, b"\0\x80\1\0" * 64 + bytes(200)),
    Limits(),
)
file(
    "changes-low-bits",
    "rans-truncated",
    "3.6 million changes with 16 low bits each, none there",
    unchanged(DEEP, 92, STATES),
    Limits(),
)
file(
    "changes-products-hollow",
    "rans-truncated",
    "products of the greatest ranks announced, none there",
    announced(DEEP, 28, STATES),
    Limits(),
)

# --- other things in its place -------------------------------------------------------------------------------
TENSORS = len(load_model(LIGHT).header.tensors)
GOOD = sr.section(LIGHT, sr.random_changes(LIGHT, {"first.weight": 0, "convs.0.weight": 2, "head": 1}, 1))
file(
    "changes-pickle",
    "out-of-range",
    "changes that are a pickle",
    sr.volume(SIREN, (4, 4, 4), (2, 2, 2), LIGHT, b"\x80\x04pickle" * 9),
)
file(
    "changes-a-model",
    "out-of-range",
    "changes that are a model file",
    sr.volume(SIREN, (4, 4, 4), (2, 2, 2), LIGHT, LIGHT),
)
file(
    "changes-of-another-model",
    "out-of-range",
    "changes to a model of other tensors",
    sr.volume(SIREN, (4, 4, 4), (2, 2, 2), LIGHT, sr.section(DEEP, {})[: KIND_BYTES * 3] + b"\x11" + GOOD),
)
file(
    "changes-of-a-model-unknown",
    "not here",
    "changes to a model that nobody has",
    decoder_cases.volume(
        (4, 4, 4), SIREN, ("SRTU", GOOD), factors=(2, 2, 2), sr=ModelReference("passwd", 1, bytes(32))
    ),
)


# --- one byte, one cut ---------------------------------------------------------------------------------------
def flips() -> list[bytes]:
    """Files of which a bit of section SRTU is changed, of every byte in turn; checksums are right."""
    result = []
    for at in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[at] ^= 1 << (at % 8)
        result.append(sr.volume(SIREN, (4, 4, 4), (2, 2, 2), LIGHT, bytes(changed)))
    return result


def cuts() -> list[bytes]:
    """Files of which section SRTU is cut, everywhere; checksums are right."""
    return [sr.volume(SIREN, (4, 4, 4), (2, 2, 2), LIGHT, GOOD[:at]) for at in range(len(GOOD))]


def readme_lines() -> list[str]:
    """The attacks as README.md lists them."""
    return [f"{n}. {a.what}: `{a.code}`. Test: `test_sr_attack[{a.name}]`." for n, a in enumerate(ATTACKS, 1)]


if __name__ == "__main__":  # what to paste into README.md after a change
    print("\n".join(readme_lines()))
