"""One atheris target: python fuzz.py TARGET [libFuzzer options] CORPUS... (run.py starts all of them)."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[2]))

import torch  # not instrumented: only our own code is

with atheris.instrument_imports(include=["inrformat"]):
    import targets

import mutate

torch.set_num_threads(1)


def mutate_file(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's custom mutator for whole files."""
    return mutate.file(data, random.Random(seed))[:max_size]


def mutate_record(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's custom mutator for records: the first byte is the kind."""
    rng = random.Random(seed)
    ways = (mutate.record, mutate.network, *[mutate.record] * 3, mutate.metadata, *[mutate.record] * 3)
    if not data or rng.random() < 0.2:
        return mutate.flip(data, rng)[:max_size]
    return (data[:1] + ways[data[0] % len(ways)](data[1:], rng))[:max_size]


def main() -> None:
    """See the module."""
    name = sys.argv.pop(1)
    mutator = mutate_record if name == "records" else mutate_file
    atheris.Setup(sys.argv, targets.Bounded(name), custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
