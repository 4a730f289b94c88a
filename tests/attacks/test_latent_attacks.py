"""Runs the attacks of latent_cases.py, and every flip and cut of a small file; README.md lists them."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import latent_cases as cases
import latent_vectors as latents
import pytest
from container_cases import Attack, measured

import inrformat
from inrformat.errors import FormatError, InrError, ModelNotFoundError

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors"


@pytest.mark.parametrize("attack", cases.ATTACKS, ids=lambda attack: attack.name)
def test_latent_attack(attack: Attack) -> None:
    """The right error, soon, and in bounded memory."""
    error, seconds, peak = measured(attack)
    text = str(error)
    if attack.name in ("latents-model-unknown", "latents-changes-to-a-model-unknown"):
        assert isinstance(error, ModelNotFoundError) and attack.code in text
    else:
        assert f"[{attack.code}" in text
    assert text.isprintable() and text.isascii() and len(text) < 400
    assert peak < 2**27, f"{peak} bytes allocated"
    assert seconds < 10


def test_readme_lists_every_latent_attack() -> None:
    listed = (HERE / "README.md").read_text().splitlines()
    assert [line for line in listed if "test_latent_attack[" in line] == cases.readme_lines()


def test_every_vector_is_an_attack() -> None:
    names = {Path(path).stem for path in json.loads((VECTORS / "manifest.json").read_text())["invalid"]}
    there = {name for name in names if name.startswith("latents-")}
    assert there == cases.FILES.keys()
    assert there - {attack.name for attack in cases.ATTACKS} == {"latents-field-unknown", "latents-no-masks"}


def outcome(data: bytes) -> str:
    """The code of the error, or what it decodes to."""
    try:
        return str(inrformat.decode(data, device="cpu", limits=cases.SMALL).data.tobytes())
    except FormatError as error:
        return error.code
    except InrError as error:
        return type(error).__name__


ARRAYS = {"rans-truncated", "rans-bad-state", "rans-bad-end", "padding-not-zero"}


def test_bytes_and_cuts_of_the_latents_are_seen() -> None:
    """Behind right checksums: section LATD that is changed in one byte, or cut, breaks a rule.

    But for what the code leaves free, an escape or a low bit: then it may decode.
    """
    for cut in cases.damaged(lambda data, at: data[:at]):
        assert outcome(cut) == "bad-latents"
    seen = Counter(outcome(f) for f in cases.damaged(lambda d, i: d[:i] + bytes([d[i] ^ 255]) + d[i + 1 :]))
    assert seen["bad-latents"] + sum(seen[code] for code in ARRAYS) > 0.8 * seen.total()
    assert seen["bad-latents"] > 0.6 * seen.total()


def test_bytes_of_the_sections_are_checked() -> None:
    """Nothing but one of our errors comes out, or a volume of the same shape."""
    seen = Counter(outcome(data)[:20] for data in cases.flips())
    assert seen.keys() > {"bad-latents", "rans-bad-end", "out-of-range", "model-hash-mismatch"}
    assert seen["bad-latents"] > 60


def test_cuts_and_flips_of_changes_are_seen() -> None:
    """Behind right checksums: no byte of section LATU is free."""
    assert {outcome(data) for data in cases.cuts_of_changes()} == {"network-truncated", "rans-truncated"}
    seen = Counter(map(outcome, cases.flips_of_changes()))
    assert seen.keys() == {"out-of-range", "rans-bad-end", "rans-truncated"}


def test_every_byte_of_a_file_is_covered_by_a_checksum() -> None:
    data = cases.GOOD.file()
    for at in range(0, len(data), 97):
        with pytest.raises(InrError):
            inrformat.verify(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], device="cpu")
        with pytest.raises(InrError):
            inrformat.decode(data[:at], device="cpu")


@pytest.mark.parametrize("escape", [2**32 - 1, 2**32 - 2])
@pytest.mark.parametrize("width", [40, 140])
def test_extreme_escapes_are_clamped(escape: int, width: int) -> None:
    """An escape may be any u32: the latent it gives stays in range, without a wrap or a warning."""
    model = latents.model_file(latents.random_weights(90, width=width))
    good = latents.random_parts((6, 9, 10), (7,), 91, model=model, size=2.0 ** (width / 8), spikes=0.05)
    code = latents.Code.parse(good.data.rest, good.latn["lanes"])
    changed = replace(code, escapes=[escape] * len(code.escapes)).join()
    file = replace(good, latd=replace(good.data, rest=changed).join()).file()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            volume = inrformat.decode(file, device="cpu").data
        except FormatError as error:
            assert error.code == "bad-latents"
        else:
            assert -1000 <= volume.min() <= volume.max() <= 3000
    assert code.escapes or width == 140


def test_one_lane_for_many_latents_costs_little_time() -> None:
    """131,072 latents, all predicted, one after the other."""
    with latents.bits_per_lane(10**9):
        good = latents.random_parts((16, 64, 128), (7,), 1)
    assert good.latn["lanes"] == 1
    began = time.process_time()
    inrformat.decode(good.file(), device="cpu")
    assert time.process_time() - began < 5
