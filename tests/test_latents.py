"""Latents: the pyramid, their code, and the files of them; the same on every path."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrformat
from inrformat import errors
from inrformat.coding import lanes, latent_code, latents, wavelet
from inrformat.coding.latents import AROUND, BESIDE, CLASSES, Pyramid, inputs, magnitude
from inrformat.coding.wavelet import LARGEST, PATTERNS, forward, inverse, levels_of
from inrformat.container.layout import Reader, build
from inrformat.container.limits import Limits
from inrformat.models import registry
from inrformat.models.latents import forecast
from inrformat.phantom import head_phantom

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))
import latent_vectors
import lattice_vectors

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
SHAPES = st.tuples(*[st.integers(1, 14)] * 3)
MASKS = st.lists(st.integers(1, 7), max_size=6)


# --- the pyramid ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(SHAPES, MASKS, st.integers(0, 2**32 - 1))
def test_the_inverse_undoes_the_forward_transform_within_a_few_codes(shape, masks, seed):
    """Rounding of the coefficients and of each lifting step, amplified by the filters; 22 is the most seen."""
    grid = torch.from_numpy(np.random.default_rng(seed).integers(0, 65537, shape)).double()
    work = grid.clone()
    levels = levels_of(masks)
    for level in levels:
        forward(work, level)
    whole = work.round().int()
    assert whole.abs().max() < LARGEST
    for level in reversed(levels):
        inverse(whole, level)
    error = (whole - grid).abs()
    assert error.max() <= 32
    assert error.mean() < 8


def test_the_steps_are_those_of_the_specification():
    """On lines of every small length, by its formulas."""
    rng = np.random.default_rng(1)
    for n in range(2, 12):
        line = rng.integers(-LARGEST, LARGEST + 1, n)
        x = [(int(v) * (1638 if i % 2 else 1260) + 512) // 1024 for i, v in enumerate(line)]
        for first, factor in ((0, 454), (1, 904), (0, -54), (1, -1624)):
            for i in range(first, n, 2):
                before, after = x[abs(i - 1)], x[i + 1 if i + 1 < n else n - 2]
                x[i] -= (factor * (before + after) + 512) // 1024
        points = torch.from_numpy(line).int().view(1, n, 1)
        inverse(points, levels_of([2])[0])
        assert points.flatten().tolist() == [max(-LARGEST, min(LARGEST, v)) for v in x]


def test_no_sum_leaves_32_bits():
    """Extremes of either sign, along all axes: the same as in 64 bits."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        grid = torch.from_numpy(rng.choice([-LARGEST, LARGEST], (5, 6, 7)))
        small = grid.int()
        for level in reversed(levels_of([7, 7])):
            inverse(grid, level)
            inverse(small, level)
        assert torch.equal(grid, small.long())
        assert grid.abs().max() <= LARGEST


@settings(deadline=None, max_examples=60)
@given(SHAPES, MASKS)
def test_every_point_is_in_one_band(shape, masks):
    pyramid = Pyramid(shape, tuple(masks), (), ())
    visits = torch.zeros(shape)
    pyramid.smooth(visits).add_(1)
    for _, level, pattern, _ in pyramid.numbers():
        level.band(visits, pattern).add_(1)
    assert (visits == 1).all()
    assert sum(pyramid.class_sizes()) == visits.numel() - pyramid.smooth(visits).numel()


def test_a_constant_stays_one():
    """Nothing but the smooth points, whatever the shape: the filters pass a constant on."""
    for shape in product((1, 2, 5, 8), repeat=3):
        grid = torch.full(shape, 40000.0, dtype=torch.float64)
        for level in levels_of([7, 3]):
            forward(grid, level)
            for pattern in level.bands:
                assert level.band(grid, pattern).abs().sum() < 0.01 * 40000 * grid.numel()


# --- what is known of a point ---------------------------------------------------------------------


def test_magnitudes_are_logarithms():
    values = torch.arange(-(2**20), 2**20, 7, dtype=torch.int32)
    exact = 16 * np.log2(1 + np.abs(values.numpy().astype(float)))
    found = magnitude(values).numpy()
    assert (np.abs(np.abs(found) - np.minimum(exact, 127)) <= 2.4).all()
    assert (np.sign(found) == np.sign(values.numpy())).all()
    assert magnitude(torch.arange(9)).tolist() == [0, 16, 24, 32, 36, 40, 44, 48, 50]
    assert magnitude(torch.tensor([-9, 127, 247, -(2**17)])).tolist() == [-52, 112, 127, -127]


