"""The command line. Exit codes, options and JSON keys are those that the README freezes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from .errors import FormatError, InrError, OutputError, UsageError

if TYPE_CHECKING:
    from .archive.workers import Workers
    from .decode import File
    from .inspect import Info
    from .volume import Volume

PRESETS = ("fast", "balanced", "best", "paper")
KINDS = ("light", "srdensenet")
DAMAGED = ("raise", "fill")
SUFFIX = ".inrv"
INTERRUPTED = 130
TRACEBACK = "INRFORMAT_TRACEBACK"
"""The environment variable that lets an unexpected error through with its traceback."""
PATIENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "AccessionNumber",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "ReferringPhysicianName",
    "InstitutionName",
)
"""What `info --patient` shows, where the file has it."""

Report = tuple[dict[str, Any], str]
"""What a command has to say: the JSON document, with an `exit_code` if not 0; and the same for people."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. --help and --version exit by themselves."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    try:
        with _quiet():
            options = _parser().parse_args(arguments)
            document, text = options.run(options)
            exit_code: int = document.get("exit_code", 0)
        _print(json.dumps(document, indent=2, allow_nan=False) if as_json else _printable(text), sys.stdout)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InrError as error:
        return _failed(str(error), _code(error), error.exit_code, as_json, error)
    except KeyboardInterrupt:
        return _failed("interrupted", "interrupted", INTERRUPTED, as_json)
    except MemoryError:
        return _failed("out of memory", "out-of-memory", 1, as_json)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        # its message may quote anything, a patient's name too
        message = (
            f"internal error, {type(error).__name__} {_place(error)}; set {TRACEBACK}=1 to see all of it"
        )
        return _failed(message, "internal", 1, as_json)
    return exit_code


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning and no log line of a library reaches the terminal: some quote values of a patient."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _code(error: InrError) -> str:
    """A FormatError's own code; otherwise the class's name: 'input', 'model-not-found', ..."""
    if isinstance(error, FormatError):
        return error.code
    return re.sub(r"(?<=.)(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()


def _place(error: BaseException) -> str:
    """Where in this package an unexpected error came up."""
    place, trace = "", error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if Path(__file__).parent in path.parents:
            place = f"at {path.relative_to(Path(__file__).parent)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _failed(message: str, code: str, exit_code: int, as_json: bool, error: InrError | None = None) -> int:
    """Say what went wrong in one line, and in JSON if that is asked for."""
    options = "|".join(_KEYWORDS)
    message = re.sub(rf"\b({options})=(?!\w)", _option, message)  # fill= is what Python calls --fill
    message = re.sub(r"\b(skip_unreadable|allow_irregular)\b(?!=)", _option, message)
    message = _printable(re.sub(r"\s*\n\s*", "; ", message.strip()))
    if as_json:
        document = {"error": message, "code": code, "exit_code": exit_code}
        if isinstance(error, FormatError):
            document |= {"section": error.section, "offset": error.offset}
        with suppress(BrokenPipeError):
            _print(json.dumps(document, indent=2), sys.stdout)
    _print(f"inrformat: error: {message}", sys.stderr)
    return exit_code


_KEYWORDS = (
    "fill",
    "series",
    "factors",
    "ratio",
    "psnr",
    "seconds",
    "max_error",
    "lossless",
    "device",
    "seed",
)


def _option(match: re.Match[str]) -> str:
    return "--" + match[1].replace("_", "-")


def _printable(text: str) -> str:
    """The text with whatever could steer a terminal escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _print(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "ascii"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


# --- the options ----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{**keywords, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Instead of printing and exiting."""
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> None:
        from importlib.metadata import version

        _print(f"inrformat {version('inrformat')}", sys.stdout)
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="inrformat", description="A compressed format for medical volumes (.inrv).")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], Report]) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return added

    _encode_options(command("encode", "Encode a volume to a .inrv file.", _encode))
    _decode_options(command("decode", "Decode a .inrv file to a volume.", _decode))
    info = command(
        "info", "Show what a .inrv file, or an archive, says of itself; nothing is decoded.", _info
    )
    info.add_argument("file", metavar="FILE")
    info.add_argument("--patient", action="store_true", help="show the patient's and the study's names too")
    verify = command("verify", "Check every checksum and record of a .inrv file, or of an archive.", _verify)
    verify.add_argument("file", metavar="FILE")
    verify.add_argument(
        "--restore", action="store_true", help="an archive: decode it, and compare every file"
    )
    _workers_options(verify)
    verify.add_argument("--original", metavar="IN", help="decode, and check the recorded figures against IN")
    _source_options(verify)
    _device_option(verify)
    _train_sr_options(command("train-sr", "Train a super-resolution model on your volumes.", _train_sr))
    _train_options(command("train-context", "Train a context model on your volumes.", _train_context))
    _archive_options(command("archive", "Archive a folder of DICOM, as a PACS exports it.", _archive))
    _restore_options(command("restore", "Write the files of an archive.", _restore))
    _bench_options(command("bench", "Measure this format and its peers on your volumes.", _bench))
    demo = command("demo", "Encode and decode a generated head, and draw the result.", _demo)
    demo.add_argument("folder", type=Path, nargs="?", default=Path("inrformat-demo"), metavar="OUT_DIR")
    _device_option(demo)
    return parser


