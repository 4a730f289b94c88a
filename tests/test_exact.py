"""The preview is the same integers on every path; the full level keeps its tolerance; damage never passes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_reference import codes_of

import inrformat
from inrformat import phantom
from inrformat.coding import network as base
from inrformat.decode import File
from inrformat.errors import InrError
from inrformat.fit import quantise, train
from inrformat.fit.siren import FloatSiren, forward
from inrformat.models import registry, siren
from inrformat.models.siren import Evaluator
from inrformat.models.sr import super_resolve
from inrformat.resample import downsample

FOLDER = Path(__file__).parents[1] / "spec" / "vectors"
VALID = json.loads((FOLDER / "manifest.json").read_text())["valid"]
NETWORKS = [path for path in VALID if "latents" not in path]
PATHS = [pytest.param(path, id=Path(path).stem) for path in NETWORKS]
LATENTS = [pytest.param(path, id=Path(path).stem) for path in VALID if path not in NETWORKS]
SOME = [
    f"valid/{name}.inrv"
    for name in ("prime", "width-9", "depth-6", "weights-largest", "shift-48", "shift-16")
]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def evaluator(path: str, device: str = "cpu") -> Evaluator:
    with File((FOLDER / path).read_bytes(), device=device) as file:
        result: Evaluator = file.evaluator
        return result


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("path", PATHS)
def test_codes_are_those_of_the_specification(path: str) -> None:
    with File((FOLDER / path).read_bytes(), device="cpu") as file:
        assert np.array_equal(file.codes().numpy(), codes_of(file.network(), file.lr_shape))


@pytest.mark.parametrize("path", SOME)
@pytest.mark.parametrize("count", [1, 2])
def test_threads(path: str, count: int, threads: None) -> None:
    expected = evaluator(path).codes()
    torch.set_num_threads(count)
    assert torch.equal(evaluator(path).codes(), expected)


@pytest.mark.parametrize("path", SOME)
def test_batch_sizes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluator(path).codes()
    for rows in (1, 2, 7, 33, 64, 10_000):
        monkeypatch.setattr(siren, "ROWS", rows)
        assert torch.equal(evaluator(path).codes(), expected), rows


@pytest.mark.parametrize("path", PATHS)
def test_limbs_and_float64(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The int8 products give what float64 gives, with the sums forced into float64."""
    expected = evaluator(path).codes()
    monkeypatch.setattr(siren, "sum_bound", lambda layer: 1 << 40)
    forced = evaluator(path)
    assert not any(layer.product.limbs for layer in forced.hidden)
    assert torch.equal(forced.codes(), expected)


def test_both_paths_are_covered() -> None:
    limbs = {layer.product.limbs for path in NETWORKS for layer in evaluator(path).hidden}
    types = {layer.dtype for path in NETWORKS for layer in evaluator(path).hidden}
    assert limbs == {True, False} and types == {torch.int32, torch.int64}


@pytest.mark.parametrize("path", SOME)
def test_boxes(path: str) -> None:
    ours = evaluator(path)
    whole, rng = ours.codes(), np.random.default_rng(0)
    for _ in range(12):
        (a, b), (c, d), (e, f) = (sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in ours.lr_shape)
        assert torch.equal(ours.codes(((a, b), (c, d), (e, f))), whole[a:b, c:d, e:f])


@CUDA
@pytest.mark.parametrize("path", [*PATHS, *LATENTS])
def test_cuda(path: str) -> None:
    assert torch.equal(evaluator(path, "cuda").codes().cpu(), evaluator(path).codes())


@pytest.mark.parametrize(
    "name",
    [
        *("prime", "factors-1-2-4", "factors-8-8-8", "longest-axis", "f4-widest-range", "dtype-f4"),
        *("model-light", "model-light-mixed", "model-srdensenet", "model-srdensenet-z"),
        *("latents-odd", "latents-factors", "latents-factors-mixed", "latents-model-light"),
        *("sr-at-1-1-1-long", "sr-changes-light-mixed", "sr-changes-at-1-1-1-latents"),
    ],
)
def test_a_region_is_a_part_of_the_whole(name: str) -> None:
    path = f"valid/{name}.inrv"
    with File((FOLDER / path).read_bytes(), device="cpu") as file:
        whole, rng = file.full().data.astype(float), np.random.default_rng(0)
        rounding = 0.0 if file.dtype.kind == "f" else 1.0
        for _ in range(6):
            box = tuple(tuple(sorted(rng.choice(n + 1, 2, replace=False).tolist())) for n in file.shape)
            (a, b), (c, d), (e, f) = box
            error = np.abs(file.region(box).astype(float) - whole[a:b, c:d, e:f])
            assert error.max() <= VALID[path]["full"]["tolerance"] + rounding


