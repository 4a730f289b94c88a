"""Lanczos resampling against Pillow, against the formula written out, and against what it must keep."""

from itertools import pairwise
from math import ceil, pi, sin

import numpy as np
import pytest
import torch
from PIL import Image

from inrformat import resample
from inrformat.errors import UsageError
from inrformat.resample import downsample, lanczos_matrix, lr_shape, upsample
from inrformat.volume import Volume

SIZES = [(1, 1, 1), (1, 7, 5), (13, 1, 17), (9, 11, 23), (16, 12, 8), (2, 31, 3)]
FACTORS = [(1, 1, 1), (2, 2, 2), (4, 4, 4), (1, 4, 2), (2, 1, 4), (1, 1, 3), (8, 5, 1)]


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def kernel(x):
    """Equation (1), one number at a time, with math.sin."""
    if x == 0:
        return 1.0
    return 3 * sin(pi * x) * sin(pi * x / 3) / (pi * pi * x * x) if abs(x) < 3 else 0.0


def slow_axis(line, f, n_out, up):
    """Resamples one line of samples with plain sums: an independent statement of the geometry."""
    out = []
    for i in range(n_out):
        total = weight = 0.0
        for j, value in enumerate(line):
            hr, lr = (i, j) if up else (j, i)
            w = kernel((hr - ((lr + 0.5) * f - 0.5)) / f)
            total, weight = total + w * float(value), weight + w
        out.append(total / weight)
    return out


def slow(array, factors, shape_out, up):
    for axis, (f, n) in enumerate(zip(factors, shape_out, strict=True)):
        if f > 1:
            array = np.apply_along_axis(slow_axis, axis, array, f, n, up)
    return array


@pytest.mark.parametrize("f", [2, 3, 4])
def test_matches_pillow_both_ways(f):
    hr = noise((12 * f, 10 * f))
    small = Image.fromarray(hr, mode="F").resize((10, 12), Image.Resampling.LANCZOS)
    lr = downsample(hr[None], (1, f, f))
    np.testing.assert_allclose(lr[0].numpy(), np.asarray(small), atol=2e-6)
    big = Image.fromarray(np.asarray(small), mode="F").resize((10 * f, 12 * f), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(
        upsample(lr, (1, f, f), (1, 12 * f, 10 * f))[0].numpy(), np.asarray(big), atol=2e-6
    )


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("factors", FACTORS)
def test_matches_the_formula_at_any_size(shape, factors):
    hr = noise(shape)
    lr = downsample(hr, factors)
    assert lr.dtype == torch.float32
    expected = tuple(ceil(n / f) for n, f in zip(shape, factors, strict=True))
    assert tuple(lr.shape) == lr_shape(shape, factors) == expected
    np.testing.assert_allclose(lr.numpy(), slow(hr, factors, lr.shape, up=False), atol=4e-6)
    full = upsample(lr, factors, shape)
    assert tuple(full.shape) == shape
    np.testing.assert_allclose(full.numpy(), slow(lr.numpy(), factors, shape, up=True), atol=4e-6)


@pytest.mark.parametrize("factors", FACTORS)
def test_constants_are_kept(factors):
    shape = (9, 11, 23)
    lr = downsample(np.full(shape, 2979, np.uint16), factors)
    assert (lr / 2979 - 1).abs().max() < 1e-6
    assert (upsample(lr, factors, shape) / 2979 - 1).abs().max() < 1e-6


@pytest.mark.parametrize("f", [2, 3, 4])
def test_ramps_are_kept_inside(f):
    n = 40 * f
    ramp = np.broadcast_to(np.arange(n, dtype=np.float32), (1, 2, n))
    lr = downsample(ramp, (1, 1, f))[0, 0]
    centres = (torch.arange(40) + 0.5) * f - 0.5
    assert (lr - centres)[3:-3].abs().max() < 1e-4  # down: symmetric weights, exact up to float32
    up = upsample(centres.expand(1, 1, 40), (1, 1, f), (1, 1, n))[0, 0]
    assert (up - torch.arange(n))[4 * f : -4 * f].abs().max() < 0.02 * f  # up: Lanczos is not exactly linear


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 4, 3)])
def test_a_shift_by_f_is_a_shift_by_one_lr_voxel(factors):
    shape = tuple(12 * f for f in factors)
    a = noise(shape)
    b = np.roll(a, factors, axis=(0, 1, 2))
    inside = (slice(5, -4),) * 3
    moved = torch.roll(downsample(a, factors), (1, 1, 1), dims=(0, 1, 2))
    torch.testing.assert_close(downsample(b, factors)[inside], moved[inside], atol=4e-6, rtol=0)