def _encode_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", help="a DICOM series folder or file, .nii, .nii.gz, .nrrd or .npy"
    )
    parser.add_argument("target", type=Path, metavar="OUT", help=f"the {SUFFIX} file to write")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--ratio", type=float, metavar="R", help="bytes of the voxels over bytes of the file")
    target.add_argument("--psnr", type=float, metavar="P", help="dB, with the volume's own range as peak")
    target.add_argument("--max-error", type=float, metavar="E", help="of any voxel, in stored units")
    target.add_argument("--lossless", action="store_true", help="every voxel exact")
    parser.add_argument("--preset", choices=PRESETS, default="fast", help="effort (default: fast)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="time for a fit, at most: it may end the preset's steps"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="same seed, threads, device, versions: same bytes"
    )
    parser.add_argument("--factors", type=_three, metavar="Z,Y,X", help="of the LR grid, each 1, 2, 4 or 8")
    sr = parser.add_mutually_exclusive_group()
    sr.add_argument(
        "--sr-model", type=Path, metavar="FILE", help="a super-resolution model (.inrm) of your own"
    )
    sr.add_argument("--no-sr", action="store_true", help="Lanczos alone")
    parser.add_argument("--embed-sr", action="store_true", help="store the model in the file")
    parser.add_argument(
        "--context-model", type=Path, metavar="FILE", help="a context model (.inrm) of your own, to embed"
    )
    parser.add_argument("--fill", type=float, metavar="V", help="the value for NaN and infinity")
    _source_options(parser)
    parser.add_argument("--metadata", choices=("full", "essential"), default="full", help="of DICOM, to keep")
    _device_option(parser)


def _decode_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help=f"a {SUFFIX} file")
    parser.add_argument(
        "target", metavar="OUT", help=".nii, .nii.gz, .nrrd, .npy, or without a suffix a folder for DICOM"
    )
    parser.add_argument(
        "--level", choices=("full", "preview"), default="full", help="preview: the LR grid, or a coarser one"
    )
    parser.add_argument("--region", metavar="Z0:Z1,Y0:Y1,X0:X1", help="in voxels of the level")
    parser.add_argument(
        "--models", type=Path, action="append", default=[], metavar="DIR", help="of .inrm files"
    )
    parser.add_argument("--no-sr", action="store_true", help="Lanczos, even if the file names a model")
    parser.add_argument(
        "--damaged",
        choices=DAMAGED,
        default="raise",
        help="fill: what the base shows, where bricks are damaged",
    )
    _device_option(parser)


