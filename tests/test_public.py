"""encode and decode, end to end, through the public names alone, with little effort."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import inrformat
from inrformat import Volume, errors
from inrformat.fit import plan
from inrformat.job import Job

SHAPE = (12, 24, 20)


@pytest.fixture(scope="module", autouse=True)
def little_effort():
    with pytest.MonkeyPatch.context() as patch:
        for name, preset in plan.PRESETS.items():
            settings = replace(preset.settings, steps=60, batch=2048, depth=2)
            patch.setitem(plan.PRESETS, name, replace(preset, settings=settings, bytes=900, growth=0))
        yield


@pytest.fixture(scope="module")
def head():
    return inrformat.head_phantom(SHAPE)


@pytest.fixture(scope="module")
def encoded(head, little_effort):
    return inrformat.encode(head, factors=(1, 2, 2))


def psnr(a, b):
    error = a.astype(np.float64) - b
    return 10 * np.log10(np.ptp(a.astype(np.float64)) ** 2 / np.mean(error**2))


def test_there_and_back(head, encoded):
    decoded = inrformat.decode(encoded)
    assert decoded.shape == SHAPE and decoded.data.dtype == head.data.dtype
    assert decoded.spacing == head.spacing
    np.testing.assert_array_equal(decoded.affine, head.affine)
    assert (decoded.slope, decoded.intercept) == (head.slope, head.intercept)
    assert decoded.metadata["modality"] == "CT"
    info = inrformat.info(encoded)
    assert decoded.metadata["lossy"]["ratio"] == info.ratio == head.data.nbytes / len(encoded)
    assert info.measured.psnr == pytest.approx(psnr(head.data, decoded.data), abs=1e-3)
    assert info.measured.max_error == np.abs(decoded.data.astype(int) - head.data).max()
    inrformat.verify(encoded, original=head)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f4"])
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_every_type(dtype, preset):
    volume = inrformat.head_phantom((5, 17, 13), dtype=dtype)  # odd and prime sizes
    data = inrformat.encode(volume, preset=preset)
    decoded = inrformat.decode(data)
    assert decoded.data.dtype == np.dtype(dtype)
    assert volume.data.min() <= decoded.data.min() and decoded.data.max() <= volume.data.max()
    assert inrformat.info(data).provenance.preset == preset


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 16, 16), (7, 1, 9), (30, 2, 3)])
def test_odd_shapes(shape):
    volume = np.random.default_rng(0).integers(0, 100, shape).astype(np.uint16)
    assert inrformat.decode(inrformat.encode(volume)).shape == shape


def test_what_counts_as_a_volume():
    torch = pytest.importorskip("torch")
    slab = np.arange(64, dtype=np.int64).reshape(4, 4, 4)
    for volume in (slab, torch.from_numpy(slab), slab.astype(">u2"), slab[0], Volume(slab.astype(np.int16))):
        assert inrformat.decode(inrformat.encode(volume)).data.shape[1:] == (4, 4)


def test_a_constant_volume_is_exact():
    data = inrformat.encode(np.full((6, 40, 40), -7, np.int16))
    assert (inrformat.decode(data).data == -7).all()
    assert inrformat.info(data).measured.psnr is None


def test_the_same_seed_gives_the_same_bytes(head, encoded):
    assert inrformat.encode(head, factors=(1, 2, 2)) == encoded
    assert inrformat.encode(head, factors=(1, 2, 2), seed=1) != encoded


def test_content_that_evenly_spread_slabs_would_miss():
    """Which grid and which model is best is judged by slabs; here most are empty."""
    data = np.zeros((100, 32, 32), np.int16)
    for place in (slice(20, 40), slice(62, 80)):
        head = inrformat.head_phantom((place.stop - place.start, 32, 32), seed=1).data
        data[place] = head - head.min()
    info = inrformat.info(inrformat.encode(data, psnr=40, progress=False))
    assert 40 <= info.measured.psnr <= 40.2


def test_targets_beyond_all_bounds():
    data = inrformat.head_phantom((4, 8, 8)).data.astype(np.float32)
    for name, values in (
        ("ratio", (0, -1, 1e-320, 1e13, float("nan"))),
        ("psnr", (0, 4000.0, float("inf"))),
        ("max_error", (-1, 1.7e308)),
        ("seconds", (0, 1e-323, 1e10)),
    ):
        for value in values:
            with pytest.raises(errors.UsageError, match=f"{name}= is from"):
                inrformat.encode(data, progress=False, **{name: value})


@pytest.mark.parametrize("target", [{"ratio": 0.5}, {"psnr": 40}])
def test_a_constant_volume_is_exact_and_says_so(target):
    data = np.full((6, 7, 8), 3, np.uint8)
    with pytest.raises(errors.EncodeError, match=r"the best was 0\.9|the nearest was exact"):
        inrformat.encode(data, progress=False, **target)
    assert inrformat.info(inrformat.encode(data, ratio=0.94, progress=False)).measured.psnr is None


def test_a_psnr_is_tried_where_the_reduction_alone_loses_a_little_too_much():
    """An adapted model may make up for it; where it does not, what was reached is measured."""
    volume = inrformat.head_phantom((24, 48, 48), seed=1)
    for psnr, hopeless in ((29.05, False), (40.0, True)):
        try:
            file = inrformat.encode(volume, psnr=psnr, factors=(2, 2, 2), progress=False)
        except errors.EncodeError as error:
            assert ("the reduction alone leaves" in str(error)) == hopeless
        else:
            assert not hopeless
            assert psnr <= inrformat.info(file).measured.psnr <= psnr + 0.2


def test_the_preview(encoded):
    with inrformat.open(encoded) as file:
        preview = file.preview()
        assert preview.shape == file.lr_shape == (12, 12, 10)
    np.testing.assert_array_equal(preview.data, inrformat.decode(encoded, level="preview").data)
    full = inrformat.decode(encoded)
    ends = preview.affine @ [0, -0.25, -0.25, 1]  # the corner voxel's centre, half of three quarters away
    np.testing.assert_allclose(ends, full.affine @ [0, 0, 0, 1])


def test_regions(encoded, tmp_path):
    (tmp_path / "x.inrv").write_bytes(encoded)
    full = inrformat.decode(encoded)
    with inrformat.open(tmp_path / "x.inrv") as file:
        for key in (np.s_[3], np.s_[2:5, 1:, ::1], np.s_[..., 7], np.s_[-2:, 4, -3], np.s_[4:4]):
            region, same = file[key], full.data[key]
            assert region.shape == same.shape and region.dtype == same.dtype
            assert not region.size or np.abs(region.astype(int) - same).max() <= 1  # float arithmetic
        with pytest.raises(errors.UsageError, match="step 1"):
            file[::2]
        with pytest.raises(errors.UsageError):
            file[0, 0, 0, 0]
        part = file.cut(((2, 5), (0, 24), (7, 9)))
    assert part.shape == (3, 24, 2)
    np.testing.assert_allclose(part.affine @ [0, 0, 0, 1], full.affine @ [2, 0, 7, 1])


@pytest.mark.parametrize(("ratio", "factors"), [(8, None), (9, (1, 2, 2))])
def test_a_ratio_is_reached(head, ratio, factors):
    data = inrformat.encode(head, ratio=ratio, factors=factors)
    assert head.data.nbytes / len(data) == pytest.approx(ratio, rel=0.05)
    assert inrformat.info(data).measured.promise.value == ratio
    inrformat.verify(data, original=head)


def test_a_psnr_is_reached_or_the_best_is_said(head, monkeypatch):
    monkeypatch.setattr(sys.modules["inrformat.encode"], "MOST_FITS", 2)
    low = inrformat.info(inrformat.encode(head)).measured.psnr - 1.5
    try:
        data = inrformat.encode(head, psnr=low)
    except errors.EncodeError as error:
        assert "dB" in str(error)
    else:
        assert low - 0.01 <= psnr(head.data, inrformat.decode(data).data) <= low + 0.21
    with pytest.raises(errors.EncodeError, match=r"not reached; the nearest was (exact|\d+\.\d+ dB)"):
        inrformat.encode(head, psnr=90)


def test_a_psnr_that_no_reduction_leaves(head):
    with pytest.raises(errors.EncodeError, match=r"the reduction alone leaves \d+\.\d\d dB"):
        inrformat.encode(head, psnr=90, factors=(2, 2, 2))


def test_the_nearest_psnr_is_the_one_without_a_model_where_that_is_nearer():
    def measure(attempt, model, promise):
        return SimpleNamespace(psnr=48.0 if model else 62.0, psnr_lanczos=62.0)

    def kept(attempt, model, measured):
        raise errors.EncodeError(f"the nearest was {measured.psnr} dB")

    job = SimpleNamespace(bricks=[], supported_model=lambda factors: "model", measure=measure, _kept=kept)
    bar = SimpleNamespace(stage=lambda name: nullcontext())
    with pytest.raises(errors.EncodeError, match=r"was 62\.0 dB"):
        Job.finish(job, SimpleNamespace(factors=(1, 1, 1)), None, bar)


def test_at_full_size_an_embedded_model_gives_the_grid_no_more_bytes(head):
    plain, whole = (inrformat.encode(head, factors=(1, 1, 1), embed_sr=embed) for embed in (False, True))
    with inrformat.open(whole) as file:
        model = len(file.reader.read("SRMD"))
    assert abs(len(whole) - len(plain) - model) < 100


def test_a_model_in_the_file(head):
    """Embedded, the model is used from the file; a model that does not help is not used."""
    from inrformat.models import registry

    data = inrformat.encode(head, factors=(1, 2, 2), embed_sr=True)
    with inrformat.open(data) as file:
        assert file.reader.has("SRMD") and file.header.sr is not None
        model = len(file.reader.read("SRMD"))
    plain = inrformat.encode(head, factors=(1, 2, 2))
    assert abs(len(data) - len(plain) - model) < 100
    useless = registry.load_model(
        registry.pack_model(
            registry.create_model("light"), name="noise", version=1, licence="CC0-1.0", trained_on="nothing"
        )
    )
    for parameter in useless.parameters():
        parameter.data += 3.0
    assert inrformat.info(inrformat.encode(head, factors=(1, 2, 2), sr=useless)).sr is None


@pytest.mark.parametrize(
    ("error", "keywords"),
    [
        (errors.UsageError, {"preset": "quick"}),
        (errors.UsageError, {"ratio": 10, "psnr": 30}),
        (errors.UsageError, {"ratio": 0}),
        (errors.UsageError, {"psnr": float("nan")}),
        (errors.UsageError, {"factors": (1, 2)}),
        (errors.UsageError, {"factors": (1, 2, 3)}),
        (errors.UsageError, {"sr": "magic"}),
        (errors.UsageError, {"device": "abacus"}),
        (errors.UsageError, {"lossless": True, "ratio": 4}),
        (errors.UsageError, {"lossless": True, "max_error": 1}),
        (errors.UsageError, {"max_error": -1}),
        (errors.UsageError, {"max_error": 1, "seconds": 60}),
        (errors.EncodeError, {"ratio": 1e6}),
    ],
)
def test_wrong_calls(head, error, keywords):
    with pytest.raises(error):
        inrformat.encode(head, **keywords)


def test_wrong_values():
    volume = np.ones((3, 8, 8), np.float32)
    volume[0, 0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(errors.InputError, match="3 voxels are NaN or infinite"):
        inrformat.encode(volume)
    with pytest.raises(errors.UsageError):
        inrformat.encode(volume, fill=np.nan)
    assert inrformat.info(inrformat.encode(volume, fill=0.5)).range == (0.5, 1)
    for bad in (np.zeros((2, 3, 4, 5)), np.zeros((0, 3, 3)), np.array([["a"]]), np.zeros((2, 2, 2), complex)):
        with pytest.raises(errors.InputError):
            inrformat.encode(bad)


def test_over_the_limits():
    """Refused before it is looked at: no such memory is ever touched."""
    with pytest.raises(errors.InputError, match="over the limits"):
        inrformat.encode(np.broadcast_to(np.int16(1), (1, 1, 1 << 20)))
    with pytest.raises(errors.InputError, match="over the limits"):
        inrformat.encode(np.broadcast_to(np.int16(1), (1 << 15, 1 << 15, 1 << 15)))


def test_wrong_levels_and_files(encoded, tmp_path):
    with pytest.raises(errors.UsageError, match="level"):
        inrformat.decode(encoded, level="half")
    with pytest.raises(errors.FormatError):
        inrformat.decode(b"nothing")
    with pytest.raises(errors.InputError):
        inrformat.decode(tmp_path / "nowhere.inrv")
    for error in (errors.EncodeError, errors.FormatError, errors.ModelNotFoundError, errors.InputError):
        assert issubclass(error, inrformat.InrError)