@pytest.mark.parametrize(
    "name",
    [
        *("model-light", "model-light-mixed", "model-srdensenet", "model-srdensenet-z"),
        *("sr-at-1-1-1-long", "sr-changes-light", "sr-changes-at-1-1-1-latents", "sr-changes-srdensenet"),
    ],
)
def test_bfloat16_keeps_the_tolerance(name: str) -> None:
    """Section "Full level": 2% of the greatest detail."""
    with File((FOLDER / f"valid/{name}.inrv").read_bytes(), device="cpu") as file:
        lr, factors = file.codes().float() / 65536, file.header.factors
        results = [
            super_resolve(file.model, lr, factors, file.shape, dtype=t)
            for t in (torch.float32, torch.bfloat16)
        ]
        detail = results[0] - super_resolve(None, lr, factors, file.shape)
    assert float((results[0] - results[1]).abs().max()) <= 0.02 * float(detail.abs().max()) + 1e-5


def test_bfloat16_costs_less_than_0_02_db() -> None:
    data = torch.from_numpy(phantom.head_phantom((16, 48, 48)).data.astype(np.float32))
    data = (data - data.min()) / (data.max() - data.min())
    lr = downsample(data, (2, 2, 2))
    model = registry.default_model()
    one, other = (
        psnr(super_resolve(model, lr, (2, 2, 2), data.shape, dtype=t), data)
        for t in (torch.float32, torch.bfloat16)
    )
    assert abs(one - other) < 0.02


def blobs(shape: tuple[int, int, int]) -> torch.Tensor:
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    return 0.6 * torch.exp(-4 * (z**2 + y**2 + x**2)) + 0.15 * (torch.sin(5 * x + 2 * y) > 0)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(float((a.double() - b.double()).square().mean()))


@pytest.mark.slow
def test_exactness_costs_less_than_0_05_db() -> None:
    """A fitted network, evaluated by the format's integers and in float64 with the same rounded weights."""
    grid = blobs((12, 24, 24))
    settings = train.FitSettings(width=48, depth=3, steps=400, batch=1 << 11, noise=0.05)
    result = train.fit(grid, settings, torch.device("cpu"))
    steps = quantise.layer_steps(result.float_net, result.sensitivity, result.noise)
    rounded = quantise.rounded(result.float_net, steps)
    net = FloatSiren([w.double() for w in rounded.weights], [b.double() for b in rounded.biases])
    axes = [(2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n for n in grid.shape]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    values, _, _ = forward(net, x, torch.float64)
    floats = psnr((values.double().reshape(grid.shape) + 1) / 2, grid)
    codes = Evaluator(base.unpack(base.pack(result.network)), grid.shape).codes()
    exact = psnr(codes.double() / 65536, grid)
    print(f"float {floats:.3f} dB, exact {exact:.3f} dB")
    assert floats > 30
    assert exact > floats - 0.05


# --- damage --------------------------------------------------------------------------------------------------
def damaged(data: bytes, expected: bytes) -> None:
    """Verify refuses the file; the preview is refused or the same."""
    with pytest.raises(InrError):
        inrformat.verify(data, device="cpu")
    try:
        preview = inrformat.decode(data, level="preview", device="cpu").data.tobytes()
        full = inrformat.decode(data, device="cpu").data.tobytes()
    except InrError:
        return
    assert preview + full == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["example", "records"])
def test_a_file_cut_anywhere_or_with_one_byte_changed(name: str) -> None:
    data = (FOLDER / "valid" / f"{name}.inrv").read_bytes()
    expected = inrformat.decode(data, level="preview", device="cpu").data.tobytes()
    expected += inrformat.decode(data, device="cpu").data.tobytes()
    for at in range(len(data)):
        damaged(data[:at], expected)
        for change in (1, 0x80, 0xFF):
            damaged(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :], expected)
