"""What a caller may pass, or may have set in its process, beyond what is meant."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import inrformat
from inrformat import Volume, errors, precision
from inrformat.coding import latents
from inrformat.container.layout import Reader, build
from inrformat.container.originals import Rest, compress_rest
from inrformat.fit import plan, train
from inrformat.metrics import Comparison
from inrformat.positions import filled

INVALID = Path(__file__).parents[1] / "spec" / "vectors" / "invalid"
HEAD = inrformat.head_phantom((16, 32, 32), noise=8)


@pytest.fixture(scope="module")
def files():
    """A lossy file with a super-resolution model, and a lossless one."""
    return inrformat.encode(HEAD, factors=(1, 2, 2), ratio=20), inrformat.encode(HEAD, lossless=True)


# --- settings of torch ----------------------------------------------------------------------------


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # others do not take over autocast
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "setting",
    [one_thread, lambda: torch.autocast("cpu", torch.bfloat16), lambda: default_dtype(torch.float16)],
    ids=["autocast, one thread", "autocast", "default dtype"],
)
def test_settings_of_torch_change_no_voxel(files, setting):
    lossy, lossless = files
    expected = inrformat.decode(lossy).data
    with setting():
        assert np.array_equal(inrformat.decode(lossless).data, HEAD.data)
        assert np.abs(inrformat.decode(lossy).data.astype(int) - expected).max() <= 1
        again = inrformat.encode(HEAD, lossless=True)
    assert np.array_equal(inrformat.decode(again).data, HEAD.data)


def test_a_caller_in_inference_mode_may_have_several_threads(files, monkeypatch):
    """What a thread makes in that mode no other thread may change, unless it is in it, too."""
    monkeypatch.setattr(latents, "PART", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            decoded = [inrformat.decode(file).data for file in files]
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(decoded[1], HEAD.data)
    assert np.abs(decoded[0].astype(int) - inrformat.decode(files[0]).data).max() <= 1


def test_settings_of_torch_change_no_byte():
    def encoded():
        return inrformat.encode(HEAD, ratio=20, preset="balanced", factors=(1, 2, 2))

    expected = encoded()
    for setting in (torch.no_grad, torch.inference_mode, one_thread):
        with setting():
            assert encoded() == expected


def test_less_precise_products_are_not_taken(files, monkeypatch):
    def mixed():
        raise RuntimeError("a mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    assert not precision.full()
    assert np.array_equal(inrformat.decode(files[1]).data, HEAD.data)


# --- originals ------------------------------------------------------------------------------------


def test_only_the_original_is_taken_for_it(files):
    lossy, lossless = files
    for file in files:
        inrformat.verify(file, original=HEAD)
        inrformat.verify(file, original=HEAD.data)
        with pytest.raises(errors.PromiseError, match="another original"):
            inrformat.verify(file, original=np.zeros_like(HEAD.data))
    with pytest.raises(errors.PromiseError, match="dB"):
        inrformat.verify(lossy, original=np.flip(HEAD.data, 1).copy())
    with pytest.raises(errors.PromiseError):
        inrformat.verify(lossless, original=np.flip(HEAD.data, 1).copy())
    values = HEAD.data.astype(np.float32)
    file = inrformat.encode(values, max_error=5)
    values[0, 0, 0] = np.nan
    with pytest.raises(errors.InputError, match="NaN"):
        inrformat.verify(file, original=values)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box", [((0, 17), (0, 32), (0, 32)), ((-1, 4), (0, 8), (0, 8)), ((5, 2), (0, 8), (0, 8))]
)
def test_regions_lie_in_the_volume(files, box):
    for file in files:
        with inrformat.open(file) as opened, pytest.raises(errors.UsageError, match="region"):
            opened.region(box)


@pytest.mark.parametrize("tile", [(0, 8, 8), (-1, 8, 8), (4, 4), 4, (8.0, 8, 8)])
def test_tiles_are_whole_numbers(files, tile):
    with pytest.raises(errors.UsageError, match="tile="):
        inrformat.decode(files[0], tile=tile)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"seed": 1.5},
        {"lossless": True, "embed_sr": True},
        {"sr": None, "embed_sr": True},
        {"context": "mine.inrm"},
    ],
    ids=str,
)
def test_what_has_no_meaning_is_said(wrong):
    with pytest.raises(errors.UsageError):
        inrformat.encode(HEAD, **wrong)


def test_floats_beyond_what_is_worked_on():
    values = HEAD.data[:8].astype(np.float32)
    for scale in (1e35, 1e-38):
        with pytest.raises(errors.InputError, match="float32 is worked on"):
            inrformat.encode(values * np.float32(scale))
    small = values * np.float32(1e-28)
    found = inrformat.info(inrformat.encode(small, ratio=20)).measured
    assert 15 < found.psnr < 60
    huge = values * np.float32(1e30)
    assert inrformat.info(inrformat.encode(huge, ratio=20)).measured.psnr == pytest.approx(found.psnr, abs=1)


def test_noise_gets_the_room_of_a_model_that_does_not_help():
    noise = np.random.default_rng(0).integers(0, 4096, (8, 32, 32)).astype(np.uint16)
    found = inrformat.info(inrformat.encode(noise, ratio=3, factors=(1, 1, 1)))
    assert found.ratio == pytest.approx(3, rel=0.05)


def test_seconds_end_a_fit(monkeypatch):
    for_ever = replace(plan.PRESETS["fast"], adapting=10**9)
    monkeypatch.setitem(plan.PRESETS, "fast", for_ever)
    assert inrformat.info(inrformat.encode(HEAD, ratio=4, seconds=0.5)).measured.psnr > 30


def test_seconds_are_for_all_networks_that_are_fitted_to_reach_a_psnr(monkeypatch):
    paper, given, fit = plan.PRESETS["paper"], [], train.fit
    quick = replace(paper.settings, width=16, depth=2, batch=1024)
    monkeypatch.setitem(plan.PRESETS, "paper", replace(paper, settings=quick))

    def noted(grid, settings, *rest):
        given.append(settings.seconds)
        return fit(grid, settings, *rest)

    monkeypatch.setattr(train, "fit", noted)
    noise = np.random.default_rng(0).integers(0, 50, (16, 16, 16)).astype(np.uint16)
    with pytest.raises(errors.EncodeError, match="the best was"):
        inrformat.encode(noise, preset="paper", psnr=60, seconds=0.6, sr=None)
    assert len(given) > 1 and sum(given) <= 0.601


# --- hostile parts --------------------------------------------------------------------------------


def with_sections(data: bytes, *more: tuple[str, bytes]) -> bytes:
    with Reader(data) as reader:
        return build([*((s.type, reader.read(s.type)) for s in reader.sections), *more])


def test_files_and_what_is_beside_their_pixels_come_together(files):
    for name in ("file", "rest"):
        with pytest.raises(errors.FormatError, match="missing-section"):
            inrformat.decode(with_sections(files[0], (name, b"junk")))
    with pytest.raises(errors.FormatError):
        inrformat.verify(with_sections(files[0], ("file", b"junk"), ("rest", b"junk")))


def test_what_is_beside_the_pixels_is_whole_frames():
    frame = compress_rest([b"abc" * 1000], 3000)
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    for broken in (b"", frame[:-1], frame[:-4], frame + frame[:3], frame + b"x", skippable + frame):
        with pytest.raises(errors.FormatError, match="rest-bad-frame"):
            everything(broken, 3000)
    assert everything(frame + compress_rest([b""], 0) + frame, 6000) == b"abc" * 2000
    bomb = compress_rest([bytes(1 << 20)] * 16, 1 << 24)
    assert len(bomb) < 10_000 and everything(bomb, 1 << 24) == bytes(1 << 24)


def everything(data: bytes, length: int) -> bytes:
    rest = Rest(data)
    found = b"".join(rest.read(length))
    rest.end()
    return found


def test_positions_that_are_none_take_no_memory():
    hostile = {"positions": ["a" * 2**20] + [""] * 10**5, "position_slices": [0, 9]}
    assert filled(hostile, 10) == hostile
    for odd in (5, "abc", [[1, 2]], [[1, 2, "3"]], [[1, 2, 10**400]], [[1, 2, float("nan")]], [[True, 1, 2]]):
        assert filled({"positions": odd, "position_slices": [0, 9]}, 10)["positions"] is odd


def test_a_preview_minds_births_where_none_is_quiet(monkeypatch):
    path = INVALID / "latents-births-where-none-is-quiet.inrv"
    with inrformat.open(path) as opened:
        pyramid = opened.evaluator.pyramid
        strides = pyramid.strides_of_levels[-2]
    points = math.prod(-(-n // s) for n, s in zip(pyramid.shape, strides, strict=True))
    monkeypatch.setattr(latents, "PREVIEW_POINTS", points)
    assert 0 < pyramid.preview < len(pyramid.masks)
    with pytest.raises(errors.FormatError, match="bad-latents"):
        inrformat.decode(path, level="preview")


def test_a_model_of_huge_weights_makes_no_nan():
    volume = Volume(HEAD.data.astype(np.float32))
    file = inrformat.encode(volume, factors=(1, 2, 2), ratio=20)
    with inrformat.open(file) as opened:
        model = opened.model
        assert model is not None
        for weight in model.parameters():
            weight.data.fill_(3e38)
        full = opened.full().data
    assert np.isfinite(full).all()
    assert volume.data.min() <= full.min() and full.max() <= volume.data.max()


def test_structural_similarity_does_not_depend_on_the_slabs():
    noisy = (HEAD.data + np.random.default_rng(0).integers(-99, 99, HEAD.data.shape)).astype(HEAD.data.dtype)
    span = float(HEAD.data.min()), float(HEAD.data.max())
    found = []
    for step in (1, 5, 16):
        compared = Comparison(16, span, 32 * 32)
        for z in range(0, 16, step):
            compared.add(z, HEAD.data[z : z + step], noisy[z : z + step])
        found.append(compared.ssim)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)
