"""The attacks on lossless and bounded volumes: right checksums, each file with the one error it must give.

`README.md` lists them by number; `test_lattice_attacks.py` runs them. Those of `VECTORS` are files of
spec/vectors/invalid too, under the same names.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import decoder_cases
import lattice_vectors as lattice
import numpy as np
from container_cases import Attack

import inrformat
from inrformat.container import Limits, build

ATTACKS: list[Attack] = []
SIREN = decoder_cases.SIREN
GOOD = lattice.spiky(SIREN)
SMALL = Limits(max_work=2**32, max_activations=2**24)
FILES: dict[str, tuple[str, bytes, Limits]] = {}
lattice.invalid(
    lambda name, code, data, **limits: FILES.update({name: (code, data, Limits(**limits))}),
    SIREN,
    decoder_cases.LIGHT,
)

VECTORS = {
    "no-LATT": "an index and bricks without the record that explains them",
    "no-BIDX": "bricks without an index",
    "no-BRIX": "an index without bricks",
    "pred-alone": "linear predictors, but no bricks",
    "zone-alone": "zones, but no bricks",
    "tune-alone": "changes to a model, but no bricks",
    "brick-large": "a brick of more voxels than the caller allows",
    "bricks-0": "an axis cut into no bricks",
    "bricks-more-than-voxels": "more bricks than voxels along an axis",
    "index-empty": "an index of no bricks",
    "index-long": "an index of one brick more than there are",
    "index-lengths-short": "lengths that leave a byte of the bricks over",
    "index-lengths-over": "lengths that reach a byte past the bricks",
    "index-lengths-huge": "a brick of 2^32 - 1 bytes in a small file",
    "error-32768": "an error bound whose steps are more than all levels",
    "greatest-65536": "levels that do not fit 16 bits",
    "values-and-grid": "values of levels in two ways",
    "no-values": "levels without values",
    "grid-of-integers": "a grid for integers",
    "values-of-floats": "runs of values for floats",
    "runs-none": "a list of no runs",
    "runs-descend": "runs of values that do not ascend",
    "runs-overlap": "runs that overlap, so that two levels have one value",
    "run-stride-0": "a run whose values are all the same",
    "run-count-0": "a run of no values",
    "run-beyond-16-bits": "a run that leaves 16 bits",
    "runs-few": "fewer values than levels",
    "runs-many": "more values than levels",
    "runs-not-range": "values that are not those of the header's range",
    "run-of-two": "a run without a count",
    "error-with-runs": "a bound on levels whose values are not one apart (two runs)",
    "error-with-stride": "a bound on levels whose values are not one apart (a stride)",
    "pitch-0": "a grid whose levels all have the same value",
    "pitch-negative": "a grid that descends",
    "pitch-nan": "a pitch that is not a number",
    "grid-overflow": "a grid that reaches infinity",
    "order-axis-3": "a split of a fourth axis",
    "order-6-times": "an axis that is split six times",
    "order-16": "sixteen splits",
    "model-nil": "no context model named",
    "model-a-path": "a context model that is named like a path",
    "model-other": "an embedded context model with another hash",
    "model-of-another-kind": "a super-resolution model in the place of the context model",
    "model-as-sr": "a context model in the place of the super-resolution model",
    "model-config": "a config that a context model does not have",
    "weight-fraction": "a weight that is not a whole number",
    "weight-2048": "a weight that is too large",
    "weight-minus-32768": "a weight whose magnitude does not fit 16 bits",
    "weights-sum": "a row of weights whose sum could reach 2^24",
    "tensor-missing": "a network without its last layer",
    "tensor-unknown": "a tensor of no network",
    "tensor-shape": "a first layer for the inputs of another class",
    "tensor-flat": "a layer with one axis",
    "rows-of-last-6": "a network with six outputs",
    "hidden-1025": "a hidden layer of 1025 rows",
    "work": "more work than the caller allows",
    "pred-empty": "linear predictors of no bytes",
    "pred-short": "linear predictors that end before their kinds do",
    "pred-kind": "a centre of a kind that there is not",
    "pred-fine": "a centre that is five bits finer",
    "pred-family": "a linear predictor of a family that the bank does not have",
    "pred-level": "a linear predictor of a level that the bank does not have",
    "pred-family-of-none": "a family, but no linear predictor",
    "pred-level-of-none": "a level, but no linear predictor",
    "pred-cut": "a linear predictor whose code is cut short",
    "pred-appended": "linear predictors with a word too many",
    "pred-tap-32768": "a tap whose weight is too large",
    "pred-tap-minus-32768": "a tap whose weight is too far below zero",
    "pred-weight-2048": "a centre so fine that its weights are too large",
    "pred-weights-sum": "a centre so fine that its row's sum reaches 2^24",
    "pred-work": "more work, with a linear predictor, than the caller allows",
    "zone-empty": "zones of no bytes",
    "zone-counts-cut": "zones that end before their counts do",
    "zone-sets-cut": "zones that end before the sets of all of them",
    "zone-kinds-cut": "zones that end before their layers' kinds do",
    "zone-one-set": "zones of one set",
    "zone-sets-17": "zones of 17 sets",
    "zone-no-zone": "an axis of no zones",
    "zone-more-than-voxels": "an axis of more zones than voxels",
    "zone-set-unknown": "a zone of a set that there is not",
    "zone-family": "a set's layer of a family that the bank does not have",
    "zone-level": "a set's layer of a level that the bank does not have",
    "zone-cut": "zones whose code is cut short",
    "zone-appended": "zones with a word too many",
    "zone-weight-2048": "a set whose weights are too large",
    "zone-weights-sum": "a set of which a row's sum reaches 2^24",
    "zone-work": "more work, with sets of layers, than the caller allows",
    "tune-empty": "changes of no bytes",
    "tune-short": "changes that end before their levels do",
    "tune-family": "changes of a family that the bank does not have",
    "tune-level": "changes of a level that the bank does not have",
    "tune-shift": "changes that are shifted by nine bits",
    "tune-cut": "changes whose code is cut short",
    "tune-appended": "changes with a word too many",
    "tune-too-large": "changes that make weights too large",
    "tune-sum": "changes that make a row's sum reach 2^24",
    "brick-crc": "a brick with a wrong CRC-32C",
    "brick-empty": "a brick of no bytes",
    "brick-kind-3": "a brick of a kind that there is not",
    "brick-counts-cut": "a brick that ends inside its counts",
    "brick-counts-huge": "a brick with 2^32 - 1 words, low bits and escapes announced",
    "brick-cut": "a brick without its last byte",
    "brick-appended": "a byte after the end of a brick",
    "brick-raw-short": "a raw brick without its last byte",
    "brick-raw-long": "a raw brick with a byte too many",
    "brick-raw-level": "a raw brick with a level above the greatest",
    "brick-constant-short": "a constant brick of one byte",
    "brick-constant-long": "a constant brick of three bytes",
    "brick-constant-level": "a constant brick above the greatest level",
    "brick-root-level": "a root above the greatest level",
    "brick-state-low": "a lane's state below 2^16",
    "brick-state-wrong": "a lane's state with one bit changed",
    "brick-word-missing": "a word too few",
    "brick-word-left": "a word too many",
    "brick-low-bits-missing": "a byte of low bits too few",
    "brick-low-bits-left": "a byte of low bits too many",
    "brick-low-bits-padding": "a bit after the last low bit",
    "brick-escape-missing": "an escape too few",
    "brick-escape-left": "an escape too many",
    "brick-escape-large-missing": "an escape that does not fit a byte, without its four bytes",
    "brick-escape-large-small": "an escape of four bytes that fits one",
}


def attack(name: str, code: str, what: str, run: Callable[[], object]) -> None:
    ATTACKS.append(Attack(f"lattice-{name}", what, code, run))


def file(name: str, code: str, what: str, data: bytes, limits: Limits = SMALL) -> None:
    """An attack that is a file, decoded."""
    attack(name, code, what, lambda: inrformat.decode(data, device="cpu", limits=limits))


for _name, _what in VECTORS.items():
    _code, _data, _limits = FILES[f"lattice-{_name}"]
    file(_name, _code, _what, _data, _limits)


# --- much for little -----------------------------------------------------------------------------------------
def announced(shape: tuple[int, int, int], bricks: list[int], **latt: Any) -> lattice.Parts:
    """A file whose header tells of a volume that is not there."""
    record = {**GOOD.latt, "bricks": bricks, **latt}
    return replace(GOOD, head=replace(GOOD.head, shape=shape, factors=(8, 8, 8)), latt=record)


file(
    "brick-of-2^33",
    "brick-too-large",
    "a single brick of 2^33 voxels in a file of 11 kB",
    announced((2048, 2048, 2048), [1, 1, 1]).file(),
    Limits(),
)
file(
    "bricks-2^33",
    "bad-index",
    "2^33 bricks of one voxel announced, one there",
    announced((2048, 2048, 2048), [2048, 2048, 2048]).file(),
    Limits(),
)
file(
    "work-of-the-model",
    "too-much-work",
    "2^33 voxels for the context model, in bricks of 2^23, by a caller who allows less",
    replace(
        announced((2048, 2048, 2048), [8, 16, 8]),
        index=bytes(8 * 8 * 16 * 8 - 8) + struct.pack("<II", len(GOOD.codes[0]), 0),
    ).file(),
)
file(
    "bricks-hollow",
    "damaged-brick",
    "a volume of 2^24 voxels whose bricks are all empty",
    replace(announced((128, 512, 256), [4, 4, 4]), codes=[b""] * 64).file(),
    Limits(),
)


def swollen() -> bytes:
    """8192 bricks of two voxels, one of which has a megabyte of words: no room is made for all of that size."""
    bricks = [b"\1\0\0"] * 8191 + [b"\2" + struct.pack("<III", 2**19, 0, 0) + bytes(2 + 4 + 2**20)]
    latt = {**GOOD.latt, "bricks": [1, 64, 128], "order": [2]}
    return replace(GOOD, head=replace(GOOD.head, shape=(1, 64, 256)), latt=latt, codes=bricks).file()


file(
    "brick-swollen",
    "damaged-brick",
    "a megabyte of words for two voxels, beside 8191 small bricks",
    swollen(),
)
file(
    "runs-70000",
    "record-too-many-items",
    "65,536 runs of values",
    replace(GOOD, latt={**GOOD.latt, "values": [[n - 32768, 1, 1] for n in range(65536)]}).file(),
)


def with_model(data: bytes, **own: bytes) -> bytes:
    reference = {**GOOD.latt["model"], "sha256": hashlib.sha256(data).digest()}
    return replace(GOOD, model=data, latt={**GOOD.latt, "model": reference}, **own).file()


def tall() -> bytes:
    """Hidden layers of 100,000 rows: activations of gigabytes for a model of 20 MB."""
    weights = {key: w.astype(np.float16) for key, w in lattice.random_weights(1).items()}
    weights["z.0.second"] = np.zeros((100_000, 2), np.float16)
    weights["z.0.last"] = np.zeros((3, 100_058), np.float16)
    return lattice.any_model_file(weights)


file("hidden-100000", "out-of-range", "a hidden layer of 100,000 rows", with_model(tall()), Limits())
file("model-pickle", "bad-magic", "a context model that is a pickle", with_model(b"\x80\x04pickle" * 9))
file("model-a-volume", "bad-first-section", "a context model that is a volume", with_model(GOOD.file()))
file("model-unknown", "not here", "a context model that nobody has", replace(GOOD, model=None).file())
file(
    "tune-low-bits",
    "rans-truncated",
    "changes of 16 low bits each, none there",
    with_model(lattice.TINY, tune=b"\0\x5c\0" * 48 + b"\0\0\1\0" * 8),
)
file(
    "pred-low-bits",
    "rans-truncated",
    "linear predictors of 16 low bits a weight, none there",
    with_model(lattice.TINY, pred=b"\1\0\0\x5c" * 16 + b"\0\0\1\0" * 2),
)


# --- one byte, one cut ---------------------------------------------------------------------------------------
def small() -> lattice.Parts:
    """A volume of two small bricks."""
    return lattice.parts(
        lattice.picture((3, 4, 6), "i2", 12, share=0.01, spikes=0.1), SIREN, counts=(1, 1, 2)
    )


def damaged_bricks(change: Callable[[bytes, int], bytes]) -> list[bytes]:
    """Files of which one byte of one code is changed, or of which it is cut; every checksum is right."""
    good, result = small(), []
    for at in range(len(good.codes[0])):
        code = change(good.codes[0], at)
        result.append(replace(good, codes=[code, good.codes[1]]).file())
    return result


def flips() -> list[bytes]:
    """A bit of every byte of LATT, PRED, TUNE, ZONE, BIDX and BRIX, one at a time, behind right checksums."""
    base = lattice.load_context(lattice.TINY)
    base = base.centred([*base.centres[:-1], lattice.Centre(1, (9,) * 224)])
    own = {"tune": lattice.pack_changes(base, base), "pred": lattice.pack_centres(base)}
    sets = lattice.np.arange(6, dtype="u1").reshape(1, 2, 3) % 2
    zoned = base.zoned(lattice.Zones((3, 4, 6), sets), lattice.some_sets(base, sets, 0))
    own["zone"] = lattice.pack_zones(zoned)
    sections, result = replace(small(), **own).sections(), []
    for number, (name, body) in enumerate(sections):
        if name not in ("LATT", "PRED", "TUNE", "ZONE", "BIDX", "BRIX"):
            continue
        for at in range(len(body)):
            changed = bytearray(body)
            changed[at] ^= 1 << (at % 8)
            result.append(build([*sections[:number], (name, bytes(changed)), *sections[number + 1 :]]))
    return result


def readme_lines() -> list[str]:
    """The attacks as README.md lists them."""
    return [
        f"{n}. {a.what}: `{a.code}`. Test: `test_lattice_attack[{a.name}]`." for n, a in enumerate(ATTACKS, 1)
    ]


if __name__ == "__main__":  # what to paste into README.md after a change
    print("\n".join(readme_lines()))
