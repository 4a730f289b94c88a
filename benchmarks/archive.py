"""Archive and restore a folder of DICOM, and hold the bytes against what else could be done with it.

    python benchmarks/archive.py FOLDER OUT [--workers 2]

OUT, new or empty, gets the archive, the restored files, results.json and results.md (the README's table). The peers:
`tar | zstd -19`, and the export as DICOM with each uncompressed image of 8 or 16 bits as JPEG-LS or JPEG 2000, lossless;
there whatever is no such image counts as it is. Memory is the peak of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import imagecodecs
import numpy as np
import pydicom
import zstandard

RUN = """
import resource, sys
from inrformat.cli import main
code = main(sys.argv[1:])
both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(max(resource.getrusage(who).ru_maxrss for who in both), file=sys.stderr)
sys.exit(code)
"""
ENCAPSULATION = 8 + 8 + 8  # bytes: an empty offset table, an item's header, the end of the sequence


class Counter:
    """A file that counts what is written to it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def tar_zstd(folder: Path) -> int:
    """Bytes of `tar | zstd -19`."""
    counter = Counter()
    with (
        zstandard.ZstdCompressor(level=19).stream_writer(cast(BinaryIO, counter)) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        tar.add(folder, arcname=".")
    return counter.size


def recompressed(path: Path) -> tuple[int, int]:
    """Bytes of a file as JPEG-LS and as JPEG 2000 lossless DICOM."""
    size = path.stat().st_size
    try:
        dataset = pydicom.dcmread(path, force=True)
        frames = dataset.pixel_array
        if dataset.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian).is_compressed:
            return size, size
    except Exception:  # no image, or a broken one
        return size, size
    frames = frames.reshape(-1, *frames.shape[-3:] if dataset.SamplesPerPixel == 3 else frames.shape[-2:])
    rest = size - frames.nbytes
    encoders: tuple[Callable[[Any], bytes], ...] = (
        imagecodecs.jpegls_encode,
        lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True, level=0),
    )
    sizes = []
    for encode in encoders:
        coded = [encode(np.ascontiguousarray(_words(frame, encode))) for frame in frames]
        sizes.append(rest + ENCAPSULATION + sum(len(data) + len(data) % 2 + 8 for data in coded))
    return min(sizes[0], size), min(sizes[1], size)


def _words(frame: np.ndarray, encode: Callable[[Any], bytes]) -> np.ndarray:
    """JPEG-LS knows no signed values: their words are coded."""
    return frame.view(f"u{frame.itemsize}") if encode is imagecodecs.jpegls_encode else frame


def command(*arguments: str) -> tuple[dict[str, Any], float]:
    """The JSON document of one command, and the MiB of its largest process."""
    done = subprocess.run([sys.executable, "-c", RUN, *arguments, "--json"], capture_output=True, check=True)
    return json.loads(done.stdout), int(done.stderr.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    store, back, workers = str(options.out / "archive"), str(options.out / "restored"), str(options.workers)
    archived, memory = command("archive", str(options.folder), store, "--workers", workers)
    restored, memory_restore = command("restore", store, back, "--workers", workers)
    proof, _ = command("verify", store, "--workers", workers)
    began = time.monotonic()
    zstd = tar_zstd(options.folder)
    zstd_seconds = time.monotonic() - began
    files = [path for path in sorted(options.folder.rglob("*")) if path.is_file()]
    with ProcessPoolExecutor(options.workers) as pool:
        sizes = np.array(list(pool.map(recompressed, files, chunksize=16)))
    results = {
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "archive": archived,
        "archive_bytes_on_disk": sum(p.stat().st_size for p in Path(store).rglob("*") if p.is_file()),
        "restore": restored,
        "verify": proof,
        "peak_mib": {"archive": memory, "restore": memory_restore},
        "tar_zstd_19": {"bytes": zstd, "seconds": zstd_seconds},
        "jpeg_ls": int(sizes[:, 0].sum()),
        "jpeg_2000": int(sizes[:, 1].sum()),
        "workers": options.workers,
        "cores": os.cpu_count(),
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "results.md").write_text(table(results))
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """The README's table."""
    size, done, back = results["bytes"], results["archive"], results["restore"]
    rows = [
        ("the export", size),
        ("`tar \\| zstd -19`", results["tar_zstd_19"]["bytes"]),
        ("JPEG-LS lossless DICOM", results["jpeg_ls"]),
        ("JPEG 2000 lossless DICOM", results["jpeg_2000"]),
        ("this archive, manifest included", results["archive_bytes_on_disk"]),
    ]
    lines = ["| as | bytes | ratio |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {count:,} | {size / count:.2f} |" for name, count in rows]
    lines += [
        "",
        f"{results['files']} files, {done['volumes']} volumes; archived in {done['seconds']:.0f} s, restored in "
        f"{back['seconds']:.0f} s by {results['workers']} processes, of at most {results['peak_mib']['archive']:.0f} MiB "
        f"(restore: {results['peak_mib']['restore']:.0f} MiB) each; {back['identical']} of {results['files']} files identical.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
