from __future__ import annotations

import time

import numpy as np
import pytest

from inrformat.errors import UsageError
from inrformat.phantom import FIELD_MM, head_phantom
from inrformat.volume import DTYPES


def test_is_a_head_in_hounsfield_units():
    volume = head_phantom((64, 128, 128), noise=0)
    values = volume.real_values()
    assert volume.shape == (64, 128, 128)
    assert volume.data.dtype == np.int16
    assert values[0, 0, 0] == -1000
    assert values.max() == pytest.approx(1500, abs=1)
    assert 28 <= np.median(values[24:40, 40:88, 40:88]) <= 38
    np.testing.assert_allclose(np.multiply(volume.spacing, volume.shape), FIELD_MM)
    centre = volume.affine @ [31.5, 63.5, 63.5, 1]
    np.testing.assert_allclose(centre, [0, 0, 0, 1], atol=1e-9)


def test_edges_are_soft_and_details_are_fine():
    values = head_phantom((32, 128, 128), noise=0).real_values()
    between = (values > -900) & (values < -200)
    assert between.sum() > 500  # voxels that are partly air
    assert (values == 300).sum() > 100  # the bars


def test_same_seed_same_volume():
    first, again, other = (head_phantom((8, 32, 32), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.data, again.data)
    assert (first.data != other.data).mean() > 0.5


def test_noise_is_what_was_asked_for():
    air = head_phantom((16, 64, 64), noise=20).data[:, :4, :4]
    assert air.std() == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_types_mean_the_same(dtype):
    volume = head_phantom((16, 64, 64), dtype=dtype)
    assert volume.data.dtype == dtype
    expected = head_phantom((16, 64, 64), dtype=np.float32).real_values()
    tolerance = 8.01 if dtype.itemsize == 1 else 0.51
    inside = expected > -1000 + tolerance
    np.testing.assert_allclose(volume.real_values()[inside], expected[inside], atol=tolerance)


def test_fast_and_any_shape():
    start = time.perf_counter()
    head_phantom((128, 128, 128))
    assert time.perf_counter() - start < 2  # 0.1 s on an idle core
    for shape in ((1, 1, 1), (1, 64, 64), (3, 200, 5)):
        assert head_phantom(shape).shape == shape


@pytest.mark.parametrize(
    "options",
    [{"shape": (0, 4, 4)}, {"shape": (4, 4)}, {"dtype": np.int32}, {"noise": -1}, {"noise": float("nan")}],
)
def test_refused(options):
    with pytest.raises(UsageError):
        head_phantom(**options)
