"""Positions and values through every kind, checked with readers that are not ours."""

from __future__ import annotations

import bz2
import gzip
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_factory import AXIAL, PATIENT, expected_affine, make_enhanced, make_series, oblique, volume_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inrformat import io
from inrformat.errors import InputError, OutputError, UnsupportedError, UsageError
from inrformat.io.dicom_write import mark_lossy, write_dicom_series
from inrformat.phantom import head_phantom
from inrformat.region import crop
from inrformat.volume import DTYPES, Volume, spacing_of

nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")
sitk = pytest.importorskip("SimpleITK")

FILES = (".nii", ".nii.gz", ".nrrd")
KINDS = (*FILES, "")
MARK = (3, 1, 4)  # (z, y, x) of a voxel that is told from all others


def marked(dtype=np.int16, orientation=AXIAL, **options) -> Volume:
    data = volume_array(dtype=dtype)
    data[data > 90] = 90
    data[MARK] = 111
    affine = expected_affine(orientation)
    return Volume(data, spacing_of(affine), affine, **options)


def read_by_sitk(path):
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        return reader.Execute()
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("orientation", [AXIAL, oblique(), ((0, 1, 0), (0, 0, -1))])
@pytest.mark.parametrize("kind", KINDS)
def test_other_readers_find_the_voxel_where_it_is(tmp_path, kind, orientation):
    volume = marked(orientation=orientation)
    path = tmp_path / f"out{kind}"
    io.write(volume, path)
    wanted = (volume.affine @ [*MARK, 1])[:3]
    image = read_by_sitk(path)
    values = sitk.GetArrayFromImage(image)
    (where,) = np.argwhere(values == 111)
    np.testing.assert_allclose(
        image.TransformContinuousIndexToPhysicalPoint([float(v) for v in where[::-1]]), wanted, atol=1e-4
    )
    if ".nii" in kind:
        seen = nibabel.load(path)
        (where,) = np.argwhere(np.asarray(seen.dataobj) == 111)
        np.testing.assert_allclose(
            seen.affine @ [*where, 1], [-wanted[0], -wanted[1], wanted[2], 1], atol=1e-4
        )
    if kind == ".nrrd":
        seen, header = nrrd.read(str(path))
        (where,) = np.argwhere(seen == 111)
        place = header["space origin"] + where @ header["space directions"]
        np.testing.assert_allclose(place, wanted, atol=1e-6)
        assert header["space"] == "left-posterior-superior"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_round_trip(tmp_path, kind, dtype):
    volume = marked(dtype=np.int16, orientation=oblique())
    volume = replace(volume, data=np.abs(volume.data).astype(dtype))
    path = tmp_path / f"out{kind}"
    io.write(volume, path)
    again = io.read(path)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)
    np.testing.assert_allclose(again.spacing, volume.spacing, rtol=1e-5)
    np.testing.assert_allclose(again.real_values(), volume.real_values(), atol=1e-2)
    if kind or dtype.itemsize == 2:  # DICOM widens 8 bits and rescales floats
        assert again.data.dtype == dtype
        np.testing.assert_array_equal(again.data, volume.data)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_through_two_kinds(tmp_path, first, second):
    volume = marked(orientation=oblique())
    io.write(volume, tmp_path / f"a{first}")
    io.write(io.read(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    again = io.read(tmp_path / f"b{second}")
    np.testing.assert_array_equal(again.data, volume.data)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)


def test_dicom_is_read_as_simpleitk_reads_it(tmp_path):
    make_series(tmp_path, volume_array(), orientation=oblique(), reverse_files=True)
    ours, theirs = io.read(tmp_path), read_by_sitk(tmp_path)
    np.testing.assert_array_equal(ours.data, sitk.GetArrayFromImage(theirs))
    for index in ((0, 0, 0), (4, 5, 6)):
        there = theirs.TransformIndexToPhysicalPoint([int(v) for v in index[::-1]])
        np.testing.assert_allclose((ours.affine @ [*index, 1])[:3], there, atol=1e-6)


def test_tilt_survives_nifti_nrrd_and_dicom(tmp_path):
    make_series(tmp_path / "in", volume_array(), step=np.array([0.0, -0.8, 2.4]))
    volume = io.read(tmp_path / "in")
    for kind in KINDS:
        io.write(volume, tmp_path / f"out{kind}")
        again = io.read(tmp_path / f"out{kind}")
        np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
        assert again.spacing[0] == pytest.approx(2.4)
    header = nibabel.load(tmp_path / "out.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    straight = Volume(volume.data)
    io.write(straight, tmp_path / "straight.nii")
    assert int(nibabel.load(tmp_path / "straight.nii").header["qform_code"]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_rescale_means_the_same_to_other_readers(tmp_path, kind):
    for slope, intercept in (((1.0,), (-1000.0,)), ((0.5,), (3.0,)), ((1.0, 2, 3, 4, 5), (0.0,))):
        volume = marked(slope=slope, intercept=intercept)
        volume = replace(volume, metadata={"modality": "CT"})
        path = tmp_path / f"out{len(slope)}{slope[0]}{kind}"
        io.write(volume, path)
        np.testing.assert_allclose(io.read(path).real_values(), volume.real_values(), atol=1e-4)
        theirs = sitk.GetArrayFromImage(read_by_sitk(path))
        if len(slope) == 1 or kind:  # GDCM takes the first slice's rescale for all
            np.testing.assert_allclose(theirs, volume.real_values(), atol=1e-4)


def test_whole_shift_in_nrrd_stays_integer(tmp_path):
    volume = marked(dtype=np.uint16, slope=(1,), intercept=(-1024,))
    io.write(volume, tmp_path / "a.nrrd")
    again = io.read(tmp_path / "a.nrrd")
    assert again.data.dtype == np.int16
    np.testing.assert_array_equal(again.data, volume.data.astype(int) - 1024)


def test_nifti_keeps_stored_values_and_scale(tmp_path):
    volume = marked(slope=(0.25,), intercept=(-3.5,))
    for kind in (".nii", ".nii.gz"):
        io.write(volume, tmp_path / f"a{kind}")
        again = io.read(tmp_path / f"a{kind}")
        assert (again.slope, again.intercept) == ((0.25,), (-3.5,))
        np.testing.assert_array_equal(again.data, volume.data)
        seen = nibabel.load(tmp_path / f"a{kind}")
        np.testing.assert_allclose(seen.get_fdata(), volume.real_values().T)
        assert seen.header.get_xyzt_units()[0] == "mm"


def test_nifti_two_for_long_axes(tmp_path):
    volume = Volume(np.zeros((1, 2, 40_000), np.uint8))
    io.write(volume, tmp_path / "a.nii")
    assert isinstance(nibabel.load(tmp_path / "a.nii"), nibabel.Nifti2Image)
    assert io.read(tmp_path / "a.nii").shape == (1, 2, 40_000)


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3)])
def test_nifti_units(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    assert io.read(tmp_path / "a.nii").spacing == pytest.approx((4 * factor, 3 * factor, 2 * factor))


def test_nifti_by_nibabel(tmp_path):
    """A file of another writer: big endian, a trailing axis, a wide type, a qform."""
    data = np.arange(24, dtype=">i4").reshape(2, 3, 4, 1)
    image = nibabel.Nifti1Image(data, np.diag([-2.0, 3, 4, 1]), nibabel.Nifti1Header(endianness=">"))
    image.set_data_dtype(np.int32)
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.data, data[..., 0].T)
    assert volume.data.dtype == np.int16
    np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [2, -3, 4, 1])


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("LPS", (1, 1, 1)),
        ("RAS", (-1, -1, 1)),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_nrrd_spaces_and_encodings(tmp_path, space, signs, encoding):
    data = volume_array()
    header = {
        "space": space,
        "space directions": np.diag([1.0, 2, 3]),
        "space origin": [10.0, 20, 30],
        "encoding": encoding,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), data, header, index_order="C")
    volume = io.read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.data, data)
    wanted = np.array([10 + 1 * 2, 20 + 2 * 2, 30 + 3 * 2]) * signs
    np.testing.assert_allclose((volume.affine @ [2, 2, 2, 1])[:3], wanted)


