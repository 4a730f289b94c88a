"""The command line: what it writes, what it says, and the exit codes that the README freezes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import PATIENT, make_series, volume_array

import inrformat
from inrformat import cli, io
from inrformat.fit import plan
from inrformat.volume import Volume

SHAPE = (12, 24, 20)


@pytest.fixture(scope="module", autouse=True)
def little_effort():
    """Presets of a few steps: what is tested here is not how good a fit is."""
    with pytest.MonkeyPatch.context() as patch:
        for name, preset in plan.PRESETS.items():
            settings = replace(preset.settings, steps=40, batch=1024, width=16, depth=2)
            patch.setitem(plan.PRESETS, name, replace(preset, settings=settings, bytes=700, growth=0))
        yield


@pytest.fixture
def run(capsys):
    """Call the CLI in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        code = cli.main([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def fails(run):
    """The call ends with this code and one line on stderr that says what the pattern does."""

    def call(exit_code, pattern, *arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (exit_code, ""), err
        assert err.startswith("inrformat: error: ") and err.count("\n") == 1, err
        assert re.search(pattern, err), err
        code, out, err = run(*arguments, "--json")
        document = json.loads(out)
        assert code == document["exit_code"] == exit_code
        assert document["error"] and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", document["code"])
        return document

    return call


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A folder with head.nii.gz, its Volume, and what `encode` made of it."""
    folder = tmp_path_factory.mktemp("head")
    volume = inrformat.head_phantom(SHAPE)
    io.write(volume, folder / "head.nii.gz")
    assert (
        cli.main(["encode", str(folder / "head.nii.gz"), str(folder / "head.inrv"), "--factors", "1,2,2"])
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A DICOM series with its own rescale in every slice, and its .inrv."""
    folder = tmp_path_factory.mktemp("series")

    def edit(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(1 + k / 4), str(-k)
        dataset.StudyDescription = "head\x1b[31m"

    make_series(folder / "in", volume_array((8, 16, 12), np.uint16), edit=edit, bits_stored=12)
    assert (
        cli.main(["encode", str(folder / "in"), str(folder / "x.inrv"), "--no-sr", "--factors", "1,1,1"]) == 0
    )
    return folder


# --- what works -----------------------------------------------------------------------------------


def test_encode_says_what_it_measured(head, run):
    code, out, err = run("encode", head / "head.nii.gz", head / "again.inrv", "--json", "--factors", "1,2,2")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["bytes"] == (head / "again.inrv").stat().st_size
    assert document["shape"] == list(SHAPE) and document["factors"] == [1, 2, 2]
    assert document["ratio"] == pytest.approx(2 * np.prod(SHAPE) / document["bytes"])
    assert document["measured"]["psnr"] > 5 and document["seconds"] > 0
    assert (head / "again.inrv").read_bytes() == (head / "head.inrv").read_bytes()  # the same seed
    code, out, err = run("encode", head / "head.nii.gz", head / "again.inrv", "--seed", "7")
    assert code == 0 and "PSNR" in out and "SSIM" in out and out.count("\n") == 1
    assert (head / "again.inrv").read_bytes() != (head / "head.inrv").read_bytes()


def test_a_ratio_is_reached(head, run):
    code, out, _ = run("encode", head / "head.nii.gz", head / "r.inrv", "--ratio", "10", "--no-sr", "--json")
    assert code == 0
    assert json.loads(out)["ratio"] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.nrrd", "out.npy", "out"])
def test_decode_to_every_kind(head, run, name, tmp_path):
    code, out, err = run("decode", head / "head.inrv", tmp_path / name, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["output"] == str(tmp_path / name)
    assert (document["shape"], document["dtype"]) == (list(SHAPE), "int16")
    written, decoded = io.read(tmp_path / name), inrformat.decode(head / "head.inrv", device="cpu")
    if name == "out.nrrd":  # has no rescale: Hounsfield units
        np.testing.assert_allclose(written.real_values(), decoded.real_values())
    else:
        np.testing.assert_array_equal(written.data, decoded.data)


def test_decode_of_the_preview(head, run, tmp_path):
    assert run("decode", head / "head.inrv", tmp_path / "p.nrrd", "--level", "preview")[0] == 0
    preview, volume = io.read(tmp_path / "p.nrrd"), io.read(head / "head.nii.gz")
    assert preview.shape == (12, 12, 10)
    np.testing.assert_allclose(preview.spacing, np.multiply(volume.spacing, (1, 2, 2)))
    region = ("--level", "preview", "--region", "2:,:,:-1")
    assert run("decode", head / "head.inrv", tmp_path / "q.npy", *region)[0] == 0
    stored = np.load(tmp_path / "q.npy")
    np.testing.assert_array_equal(stored - 1024, preview.data[2:, :, :-1])


def test_a_region_lies_where_it_was(series, run, tmp_path):
    """In patient space, with the rescale of its own slices, and referring to its own source images."""
    whole = inrformat.decode(series / "x.inrv")
    assert len(whole.slope) == 8
    assert run("decode", series / "x.inrv", tmp_path / "out", "--region", "2:6,3:16,5:10")[0] == 0
    part = io.read(tmp_path / "out")
    np.testing.assert_array_equal(part.data, whole.data[2:6, 3:, 5:10])
    np.testing.assert_allclose(part.affine @ [0, 0, 0, 1], whole.affine @ [2, 3, 5, 1], atol=1e-6)
    np.testing.assert_allclose(part.affine[:3, :3], whole.affine[:3, :3], atol=1e-6)
    assert part.slope == pytest.approx(whole.slope[2:6])
    assert part.intercept == pytest.approx(whole.intercept[2:6])
    import pydicom

    written = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert [d.SourceImageSequence[0].ReferencedSOPInstanceUID for d in written] == whole.metadata[
        "sop_instance_uids"
    ][2:6]
    assert {d.LossyImageCompression for d in written} == {"01"}


def test_a_missing_model_is_named_and_can_be_done_without(head, run, fails, tmp_path):
    from inrformat.models import registry

    model = registry.create_model("light")
    other = registry.save_model(tmp_path / "my.inrm", model, name="mine")
    with inrformat.open(head / "head.inrv") as file:
        header = replace(file.header, sr=other.reference)
        parts = ("LATN", "LATD")
        sections = [("HEAD", header.pack()), *((part, file.reader.read(part)) for part in parts)]
    from inrformat.container import build, write_bytes

    write_bytes(tmp_path / "x.inrv", build(sections))
    document = fails(5, "mine 1 is not here", "decode", tmp_path / "x.inrv", tmp_path / "x.npy")
    assert document["code"] == "model-not-found"
    assert not (tmp_path / "x.npy").exists()
    assert run("decode", tmp_path / "x.inrv", tmp_path / "a.npy", "--no-sr")[0] == 0
    assert run("decode", tmp_path / "x.inrv", tmp_path / "b.npy", "--level", "preview")[0] == 0
    assert run("decode", tmp_path / "x.inrv", tmp_path / "c.npy", "--models", tmp_path)[0] == 0


def test_info(head, run):
    code, out, err = run("info", head / "head.inrv")
    assert (code, err) == (0, "")
    assert "12 x 24 x 20 (z, y, x) int16" in out and "PSNR" in out
    shares = [float(m) for m in re.findall(r"([\d.]+)%", out)]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    code, out, _ = run("info", head / "head.inrv", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(inrformat.info(head / "head.inrv").to_json()))


def test_nothing_shows_the_patient_unless_asked(series, run, tmp_path):
    told = [
        run("info", series / "x.inrv"),
        run("info", series / "x.inrv", "--json"),
        run("verify", series / "x.inrv"),
        run("decode", series / "x.inrv", tmp_path / "x.nii", "--json"),
    ]
    assert not [t for t in told if "Muster" in "".join(t[1:]) or "secret" in "".join(t[1:])]
    code, out, _ = run("info", series / "x.inrv", "--patient")
    assert code == 0 and PATIENT in out and "secret-17" in out
    assert "\x1b" not in out and "head\\x1b[31m" in out
    patient = json.loads(run("info", series / "x.inrv", "--patient", "--json")[1])["patient"]
    assert patient["PatientName"] == PATIENT and patient["PatientBirthDate"] == "19700101"


def test_info_of_a_file_without_a_patient(head, run):
    assert json.loads(run("info", head / "head.inrv", "--patient", "--json")[1])["patient"] == {}
    assert "(nothing)" in run("info", head / "head.inrv", "--patient")[1]


def test_verify(head, run, fails, tmp_path):
    code, out, err = run("verify", head / "head.inrv")
    assert (code, err) == (0, "") and out.startswith("OK: ") and out.count("\n") == 1
    code, out, _ = run("verify", head / "head.inrv", "--original", head / "head.nii.gz", "--json")
    assert code == 0 and (json.loads(out)["ok"], json.loads(out)["original"]) == (True, True)
    data = io.read(head / "head.nii.gz").data
    io.write(Volume(data.max() - data), tmp_path / "other.nii")
    fails(4, "another original", "verify", head / "head.inrv", "--original", tmp_path / "other.nii")
    io.write(Volume(data[::-1]), tmp_path / "other.nii")
    fails(4, "decodes to", "verify", head / "head.inrv", "--original", tmp_path / "other.nii")
    io.write(Volume(data[1:]), tmp_path / "short.npy")
    fails(3, "the original is", "verify", head / "head.inrv", "--original", tmp_path / "short.npy")


def test_train_sr(head, run, tmp_path):
    arguments = (
        "train-sr",
        head / "head.nii.gz",
        "-o",
        tmp_path / "m.inrm",
        "--seconds",
        "0.1",
        "--name",
        "mine",
    )
    code, out, err = run(*arguments, "--validate", head / "head.nii.gz", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["name"] == "mine" and document["steps"] >= 1 and document["gains"]
    encoded = run(
        "encode",
        head / "head.nii.gz",
        tmp_path / "m.inrv",
        "--sr-model",
        tmp_path / "m.inrm",
        "--embed-sr",
        "--json",
    )
    assert encoded[0] == 0
    assert json.loads(encoded[1])["sr"] in (None, {**(json.loads(encoded[1])["sr"] or {}), "name": "mine"})


def test_demo(run, tmp_path, monkeypatch):
    from PIL import Image

    from inrformat import demo

    monkeypatch.setattr(demo, "SHAPE", (6, 24, 24))
    code, out, err = run("demo", tmp_path / "new" / "folder")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("bytes", ":1", "PSNR", "peak", "SSIM", "s to encode"))
    code, out, _ = run("demo", tmp_path, "--json")
    document = json.loads(out)
    assert code == 0 and document["bytes"] == (tmp_path / "demo.inrv").stat().st_size
    assert io.read(tmp_path / "demo.nii.gz").shape == (6, 24, 24)
    with Image.open(tmp_path / "demo.png") as image:
        assert image.width == 3 * (3 * 24 + 2 * 4) and image.height == 3 * 24


# --- what does not --------------------------------------------------------------------------------


def test_wrong_usage(head, run, fails, tmp_path):
    volume, out = head / "head.nii.gz", tmp_path / "x.inrv"
    fails(2, "COMMAND")
    fails(2, "invalid choice", "compress", volume, out)
    fails(2, "required: OUT", "encode", volume)
    fails(2, "not allowed with", "encode", volume, out, "--ratio", "50", "--psnr", "30")
    fails(2, "invalid choice: 'quick'", "encode", volume, out, "--preset", "quick")
    fails(2, "three numbers", "encode", volume, out, "--factors", "2,2")
    fails(2, "--factors", "encode", volume, out, "--factors", "2,2,3")
    fails(2, r"--ratio is from 1e-30 to 1e\+12, not -3", "encode", volume, out, "--ratio", "-3")
    fails(2, "invalid float", "encode", volume, out, "--ratio", "many")
    fails(2, "unknown device", "encode", volume, out, "--device", "abacus")
    fails(2, "unrecognized", "encode", volume, out, "--rat", "50")  # options are not guessed
    fails(2, r"ends with \.inrv", "encode", volume, tmp_path / "x.nii")
    fails(2, "cannot read '.mha'", "encode", make(tmp_path / "x.mha"), out)
    fails(2, "cannot write '.mha'", "decode", head / "head.inrv", tmp_path / "y.mha")
    fails(2, "invalid choice", "decode", head / "head.inrv", tmp_path / "y.npy", "--level", "half")
    for region in ("1:2", "a:b,:,:", "3:3,:,:", "0:13,:,:", "5,:,:", "-99:,:,:"):
        fails(2, "region", "decode", head / "head.inrv", tmp_path / "y.npy", f"--region={region}")
    assert not [p for p in tmp_path.iterdir() if p.name != "x.mha"]


def make(path: Path, content: bytes = b"nothing") -> Path:
    path.write_bytes(content)
    return path


def test_presets_and_kinds_are_those_of_the_library():
    from inrformat.models.registry import KINDS

    assert set(cli.PRESETS) == set(plan.PRESETS)
    assert set(cli.KINDS) == set(KINDS)


def test_bad_input(fails, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    out = tmp_path / "x.inrv"
    (tmp_path / "empty").mkdir()
    fails(3, "no DICOM images", "encode", tmp_path / "empty", out)
    fails(3, "no such file", "encode", tmp_path / "nowhere", out)
    values = np.zeros((4, 8, 8), np.float32)
    values[1, 2, 3] = np.nan
    np.save(tmp_path / "nan.npy", values)
    fails(3, "1 voxels are NaN or infinite.*--fill", "encode", tmp_path / "nan.npy", out)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), tmp_path / "4d.nii")
    fails(3, "4 axes", "encode", tmp_path / "4d.nii", out)
    fails(3, "", "encode", make(tmp_path / "cut.npy", (tmp_path / "nan.npy").read_bytes()[:-8]), out)
    fails(3, "", "encode", make(tmp_path / "no.nii.gz"), out)
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 4), np.int16))
    fails(3, "empty|no voxels", "encode", tmp_path / "none.npy", out)
    np.save(tmp_path / "wide.npy", np.array([[[0, 70000]]]) - 1)
    fails(3, "do not fit 16 bits", "encode", tmp_path / "wide.npy", out)
    assert not out.exists()


def test_bad_dicom(run, fails, tmp_path):
    out = tmp_path / "x.inrv"

    def colours(dataset, k):
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.PixelData = dataset.PixelData * 3

    make_series(tmp_path / "rgb", volume_array((3, 6, 8), np.uint8), edit=colours)
    fails(3, "grayscale|RGB", "encode", tmp_path / "rgb", out)
    for name in "ab":
        make_series(tmp_path / "two" / name, volume_array((3, 8, 8)))
    document = fails(3, r"2 series; choose one with --series; ", "encode", tmp_path / "two", out)
    assert "Muster" not in document["error"]
    fails(2, "no series matches", "encode", tmp_path / "two", out, "--series", "1.2.3")
    paths = make_series(tmp_path / "cut", volume_array((5, 8, 8)))
    paths[4].write_bytes(paths[4].read_bytes()[:-10])
    fails(3, "cut short.*--skip-unreadable", "encode", tmp_path / "cut", out)
    assert run("encode", tmp_path / "cut", out, "--skip-unreadable")[0] == 0
    paths[2].unlink()
    fails(3, "missing slice.*--allow-irregular", "encode", tmp_path / "cut", out, "--skip-unreadable")
    assert run("encode", tmp_path / "cut", out, "--skip-unreadable", "--allow-irregular")[0] == 0


def test_nan_with_a_fill(run, tmp_path):
    values = np.full((4, 8, 8), 2.0, np.float32)
    values[1] = np.inf
    np.save(tmp_path / "inf.npy", values)
    code, out, _ = run("encode", tmp_path / "inf.npy", tmp_path / "x.inrv", "--fill", "-1", "--json")
    assert code == 0 and json.loads(out)["range"] == [-1, 2]


def test_corrupt_files(head, fails, tmp_path):
    data, out = (head / "head.inrv").read_bytes(), tmp_path / "x.npy"
    cut = make(tmp_path / "cut.inrv", data[:-7])
    for command in (("decode", cut, out), ("info", cut), ("verify", cut)):
        assert fails(4, r"\[truncated", *command)["code"] == "truncated"
    for junk in (b"", b"GIF89a" + bytes(100)):
        fails(4, "", "info", make(tmp_path / "junk.inrv", junk))
    with inrformat.open(head / "head.inrv") as file:
        place = next(s.offset for s in file.reader.sections if s.type == "LATD")
    damaged = bytearray(data)
    damaged[place + 50] ^= 1
    document = fails(4, r"section LATD, offset", "verify", make(tmp_path / "bit.inrv", bytes(damaged)))
    assert (document["code"], document["section"], document["offset"]) == ("bad-section-crc", "LATD", place)
    fails(3, "", "info", tmp_path / "nowhere.inrv")
    fails(3, "", "decode", tmp_path, out)
    assert not out.exists()


def test_what_is_absent(head, fails, tmp_path):
    volume, out = head / "head.nii.gz", tmp_path / "x.inrv"
    fails(5, "not available", "encode", volume, out, "--device", "cuda:77")


def test_an_unreachable_target(head, fails, tmp_path):
    fails(1, "can be reached", "encode", head / "head.nii.gz", tmp_path / "x.inrv", "--ratio", "5000")
    assert not list(tmp_path.iterdir())


def test_unwritable_output(head, fails, tmp_path):
    (tmp_path / "full").mkdir()
    make(tmp_path / "full" / "file")
    (tmp_path / "dir.inrv").mkdir()
    volume, encoded = head / "head.nii.gz", head / "head.inrv"
    fails(1, "no folder", "encode", volume, tmp_path / "nowhere" / "x.inrv")
    fails(1, "is a folder", "encode", volume, tmp_path / "dir.inrv")
    fails(1, "no folder", "decode", encoded, tmp_path / "nowhere" / "x.npy")
    fails(1, "not an empty folder", "decode", encoded, tmp_path / "full")
    fails(1, "cannot write", "demo", tmp_path / "full" / "file" / "x")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["file"]


def test_what_nobody_expected(head, run, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError(f"a message that quotes {PATIENT}")

    monkeypatch.setattr("inrformat.io.read", fail)
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    code, out, err = run("encode", head / "head.nii.gz", tmp_path / "x.inrv")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "internal error, ValueError at cli.py:" in err and "Muster" not in err
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(ValueError, match="quotes"):
        cli.main(["encode", str(head / "head.nii.gz"), str(tmp_path / "x.inrv")])


# --- as a process ---------------------------------------------------------------------------------


def process(*arguments, **keywords):
    command = [sys.executable, "-m", "inrformat.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


def wait_for_work(process, seconds):
    """Until a process has had so many seconds of a core, however busy the machine is; elsewhere than on Linux, as long."""
    stat, began = Path(f"/proc/{process.pid}/stat"), time.monotonic()
    while process.poll() is None and time.monotonic() < began + 120:
        used = time.monotonic() - began
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            used = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        if used > seconds:
            return
        time.sleep(0.1)


def test_version_and_help_need_no_torch():
    code = (
        "import sys, inrformat.cli as c\n"
        "try: c.main(['encode', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    version = process("--version")
    assert version.communicate()[0].startswith("inrformat ") and version.returncode == 0


def test_ctrl_c_leaves_nothing(head, tmp_path):
    long = process(
        *("encode", head / "head.nii.gz", tmp_path / "x.inrv", "--preset", "paper", "--factors", "1,1,1"),
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it
    )
    wait_for_work(long, 12.0)  # seconds of a core: all is imported, and the fit has begun
    assert long.poll() is None
    long.send_signal(signal.SIGINT)
    out, err = long.communicate(timeout=60)
    assert (long.returncode, out, err) == (130, "", "inrformat: error: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away(head):
    talk = process("info", head / "head.inrv")
    talk.stdout.close()
    assert talk.stderr.read() == ""
    assert talk.wait() == 1
