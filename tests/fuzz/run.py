"""Runs every fuzz target for a share of the time: python tests/fuzz/run.py --seconds 60 [--keep FOLDER].

The seeds are spec/vectors/. A crash ends it with exit code 1 and says where the input is; a crash that is
mended becomes an invalid vector (spec/make_vectors.py).
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[2]))
import mutate

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors"

TARGETS = ("container", "records", "decoder")
KINDS = {b"HEAD": 0, b"SIRN": 1, b"meas": 2, b"prov": 3, b"MODL": 4, b"meta": 5, b"LATT": 7, b"LATN": 8}
LARGEST = 1 << 14


def seeds(target: str, folder: Path) -> None:
    """The vectors as a corpus; for `records`, the sections of the valid ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(VECTORS.rglob("*.inr[vm]")):
        data = path.read_bytes()
        if len(data) > LARGEST:
            continue
        if target != "records":
            (folder / f"{path.parent.name}-{path.name}").write_bytes(data)
        elif path.parent.name == "valid":
            for name, body in mutate.parse(data):
                if name in KINDS:
                    (folder / f"{path.stem}-{name.decode()}").write_bytes(bytes([KINDS[name]]) + body)


def run(target: str, seconds: int, seed: int, folder: Path) -> int:
    """One target; its exit code. What it finds is left in `folder`."""
    corpus, found = folder / f"corpus-{target}", folder / f"found-{target}-"
    seeds(target, corpus)
    command = [sys.executable, str(HERE / "fuzz.py"), target, f"-max_total_time={seconds}", f"-seed={seed}"]
    command += [f"-max_len={LARGEST}", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={found}"]
    command += ["-print_final_stats=1", "-len_control=0", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "?")
    print(f"{target}: {runs} inputs in {seconds} s, exit code {done.returncode}", flush=True)
    if done.returncode:
        print("\n".join((done.stdout.splitlines() + lines)[-60:]))
    return done.returncode


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    parser.add_argument("--keep", type=Path, help="keep the corpus and what was found here")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="inrformat-fuzz-"))
    share = -(-options.seconds // len(TARGETS))
    failed = [target for target in TARGETS if run(target, share, options.seed, folder)]
    if failed:
        print(f"failed: {', '.join(failed)}; the inputs are in {folder}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
