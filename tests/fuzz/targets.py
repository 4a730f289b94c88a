"""What is fuzzed: each target takes any bytes, and lets nothing out but InrError. Time and memory are bounded."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

import inrformat
from inrformat.coding import network
from inrformat.container import (
    Limits,
    Measured,
    ModelHeader,
    Provenance,
    Reader,
    VolumeHeader,
    records,
    unpack_metadata,
)
from inrformat.container.headers import LatentHeader, LatticeHeader
from inrformat.errors import InrError
from inrformat.models.registry import load_context, load_latents, load_model

LIMITS = Limits(
    max_voxels=2**16,
    max_parameters=2**14,
    max_layers=16,
    max_section_bytes=2**18,
    max_record_bytes=2**16,
    max_metadata_bytes=2**18,
    max_metadata_items=2**14,
    max_model_bytes=2**16,
    max_work=2**25,
    max_activations=2**20,
    max_latents=2**14,
    max_brick_voxels=2**15,
)
SECONDS = 5.0
"""Of CPU, for one input."""
MEGABYTES = 300
"""That one input may add to the greatest memory so far, beyond what the first inputs took."""


def canonical(data: bytes) -> None:
    """A record that is accepted is the one encoding of what it holds."""
    assert records.pack(records.unpack(data, LIMITS)) == data


KINDS: tuple[Callable[[bytes], object], ...] = (
    lambda data: VolumeHeader.unpack(data, LIMITS),
    lambda data: network.unpack(data, LIMITS),
    lambda data: Measured.unpack(data, LIMITS),
    lambda data: Provenance.unpack(data, LIMITS),
    lambda data: ModelHeader.unpack(data, LIMITS),
    lambda data: unpack_metadata(data, LIMITS),
    canonical,
    lambda data: LatticeHeader.unpack(data, LIMITS),
    lambda data: LatentHeader.unpack(data, LIMITS),
)
"""What the first byte of a `records` input chooses."""


def container(data: bytes) -> None:
    """The section table, every checksum and every section."""
    with Reader(data, LIMITS) as reader:
        for name in reader.types:
            reader.read(name)
        assert reader.kind in ("volume", "model")
        reader.check_all()


def record(data: bytes) -> None:
    """One record, of the kind that the first byte chooses."""
    if data:
        KINDS[data[0] % len(KINDS)](data[1:])


def decoder(data: bytes) -> None:
    """All that a user does with a file; a file that verifies must decode."""
    try:
        if Reader(data, LIMITS).kind == "model":
            for load in (load_context, load_latents):
                with suppress(InrError):
                    load(data, LIMITS)
            load_model(data, LIMITS)
            return
    except InrError:
        return
    with inrformat.open(data, device="cpu", limits=LIMITS) as file:
        file.preview()
        z, y, x = file.shape
        whole = file.full().data
        part = file.region(((z // 2, z), (0, y), (x // 3, x)))
        assert part.shape == (z - z // 2, y, x - x // 3) and whole.shape == file.shape
        if file.bounded:
            assert np.array_equal(part, whole[z // 2 :, :, x // 3 :])
    inrformat.info(data, limits=LIMITS)
    inrformat.verify(data, device="cpu", limits=LIMITS)


TARGETS: dict[str, Callable[[bytes], None]] = {"container": container, "records": record, "decoder": decoder}


class Bounded:
    """A target that fails on any error but ours, and on an input that takes too long or too much memory."""

    def __init__(self, name: str) -> None:
        self.target = TARGETS[name]
        self.runs = 0

    def __call__(self, data: bytes) -> None:
        memory, began = _megabytes(), time.process_time()
        try:
            self.target(data)
        except InrError as error:
            text = str(error)
            assert text.isprintable() and len(text) < 1000, repr(text)
        self.runs += 1
        seconds = time.process_time() - began
        if self.runs > 20:  # what is imported and cached on first use does not count
            assert seconds < SECONDS, f"one input took {seconds:.1f} s"
            assert _megabytes() - memory < MEGABYTES, f"one input took {_megabytes() - memory} MB"


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
