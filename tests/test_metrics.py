import numpy as np
import pytest
import torch

from inrformat.metrics import Comparison, psnr, ssim_of_slices


def test_psnr_is_the_papers_equation_2():
    assert psnr(4.0, 255.0) == pytest.approx(10 * np.log10(255**2 / 4))
    assert psnr(0.0, 255.0) is None


@pytest.mark.parametrize("shape", [(3, 20, 31), (1, 7, 7), (2, 5, 40), (1, 1, 1)])
def test_ssim_is_scikit_images(shape):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is in the dev extra")
    rng = np.random.default_rng(0)
    a = rng.random(shape, np.float32)
    b = a + 0.1 * rng.standard_normal(shape).astype(np.float32)
    got = ssim_of_slices(torch.from_numpy(a), torch.from_numpy(b))
    assert got.shape == (shape[0],)
    if min(shape[1:]) < 7:  # scikit-image refuses such slices
        return
    pad = 3  # its mean leaves out the border in the same way
    for z in range(shape[0]):
        want = metrics.structural_similarity(a[z], b[z], data_range=1.0, full=True)[1][
            pad:-pad, pad:-pad
        ].mean()
        assert float(got[z]) == pytest.approx(want, abs=2e-4)


def test_comparison_gathers_slabs_as_the_whole():
    rng = np.random.default_rng(1)
    a = rng.integers(-500, 1500, (9, 16, 17)).astype(np.int16)
    b = (a + rng.integers(-20, 20, a.shape)).astype(np.int16)
    b[6] += 50
    span = float(a.min()), float(a.max())
    peak = span[1] - span[0]
    parts = Comparison(9, span, 16 * 17)
    for z0, z1 in ((0, 4), (4, 5), (5, 9)):
        parts.add(z0, a[z0:z1], b[z0:z1])
    error = b.astype(float) - a
    assert parts.psnr == pytest.approx(10 * np.log10(peak**2 / np.mean(error**2)))
    assert parts.max_error == np.abs(error).max()
    assert parts.absolute / parts.voxels == pytest.approx(np.abs(error).mean())
    assert parts.worst_slice == 6
    assert parts.worst_slice_psnr == pytest.approx(10 * np.log10(peak**2 / np.mean(error[6] ** 2)))
    whole = Comparison(9, span, 16 * 17)
    whole.add(0, a, b)
    np.testing.assert_allclose(parts.ssim, whole.ssim, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e20, 1e37])
def test_floats_of_any_size_have_their_figures(scale):
    rng = np.random.default_rng(2)
    a = rng.random((3, 16, 17)).astype(np.float32)
    b = (a + 0.01 * rng.standard_normal(a.shape)).astype(np.float32)
    figures = []
    for unit in (1.0, scale):
        x, y = (a * np.float32(unit)), (b * np.float32(unit))
        compared = Comparison(3, (float(x.min()), float(x.max())), 16 * 17)
        compared.add(0, x, y)
        figures.append((compared.psnr, compared.max_error / unit, *compared.ssim))
    np.testing.assert_allclose(*figures, rtol=1e-3)
