"""Runs the attacks of sr_cases.py, and every flip and cut of a small section; README.md lists them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import sr_cases as cases
from container_cases import Attack, measured

import inrformat
from inrformat.errors import FormatError, ModelNotFoundError

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors"


@pytest.mark.parametrize("attack", cases.ATTACKS, ids=lambda attack: attack.name)
def test_sr_attack(attack: Attack) -> None:
    """The right error, soon, and in bounded memory."""
    error, seconds, peak = measured(attack)
    text = str(error)
    if attack.name == "sr-changes-of-a-model-unknown":
        assert isinstance(error, ModelNotFoundError) and attack.code in text
    else:
        assert f"[{attack.code}" in text
    assert text.isprintable() and text.isascii() and len(text) < 400
    assert peak < 2**28, f"{peak} bytes allocated"
    assert seconds < 10


def test_readme_lists_every_sr_attack() -> None:
    listed = (HERE / "README.md").read_text().splitlines()
    assert [line for line in listed if "test_sr_attack[" in line] == cases.readme_lines()


def test_every_vector_is_an_attack() -> None:
    names = {Path(path).stem for path in json.loads((VECTORS / "manifest.json").read_text())["invalid"]}
    there = {name for name in names if name.startswith("sr-")}
    assert there == cases.FILES.keys() == {f"sr-{name}" for name in cases.VECTORS}


def outcome(data: bytes) -> str:
    """The code of the error, or "decodes"."""
    try:
        inrformat.decode(data, device="cpu", limits=cases.SMALL)
    except FormatError as error:
        return error.code
    return "decodes"


def test_cuts_and_flips_of_changes_are_seen() -> None:
    """Behind right checksums: an exponent may be another, all else breaks a rule."""
    assert {outcome(data) for data in cases.cuts()} == {"network-truncated", "rans-truncated"}
    seen = Counter(map(outcome, cases.flips()))
    assert seen.keys() == {"out-of-range", "rans-bad-end", "rans-truncated", "decodes"}
    assert seen["decodes"] <= cases.TENSORS
