"""The examples and the README's snippets run, as they stand."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import inrformat
from inrformat import cli, io
from inrformat.fit import plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHAPE = (16, 32, 32)
HEAD = inrformat.head_phantom((32, 64, 64))


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch, tmp_path):
    """Little effort, small heads, a folder of its own."""
    for name, preset in plan.PRESETS.items():
        settings = replace(preset.settings, steps=40, batch=1024, depth=2)
        monkeypatch.setitem(plan.PRESETS, name, replace(preset, settings=settings))
    monkeypatch.setattr("inrformat.demo.SHAPE", SHAPE)
    head = inrformat.head_phantom
    monkeypatch.setattr("inrformat.phantom.head_phantom", lambda *_, **__: head(SHAPE))
    monkeypatch.chdir(tmp_path)


def run(name, monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", [name, *arguments])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out


def test_encode_decode(monkeypatch, capsys, tmp_path):
    assert "PSNR" in run("encode_decode.py", monkeypatch, capsys)
    io.write(inrformat.head_phantom(), tmp_path / "a.nii.gz")
    run("encode_decode.py", monkeypatch, capsys, "a.nii.gz", "a.inrv")
    assert inrformat.info(tmp_path / "a.inrv").shape == SHAPE


def test_regions(monkeypatch, capsys):
    assert "region: (4, 32, 8)" in run("regions.py", monkeypatch, capsys)


def test_dicom_there_and_back(monkeypatch, capsys, tmp_path):
    io.write(inrformat.head_phantom(), tmp_path / "series")
    run("dicom_there_and_back.py", monkeypatch, capsys, "series", "new", "10")
    assert io.read(tmp_path / "new").shape == SHAPE
    with pytest.raises(SystemExit, match="not encoded"):
        run("dicom_there_and_back.py", monkeypatch, capsys, "series", "newer", "9999")


def test_size_against_quality(monkeypatch, capsys, tmp_path):
    np.save(tmp_path / "a.npy", inrformat.head_phantom().data)
    lines = run("size_against_quality.py", monkeypatch, capsys, "a.npy", "10", "20").splitlines()
    assert len(lines) == 3 and float(lines[1].split()[0]) == pytest.approx(10, rel=0.05)


def test_every_example_is_run():
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))
    assert tested == {path.name for path in (ROOT / "examples").glob("*.py")}


def snippets(language):
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found


def test_the_readme_in_python(tmp_path):
    """All snippets in one namespace, one after the other."""
    io.write(HEAD, tmp_path / "series")
    namespace: dict[str, object] = {}
    for snippet in snippets("python"):
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert (tmp_path / "scan.inrv").exists()


def test_the_readme_in_the_shell(tmp_path, capsys):
    io.write(HEAD, tmp_path / "series")
    commands = [
        shlex.split(line, comments=True)
        for snippet in snippets("sh")
        for line in snippet.splitlines()
        if line.startswith("inrformat ")
    ]
    batch = {"archive", "restore"}
    assert {c[1] for c in commands} == {
        "encode",
        "decode",
        "info",
        "verify",
        "train-sr",
        "train-context",
        "demo",
        *batch,
    }
    for command in commands:
        extra = ["--seconds", "0.1"] if command[1].startswith("train") else []
        assert cli.main(command[1:] + extra) == 0, (command, capsys.readouterr().err)


def test_the_readme_lists_the_exit_codes_and_the_keys(capsys, tmp_path):
    from inrformat import errors

    codes = {int(n) for n in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    used = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)}
    assert used | {0, 8, cli.INTERRUPTED} == codes
    import json

    io.write(inrformat.head_phantom(), tmp_path / "h.npy")
    io.write(inrformat.head_phantom(), tmp_path / "series")
    for command in (
        "encode h.npy h.inrv --factors 1,2,2",
        "decode h.inrv d.npy",
        "info h.inrv --patient",
        "encode h.npy l.inrv --lossless",
        "info l.inrv",
        "verify h.inrv",
        "demo out",
        "train-sr h.npy -o m.inrm --seconds 0.1",
        "train-context series -o c.inrm --seconds 0.1",
        "archive series a --workers 1",
        "restore a b --workers 1",
        "verify a --workers 1",
        "info a --patient",
        "info nothing.inrv",
        "info m.inrm",
    ):
        cli.main([*command.split(), "--json"])
        document = json.loads(capsys.readouterr().out)
        nested = [v for v in document.values() if isinstance(v, dict) and v]
        for key in {*document, *(k for v in nested for k in v)}:
            assert f"`{key}`" in README, f"{key} of {command} is not in the README"


@pytest.mark.parametrize(
    "name",
    [
        "archive",
        "curves",
        "curves_join",
        "curves_table",
        "lossless",
        "train_coded",
        "train_latents",
        "train_restorer",
        "weights",
    ],
)
def test_the_benchmarks_start(name, monkeypatch, capsys):
    """They import what there is: that they run through is seen when they are run."""
    folder = ROOT / "benchmarks"
    monkeypatch.setattr("sys.argv", [name, "--help"])
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_volumes_are_made_by_code(monkeypatch):
    """What super-resolution is trained on besides real series: whole, and the same each time."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    leaves = importlib.import_module("leaves")
    monkeypatch.setattr(leaves, "THIN", (20, 48, 40))
    monkeypatch.setattr(leaves, "THICK", (12, 48, 40))
    (first, spacing), (again, _), (thick, apart) = (leaves.leaves(number) for number in (0, 0, 2))
    assert first.shape == (20, 48, 40) and thick.shape == (12, 48, 40)
    assert spacing == (1.0, 1.0, 1.0) and apart == (2.2, 1.0, 1.0)
    assert np.array_equal(first, again)
    assert first.max() <= leaves.WHITE and first.std() > 0.02 * leaves.WHITE