@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), ("cm", 10), ("mm", 1), ("", 1)])
def test_nrrd_in_other_units(tmp_path, unit, mm):
    header = {
        "space": "LPS",
        "space directions": np.diag([1.0, 2, 3]),
        "space origin": [10.0, 20, 30],
        "space units": [unit] * 3,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), volume_array(), header, index_order="C")
    volume = io.read(tmp_path / "a.nrrd")
    assert volume.spacing == pytest.approx((3 * mm, 2 * mm, mm))
    np.testing.assert_allclose(volume.affine[:3, 3], np.array([10, 20, 30]) * mm)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kinds", ["RGB-color", "domain", "domain"]),
        ("kinds", ["domain", "domain", "time"]),
        ("space units", ["parsec", "mm", "mm"]),
    ],
)
def test_nrrd_of_no_volume(tmp_path, field, value):
    header = {"space": "LPS", "space directions": np.eye(3), field: value}
    nrrd.write(str(tmp_path / "a.nrrd"), volume_array(), header, index_order="C")
    with pytest.raises(InputError, match=r"rgb-color|time|parsec"):
        io.read(tmp_path / "a.nrrd")


def test_nrrd_with_spacings_alone(tmp_path):
    nrrd.write(str(tmp_path / "a.nrrd"), volume_array(), {"spacings": [1.0, 2, np.nan]}, index_order="C")
    assert io.read(tmp_path / "a.nrrd").spacing == (1, 2, 1)