def test_offsets_and_inputs():
    assert AROUND[:3] == ((-1, -1, -1), (-1, -1, 0), (-1, -1, 1))
    assert BESIDE == ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    assert [inputs(p) for p in PATTERNS] == [73, 80, 87, 94, 101, 108, 115]
    assert sorted(p for members in CLASSES for p in members) == list(product((0, 1), repeat=3))


# --- the code -------------------------------------------------------------------------------------


def coded(seed=0, shape=(9, 14, 15), masks=(7, 3), width=0, shifts=0, **more):
    """(pyramid, smooth points, bands, model) of random latents and a random model."""
    layout = latent_vectors.pyramid(shape, masks, seed)
    smooth, bands = latent_vectors.random_latents(layout, seed, **more)
    model = registry.load_latents(
        latent_vectors.model_file(latent_vectors.random_weights(seed, 5, 3, width=width, shifts=shifts))
    )
    return layout, smooth, bands, model


@settings(deadline=None, max_examples=60)
@given(SHAPES, MASKS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.3]), st.integers(-40, 150))
def test_latents_come_back(shape, masks, seed, share, width):
    layout, smooth, bands, model = coded(seed, shape, masks, width, share=share, spikes=0.02)
    data, count, grid = latent_code.encode(layout, smooth, bands, model)
    back = latent_code.decode(data, layout, count, model, torch.device("cpu"))
    assert torch.equal(back, grid)
    found = torch.zeros_like(grid)
    layout.smooth(found).copy_(layout.value(smooth, len(layout.steps) - 1))
    for number, level, pattern, which in layout.numbers():
        if (number, pattern) in bands:
            level.band(found, pattern).copy_(layout.value(bands[number, pattern], which))
    for level in reversed(layout.levels):
        inverse(found, level)
    assert torch.equal(back, found)


@settings(deadline=None, max_examples=40)
@given(SHAPES, MASKS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.3]), st.sampled_from([9, 900]))
def test_latents_with_shifts_come_back(shape, masks, seed, share, shifts):
    layout, smooth, bands, model = coded(seed, shape, masks, shifts=shifts, share=share, spikes=0.02)
    data, count, grid = latent_code.encode(layout, smooth, bands, model)
    back = latent_code.decode(data, layout, count, model, torch.device("cpu"))
    assert torch.equal(back, grid)


