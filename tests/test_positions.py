"""Positions of slices as files keep them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrformat
from inrformat.container.layout import Reader
from inrformat.container.metadata import unpack_metadata
from inrformat.phantom import head_phantom
from inrformat.positions import EVEN, SLICES, evenly, filled, thinned

STEP = np.array([-0.99681772, 0.07523305, -0.02635185])


def places(*gaps):
    """Positions with so many steps between neighbours."""
    return np.array([70.5, -141.6, 132.5]) + np.cumsum([0, *gaps])[:, None] * STEP


def test_a_gap_takes_the_ends_of_two_stretches():
    positions = places(*[1] * 80, 2, *[1] * 93)
    kept = thinned({"positions": positions.tolist(), "modality": "MR"}, 175)
    assert kept[SLICES] == [0, 80, 81, 174]
    assert kept["positions"] == positions[[0, 80, 81, 174]].tolist()
    back = filled(kept, 175)
    assert set(back) == {"positions", "modality"}
    np.testing.assert_allclose(back["positions"], positions, atol=EVEN)


@settings(deadline=None)
@given(st.lists(st.sampled_from([1.0, 1.0, 1.0, 1.0, 2.0, 1.37]), min_size=2, max_size=70))
def test_they_come_back(gaps):
    positions = places(*gaps)
    kept = thinned({"positions": positions.tolist()}, len(positions))
    assert len(kept["positions"]) <= len(positions)
    np.testing.assert_allclose(filled(kept, len(positions))["positions"], positions, atol=2 * EVEN)


def test_what_is_even_has_two_ends_as_before():
    positions = places(*[1] * 6)
    assert evenly(positions)
    ends = {"positions": positions[[0, -1]].tolist()}
    assert thinned(ends, 7) == ends == filled(ends, 7)
    assert thinned({"positions": positions.tolist()}, 7)[SLICES] == [0, 6]


def test_positions_of_other_slices_stay():
    """As of a preview, which has those of the whole; and nobody else's list is taken for the file's."""
    positions = {"positions": places(*[1] * 6).tolist()}
    assert thinned(positions, 4) == positions == thinned(positions | {SLICES: [0, 6]}, 4)
    volume = head_phantom((24, 16, 16), seed=1)
    volume.metadata["positions"] = places(*[1] * 11, 2, *[1] * 11).tolist()
    file = inrformat.encode(volume, ratio=3, factors=(2, 1, 1), device="cpu", progress=False)
    preview = inrformat.decode(file, level="preview")
    assert len(preview.data) == 12
    again = inrformat.decode(inrformat.encode(preview, ratio=2, device="cpu", progress=False))
    assert again.metadata["positions"] == preview.metadata["positions"]


@pytest.mark.parametrize(
    "positions",
    [
        None,
        [],
        "x",
        [[1, 2]],
        [["a", 1, 2]],
        [[0, 0, 0]] * 2,
        [[0, 0, np.nan]] * 4,
        5,
        [[10**400, 0, 0]] * 4,
        [["1", "2", "3"]] * 4,
    ],
)
def test_what_is_none_stays(positions):
    assert thinned({"positions": positions}, 4) == {"positions": positions}


@pytest.mark.parametrize(
    "slices",
    [
        None,
        3,
        [],
        [0],
        [0, 2, 2],
        [0, 3, 2],
        [0, 1, 4],
        [1, 2, 3],
        [0, 1.0, 3],
        [0, 1, "3"],
        [0, 1, True],
        [0, 1, 2**70],
    ],
)
def test_slices_that_make_no_sense_stay(slices):
    metadata = {"positions": [[0, 0, 0], [0, 0, 1], [0, 0, 3]], SLICES: slices}
    assert filled(metadata, 4) == metadata


def test_a_file_keeps_few():
    volume = head_phantom((24, 16, 16), seed=1)
    positions = places(*[1] * 11, 2, *[1] * 11).tolist()
    volume.metadata.update(positions=positions, source="dicom")
    file = inrformat.encode(volume, ratio=3, device="cpu", progress=False)
    with Reader(file) as reader:
        assert unpack_metadata(reader.read("meta"))[SLICES] == [0, 11, 12, 23]
    for level in ("full", "preview"):
        np.testing.assert_allclose(
            inrformat.decode(file, level=level).metadata["positions"], positions, atol=EVEN
        )
