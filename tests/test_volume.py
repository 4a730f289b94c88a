from __future__ import annotations

import numpy as np
import pytest

from inrformat.errors import InputError
from inrformat.volume import DTYPES, Volume, as_stored, default_affine, spacing_of


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_stored_types_are_taken_without_a_copy(dtype):
    array = np.ones((2, 3, 4), dtype)
    assert as_stored(array) is array or np.shares_memory(as_stored(array), array)
    swapped = array.astype(dtype.newbyteorder(">"))
    assert as_stored(swapped).dtype == dtype
    assert as_stored(swapped).dtype.isnative


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([[[-5, 300]]], np.int64), np.int16),
        (np.array([[[0, 40000]]], np.uint32), np.uint16),
        (np.zeros((1, 1, 2), np.float64), np.float32),
        (np.zeros((1, 1, 2), np.float16), np.float32),
        (np.zeros((3, 2), np.uint8), np.uint8),
        (np.array([[[1, 2]]], ">u2"), np.uint16),
        ([[[1, 2]]], np.int16),
    ],
)
def test_other_types_are_narrowed(array, dtype):
    stored = as_stored(array)
    assert stored.dtype == dtype
    assert stored.ndim == 3
    np.testing.assert_array_equal(stored.reshape(np.shape(array)), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2, 2)),
        np.zeros(3),
        np.zeros((0, 2, 2)),
        np.array([[[-1, 40000]]]),
        np.array([[[1 << 40]]]),
        np.zeros((1, 1, 1), complex),
        np.zeros((1, 1, 1), bool),
        np.array([[["a"]]]),
        np.array([[[None]]]),
        [[1], [2, 3]],
        None,
    ],
)
def test_refused_arrays(array):
    with pytest.raises(InputError):
        as_stored(array)


def test_overflowing_floats_become_infinite():
    assert np.isinf(as_stored(np.full((1, 1, 1), 1e300))).all()


def test_tensors():
    torch = pytest.importorskip("torch")
    assert as_stored(torch.zeros(2, 3, 4, dtype=torch.int16)).dtype == np.int16
    assert as_stored(torch.zeros(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)).dtype == np.float32


def test_defaults():
    volume = Volume(np.zeros((2, 3, 4), np.int16), (3, 2, 1))
    assert volume.shape == (2, 3, 4)
    assert volume.spacing == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(volume.affine @ [1, 1, 1, 1], [1, 2, 3, 1])
    assert (volume.slope, volume.intercept) == ((1.0,), (0.0,))
    assert volume.metadata == {}


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": (1, 1)},
        {"spacing": (0, 1, 1)},
        {"spacing": (1, np.nan, 1)},
        {"spacing": "abc"},
        {"spacing": None},
        {"affine": np.eye(3)},
        {"affine": np.full((4, 4), np.inf)},
        {"affine": "x"},
        {"slope": (1, 2, 3)},
        {"slope": np.inf},
        {"intercept": "low"},
        {"intercept": ()},
    ],
)
def test_refused_options(options):
    with pytest.raises(InputError):
        Volume(np.zeros((2, 3, 4), np.int16), **options)


def test_real_values_per_slice():
    volume = Volume(np.full((2, 1, 1), 10, np.int16), slope=(1, 2), intercept=-3)
    assert volume.real_values().tolist() == [[[7]], [[17]]]
    assert volume.real_values().dtype == np.float32


def test_spacing_of():
    assert spacing_of(default_affine((3.0, 2.0, 1.0))) == (3, 2, 1)
    sheared = default_affine((3.0, 2.0, 1.0))
    sheared[1, 0] = 4.0  # the step has an in-plane part: the planes are 3 mm apart still
    assert spacing_of(sheared) == (3, 2, 1)
    for axis in range(3):
        flat = default_affine((3.0, 2.0, 1.0))
        flat[:3, axis] = 0
        with pytest.raises(InputError):
            spacing_of(flat)