@pytest.mark.parametrize("factors", FACTORS)
def test_slabs_and_regions_equal_the_whole(factors, monkeypatch):
    shape = (23, 19, 29)
    volume = np.random.default_rng(1).integers(-3000, 3000, shape).astype(np.int16)
    whole_lr = downsample(volume, factors)
    monkeypatch.setattr(resample, "SLAB_BYTES", 1)
    torch.testing.assert_close(downsample(volume, factors), whole_lr, atol=3000 * 1e-6, rtol=0)
    monkeypatch.setattr(resample, "ROWS", 5)
    whole = upsample(whole_lr, factors, shape)
    peak = float(whole_lr.abs().max())
    for cuts in ([0, 23], [0, 1, 2, 9, 23], [0, 12, 23]):
        slabs = [upsample(whole_lr, factors, shape, a, b) for a, b in pairwise(cuts)]
        torch.testing.assert_close(torch.cat(slabs), whole, atol=peak * 1e-6, rtol=0)
    part = upsample(whole_lr, factors, shape, 5, 9, y0=3, y1=4, x0=11, x1=29)
    torch.testing.assert_close(part, whole[5:9, 3:4, 11:29], atol=peak * 1e-6, rtol=0)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f4", ">i2", ">u2"])
def test_every_stored_type_and_layout(dtype):
    volume = np.random.default_rng(2).integers(0, 100, (6, 9, 7)).astype(dtype)
    expected = downsample(volume.astype(np.float32), (2, 3, 1))
    assert torch.equal(downsample(volume, (2, 3, 1)), expected)
    assert torch.equal(downsample(np.asfortranarray(volume), (2, 3, 1)), expected)
    assert torch.equal(downsample(Volume(volume), (2, 3, 1)), expected)
    assert torch.equal(downsample(torch.from_numpy(volume.astype(np.float32)), (2, 3, 1)), expected)


def test_factor_one_is_the_identity():
    volume = noise((3, 4, 5))
    assert torch.equal(downsample(volume, (1, 1, 1)), torch.from_numpy(volume))
    same = upsample(torch.from_numpy(volume), (1, 1, 1), (3, 4, 5), 1, 2)
    assert torch.equal(same, torch.from_numpy(volume[1:2]))


def test_wide_range_does_not_lose_float32():
    lr = downsample(np.full((4, 8, 8), 65535, np.uint16), (2, 2, 2))
    assert float((lr - 65535).abs().max()) < 0.1


@pytest.mark.parametrize("f", [2, 3, 4, 16])
@pytest.mark.parametrize("n", [1, 2, 5, 17, 33])
def test_rows_sum_to_one_and_stay_tame(n, f):
    for up in (False, True):
        matrix = lanczos_matrix(n, f, up=up)
        assert matrix.shape == ((n, ceil(n / f)) if up else (ceil(n / f), n))
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
        assert np.abs(matrix).sum(axis=1).max() < 4


def test_wrong_calls():
    lr = torch.zeros(2, 2, 2)
    for bad in [(1, 2), (0, 1, 1), (1.5, 1, 1)]:
        with pytest.raises(UsageError, match="factors"):
            lr_shape((4, 4, 4), bad)
    with pytest.raises(UsageError, match="is not that of"):
        upsample(lr, (2, 2, 2), (4, 4, 5))
    for region in [(0, 0), (3, 2), (0, 5), (-1, 2)]:
        with pytest.raises(UsageError, match="region"):
            upsample(lr, (2, 2, 2), (4, 4, 4), *region)
    with pytest.raises(UsageError, match="non-empty"):
        downsample(np.zeros((0, 4, 4)), (1, 2, 2))