def _train_sr_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, default="light", help="default: light")
    parser.add_argument(
        "--validate",
        action="append",
        default=[],
        metavar="DATA",
        help="measured at the end, never trained on",
    )
    _train_options(parser)
    _device_option(parser)


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="DATA", help="volumes, as encode takes them")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="MODEL", help="the .inrm file to write"
    )
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S", help="default: 600")
    parser.add_argument("--name", default="custom", help="of the model")
    parser.add_argument("--licence", default="LicenseRef-unknown", help="of the model, as an SPDX expression")
    parser.add_argument("--trained-on", default="not stated", metavar="TEXT", help="what the data is")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    _source_options(parser)


def _archive_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="EXPORT", help="a folder, or an fsspec URL such as s3://bucket/key")
    parser.add_argument("target", metavar="ARCHIVE", help="a folder or URL; an archive that is there goes on")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--ratio", type=float, metavar="R", help="lossy volumes: as for encode")
    target.add_argument("--psnr", type=float, metavar="P", help="lossy volumes: as for encode")
    target.add_argument("--max-error", type=float, metavar="E", help="lossy volumes: as for encode")
    _workers_options(parser)
    _device_option(parser)


def _restore_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ARCHIVE", help="a folder or an fsspec URL")
    parser.add_argument("target", metavar="OUT", help="a folder or an fsspec URL")
    parser.add_argument(
        "--super-resolution",
        action="store_true",
        help="lossy volumes: by the model that came closer, not by Lanczos",
    )
    _workers_options(parser)


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="VOLUME", help="as encode takes them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for tables and pictures")
    parser.add_argument("--codecs", type=_names, metavar="A,B,...", help="default: inrformat and all peers")
    parser.add_argument("--ratios", type=_numbers, metavar="R,...", help="ours; default: 3000,1000,300,100")
    parser.add_argument(
        "--presets", type=_names, default=["fast"], metavar="P,...", help="ours; default: fast"
    )
    _source_options(parser)
    _device_option(parser)


def _workers_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, instead of processes")


def _source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--series", metavar="S", help="DICOM: the series' UID, how it begins, or its number")
    parser.add_argument("--skip-unreadable", action="store_true", help="DICOM: leave broken files out")
    parser.add_argument(
        "--allow-irregular", action="store_true", help="DICOM: accept gaps and uneven spacing"
    )


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
    )


