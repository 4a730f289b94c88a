"""Runs the attacks of lattice_cases.py, and every flip and cut of a small file; README.md lists them."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import lattice_cases as cases
import lattice_vectors as lattice
import numpy as np
import pytest
from container_cases import Attack, measured

import inrformat
from inrformat.errors import FormatError, InrError, ModelNotFoundError

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors"


@pytest.mark.parametrize("attack", cases.ATTACKS, ids=lambda attack: attack.name)
def test_lattice_attack(attack: Attack) -> None:
    """The right error, soon, and in bounded memory."""
    error, seconds, peak = measured(attack)
    text = str(error)
    if attack.name == "lattice-model-unknown":
        assert isinstance(error, ModelNotFoundError) and attack.code in text
    else:
        assert f"[{attack.code}" in text
    assert text.isprintable() and text.isascii() and len(text) < 400
    assert peak < 2**27, f"{peak} bytes allocated"
    assert seconds < 10


def test_readme_lists_every_lattice_attack() -> None:
    listed = (HERE / "README.md").read_text().splitlines()
    assert [line for line in listed if "test_lattice_attack[" in line] == cases.readme_lines()


def test_every_vector_is_an_attack() -> None:
    names = {Path(path).stem for path in json.loads((VECTORS / "manifest.json").read_text())["invalid"]}
    there = {name for name in names if name.startswith("lattice-")}
    assert there == cases.FILES.keys()
    assert there - {attack.name for attack in cases.ATTACKS} == {
        "lattice-field-unknown",
        "lattice-no-order",
        "lattice-grid-of-three",
    }


def outcome(data: bytes) -> str:
    """The code of the error, or what it decodes to."""
    try:
        return str(inrformat.decode(data, device="cpu", limits=cases.SMALL).data.tobytes())
    except FormatError as error:
        return error.code
    except InrError as error:
        return type(error).__name__


def test_every_byte_and_every_cut_of_a_brick_is_seen() -> None:
    """Behind right checksums: the code of a brick that is changed in one byte, or cut, is damaged.

    But for what the code leaves free, a root or an escape: then it may decode.
    """
    for cut in cases.damaged_bricks(lambda code, at: code[:at]):
        assert outcome(cut) == "damaged-brick"
    seen = Counter(
        outcome(f) for f in cases.damaged_bricks(lambda c, i: c[:i] + bytes([c[i] ^ 255]) + c[i + 1 :])
    )
    assert seen["damaged-brick"] > 0.8 * seen.total()


def test_every_byte_of_the_sections_is_checked() -> None:
    """Nothing but one of our errors comes out, or a volume of the same shape."""
    seen = Counter(outcome(data)[:20] for data in cases.flips())
    assert seen.keys() > {"damaged-brick", "bad-index", "out-of-range", "model-hash-mismatch"}
    assert seen["damaged-brick"] > 100


def test_every_byte_of_a_file_is_covered_by_a_checksum() -> None:
    data = cases.small().file()
    for at in range(0, len(data), 7):
        with pytest.raises(InrError):
            inrformat.verify(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], device="cpu")
        with pytest.raises(InrError):
            inrformat.decode(data[:at], device="cpu")


@pytest.mark.parametrize("escape", [2**32 - 1, 2**32 - 2])
@pytest.mark.parametrize("error", [0, 32767])
def test_extreme_escapes_are_clamped(escape: int, error: int) -> None:
    """An escape may be any u32: the level it gives stays in range, without a wrap or a warning."""
    data = lattice.picture((6, 7, 9), "u2", 12, share=0.001, spikes=0.1)
    low, high = int(data.min()), int(data.max())
    levels = lattice.Levels(high - low, 0, values=((low, 1, high - low + 1),))
    good = lattice.parts(data, cases.SIREN, levels=levels, order=(2,))
    code = lattice.Code.parse(good.codes[0], 6 * 7 * 5, data.size)
    assert code.escapes
    extreme = replace(code, escapes=[escape] * len(code.escapes)).join()
    changed = replace(good, codes=[extreme], latt={**good.latt, "error": error})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            volume = inrformat.decode(changed.file(), device="cpu").data
        except FormatError as damaged:
            assert damaged.code == "damaged-brick"
        else:
            assert low <= volume.min() <= volume.max() <= high


def test_a_grid_beyond_all_floats_is_clamped_to_the_range() -> None:
    data = lattice.picture((3, 4, 5), "f4", 41)
    good = lattice.parts(data, cases.SIREN, levels=lattice.Levels.of_floats(data, 100.0))
    changed = replace(good, latt={**good.latt, "grid": [-1e308, 1e300]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = inrformat.decode(changed.file(), device="cpu").data
    assert np.isin(volume, [data.min(), data.max()]).all()