# --- hypothesis -----------------------------------------------------------------------------------

ARRAYS = st.sampled_from(list(DTYPES.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5))
)


@pytest.mark.parametrize("kind", [*FILES, ".npy"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=ARRAYS,
    spacing=st.tuples(*[st.floats(0.01, 100)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_any_array(tmp_path, kind, array, spacing, origin):
    volume = Volume(array, spacing)
    volume.affine[:3, 3] = origin
    io.write(volume, tmp_path / f"a{kind}")
    again = io.read(tmp_path / f"a{kind}")
    assert again.data.dtype == array.dtype
    np.testing.assert_array_equal(again.data, array)
    if kind != ".npy":
        np.testing.assert_allclose(again.affine, volume.affine, rtol=1e-6, atol=1e-4)


# --- DICOM attributes -----------------------------------------------------------------------------


KEPT = """
PatientName PatientID PatientBirthDate StudyInstanceUID StudyDate FrameOfReferenceUID SOPClassUID Modality
ImagePositionPatient ImageOrientationPatient PixelSpacing WindowCenter AcquisitionTime PixelData BitsStored
ImageType SpecificCharacterSet SliceThickness
"""


def test_dicom_attributes_without_loss(tmp_path):
    def edit(dataset, k):
        dataset.AcquisitionTime = f"1011{k:02d}"
        dataset.WindowCenter = [str(40 + k), "300"]

    sources = [pydicom.dcmread(p) for p in make_series(tmp_path / "in", volume_array(), edit=edit)]
    io.write(io.read(tmp_path / "in"), tmp_path / "out")
    written = [pydicom.dcmread(p) for p in sorted((tmp_path / "out").iterdir())]
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == [f"IM{k:06d}.dcm" for k in range(1, 6)]
    for k, (old, new) in enumerate(zip(sources, written, strict=True)):
        for keyword in KEPT.split():
            assert new[keyword].value == old[keyword].value, keyword
        assert new.SOPInstanceUID != old.SOPInstanceUID
        assert new.SeriesInstanceUID != old.SeriesInstanceUID
        assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert new.InstanceNumber == k + 1
        assert "LossyImageCompression" not in new
        assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    assert len({d.SOPInstanceUID for d in written}) == 5
    assert len({d.SeriesInstanceUID for d in written}) == 1


def lossy_source(dataset, k):
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = "10"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.BitsStored, dataset.HighBit = 12, 11


def test_lossy_attributes_are_appended(tmp_path):
    make_series(tmp_path / "in", volume_array(dtype=np.uint16), edit=lossy_source)
    volume = io.read(tmp_path / "in")
    data = volume.data.copy()
    data[0, 0, 0] = 4096  # a lossy decoder may leave the 12 bits of the source
    volume = replace(
        volume, data=data, metadata={**volume.metadata, "lossy": {"ratio": 123.45, "psnr": 40.0}}
    )
    io.write(volume, tmp_path / "out")
    header = pydicom.dcmread(tmp_path / "out" / "IM000001.dcm")
    assert header.LossyImageCompression == "01"
    assert header.LossyImageCompressionRatio == [10, 123.45]
    assert header.LossyImageCompressionMethod == ["ISO_10918_1", "INRFORMAT"]
    assert list(header.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert header.DerivationCodeSequence[0].CodeValue == "113040"
    assert header.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121320"
    assert "123" in header.DerivationDescription
    assert header.BitsStored == 16
    np.testing.assert_array_equal(io.read(tmp_path / "out").data, data)


def test_ratio_by_the_caller(tmp_path):
    write_dicom_series(marked(), tmp_path / "out", ratio=50, method="X", description="why")
    header = pydicom.dcmread(tmp_path / "out" / "IM000001.dcm")
    assert header.LossyImageCompressionRatio == 50
    assert header.LossyImageCompressionMethod == "X"
    assert list(header.ImageType) == ["DERIVED", "SECONDARY"]
    assert header.DerivationDescription == "why"


def test_irregular_positions_are_written_back(tmp_path):
    paths = make_series(tmp_path / "in", volume_array((7, 4, 4)))
    paths[3].unlink()
    volume = io.read(tmp_path / "in", allow_irregular=True)
    io.write(volume, tmp_path / "out")
    again = io.read(tmp_path / "out", allow_irregular=True)
    assert again.metadata["positions"] == volume.metadata["positions"]


def test_a_region_of_uneven_slices_stays_in_its_place(tmp_path):
    places = [(-10, 20, z) for z in (0, 1, 2, 3, 10)]
    make_series(tmp_path / "in", volume_array(), positions=places)
    volume = io.read(tmp_path / "in", allow_irregular=True)
    part = crop(volume, ((1, 4), (1, 6), (2, 7)))
    wanted = np.array(places[1:4]) + volume.affine[:3, 1:3] @ [1, 2]
    np.testing.assert_allclose(part.metadata["positions"], wanted)
    np.testing.assert_allclose([(part.affine @ [k, 0, 0, 1])[:3] for k in range(3)], wanted)
    assert part.spacing == pytest.approx((1, 0.8, 0.6))
    one = crop(volume, ((4, 5), (0, 6), (0, 7)))
    np.testing.assert_allclose(one.affine[:3, 3], places[4])
    io.write(part, tmp_path / "out")
    headers = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    np.testing.assert_allclose([header.ImagePositionPatient for header in headers], wanted)


def test_a_preview_of_fewer_slices_has_no_other_slices_values(tmp_path):
    def edit(dataset, k):
        dataset.SliceLocation = str(10 + k)

    make_series(tmp_path / "in", volume_array(), edit=edit)
    volume = io.read(tmp_path / "in")
    affine = volume.affine.copy()
    affine[:3, 0] *= 2
    coarse = replace(volume, data=volume.data[::2], affine=affine)
    for image, there in ((volume, True), (coarse, False)):
        io.write(image, tmp_path / f"out{there}")
        header = pydicom.dcmread(tmp_path / f"out{there}" / "IM000002.dcm")
        assert ("SliceLocation" in header) == there


def test_a_ratio_that_is_none_is_said(tmp_path):
    volume = Volume(volume_array(), metadata={"lossy": {"ratio": "abc"}})
    with pytest.raises(OutputError, match="ValueError in its attributes"):
        io.write(volume, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_derivation_is_added_to_what_was_there(tmp_path):
    dataset = pydicom.Dataset()
    dataset.DerivationDescription = "MPR of series 3"
    for text in ("first", "second"):
        mark_lossy(dataset, 5.0, "X", text)
    assert dataset.DerivationDescription == "MPR of series 3; first; second"
    mark_lossy(dataset, 5.0, "X", "t" * 1010)
    assert dataset.DerivationDescription == "MPR of series 3; first; second"[:12] + "; " + "t" * 1010
    mark_lossy(dataset, 5.0, "X", "u" * 2000)
    assert dataset.DerivationDescription == "u" * 1024


def test_a_crop_does_not_use_the_positions_of_the_whole(tmp_path):
    make_series(tmp_path / "in", volume_array())
    volume = io.read(tmp_path / "in")
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0]
    crop = replace(volume, data=volume.data[1:4], affine=affine)
    io.write(crop, tmp_path / "out")
    again = io.read(tmp_path / "out")
    np.testing.assert_allclose(again.affine, affine)
    assert "SourceImageSequence" not in pydicom.dcmread(tmp_path / "out" / "IM000001.dcm")


def test_enhanced_becomes_classic(tmp_path):
    make_enhanced(tmp_path / "m.dcm", volume_array(dtype=np.uint16), [(0, 0, 2 * k) for k in range(5)])
    volume = io.read(tmp_path / "m.dcm")
    io.write(volume, tmp_path / "out")
    again = io.read(tmp_path / "out")
    np.testing.assert_array_equal(again.data, volume.data)
    assert (again.slope, again.intercept) == (volume.slope, volume.intercept)
    header = pydicom.dcmread(tmp_path / "out" / "IM000002.dcm")
    assert header.SOPClassUID.name == "CT Image Storage"
    assert header.SourceImageSequence[0].ReferencedFrameNumber == 2
    assert header.PatientName == PATIENT


def test_float_is_rescaled_for_dicom(tmp_path):
    data = np.random.default_rng(1).normal(50, 900, (3, 8, 8)).astype(np.float32)
    io.write(Volume(data, slope=(2,), intercept=(1,)), tmp_path / "out")
    again = io.read(tmp_path / "out")
    assert again.data.dtype == np.uint16
    np.testing.assert_allclose(again.real_values(), 2 * data + 1, atol=2 * np.ptp(data) / 65535)
    io.write(Volume(np.full((1, 2, 2), 7.5, np.float32)), tmp_path / "flat")
    np.testing.assert_allclose(io.read(tmp_path / "flat").real_values(), 7.5)


def test_phantom_is_ct(tmp_path):
    volume = head_phantom((4, 16, 16))
    io.write(volume, tmp_path / "out")
    header = pydicom.dcmread(tmp_path / "out" / "IM000001.dcm")
    assert (header.Modality, header.RescaleIntercept, header.RescaleType) == ("CT", -1024, "HU")
    theirs = sitk.GetArrayFromImage(read_by_sitk(tmp_path / "out"))
    np.testing.assert_array_equal(theirs, volume.real_values())


@pytest.mark.parametrize(
    "metadata",
    [
        {"source": "dicom", "tags": b"\x08\x00\x05\x00CS\xff\xffgarbage", "positions": [[0, 0, 0]]},
        {"source": "dicom", "tags": 5, "positions": "x", "sop_instance_uids": [1], "per_slice": 3},
        {"source": "dicom", "positions": [["a"], [2]], "bits_stored": "x", "padding": 1 << 40},
        {
            "source": "dicom",
            "positions": [[0, 0, 0], [0, 0, 1]],
            "sop_instance_uids": ["a\\b"],
            "modality": 4,
        },
        {
            "source": "dicom",
            "positions": [[-10, 20, 30], [-10, 20, 40]],
            "per_slice": {"Rows": ["x"] * 5, "Z": ["1"]},
        },
    ],
)
def test_hostile_metadata(tmp_path, metadata):
    """Metadata comes out of a file: whatever it holds, the pixels are written."""
    volume = replace(marked(), metadata=metadata)
    io.write(volume, tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").data, volume.data)


# --- what is refused ------------------------------------------------------------------------------


def test_dicom_refuses_what_it_cannot_hold(tmp_path):
    affine = np.eye(4)[:, [2, 1, 0, 3]]
    affine[0, 1] = 0.5
    with pytest.raises(OutputError, match="right angles"):
        io.write(Volume(volume_array(), affine=affine), tmp_path / "out")
    with pytest.raises(OutputError, match="NaN"):
        io.write(Volume(np.full((1, 2, 2), np.nan, np.float32)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    io.write(marked(), tmp_path / "out")
    before = sorted((tmp_path / "out").iterdir())
    with pytest.raises(OutputError, match="not an empty folder"):
        io.write(marked(), tmp_path / "out")
    assert sorted((tmp_path / "out").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nrrd, "write", fail)
    with pytest.raises(OutputError, match="No space left"):
        io.write(marked(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_folder_to_write_to(tmp_path):
    for name in ("a.npy", "series"):
        with pytest.raises(OutputError):
            io.write(marked(), tmp_path / "absent" / name)


def test_unknown_suffixes(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"")
    for call in (lambda: io.read(tmp_path / "a.mha"), lambda: io.write(marked(), tmp_path / "b.mha")):
        with pytest.raises(UsageError, match=r"\.nii, \.nii\.gz, \.nrrd, \.npy"):
            call()
    io.write(marked(), tmp_path / "a.npy")
    with pytest.raises(UsageError, match="series="):
        io.read(tmp_path / "a.npy", series="1")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.NII.GZ", ".nii.gz"), ("a.b.nrrd", ".nrrd"), ("1.2.840.10008", ""), ("dir/", ""), ("x.npy", ".npy")],
)
def test_suffix_of(name, suffix):
    assert io.suffix_of(name) == suffix


@pytest.mark.parametrize(("package", "kind"), [("nibabel", ".nii"), ("nrrd", ".nrrd")])
def test_missing_extras(tmp_path, monkeypatch, package, kind):
    import sys

    io.write(marked(), tmp_path / f"a{kind}")
    monkeypatch.setitem(sys.modules, package, None)
    for call in (lambda: io.read(tmp_path / f"a{kind}"), lambda: io.write(marked(), tmp_path / f"b{kind}")):
        with pytest.raises(UnsupportedError, match=r"pip install inrformat\["):
            call()


def test_importing_io_is_light():
    import subprocess
    import sys

    heavy = "torch nibabel nrrd pydicom SimpleITK"
    code = f"import inrformat.io, sys; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", [*FILES, ".npy"])
def test_broken_files(tmp_path, kind):
    """Cut anywhere, or with bytes changed anywhere: a volume or an InputError that names the file."""
    path = tmp_path / f"whole{kind}"
    io.write(marked(), path)
    raw = path.read_bytes()
    bad = tmp_path / f"bad{kind}"
    for length in range(0, len(raw), 11):
        bad.write_bytes(raw[:length])
        try:
            np.testing.assert_array_equal(io.read(bad).data, marked().data)  # what is cut was a checksum
        except InputError as error:
            assert "bad" in str(error)
        else:
            assert length >= len(raw) - 8
    generator = np.random.default_rng(7)
    for _ in range(300):
        damaged = bytearray(raw)
        for place in generator.integers(0, min(len(raw), 400), 3):
            damaged[place] = generator.integers(256)
        bad.write_bytes(damaged)
        try:
            io.read(bad)
        except InputError as error:
            assert "bad" in str(error)


def test_refused_contents(tmp_path):
    def refused(path, reason):
        with pytest.raises(InputError, match=reason):
            io.read(path)

    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)), tmp_path / "time.nii")
    refused(tmp_path / "time.nii", "one time point")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    refused(tmp_path / "complex.nii", "complex")
    nibabel.save(nibabel.Nifti1Image(np.full((2, 2, 2), 1 << 20, np.int32), np.eye(4)), tmp_path / "wide.nii")
    refused(tmp_path / "wide.nii", "16 bits")
    nrrd.write(str(tmp_path / "four.nrrd"), np.zeros((2, 2, 2, 2), np.int16))
    refused(tmp_path / "four.nrrd", "has three")
    nrrd.write(str(tmp_path / "detached.nrrd"), volume_array(), detached_header=True)
    (tmp_path / "detached.nhdr").rename(tmp_path / "header.nrrd")
    refused(tmp_path / "header.nrrd", "another file")
    (tmp_path / "huge.nrrd").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 99999 99999 99999\nencoding: raw\nendian: little\n\nx"
    )
    refused(tmp_path / "huge.nrrd", "cannot hold")
    for encoding, compress in (("gzip", gzip.compress), ("bzip2", bz2.compress)):
        header = (
            f"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nendian: little\nencoding: {encoding}\n\n"
        )
        (tmp_path / "bomb.nrrd").write_bytes(header.encode() + compress(bytes(3 << 20)))
        refused(tmp_path / "bomb.nrrd", "more than its header promises")
    np.save(tmp_path / "object.npy", np.array([[[None]]]), allow_pickle=True)
    refused(tmp_path / "object.npy", "broken")
    np.save(tmp_path / "four.npy", np.zeros((2, 2, 2, 2)))
    refused(tmp_path / "four.npy", "three axes")
    np.savez(tmp_path / "z.npz", a=np.zeros(3))
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    refused(tmp_path / "z.npy", "not a .npy")


def test_nan_is_read_as_it_is(tmp_path):
    data = np.full((2, 3, 4), np.nan, np.float32)
    for kind in (*FILES, ".npy"):
        io.write(Volume(data), tmp_path / f"a{kind}")
        assert np.isnan(io.read(tmp_path / f"a{kind}").data).all()


def test_real_series_through_nifti(data_dir, tmp_path):
    """The tilted CT: every corner is where it was, seen by nibabel."""
    from inrformat.io.dicom import list_series

    folder = data_dir / "head-phantom-ct"
    (tilted,) = [info for info in list_series(folder) if info.images == 54]
    volume = io.read(folder, series=tilted.uid)
    io.write(volume, tmp_path / "a.nii")
    seen = nibabel.load(tmp_path / "a.nii")
    for index in ((0, 0, 0), (53, 0, 0), (0, 511, 511), (53, 511, 511)):
        x, y, z = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(seen.affine @ [*index[::-1], 1], [-x, -y, z, 1], atol=1e-3)
    np.testing.assert_array_equal(np.asarray(seen.dataobj).T[::9], volume.real_values()[::9])