def test_what_a_latent_stands_for():
    """By the formula, at the ends of every range; the latents stay as they are."""
    latents, shifts = (-32767, -2, -1, 0, 1, 2, 32767), (-255, -128, 0, 1, 255)
    given = torch.tensor([*product(latents, shifts)])
    for step, bias, kind in product((1, 300, 65535), (0, 127), (torch.int16, torch.int64)):
        layout, values = Pyramid((1, 1, 1), (), (step,), (bias,)), given[:, 0].to(kind)
        exact = [256 * n - bias * int(np.sign(n)) + w for n, w in given.tolist()]
        expected = [int(np.sign(t)) * min((abs(t) * step + 128) // 256, LARGEST) for t in exact]
        assert layout.value(values, 0, given[:, 1]).tolist() == expected
        assert torch.equal(values, given[:, 0].to(kind))


def test_shifts_are_those_of_the_specification():
    outputs = torch.zeros(6, 5, dtype=torch.int64)
    outputs[3:] = torch.tensor([[15, 16, -16, -17, 9000], [0, 32 * 255, 10**6, -(10**6), 5], [1] * 5])
    found = forecast(outputs)
    assert found.shift(torch.zeros(5)).tolist() == [0, 1, 0, -1, 255]
    assert found.shift(torch.ones(5)).tolist() == [0, 255, 255, -255, 0]
    assert found.shift(torch.tensor([0, 3, -1, 1, 0])).tolist() == [0, 255, 0, -255, 255]
    assert not forecast(outputs[:3]).shifts.any()


def test_the_same_bytes_by_threads_and_parts(monkeypatch):
    layout, smooth, bands, model = coded(3, (11, 30, 33), shifts=30, share=0.2)
    data, count, grid = latent_code.encode(layout, smooth, dict(bands), model)
    before = torch.get_num_threads()
    try:
        for threads, part in ((1, 1 << 13), (2, 1 << 13), (2, 37), (1, 500)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(latents, "PART", part)
            assert latent_code.encode(layout, smooth, dict(bands), model)[0] == data
            assert torch.equal(latent_code.decode(data, layout, count, model, torch.device("cpu")), grid)
    finally:
        torch.set_num_threads(before)


def test_few_lanes_decode_as_many_do(monkeypatch):
    layout, smooth, bands, model = coded(4, share=0.3, size=9.0, width=10)
    for bits in (30, 300, 10**6):
        with latent_vectors.bits_per_lane(bits):
            data, count, grid = latent_code.encode(layout, smooth, dict(bands), model)
        for few in (0, 64):
            monkeypatch.setattr(lanes, "FEW_LANES", few)
            assert torch.equal(latent_code.decode(data, layout, count, model, torch.device("cpu")), grid)


@CUDA
def test_the_same_bytes_on_cuda():
    for seed, masks in enumerate([(7, 3), (3, 7, 1), (1,), ()]):
        layout, smooth, bands, model = coded(seed, (11, 30, 33), masks, shifts=30, share=0.2, spikes=0.01)
        data, count, grid = latent_code.encode(layout, smooth, dict(bands), model)
        device = torch.device("cuda")
        there = {key: band.to(device) for key, band in bands.items()}
        again = latent_code.encode(layout, smooth.to(device), there, model.to(device))
        assert again[0] == data
        back = latent_code.decode(data, layout, count, model.to(device), device)
        assert torch.equal(back.cpu(), grid)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head():
    volume = head_phantom((24, 48, 40), seed=1)
    return volume, inrformat.encode(volume, preset="fast", ratio=20, device="cpu", progress=False)


def test_a_head_there_and_back(head):
    volume, file = head
    info = inrformat.info(file)
    assert info.base == "latents"
    with Reader(file) as reader:
        assert {"LATN", "LATD"} <= set(reader.types) and not reader.has("SIRN")
    assert info.ratio == pytest.approx(20, rel=0.05)
    back = inrformat.decode(file, device="cpu")
    assert back.data.shape == volume.data.shape
    error = back.data.astype(float) - volume.data
    assert 20 * np.log10(np.ptp(volume.data) / np.sqrt((error**2).mean())) > 28
    inrformat.verify(file, original=volume, device="cpu")
    preview = inrformat.decode(file, level="preview", device="cpu")
    assert preview.data.shape == info.lr_shape


def test_a_preview_is_a_coarser_level(head, monkeypatch):
    """Between the LR grid's points the finest levels say what is missing; the slopes follow the slices."""
    volume, file = head
    whole = inrformat.decode(file, level="preview", device="cpu")
    monkeypatch.setattr(latents, "PREVIEW_POINTS", whole.data.size - 1)
    small = inrformat.decode(file, level="preview", device="cpu")
    with inrformat.open(file) as opened:
        pyramid = opened.evaluator.pyramid
        strides = pyramid.strides_of_levels[pyramid.preview]
    assert pyramid.preview == 1
    z, y, x = strides
    assert small.data.shape == whole.data[::z, ::y, ::x].shape
    np.testing.assert_allclose(small.spacing, np.multiply(whole.spacing, strides))
    np.testing.assert_allclose(small.affine, whole.affine @ np.diag([*strides, 1]))
    error = small.data.astype(float) - whole.data[::z, ::y, ::x]
    assert 20 * np.log10(np.ptp(volume.data) / np.sqrt((error**2).mean())) > 20
    assert abs(float(error.mean())) < 0.01 * np.ptp(volume.data)
    monkeypatch.setattr(latents, "PREVIEW_POINTS", 0)  # no level is as small
    least = inrformat.decode(file, level="preview", device="cpu")
    assert least.data.shape == tuple(-(-n // s) for n, s in zip(whole.shape, pyramid.strides, strict=True))


def test_slopes_of_a_preview(monkeypatch):
    data = head_phantom((20, 24, 24), seed=2).data
    slopes = tuple(1 + 0.5 * z for z in range(20))
    volume = inrformat.Volume(data, slope=slopes, intercept=tuple(-z for z in range(20)))
    file = inrformat.encode(volume, ratio=4, factors=(1, 1, 1), device="cpu", progress=False)
    monkeypatch.setattr(latents, "PREVIEW_POINTS", 200)
    small = inrformat.decode(file, level="preview", device="cpu")
    step = round(small.spacing[0])
    assert step > 1
    assert small.slope == slopes[::step]
    assert small.intercept == volume.intercept[::step]


def test_a_region_is_cut_out_of_the_whole(head):
    _, file = head
    whole = inrformat.decode(file, device="cpu").data
    for box in (((3, 17), (5, 30), (0, 40)), ((23, 24), (0, 1), (39, 40))):
        cut = tuple(slice(a, b) for a, b in box)
        with inrformat.open(file, device="cpu") as opened:
            difference = opened.region(box).astype(int) - whole[cut]
        assert np.abs(difference).max() <= 1  # floats of Lanczos and of the model, in other places
    plain = latent_vectors.random_parts((9, 14, 15), (7, 3), 5).file()
    with inrformat.open(plain, device="cpu") as opened:
        assert np.array_equal(opened[2:5, 3:, :7], opened.full().data[2:5, 3:, :7])


def test_the_same_file_by_threads(head):
    _, file = head
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        preview = inrformat.decode(file, level="preview", device="cpu").data
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(preview, inrformat.decode(file, level="preview", device="cpu").data)


def sections_of(file):
    with Reader(file) as reader:
        return [(s.type, reader.read(s.type)) for s in reader.sections]


def test_damage_is_an_error(head):
    _, file = head
    for at in range(40, len(file), len(file) // 37):
        with pytest.raises(errors.InrError):
            inrformat.verify(file[:at] + bytes([file[at] ^ 8]) + file[at + 1 :], device="cpu")
    rng = np.random.default_rng(0)
    sections = sections_of(file)
    for _ in range(10):
        body = bytearray(dict(sections)["LATD"])
        body[int(rng.integers(16, len(body)))] ^= 1 << int(rng.integers(8))
        damaged = build([(t, bytes(body) if t == "LATD" else b) for t, b in sections])
        try:
            inrformat.decode(damaged, device="cpu")
        except errors.FormatError as error:
            assert error.code in {
                "bad-latents",
                "rans-truncated",
                "rans-bad-state",
                "rans-bad-end",
                "padding-not-zero",
            }


def test_an_unknown_model_is_said_to_be_missing(tmp_path):
    parts = latent_vectors.random_parts((5, 6, 7), (7,), 1)
    alone = replace(parts, model=None).file()
    with pytest.raises(errors.ModelNotFoundError, match="latent-vector 1 is not here"):
        inrformat.decode(alone, device="cpu")
    assert inrformat.verify(alone).base == "latents"
    (tmp_path / "own.inrm").write_bytes(parts.model)
    there = inrformat.decode(alone, device="cpu", models=[tmp_path]).data
    assert np.array_equal(there, inrformat.decode(parts.file(), device="cpu").data)


def test_bricks_do_not_need_the_latent_model():
    data = lattice_vectors.picture((5, 6, 7), "i2", 10, share=0.01)
    exact = lattice_vectors.parts(data, b"")
    parts = latent_vectors.random_parts((5, 6, 7), (7,), 1)
    header = replace(exact.head, base="latents").pack()
    rest = [s for s in exact.sections() if s[0] not in ("HEAD", "SIRN")]
    for model in (parts.model, None):
        file = build([("HEAD", header), *replace(parts, model=model).sections()[1:], *rest])
        assert np.array_equal(inrformat.decode(file, device="cpu").data, data)
    with pytest.raises(errors.ModelNotFoundError):
        inrformat.decode(file, level="preview", device="cpu")


def test_limits():
    file = latent_vectors.random_parts((5, 6, 7), (7,), 1).file()
    inrformat.decode(file, device="cpu", limits=Limits(max_latents=5 * 6 * 7))
    with pytest.raises(errors.LimitError, match="too-many-latents"):
        inrformat.decode(file, device="cpu", limits=Limits(max_latents=5 * 6 * 7 - 1))


def test_the_shipped_latent_model():
    model = registry.default_latents()
    assert model.header is not None
    assert model.header.kind == "latents"
    assert len(model.networks) == len(PATTERNS)
    with pytest.raises(errors.FormatError, match="no latents model"):
        registry.load_latents(registry.SHIPPED / registry.DEFAULT_CONTEXT)


def test_norms_are_those_of_the_pyramid():
    """A unit in a band, put together without rounding, has the norm that `gain` says."""
    smooth, detail = wavelet.norms(1)
    unit = torch.zeros(1, 1, 64, dtype=torch.int32)
    for place, norm in ((32, smooth), (33, detail)):
        grid = unit.clone()
        grid[..., place] = 50000
        inverse(grid, levels_of([1])[0])
        assert float(grid.double().norm()) / 50000 == pytest.approx(norm, rel=1e-3)


def test_a_pyramid_goes_down_to_four_points():
    """Coarse smooth points are dear: a MEMPRAGE's grid of (4, 4, 4) lost 0.36 dB in 4,000 bytes by stopping at eight."""
    assert wavelet.halving((44, 48, 48), (1.0, 1.0, 1.0)) == (7, 7, 7)
    assert wavelet.halving((7, 7, 8), (1.0, 1.0, 1.0)) == (1,)
    assert wavelet.halving((55, 128, 96), (2.5, 1.7, 1.7))[-1] == 2
    assert wavelet.halving((7, 7, 7), (1.0, 1.0, 1.0)) == ()
