"""Runs the attacks of decoder_cases.py, and what a hostile but valid file must not cost; README.md lists them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from container_cases import Attack, measured
from decoder_cases import ATTACKS, readme_lines

import inrformat
from inrformat.errors import ModelNotFoundError
from inrformat.models.registry import default_model

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors"


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """The first model of a process makes torch import much of itself: not what is timed here."""
    default_model()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_decoder_attack(attack: Attack) -> None:
    """The right error, soon, and in bounded memory."""
    error, seconds, peak = measured(attack)
    text = str(error)
    if attack.name == "model-unknown":
        assert isinstance(error, ModelNotFoundError) and attack.code in text
    else:
        assert f"[{attack.code}" in text
    assert text.isprintable() and text.isascii() and len(text) < 400
    assert peak < 2**28, f"{peak} bytes allocated"
    assert seconds < 10


def test_readme_lists_every_decoder_attack() -> None:
    listed = (HERE / "README.md").read_text().splitlines()
    assert [line for line in listed if "test_decoder_attack[" in line] == readme_lines()


def test_nothing_of_the_source_is_shown_by_info() -> None:
    """The metadata of this vector has terminal control characters; info is safe to print."""
    info = inrformat.info((VECTORS / "valid" / "records.inrv").read_bytes())
    text = json.dumps(info.to_json(), ensure_ascii=False)
    assert text.isprintable()
    assert "modality" not in text


COSTS = """
import resource, sys, time
sys.path[:0] = {folders!r}
import make_vectors as vectors  # noqa: E402
from inrformat.container import build
from inrformat.decode import File
import torch
def volume(shape, factors, width):
    network = vectors.random_network(1, width, 1)
    head = vectors.header(shape, factors, dtype="u1", range=(0.0, 255.0))
    return build([("HEAD", head.pack()), ("SIRN", vectors.base_network(network))])
File(volume((1, 2, 2), (1, 2, 2), 8), device="cpu").full()
files = [volume((65536, 65536, 2), (1, 1, 1), 1024), volume((1, 65536, 2), (1, 2, 1), 8), volume((65536, 2, 1), (8, 1, 1), 8)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with File(files[0], device="cpu") as file:
    file[0, 65530:, :]
    file[65530:, 0, 0]
    file.codes(((0, 1), (0, 300), (0, 2)))
for data in files[1:]:
    File(data, device="cpu").full()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_long_axes_cost_little_memory() -> None:
    """Axes of 65536 voxels with a network of 1024 rows, and Lanczos along such an axis: below 400 MB."""
    folders = [str(HERE), str(HERE.parents[1] / "spec"), str(HERE.parents[1])]
    code = COSTS.format(folders=folders)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 400
