"""The attacks on latents: right checksums, each file with the one error that it must give.

`README.md` lists them by number; `test_latent_attacks.py` runs them. Those of `VECTORS` are files of
spec/vectors/invalid too, under the same names.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

import decoder_cases
import latent_vectors as latents
import numpy as np
from container_cases import Attack

import inrformat
from inrformat.container import Limits, build

ATTACKS: list[Attack] = []
SIREN = decoder_cases.SIREN
GOOD = latents.rich()
SMALL = Limits(max_work=2**32, max_activations=2**24)
FILES: dict[str, tuple[str, bytes, Limits]] = {}
latents.invalid(
    lambda name, code, data, **limits: FILES.update({name: (code, data, Limits(**limits))}),
    SIREN,
    decoder_cases.LIGHT,
)

VECTORS = {
    "no-LATN": "latents without the record that explains them",
    "no-LATD": "a record without latents",
    "with-SIRN": "latents and a network: two LR grids",
    "no-SIRN": "latents in the place of the network that the header names",
    "LATN-beside-SIRN": "a network, and a record of latents",
    "LATD-beside-SIRN": "a network, and latents",
    "LATM-beside-SIRN": "a network, and a latent model",
    "LATU-beside-SIRN": "a network, and changes to a latent model",
    "masks-a-number": "levels that are no list",
    "mask-0": "a level that halves nothing",
    "mask-8": "a level that halves a fourth axis",
    "levels-7": "seven levels",
    "steps-few": "a band without a step",
    "steps-many": "more steps than bands",
    "step-0": "a step of nothing",
    "step-65536": "a step of more than 16 bits",
    "step-a-float": "a step that is no whole number",
    "bias-few": "a band without a bias",
    "bias-128": "a bias of half a step",
    "bias-negative": "a bias below zero",
    "lanes-4097": "4097 lanes",
    "lanes-negative": "lanes below zero",
    "model-nil": "no latent model named",
    "model-a-path": "a latent model that is named like a path",
    "too-many": "more latents than the caller allows",
    "work": "more work than the caller allows",
    "model-other": "an embedded latent model with another hash",
    "model-of-another-kind": "a super-resolution model in the place of the latent model",
    "model-context": "a context model in the place of the latent model",
    "model-config": "a config that a latent model does not have",
    "weight-fraction": "a weight that is not a whole number",
    "weight-2048": "a weight that is too large",
    "weight-minus-32768": "a weight whose magnitude does not fit 16 bits",
    "weights-sum": "a row of weights whose sum could reach 2^24",
    "tensor-missing": "a network without its last layer",
    "tensor-unknown": "a tensor of no network",
    "tensor-shape": "a first layer for the inputs of another band",
    "tensor-flat": "a layer with one axis",
    "rows-of-last-4": "a network with four outputs",
    "hidden-1025": "a hidden layer of 1025 rows",
    "model-as-sr": "a latent model in the place of the super-resolution model",
    "empty": "latents of no bytes",
    "lengths-cut": "latents that end inside their lengths",
    "parts-cut": "latents that end before their parts do",
    "lengths-huge": "four parts of 2^32 - 1 bytes announced",
    "cut": "latents without their last byte",
    "appended": "a byte after the end of the latents",
    "counts-cut": "counts of births without the last byte",
    "counts-empty": "no counts of births",
    "counts-appended": "counts of births with half a class more",
    "counts-endless": "a count of six groups of bits",
    "counts-over": "more births than a class has points",
    "counts-huge": "2^35 births",
    "counts-beyond": "births of the class after the last",
    "counts-far-beyond": "births of a class that 2^35 - 1 come before",
    "counts-level-93": "gaps of a level that the bank does not have",
    "counts-of-no-class": "births where there is no level",
    "births-none-gaps": "gaps of no births",
    "births-none-sizes": "magnitudes of no births",
    "births-where-none-is-quiet": "a birth in a class of the coarsest level",
    "birth-beyond": "a birth beyond the last quiet point",
    "gaps-cut": "gaps whose code is cut short",
    "gaps-state-low": "gaps whose lane's state is below 2^16",
    "gaps-state-wrong": "gaps whose lane's state has one bit changed",
    "sizes-empty": "magnitudes of no bytes",
    "sizes-family-2": "magnitudes of a family that the bank does not have",
    "sizes-level-93": "magnitudes of a level that the bank does not have",
    "sizes-cut": "magnitudes whose code is cut short",
    "sizes-negative": "a magnitude of -1",
    "sizes-32768": "a magnitude of 32768",
    "smooth-empty": "smooth points of no bytes",
    "smooth-family-2": "smooth points of a family that the bank does not have",
    "smooth-level-93": "smooth points of a level that the bank does not have",
    "smooth-cut": "smooth points whose code is cut short",
    "smooth-padding": "a bit after the last low bit of the smooth points",
    "smooth-32768": "a smooth point of 32768",
    "smooth-minus-32768": "a smooth point of -32768",
    "code-cut": "a code that ends inside its counts",
    "code-counts-huge": "a code with 2^32 - 1 words, low bits and escapes announced",
    "state-low": "a lane's state below 2^16",
    "state-wrong": "a lane's state with one bit changed",
    "word-missing": "a word too few",
    "word-left": "a word too many",
    "low-bits-missing": "a byte of low bits too few",
    "low-bits-left": "a byte of low bits too many",
    "low-bits-padding": "a bit after the last low bit",
    "escape-missing": "an escape too few",
    "escape-left": "an escape too many",
    "escape-large-missing": "an escape that does not fit a byte, without its four bytes",
    "escape-large-small": "an escape of four bytes that fits one",
    "lanes-one-more": "one lane more than the code has",
    "lanes-none": "a code, but no lanes",
    "words-of-no-lane": "words that no lane takes",
    "predicted-by-no-lane": "latents to be predicted, but no lanes",
    "changes-empty": "changes to a latent model of no bytes",
    "changes-ranks-cut": "changes that end inside their ranks",
    "changes-levels-cut": "changes that end inside their levels",
    "changes-rank-17": "a network that is changed with a rank of 17",
    "changes-rank-255": "a network that is changed with a rank of 255",
    "changes-level-93": "a first matrix of a level that the bank does not have",
    "changes-last-level-93": "a last matrix of a level that the bank does not have",
    "changes-of-another-rank": "a rank that asks for more numbers than there are",
    "changes-of-nothing": "no network that is changed, and no code",
    "changes-cut": "changes whose code is cut short",
    "changes-word-missing": "changes with a word too few",
    "changes-state-low": "changes whose lane's state is below 2^16",
    "changes-state-wrong": "changes whose lane's state has one bit changed",
    "changes-appended": "changes with a word too many",
    "changes-of-nothing-appended": "no network that is changed, and a word",
    "changes-low-bits-cut": "changes whose low bits are cut short",
    "changes-padding": "a bit after the last low bit of changes",
    "changes-2048": "a weight that a change makes 2048",
    "changes-minus-2048": "a weight that a change makes -2048",
    "changes-row-sum": "a row of weights whose sum a change takes to 2^24",
    "changes-product-of-32-bits": "a product of 2^32, which is nothing in 32 bits",
}


def attack(name: str, code: str, what: str, run: Callable[[], object]) -> None:
    ATTACKS.append(Attack(f"latents-{name}", what, code, run))


def file(name: str, code: str, what: str, data: bytes, limits: Limits = SMALL, level: str = "full") -> None:
    """An attack that is a file, decoded."""
    attack(name, code, what, lambda: inrformat.decode(data, level=level, device="cpu", limits=limits))


for _name, _what in VECTORS.items():
    _code, _data, _limits = FILES[f"latents-{_name}"]
    file(_name, _code, _what, _data, _limits)


# --- much for little -----------------------------------------------------------------------------------------
NOTHING = latents.Code([], [], b"", []).join()


def announced(shape: tuple[int, int, int], masks: list[int], **parts: bytes) -> latents.Parts:
    """A file whose header tells of a grid that is not there."""
    bands = sum((1 << mask.bit_count()) - 1 for mask in masks) + 1
    latn = {**GOOD.latn, "masks": masks, "steps": [1] * bands, "bias": [0] * bands, "lanes": 0}
    data = replace(latents.Data(b"", b"", b"", b"", NOTHING), **parts)
    return replace(GOOD, head=replace(GOOD.head, shape=shape), latn=latn, latd=data.join())


file(
    "grid-of-2^33",
    "too-many-latents",
    "2^33 latents in a file of 7 kB",
    announced((2048, 2048, 2048), [7]).file(),
    Limits(),
)
file(
    "smooth-2^28",
    "rans-truncated",
    "2^28 smooth points announced, none there",
    announced((512, 512, 1024), [], smooth=b"\0\0" + bytes(64)).file(),
    Limits(),
    "preview",
)
file(
    "births-2^27",
    "rans-truncated",
    "2^27 births announced, none there",
    announced(
        (512, 512, 1024),
        [1],
        counts=b"".join(b"\0" + latents.latent_code._varint(2**25 - 1) + b"\x14" for _ in range(4)),
        gaps=bytes(64),
    ).file(),
    Limits(),
    "preview",
)
file(
    "sizes-hollow",
    "rans-truncated",
    "the magnitudes of 32,768 births announced, none there",
    announced(
        (64, 64, 64),
        [1],
        counts=b"\0" + latents.latent_code._varint(2**15 - 1) + b"\0",
        gaps=latents.latent_code.integers.encode(*[np.zeros(2**15, np.int64)] * 2, np.ones(2**15, np.int64)),
        sizes=bytes(4),
    ).file(),
)
file(
    "work-of-the-model",
    "too-much-work",
    "2^27 latents for the latent model, by a caller who allows less",
    announced((512, 512, 512), [7]).file(),
)
file(
    "levels-of-nothing",
    "bad-latents",
    "six levels of a single voxel, and a birth",
    announced((1, 1, 1), [7] * 6, counts=b"\0\0\x14").file(),
)
file(
    "escapes-swollen",
    "bad-latents",
    "a megabyte of escapes for a few latents",
    replace(
        GOOD,
        latd=replace(GOOD.data, rest=struct.pack("<III", 0, 0, 2**20) + bytes(4 + 2**20)).join(),
    ).file(),
)


def with_model(data: bytes, latu: bytes | None = None) -> bytes:
    reference = {**GOOD.latn["model"], "sha256": hashlib.sha256(data).digest()}
    return replace(GOOD, model=data, latu=latu, latn={**GOOD.latn, "model": reference}).file()


def tall() -> bytes:
    """Hidden layers of 100,000 rows: activations of gigabytes for a model of some megabytes."""
    weights = {key: w.astype(np.float16) for key, w in latents.random_weights(1).items()}
    weights["1.second"] = np.zeros((100_000, 2), np.float16)
    weights["1.last"] = np.zeros((3, 100_000 + latents.inputs(1)), np.float16)
    return latents.any_model_file(weights)


file("hidden-100000", "out-of-range", "a hidden layer of 100,000 rows", with_model(tall()), Limits())
file("model-pickle", "bad-magic", "a latent model that is a pickle", with_model(b"\x80\x04pickle" * 9))
file("model-a-volume", "bad-first-section", "a latent model that is a volume", with_model(GOOD.file()))
file("model-unknown", "not here", "a latent model that nobody has", replace(GOOD, model=None).file())


# --- changes to the model ------------------------------------------------------------------------------------
CHANGED = latents.changed()
CHANGES = CHANGED.latu or b""
STATES = b"\0\0\1\0" * 64


def announced_changes(level: int) -> bytes:
    """Products of the greatest ranks for layers of a thousand rows, of this level, and no code for them."""
    model = latents.model_file({key: 0 * w for key, w in latents.random_weights(1, 1000).items()})
    return with_model(model, bytes([16] * 7 + [level] * 42) + STATES)


file(
    "changes-hollow",
    "rans-truncated",
    "130,000 numbers that change a model announced, their code is the lanes' states alone",
    announced_changes(0),
)
file(
    "changes-low-bits",
    "rans-truncated",
    "130,000 numbers of 16 low bits each announced, none there",
    announced_changes(92),
)
file(
    "changes-pickle",
    "out-of-range",
    "changes to a latent model that are a pickle",
    replace(CHANGED, latu=b"\x80\x04pickle" * 9).file(),
)
file(
    "changes-a-model",
    "out-of-range",
    "changes to a latent model that are a model file",
    replace(CHANGED, latu=latents.TINY).file(),
)
file(
    "changes-to-another-model",
    "rans-bad-end",
    "changes to a latent model of other layers",
    replace(CHANGED, latu=latents.changes(latents.mixed_model(), {"1": 2}, 1)).file(),
)
file(
    "changes-to-a-model-unknown",
    "not here",
    "changes to a latent model that nobody has",
    replace(CHANGED, model=None).file(),
)


# --- one byte, one cut ---------------------------------------------------------------------------------------
def damaged(change: Callable[[bytes, int], bytes]) -> list[bytes]:
    """Files of which a byte of section LATD is changed, or of which it is cut, each third; checksums are right."""
    return [replace(GOOD, latd=change(GOOD.latd, at)).file() for at in range(0, len(GOOD.latd), 3)]


def flips() -> list[bytes]:
    """A bit of every third byte of a file's LATN and LATD, one at a time, behind right checksums."""
    sections, result = GOOD.sections(), []
    for number, (name, body) in enumerate(sections):
        if name not in ("LATN", "LATD"):
            continue
        for at in range(0, len(body), 3):
            changed = bytearray(body)
            changed[at] ^= 1 << (at % 8)
            result.append(build([*sections[:number], (name, bytes(changed)), *sections[number + 1 :]]))
    return result


def flips_of_changes() -> list[bytes]:
    """Files of which a bit of section LATU is changed, of every byte in turn; checksums are right."""
    result = []
    for at in range(len(CHANGES)):
        changed = bytearray(CHANGES)
        changed[at] ^= 1 << (at % 8)
        result.append(replace(CHANGED, latu=bytes(changed)).file())
    return result


def cuts_of_changes() -> list[bytes]:
    """Files of which section LATU is cut, everywhere; checksums are right."""
    return [replace(CHANGED, latu=CHANGES[:at]).file() for at in range(len(CHANGES))]


def readme_lines() -> list[str]:
    """The attacks as README.md lists them."""
    return [
        f"{n}. {a.what}: `{a.code}`. Test: `test_latent_attack[{a.name}]`." for n, a in enumerate(ATTACKS, 1)
    ]


if __name__ == "__main__":  # what to paste into README.md after a change
    print("\n".join(readme_lines()))