def _three(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers Z,Y,X") from None
    return z, y, x


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers between commas") from None


# --- the commands ---------------------------------------------------------------------------------


def _encode(options: argparse.Namespace) -> Report:
    from .container.files import write_bytes

    _check_file(options.target, SUFFIX)
    from .encode import encode
    from .inspect import info

    model = None
    if options.sr_model is not None:
        from .models.registry import load_model

        model = load_model(options.sr_model)
    context = None
    if options.context_model is not None:
        from .models.registry import load_context

        context = load_context(options.context_model)
    began = time.monotonic()
    data = encode(
        _read(options.source, options, options.metadata),
        ratio=options.ratio,
        psnr=options.psnr,
        max_error=options.max_error,
        lossless=options.lossless,
        preset=options.preset,
        factors=options.factors,
        sr=None if options.no_sr else model or "auto",
        embed_sr=options.embed_sr,
        context=context,
        seconds=options.seconds,
        seed=options.seed,
        fill=options.fill,
        device=options.device,
    )
    write_bytes(options.target, data)
    seconds, found = time.monotonic() - began, info(data)
    text = f"{options.target}: {_size(found)}; {_quality(found)}; {seconds:.1f} s"
    return {"output": str(options.target), "seconds": seconds, **found.to_json()}, text


def _decode(options: argparse.Namespace) -> Report:
    _check_volume(options.target)
    from .decode import File
    from .io import write

    began = time.monotonic()
    with File(
        options.source,
        device=options.device,
        models=options.models,
        use_sr=not options.no_sr,
        damaged=options.damaged,
    ) as file:
        volume = _level(file, options.level, options.region)
    write(volume, options.target)
    seconds = time.monotonic() - began
    document = {
        "output": options.target,
        "seconds": seconds,
        "level": options.level,
        "shape": volume.shape,
        "dtype": volume.data.dtype.name,
        "spacing": volume.spacing,
        "damaged": volume.metadata.get("damaged", []),
    }
    shape = " x ".join(map(str, volume.shape))
    text = f"{options.target}: {shape} {volume.data.dtype.name}, {options.level}; {seconds:.1f} s"
    boxes = [",".join(f"{a}:{b}" for a, b in box) for box in document["damaged"]]
    return document, "\n".join([text, *(f"DAMAGED, and filled: {box}" for box in boxes)])


def _level(file: File, level: str, region: str | None) -> Volume:
    """What is asked for of an open file."""
    from .region import crop, parse_box

    if level == "preview":
        volume = file.preview()
        return volume if region is None else crop(volume, parse_box(region, volume.shape))
    return file.full() if region is None else file.cut(parse_box(region, file.shape))


def _archive(options: argparse.Namespace) -> Report:
    from .archive import archive
    from .archive.pixels import Quality

    quality = Quality(options.ratio, options.psnr, options.max_error, options.device)
    done = archive(options.source, options.target, quality=quality, workers=_workers(options))
    lines = [
        f"{options.target}: {done.files:,} files, {done.volumes:,} volumes, {done.bytes_in:,} bytes in "
        f"{done.bytes_out:,}, {done.ratio:.2f}:1; {done.made} objects made, {done.unchanged} unchanged, "
        f"{done.seconds:.1f} s",
        *_counted("kept as they are", done.kept),
        *_counted("FAILED", done.failed),
        *_counted("REFUSED", done.refused),
    ]
    return done.to_json(), "\n".join(lines)


def _restore(options: argparse.Namespace) -> Report:
    from .archive import restore

    done = restore(options.source, options.target, use_sr=options.super_resolution, workers=_workers(options))
    text = f"{options.target}: {done.files:,} files, {done.identical:,} identical to the originals, "
    text += f"{done.bytes:,} bytes; {done.seconds:.1f} s"
    return done.to_json(), "\n".join([text, *_counted("FAILED", done.failed)])


def _workers(options: argparse.Namespace) -> Workers:
    from .archive.workers import Workers

    return Workers(options.workers, options.dask, getattr(options, "device", "auto"))


def _counted(what: str, reasons: dict[str, int]) -> list[str]:
    return [f"  {what}: {count:,} x {reason}" for reason, count in reasons.items()]


def _is_archive(name: str) -> bool:
    return "://" in name or Path(name).is_dir()


def _info_of_archive(options: argparse.Namespace) -> Report:
    from .archive import contents
    from .container.codes import show

    found = contents(options.file, patient=options.patient)
    size = f"{found['bytes_in']:,} bytes in {found['bytes_out']:,}, {found['ratio']:.2f}:1"
    lines = [
        f"{options.file}: {found['files']:,} files, {found['volumes']:,} volumes, {size}",
        *(f"  kept as they are: {k['count']:,} x {k['reason']}" for k in found["kept"]),
        *(f"  FAILED: {k['count']:,} x {k['reason']}" for k in found["failed"]),
    ]
    longest = 4 * 4096  # a path, escaped
    lines += [f"  {show(file['path'], longest)}: {file['reason']}" for file in found.get("paths", [])]
    left_out = found.get("left_out", [])
    lines += [f"  {show(file['path'], longest)}: LEFT OUT, {file['reason']}" for file in left_out]
    return found, "\n".join(lines)


def _info(options: argparse.Namespace) -> Report:
    if _is_archive(options.file):
        return _info_of_archive(options)
    from .decode import File
    from .inspect import info_of

    with File(options.file) as file:
        found = info_of(file)
        patient = _patient(file.metadata) if options.patient else None
    document = found.to_json()
    lines = [f"{options.file}", *(f"  {name:<11}{value}" for name, value in _facts(found))]
    if patient is not None:
        from .container.codes import show

        document["patient"] = patient
        lines += ["", "  patient and study"]
        lines += [f"  {name:<24}{show(value)[1:-1]}" for name, value in patient.items()] or ["  (nothing)"]
    lines += ["", "  section      offset       bytes  share"]
    for section in found.sections:
        share = 100 * section["length"] / found.bytes
        holds = "".join(f"  {name}" for name in section.get("holds", ()))
        lines.append(
            f"  {section['type']:<8}{section['offset']:>11,}{section['length']:>12,}{share:>6.1f}%{holds}"
        )
    rest = found.bytes - sum(section["length"] for section in found.sections)
    lines.append(f"  {'frame':<19}{rest:>12,}{100 * rest / found.bytes:>6.1f}%")
    return document, "\n".join(lines)


def _facts(found: Info) -> Iterator[tuple[str, str]]:
    """The lines of `info`."""
    from .volume import DTYPES

    low, high = found.range
    yield "size", _size(found)
    yield "format", f"{found.version}, {found.base}"
    yield "volume", f"{_by(found.shape)} (z, y, x) {DTYPES[found.dtype].name}, values {low:g} to {high:g}"
    yield "spacing", f"{_by(found.spacing)} mm"
    yield "LR grid", f"{_by(found.lr_shape)}, smaller by {_by(found.factors)}"
    if found.latents is not None:
        yield "", f"by latents and the latent model {_named(found.latents)}"
    else:
        yield "network", f"{found.depth} layers of {found.width}, {found.parameters:,} parameters"
    if found.bound is not None and found.context is not None:
        how = (
            "lossless" if found.bound["lossless"] else f"within {found.bound['max_error']:g} of the original"
        )
        yield "full size", f"{how}, in bricks: {_by(found.bound['bricks'])}"
        tuned = ", tuned" if found.context["tuned"] else ""
        yield "", f"by the context model {_named(found.context)}{tuned}"
    elif found.sr is None:
        yield "full size", "by Lanczos"
    else:
        yield "full size", f"by the super-resolution model {_named(found.sr)}"
    if (measured := found.measured) is not None:
        yield "measured", _quality(found)
        if measured.psnr_lanczos is not None and found.sr is not None:
            yield "", f"PSNR {measured.psnr_lanczos:.2f} dB by Lanczos"
        if measured.lr_psnr is not None:
            yield "", f"PSNR {measured.lr_psnr:.2f} dB of the LR grid as decoded"
        yield "errors", f"mean {measured.mean_error:.4g}, greatest {measured.max_error:g}"
        if measured.worst_slice_psnr is not None:
            yield "worst", f"slice {measured.worst_slice}, PSNR {measured.worst_slice_psnr:.2f} dB"
        if measured.promise is not None:
            yield "promise", f"{measured.promise.kind} {measured.promise.value:g}"
    if (made := found.provenance) is not None:
        yield (
            "made by",
            f"{made.software}, preset {made.preset}, seed {made.seed}, {made.steps} steps, {made.device}",
        )


def _named(model: dict[str, Any]) -> str:
    """A model that a file needs, where it is, and whether the file changes it."""
    where = "in this file" if model["embedded"] else f"SHA-256 {model['sha256'][:16]}..."
    return f"{model['name']} {model['version']} ({where}){', adapted' if model.get('adapted') else ''}"


def _patient(metadata: dict[str, Any]) -> dict[str, str]:
    """What the file says of the patient and the study, as far as it can be read."""
    from pydicom.filereader import read_dataset

    tags, found = metadata.get("tags"), {}
    if isinstance(tags, bytes):
        with suppress(Exception):  # whatever is broken there is not shown
            dataset = read_dataset(BytesIO(tags), is_implicit_VR=False, is_little_endian=True)
            for keyword in PATIENT:
                with suppress(Exception):
                    if keyword in dataset:
                        found[keyword] = str(dataset[keyword].value)
    return found


def _verify_archive(options: argparse.Namespace) -> Report:
    from .archive import verify

    done = verify(options.file, rebuild=options.restore, workers=_workers(options))
    text = f"{'DAMAGED' if done.failed else 'OK'}: {options.file}, {done.objects:,} objects"
    text += f", {done.files:,} files, {done.rebuilt:,} of them rebuilt and identical; {done.seconds:.1f} s"
    return done.to_json(), "\n".join([text, *_counted("DAMAGED", done.failed)])


def _verify(options: argparse.Namespace) -> Report:
    if _is_archive(options.file):
        if options.original is not None:
            raise UsageError("--original is for a file; an archive has its own hashes: --restore")
        return _verify_archive(options)
    if options.restore:
        raise UsageError("--restore is for an archive")
    from .inspect import verify

    original = None if options.original is None else _read(options.original, options, "essential")
    found = verify(options.file, original=original, device=options.device)
    document = {"ok": True, "original": original is not None, **found.to_json()}
    text = f"OK: {options.file}, {len(found.sections)} sections, every checksum and record"
    return document, text + ("; it decodes to what it promises" if original is not None else "")


def _training_bar() -> Any:
    """A bar of the share of the budget that is used."""
    from tqdm import tqdm

    return tqdm(total=1.0, disable=None, leave=False, bar_format="{percentage:3.0f}% |{bar:30}| {postfix}")


def _train_sr(options: argparse.Namespace) -> Report:
    _check_file(options.output, ".inrm")
    import hashlib

    from .decode import resolve_device
    from .models.registry import save_model
    from .train_sr import TrainProgress, train_sr

    volumes = [_read(source, options, "essential") for source in options.sources]
    validation = [_read(source, options, "essential") for source in options.validate]
    last = TrainProgress(0, 0.0, 0.0)
    with _training_bar() as bar:

        def report(at: TrainProgress) -> None:
            nonlocal last
            last = at
            bar.set_postfix_str(f"step {at.step}, error {at.loss:.3f} of Lanczos'", refresh=False)
            bar.update(at.done - bar.n)

        model = train_sr(
            volumes,
            kind=options.kind,
            seconds=options.seconds,
            seed=options.seed,
            device=resolve_device(options.device),
            progress=report,
            validation=validation,
        )
    saved = save_model(
        options.output, model, name=options.name, licence=options.licence, trained_on=options.trained_on
    )
    gains = [
        {"volume": options.validate[i], "factors": list(factors), "gain_db": gain}
        for i, factors, gain in last.gains
    ]
    document = {
        "output": str(options.output),
        "sha256": hashlib.sha256(saved.file or b"").hexdigest(),
        "name": options.name,
        "kind": options.kind,
        "parameters": sum(p.numel() for p in saved.parameters()),
        "steps": last.step,
        "loss": last.loss,
        "gains": gains,
    }
    lines = [f"{options.output}: {document['parameters']:,} parameters, {last.step} steps, "]
    lines[0] += f"squared error {last.loss:.3f} of Lanczos'"
    lines += [f"  {g['volume']}, factors {_by(g['factors'])}: {g['gain_db']:+.2f} dB" for g in gains]
    return document, "\n".join(lines)


def _train_context(options: argparse.Namespace) -> Report:
    _check_file(options.output, ".inrm")
    import hashlib

    from .container.files import write_bytes
    from .fit.context import TrainProgress, train_context
    from .models.registry import pack_integers

    volumes = [_read(source, options, "essential") for source in options.sources]
    last = TrainProgress(0, 0.0, 0.0)
    with _training_bar() as bar:

        def report(at: TrainProgress) -> None:
            nonlocal last
            last = at
            bar.set_postfix_str(f"step {at.step}, {at.bits:.3f} bits", refresh=False)
            bar.update(at.done - bar.n)

        model = train_context(volumes, seconds=options.seconds, seed=options.seed, progress=report)
    data = pack_integers(
        model, name=options.name, version=1, licence=options.licence, trained_on=options.trained_on
    )
    write_bytes(options.output, data)
    document = {
        "output": str(options.output),
        "sha256": hashlib.sha256(data).hexdigest(),
        "name": options.name,
        "steps": last.step,
        "bits": last.bits,
    }
    return document, f"{options.output}: {last.step} steps, {last.bits:.3f} bits a voxel in training"


def _bench(options: argparse.Namespace) -> Report:
    from tqdm import tqdm

    from .bench import CODECS, RATIOS, bench, choose, report

    ratios = options.ratios or RATIOS
    codecs = choose(options.codecs or CODECS, ratios=ratios, presets=options.presets, device=options.device)
    volumes = {n: _read(source, options, "essential") for n, source in _by_name(options.sources).items()}
    total = len(volumes) * sum(len(codec.settings) for codec in codecs)
    with tqdm(total=total, disable=None, leave=False) as bar:
        points, document = bench(volumes, options.out, codecs, ratios=ratios, progress=lambda _: bar.update())
    text = [*report.lines(points), *report.rate_lines(document["bd_rate"]), f"written to {options.out}"]
    return {"folder": str(options.out), **document}, "\n".join(text)


def _by_name(sources: Sequence[str]) -> dict[str, str]:
    """Volumes by names that files can have, told from their own."""
    from .io import suffix_of

    named: dict[str, str] = {}
    for source in sources:
        path = Path(source).resolve()
        name = re.sub(r"[^\w.-]+", "_", path.name[: len(path.name) - len(suffix_of(path))]) or "volume"
        named[f"{name}-{len(named) + 1}" if name in named else name] = source
    return named


def _demo(options: argparse.Namespace) -> Report:
    from .demo import run

    return run(options.folder, options.device)


# --- what the commands share ----------------------------------------------------------------------


def _read(source: str, options: argparse.Namespace, metadata: str) -> Volume:
    from .io import read

    return read(
        source,
        series=options.series,
        skip_unreadable=options.skip_unreadable,
        allow_irregular=options.allow_irregular,
        metadata=metadata,
    )


def _check_file(path: Path, suffix: str) -> None:
    """Refuse what could not be written before the work is done, not after it."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"the output's name ends with {suffix}, not {path.name!r}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    _check_parent(path)


def _check_volume(name: str) -> None:
    """The same for a volume, whose kind its name tells (see `io.write`)."""
    from .io import FILE_SUFFIXES, suffix_of

    path, suffix = Path(name), suffix_of(name)
    if name.endswith(("/", os.sep)) or suffix == "" or path.is_dir():
        with suppress(OSError):  # writing will tell
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise OutputError(f"{path} is there already and is not an empty folder")
    elif suffix not in FILE_SUFFIXES:
        known = ", ".join(FILE_SUFFIXES)
        raise UsageError(f"cannot write '{suffix}' files; known are {known}, or no suffix for a DICOM folder")
    _check_parent(path)


def _check_parent(path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {folder}")


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:.6g}" for n in numbers)


def _size(found: Info) -> str:
    return f"{found.bytes:,} bytes, {found.ratio:,.5g}:1"


def _quality(found: Info) -> str:
    measured = found.measured
    if measured is None:
        return "no figures"
    if measured.psnr is None:
        return "exact"
    return f"PSNR {measured.psnr:.2f} dB (peak {measured.peak:g}), SSIM {measured.ssim:.4f}"


if __name__ == "__main__":
    sys.exit(main())
