"""A bounded run of every fuzz target, and the mutator's own tests. Longer: make fuzz."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import mutate
import pytest
import targets

from inrformat.container import Reader
from inrformat.errors import InrError

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors"
FILES = {
    path: (VECTORS / path).read_bytes()
    for path in json.loads((VECTORS / "manifest.json").read_text())["valid"]
}


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_targets_accept_every_vector(name: str) -> None:
    bounded = targets.Bounded(name)
    for path in sorted(VECTORS.rglob("*.inr[vm]")):
        bounded(path.read_bytes())


def test_what_the_mutator_changes_has_right_checksums() -> None:
    """Otherwise it would not reach what lies behind them."""
    rng, whole, total = random.Random(1), 0, 0
    for data in FILES.values():
        for _ in range(5):
            total += 1
            try:
                with Reader(mutate.file(data, rng)) as reader:
                    reader.check_all()
                whole += 1
            except InrError:
                pass
    assert whole > 0.7 * total


def test_mutations_follow_from_their_seed() -> None:
    data = FILES["valid/records.inrv"]
    assert mutate.file(data, random.Random(5)) == mutate.file(data, random.Random(5))


@pytest.mark.slow
def test_a_minute_of_fuzzing_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install atheris")
    command = [sys.executable, str(HERE / "run.py"), "--seconds", "63", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
