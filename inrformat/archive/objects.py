"""One object of an archive, a series as .inrv or a pack of other files as .inrp: made, proved, read again."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from types import TracebackType

import numpy as np
import pydicom

from ..container.headers import VolumeHeader
from ..container.layout import Reader, build
from ..container.originals import (
    LIST,
    PACK_LIST,
    PACK_REST,
    REST,
    Original,
    Originals,
    Rest,
    compress_rest,
    read_originals,
)
from ..errors import EncodeError, InputError, OutputError, PromiseError, UnsupportedError, UsageError
from ..io.dicom import Slice, frames_of, loaded_of, quiet, volume_of
from ..volume import DTYPES, Array, Volume
from . import derive, pixels
from .pixels import Quality
from .places import CHUNK, Place, sha256_of
from .scan import File, Job

NOT_CODED = (EncodeError, InputError)
"""What the codec says of a series that it cannot code: nothing of the patient, and the same the next time."""


@dataclass(frozen=True)
class Made:
    """A written and proved object; `again`: a later run may do better."""

    name: str
    sha256: str
    size: int
    input: str
    files: tuple[Original, ...]
    again: bool = False


def make(job: Job, source: Place, target: Place, quality: Quality, known: str | None) -> Made | None:
    """Write the object of a job and prove that it gives the files back; None when `known` is its input hash.

    A series that cannot be coded, or not be proved, becomes a pack. InputError (a file changed), OutputError
    (the object cannot be written), OSError (a file cannot be read).
    """
    again = False
    if known is not None and known == _input_hash(job.files, [_digest(source, file) for file in job.files]):
        return None
    if job.shape is not None:
        try:
            return _write_series(job, source, target, quality)
        except (_ChangedError, OutputError, UsageError, OSError):
            raise
        except NOT_CODED as error:
            reason = f"not coded: {error}"
        except Exception as error:  # whatever the codec stumbles over must not cost the files
            reason = f"not coded: {error if isinstance(error, UnsupportedError) else type(error).__name__}"
            again = True  # no memory, no device: it may be there the next time
        reason = "".join(c if c.isprintable() else " " for c in reason)[:200]
        files = tuple(replace(file, at=0, slices=(), reason=reason) for file in job.files)
        job = replace(job, files=files, shape=None)
    return replace(_write_pack(job, source, target), again=again)


class _ChangedError(InputError):
    """A file is not what it was when it was scanned; the next run takes it as it is then."""


# --- a series -------------------------------------------------------------------------------------


def _write_series(job: Job, source: Place, target: Place, quality: Quality) -> Made:
    volume, files, rest = _read_series(job, source)
    if not quality.lossless:
        _check_lossy(job, volume, rest[::2])
    originals = Originals(tuple(files), quality.lossless, job.dtype.startswith(">"))
    with Reader(pixels.encode_volume(volume, quality)) as reader:
        sections = [(info.type, reader.read(info.type)) for info in reader.sections]
    packed = compress_rest(rest, sum(map(len, rest)))
    data = build([*sections, (LIST, originals.pack()), (REST, packed)])
    return _written(
        target, data, ".inrv", originals, _input_hash(job.files, [f.sha256 for f in files]), volume.data
    )


def _read_series(job: Job, source: Place) -> tuple[Volume, list[Original], list[bytes]]:
    """The volume of the words as they are stored, the files, and what of them is no pixel."""
    assert job.shape is not None
    data = np.empty(job.shape, np.dtype(job.dtype).newbyteorder("="))
    files, rest, loaded = [], [], []
    slices: list[Slice | None] = [None] * len(data)
    with quiet():
        for file in job.files:
            raw = _read(source, file)
            end = file.at + len(file.slices) * data[0].nbytes
            words = np.frombuffer(raw[file.at : end], job.dtype).reshape(-1, *job.shape[1:])
            before = raw[: file.at]
            header = pydicom.dcmread(BytesIO(before), stop_before_pixels=True, force=True)
            for z, frame, place in zip(file.slices, words, frames_of(Path("series"), header), strict=True):
                data[z], slices[z] = frame, place
            files.append(Original(file.paths, file.size, hashlib.sha256(raw).digest(), file.at, file.slices))
            rest += [before, raw[end:]]
            loaded.append(loaded_of(header))
        placed = [place for place in slices if place is not None]
        return volume_of(data, placed, loaded, header, left_out=0, full=False), files, rest


def _check_lossy(job: Job, volume: Volume, headers: list[bytes]) -> None:
    """InputError for what a lossy restore could not write as valid DICOM: such a series is kept as it is."""
    if any(len(file.slices) > 1 for file in job.files):
        raise InputError("multi-frame objects are kept exact")
    rewritten = [derive.rewritten(header) for header in headers]
    if len({header.uid for header in rewritten}) < len(rewritten):
        raise InputError("slices that share a SOP Instance UID are kept exact")
    if len({header.bits for header in rewritten}) > 1:
        raise InputError("slices of different stored bits are kept exact")
    stored = volume.metadata["bits_stored"]
    allocated = 8 * volume.data.dtype.itemsize
    signed = volume.data.dtype.kind == "i"
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    if stored < allocated and not (low <= volume.data.min() and volume.data.max() <= high):
        raise InputError("pixels with bits above those stored are kept exact")


def _read(source: Place, file: File) -> bytes:
    with source.open(file.paths[0]) as stream:
        raw = stream.read(file.size + 1)  # it may have grown beyond what memory holds
    digest = hashlib.sha256(raw).digest()
    if len(raw) != file.size or any(sha256_of(source, path) != digest for path in file.paths[1:]):
        raise _ChangedError("a file changed while it was archived")
    return raw


# --- a pack ---------------------------------------------------------------------------------------


def _write_pack(job: Job, source: Place, target: Place) -> Made:
    digests: list[bytes] = []
    rest = compress_rest(_all_bytes(job, source, digests), job.size)
    files = [
        Original(file.paths, file.size, digest, reason=file.reason)
        for file, digest in zip(job.files, digests, strict=True)
    ]
    originals = Originals(tuple(files))
    data = build([(PACK_LIST, originals.pack(PACK_LIST)), (PACK_REST, rest)])
    return _written(target, data, ".inrp", originals, _input_hash(job.files, digests), None)


def _all_bytes(job: Job, source: Place, digests: list[bytes]) -> Iterator[bytes]:
    """The bytes of all files; `digests` grows by their SHA-256."""
    for file in job.files:
        digest, size = hashlib.sha256(), 0
        with source.open(file.paths[0]) as stream:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                if size > file.size:
                    break
                digest.update(chunk)
                yield chunk
        digests.append(digest.digest())
        if size != file.size or any(sha256_of(source, path) != digests[-1] for path in file.paths[1:]):
            raise _ChangedError("a file changed while it was archived")


# --- both -----------------------------------------------------------------------------------------


def _written(
    target: Place, data: bytes, suffix: str, originals: Originals, input_hash: str, volume: Array | None
) -> Made:
    """Write an object, read it again, and rebuild every file from it; EncodeError when one differs."""
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"objects/{sha256[:2]}/{sha256}{suffix}"
    before = target.exists(name.encode())
    target.write(name.encode(), [data])
    try:
        with Opened(target, name) as found:
            found.prove(None if originals.exact else volume)
    except Exception as error:
        if not before:  # it may be an object that counts
            target.remove(name.encode())
        if volume is None:
            raise OutputError("what was written does not read back as it was") from error
        raise EncodeError(f"could not be proved identical ({type(error).__name__})") from error
    return Made(name, sha256, len(data), input_hash, originals.files)


class Opened:
    """An object that is read: `originals` lists its files, `rebuilt` gives them."""

    def __init__(self, place: Place, name: str) -> None:
        self._source = place.source(name.encode())
        self.reader = Reader(self._source)
        try:
            shape, dtype = (0, 0, 0), DTYPES["u1"]
            if self.reader.kind == "volume":
                header = VolumeHeader.unpack(self.reader.read("HEAD"), self.reader.limits)
                shape, dtype = header.shape, DTYPES[header.dtype]
            found = read_originals(self.reader, shape[0], shape[1] * shape[2] * dtype.itemsize)
            if found is None:
                raise InputError("this is no object of an archive")
        except BaseException:
            self.reader.close()
            raise
        self.originals, self._rest = found
        self._dtype = dtype.newbyteorder(">" if self.originals.big_endian else "<")

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.close()

    def volume(self, use_sr: bool = False) -> Volume:
        """The decoded volume of a series."""
        return pixels.decode_volume(self._source, use_sr)

    def rebuilt(self, data: Array | None) -> Iterator[tuple[Original, Iterator[bytes]]]:
        """Each file with its bytes, which can be taken until the next file is asked for.

        data   (z, y, x) the volume's values; None: none of the files that are asked for has any.
        """
        rest = Rest(self._rest, PACK_REST if self.reader.kind == "pack" else REST)
        for file in self.originals.files:
            pieces = self._bytes(file, rest, data)
            yield file, pieces
            deque(pieces, maxlen=0)  # what was not asked for
        rest.end()

    def prove(self, data: Array | None = None) -> int:
        """Rebuild every file, of these values or the decoded ones: how many. PromiseError if one differs."""
        if data is None and self.reader.kind == "volume":
            data = self.volume().data
        for file, pieces in self.rebuilt(data):
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            if digest.digest() != file.sha256:
                raise PromiseError("a file does not come back with the SHA-256 it had")
        return sum(len(file.paths) for file in self.originals.files)

    def _bytes(self, file: Original, rest: Rest, data: Array | None) -> Iterator[bytes]:
        yield from rest.read(file.at)
        left = file.size - file.at
        for z in file.slices:
            assert data is not None
            frame = data[z].astype(self._dtype, copy=False).tobytes()
            left -= len(frame)
            yield frame
        yield from rest.read(left)


def _input_hash(files: tuple[File, ...], digests: list[bytes]) -> str:
    """Of the paths and the SHA-256 of the files, in the job's order."""
    whole = hashlib.sha256()
    for file, digest in zip(files, digests, strict=True):
        for path in file.paths:
            whole.update(path + b"\0")
        whole.update(digest)
    return whole.hexdigest()


def _digest(source: Place, file: File) -> bytes:
    """SHA-256 of a file; of its copies, too, where they are not alike any more."""
    digests = {sha256_of(source, path) for path in file.paths}
    return digests.pop() if len(digests) == 1 else b""
