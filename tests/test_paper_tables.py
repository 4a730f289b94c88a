"""benchmarks/paper: it runs from end to end, and its SIREN is trained as the paper's is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import inrformat
from inrformat.fit import plan
from inrformat.fit.siren import initialise

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_some_iterations_on_a_small_slice(tmp_path, monkeypatch, capsys):
    from paper import dense, tables

    monkeypatch.setattr(plan, "PRESETS", dict(plan.PRESETS))
    for name, preset in list(plan.PRESETS.items()):
        settings = replace(preset.settings, steps=40, batch=1024, depth=2)
        plan.PRESETS[name] = replace(preset, settings=settings)
    monkeypatch.setattr(tables, "load", lambda name: inrformat.head_phantom((12, 48, 52)))
    monkeypatch.setattr(tables, "HOW", {})
    monkeypatch.setattr(dense, "CONFIG", {"blocks": 1, "layers": 2, "growth": 4, "maps": 8})
    monkeypatch.setitem(dense.SETTINGS, "patch", 8)
    options = ["--layers", "2", "3", "--iterations", "40", "--device", "cpu"]
    tables.main([str(tmp_path / "a"), "--sr-train", "x", "--sr-test", "y", "--sr-steps", "2", *options])
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    rows = results["rows"]
    assert [(r["layers"], r["way"]) for r in rows] == [(n, w) for n in (2, 3) for w in ("with", "without")]
    assert [r["parameters"] for r in rows] == [17_153] * 2 + [33_665] * 2  # the paper's Tables 1 and 2
    assert [r["batch"] for r in rows] == [12 * 13, 48 * 52] * 2
    for r in rows:
        assert len(r["curve"]) == 40 and r["gpu_held_kib"] is r["gpu_peak_kib"] is None
        assert r["ours"]["bytes"] > 0 and r["ours"]["psnr"] >= r["psnr"] - 0.01
    assert [t["series"] for t in results["srdensenet"]["tests"]] == ["y", "x"]
    text = (tmp_path / "a" / "tables.md").read_text()
    assert text in capsys.readouterr().out and text.count("not measured") == 8
    for name in ("hr-lr.png", "pictures.png"):
        assert (tmp_path / "a" / name).stat().st_size > 1000

    model = str(tmp_path / "a" / "srdensenet.inrm")
    tables.main([str(tmp_path / "b"), "--sr-model", model, "--layers", "2", *options[3:]])
    again = json.loads((tmp_path / "b" / "results.json").read_text())
    assert [r["psnr"] for r in again["rows"]] == [r["psnr"] for r in rows[:2]]


def test_without_the_series_it_says_so(tmp_path, monkeypatch):
    from paper import tables

    monkeypatch.setattr(tables, "DATA", tmp_path)
    with pytest.raises(SystemExit, match=r"brain-mr-fse, .*chest-ct, .*: not in "):
        tables.main([str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layers", [2, 4])
def test_it_is_plain_adam_on_a_plain_siren(layers, monkeypatch):
    """sin(omega (W x + b)), differentiated by torch: the same error after each of some iterations."""
    from paper import fitting

    picture = torch.rand((6, 5), generator=torch.Generator().manual_seed(1))
    start = initialise(
        128, layers, 30.0, torch.ones(3), torch.Generator().manual_seed(0), torch.device("cpu")
    )
    scales = [30.0] * layers + [1.0]
    weights = [(w / s).requires_grad_() for w, s in zip(start.weights, scales, strict=True)]
    biases = [(b / s).requires_grad_() for b, s in zip(start.biases, scales, strict=True)]
    adam = torch.optim.Adam([*weights, *biases], lr=1.5e-3)
    y, x = torch.meshgrid((torch.arange(6) + 0.5) / 3 - 1, (torch.arange(5) + 0.5) / 2.5 - 1, indexing="ij")
    places = torch.stack((torch.zeros(30), y.flatten(), x.flatten()), dim=1)

    def loss():
        values = places
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            values = torch.sin(30 * (values @ w.T + b))
        return ((values @ weights[-1].T + biases[-1])[:, 0] - picture.flatten()).square().mean()

    errors = []
    for _ in range(4):
        adam.zero_grad()
        loss().backward()
        adam.step()
        errors.append(float(loss().detach()))
    found = fitting.fit(picture, layers, 4)
    assert [step for step, _, _ in found.curve] == [1, 2, 3, 4]
    assert [error for _, _, error in found.curve] == pytest.approx(errors, rel=1e-3)
    assert found.psnr == max(psnr for _, psnr, _ in found.curve)
