"""The benchmark: peers that keep what they promise, figures that are those of the format, tables and pictures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import inrformat
from inrformat import cli
from inrformat.bench import CODECS, choose, curves, measure, report, run
from inrformat.bench.codec import Codec, Known
from inrformat.bench.ours import Ours
from inrformat.errors import UnsupportedError, UsageError
from inrformat.fit import plan
from inrformat.metrics import Comparison
from inrformat.models import registry
from inrformat.volume import Volume

README = (Path(__file__).parents[1] / "README.md").read_text()
HEAD = inrformat.head_phantom((9, 65, 72))


@pytest.fixture(autouse=True)
def little_effort(monkeypatch):
    """Few steps, and every point in this process unless a test asks for another."""
    for name, preset in plan.PRESETS.items():
        settings = replace(preset.settings, steps=40, batch=1024, depth=2)
        monkeypatch.setitem(plan.PRESETS, name, replace(preset, settings=settings))
    monkeypatch.setattr(run, "measure_apart", measure.measure)


def peer(name):
    codec = run.PEERS[name]
    try:
        codec.check()
    except UnsupportedError as error:
        pytest.skip(str(error))
    return codec


@pytest.mark.parametrize("name", run.PEERS)
def test_each_peer_is_nearer_for_more_bytes(name):
    codec = peer(name)
    coarse, fine = (measure.measure("head", HEAD, codec, codec.settings[i]).point for i in (0, -1))
    assert coarse.bytes < fine.bytes < HEAD.data.nbytes
    assert coarse.psnr < fine.psnr and fine.psnr > 25
    assert coarse.model_bytes == fine.model_bytes == 0
    assert (fine.codec, fine.setting, fine.volume) == (name, codec.settings[-1], "head")


@pytest.mark.parametrize("name", ["jpeg2000", "jpeg-xl"])
@pytest.mark.parametrize("peak", [0, 1, 20, 255, 256, 1023, 65535])
def test_a_codec_of_pictures_at_nought_is_exact(name, peak):
    """Of unsigned and of signed values."""
    data = ranged(peak) if peak > 1023 else ranged(peak).astype(np.int16) - 900
    found = measure.measure("head", Volume(data), peer(name), 0.0)
    assert found.point.psnr is None and found.point.max_error == 0 and found.point.ssim == 1
    assert found.point.peak == peak
    np.testing.assert_array_equal(found.middle, data[4])


@pytest.mark.parametrize(
    ("name", "setting"), [("x265", 1.0), ("svt-av1", 1.0), ("jpeg2000", 60.0), ("jpeg-xl", 0.02)]
)
@pytest.mark.parametrize("peak", [20, 255, 1023, 65535])
def test_a_range_of_any_depth_fits(name, setting, peak):
    """Samples are shifted to a depth of 10 or 12 bits, never cut."""
    point = measure.measure("head", Volume(ranged(peak)), peer(name), setting).point
    assert point.peak == peak and (point.psnr is None or point.psnr > 35)


def test_nothing_is_counted_that_no_file_keeps():
    """Neither x265's text of its version and options, nor AV1's temporal delimiters."""
    for name, setting in (("x265", 40.0), ("x265-psnr", 40.0), ("svt-av1", 60.0)):
        packets = peer(name).encode(HEAD, setting, 1)
        assert not any(b"x265 (" in packet or packet.startswith(b"\x12\x00") for packet in packets)


def ranged(peak):
    """The head from 0 to the peak."""
    data = HEAD.data.astype(np.float64) - HEAD.data.min()
    return np.rint(data / data.max() * peak).astype(np.uint16)


def test_the_figures_are_those_of_the_metrics():
    codec = peer("jpeg2000")
    found = measure.measure("head", HEAD, codec, 32.0)
    known = Known.of(HEAD.data)
    parts = codec.encode(HEAD, 32.0, 1)
    decoded = codec.decode(parts, known, 1)
    compared = Comparison(9, (known.low, known.high), 65 * 72)
    compared.add(0, HEAD.data, decoded)
    point = found.point
    assert point.bytes == sum(map(len, parts)) and len(parts) == 9
    assert point.ratio == HEAD.data.nbytes / point.bytes == point.raw_bytes / point.bytes
    assert point.psnr == compared.psnr and point.ssim == float(compared.ssim.mean())
    assert (point.max_error, point.worst_slice) == (compared.max_error, compared.worst_slice)
    assert point.worst_slice_psnr == compared.worst_slice_psnr
    assert point.peak == float(HEAD.data.max()) - float(HEAD.data.min())
    np.testing.assert_array_equal(found.middle, decoded[4])


def test_ours_is_the_file_and_its_own_figures():
    codec = Ours("fast", (12.0,), "cpu")
    point = measure.measure("head", HEAD, codec, 12.0).point
    data = inrformat.encode(HEAD, ratio=12, device="cpu")
    info = inrformat.info(data)
    assert (point.codec, point.unit, point.bytes) == ("inrformat fast", "ratio", len(data))
    assert point.psnr == pytest.approx(info.measured.psnr, abs=0.01)
    assert point.ssim == pytest.approx(info.measured.ssim, abs=1e-3)


def test_shipped_models_have_a_column(monkeypatch):
    """Both kinds count, unless the file holds them."""
    exact = inrformat.encode(HEAD, lossless=True)
    context = inrformat.info(exact).context
    path = registry.SHIPPED / registry.DEFAULT
    light = {
        "name": "light",
        "version": 1,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "embedded": False,
    }
    size = (registry.SHIPPED / registry.DEFAULT_CONTEXT).stat().st_size
    both = size + path.stat().st_size
    assert Ours().model_bytes([exact]) == size
    for sr, want in ((light, both), ({**light, "embedded": True}, size), (None, size)):
        monkeypatch.setattr(
            "inrformat.bench.ours.info",
            lambda _, sr=sr: SimpleNamespace(sr=sr, latents=None, context=context),
        )
        assert Ours().model_bytes([exact]) == want


def test_integers_alone_and_floats_too():
    volume = Volume(HEAD.data.astype(np.float32))
    for name, setting in (("sperr", 4.0), ("sz3", 0.01), ("zfp", 0.1)):
        found = measure.measure("head", volume, peer(name), setting)
        assert found.point.psnr > 40 and found.middle.dtype == np.float32
    with pytest.raises(inrformat.InrError, match="integers alone"):
        peer("jpeg2000").encode(volume, 30.0, 1)


# --- apart ----------------------------------------------------------------------------------------


class Broken(Ours):
    def encode(self, volume, setting, threads):
        os._exit(7)


def test_a_point_of_its_own_process():
    codec = peer("jpeg2000")
    here, there = (f("head", HEAD, codec, 30.0) for f in (measure.measure, measure.measure_apart))
    same = ("bytes", "psnr", "ssim", "max_error", "worst_slice", "threads")
    assert all(getattr(here.point, key) == getattr(there.point, key) for key in same)
    np.testing.assert_array_equal(here.middle, there.middle)
    if measure.STATUS.exists():
        assert 0 < there.point.peak_mib < 1000


@pytest.mark.parametrize(("codec", "why"), [(Ours(), "can be reached"), (Broken(), "exit code 7")])
def test_what_fails_is_a_point_that_is_missing(codec, why):
    """A ratio out of reach, and a codec that takes its process down."""
    found = measure.measure_apart("head", HEAD, codec, 1e6)
    assert found.middle is None and found.point.bytes is None
    assert why in found.point.error and found.point.setting == 1e6
    assert "MISSING" in report.lines([found.point])[1]


# --- curves ---------------------------------------------------------------------------------------

CURVE = [(1000.0, 30.0), (2100.0, 33.0), (4000.0, 35.5), (9000.0, 38.0)]


def test_bd_rate_of_known_curves():
    assert curves.bd_rate(CURVE, CURVE) == pytest.approx((0.0, 30.0, 38.0))
    more = [(1.1 * size, psnr) for size, psnr in reversed(CURVE)]
    assert curves.bd_rate(more, CURVE) == pytest.approx((10.0, 30.0, 38.0))
    assert curves.bd_rate(CURVE, more)[0] == pytest.approx(100 / 1.1 - 100)


def test_bd_rate_is_over_what_both_cover():
    """Curves that are straight in the logarithm: ten per cent more bytes, wherever the points are."""
    line = [(1000 * 2 ** (psnr / 3), psnr) for psnr in (30.0, 31.0, 34.0, 36.0)]
    other = [(1100 * 2 ** (psnr / 3), psnr) for psnr in (33.0, 35.0, 40.0)]
    assert curves.bd_rate(other, line) == pytest.approx((10.0, 33.0, 36.0))
    beaten = [*other, (1e9, 34.0), (other[0][0], 20.0)]
    assert curves.bd_rate(beaten, line) == curves.bd_rate(other, line)
    assert curves.bd_rate(line[:2], other) is None  # they do not meet
    assert curves.bd_rate(line[:1], line) is None and curves.bd_rate([], line) is None


@pytest.mark.parametrize("points", [2, 3, 4, 9])
def test_the_interpolant_is_scipys(points):
    interpolate = pytest.importorskip(
        "scipy.interpolate", reason="scipy comes with scikit-image, of the dev extra"
    )
    rng = np.random.default_rng(points)
    for y in (
        np.cumsum(rng.random(points)),
        rng.random(points),
        np.r_[0.0, 5, 5.1, np.zeros(points)][:points],
    ):
        x = np.cumsum(rng.random(points) + 0.01)
        scipys, at = interpolate.PchipInterpolator(x, y), np.linspace(x[0], x[-1], 50)
        np.testing.assert_allclose(curves.pchip(x, y, at), scipys(at), atol=1e-12)
        low, high = x[0] + 0.1 * (x[-1] - x[0]), x[0] + 0.8 * (x[-1] - x[0])
        assert curves.integral(x, y, low, high) == pytest.approx(scipys.integrate(low, high))


# --- what is written ------------------------------------------------------------------------------


def test_the_command_writes_tables_and_pictures(tmp_path, capsys):
    peer("jpeg2000"), pytest.importorskip("matplotlib", reason="matplotlib is in the bench extra")
    np.save(tmp_path / "head.npy", HEAD.data)
    out = tmp_path / "out"
    arguments = ["bench", str(tmp_path / "head.npy"), "--out", str(out), "--codecs", "inrformat,jpeg2000"]
    assert cli.main([*arguments, "--ratios", "12,6", "--presets", "fast,balanced", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("folder") == str(out)
    assert json.loads((out / "results.json").read_text()) == document
    points = document["points"]
    fast, balanced = "inrformat fast", "inrformat balanced"
    assert [p["codec"] for p in points[:4]] == [fast, fast, balanced, balanced]
    assert [p["setting"] for p in points[4:]] == list(run.PEERS["jpeg2000"].settings)
    assert [(r["codec"], r["peer"]) for r in document["bd_rate"]] == [
        (c, "jpeg2000") for c in (fast, balanced)
    ]
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == report.COLUMNS == tuple(points[0])
    assert [int(row["bytes"]) for row in rows] == [p["bytes"] for p in points]
    assert (rows[0]["shape"], rows[0]["error"]) == ("9x65x72", "")
    pictures = {"head-curves.png", "head-at-12.png", "head-at-6.png"}
    assert {p.name for p in out.iterdir()} == {"results.csv", "results.json", *pictures}
    with Image.open(out / "head-at-6.png") as sheet:
        assert sheet.width == 4 * 3 * 72 + 3 * report.GAP  # the original and three codecs, enlarged threefold
    for key in {"folder", *document, *points[0], *document["bd_rate"][0]}:
        assert f"`{key}`" in README, f"{key} is not in the README"


def test_a_bench_without_a_single_point(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is in the bench extra")
    np.save(tmp_path / "head.npy", HEAD.data)
    monkeypatch.setattr(run, "measure_apart", measure.measure_apart)
    arguments = ["bench", str(tmp_path / "head.npy"), "--out", str(tmp_path / "out"), "--codecs", "inrformat"]
    assert cli.main([*arguments, "--ratios", "1000000"]) == 0
    assert "MISSING: ratio 1e+06" in capsys.readouterr().out
    assert (tmp_path / "out" / "head-curves.png").exists()
    np.save(tmp_path / "head.npy", np.full((4, 8, 8), np.nan, np.float32))
    assert cli.main(arguments) == 3


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a terminal's Ctrl-C reaches a process group")
@pytest.mark.slow
def test_ctrl_c_ends_both_processes(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is in the bench extra")
    np.save(tmp_path / "head.npy", inrformat.head_phantom((24, 112, 112)).data)
    command = [
        sys.executable,
        "-m",
        "inrformat.cli",
        "bench",
        tmp_path / "head.npy",
        "--out",
        tmp_path / "out",
    ]
    command += ["--codecs", "inrformat", "--presets", "best"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not (tmp_path / "out" / "results.json").exists():
        time.sleep(0.05)
    time.sleep(3)  # the other process is loading, or at work
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "inrformat: error: interrupted\n"
    assert process.returncode == 130


def test_volumes_of_one_name_are_told_apart(tmp_path, capsys):
    peer("jpeg2000"), pytest.importorskip("matplotlib", reason="matplotlib is in the bench extra")
    sources = [tmp_path / folder / "a head.npy" for folder in ("one", "other")]
    for source in sources:
        source.parent.mkdir()
        np.save(source, HEAD.data[:4])
    arguments = ["bench", *map(str, sources), "--out", str(tmp_path / "out"), "--codecs", "jpeg2000"]
    assert cli.main([*arguments, "--ratios", "5"]) == 0
    assert "jpeg2000" in capsys.readouterr().out
    names = {f"{name}-{what}.png" for name in ("a_head", "a_head-2") for what in ("curves", "at-5")}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"results.csv", "results.json", *names}


def test_the_picture_shows_the_difference_on_the_originals_scale():
    original = np.linspace(0, 1000, 200 * 210).reshape(200, 210)
    point = measure.Point("v", (1, 200, 210), 1, "codec", "dB", 1.0, 1, bytes=100, psnr=None, ssim=1.0)
    near = measure.Result(point, original + 100)
    far = measure.Result(replace(point, bytes=1000), original)
    missing = measure.Result(replace(point, bytes=None), None)
    assert report.nearest([far, near, missing], 110) == [near]
    with Image.open(BytesIO(report.pictures_png(original, [far, near, missing], 110))) as sheet:
        pixels = np.asarray(sheet)
    low, high = np.percentile(original, report.WINDOW)
    bottom = pixels[report.LABEL + 200 + report.GAP :]
    assert (bottom[:, :210] == 0).all()
    assert (bottom[:, 210 + report.GAP :] == int(100 / (high - low) * 255)).all()


@pytest.mark.parametrize(
    ("module", "codec"), [("av", "x265"), ("imagecodecs", "sz3"), ("matplotlib", "inrformat")]
)
def test_an_absent_extra_is_named(module, codec, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    np.save(tmp_path / "head.npy", HEAD.data)
    assert (
        cli.main(["bench", str(tmp_path / "head.npy"), "--out", str(tmp_path / "out"), "--codecs", codec])
        == 5
    )
    assert "pip install inrformat[bench]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_readme_names_every_codec():
    assert all(f"`{name}`" in README for name in CODECS)


def test_wrong_usage(tmp_path):
    for wrong in ({"codecs": ["jpeg"]}, {"presets": ["slow"]}, {"ratios": [0.0]}, {"ratios": [float("inf")]}):
        with pytest.raises(UsageError):
            choose(**{"codecs": ["inrformat"], **wrong})
    assert cli.main(["bench", "x.npy", "--out", str(tmp_path), "--ratios", "a"]) == 2
    assert cli.main(["bench", "x.npy", "--out", str(tmp_path), "--codecs", "inrformat"]) == 3
    assert issubclass(type(choose(["inrformat"])[0]), Codec) and CODECS[0] == "inrformat"
