from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import (
    AXIAL,
    PATIENT,
    expected_affine,
    make_enhanced,
    make_series,
    oblique,
    volume_array,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from inrformat import io
from inrformat.errors import InputError, UnsupportedError, UsageError
from inrformat.io.dicom import list_series


def put(**values):
    """An `edit` for make_series that sets elements on every slice."""

    def edit(dataset, k):
        for keyword, value in values.items():
            setattr(dataset, keyword, value(k) if callable(value) else value)

    return edit


def drop(*keywords):
    def edit(dataset, k):
        for keyword in keywords:
            if keyword in dataset:
                delattr(dataset, keyword)

    return edit


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_values_and_types(tmp_path, dtype, syntax):
    array = volume_array(dtype=dtype)
    make_series(tmp_path, array, syntax=syntax)
    volume = io.read(tmp_path)
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, array)


@pytest.mark.parametrize("orientation", [AXIAL, oblique(), ((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1))])
@pytest.mark.parametrize("reverse", [False, True])
def test_affine_and_order(tmp_path, orientation, reverse):
    array = volume_array()
    numbers = [3, 1, 5, 2, 4]
    make_series(
        tmp_path,
        array,
        orientation=orientation,
        reverse_files=reverse,
        edit=put(InstanceNumber=lambda k: numbers[k]),
    )
    volume = io.read(tmp_path)
    np.testing.assert_array_equal(volume.data, array)
    np.testing.assert_allclose(volume.affine, expected_affine(orientation), atol=1e-6)
    np.testing.assert_allclose(volume.spacing, (2.5, 0.8, 0.6), rtol=1e-6)


def test_gantry_tilt_keeps_its_shear(tmp_path):
    step = np.array([0.0, -0.8, 2.4])
    make_series(tmp_path, volume_array(), step=step)
    volume = io.read(tmp_path)
    np.testing.assert_allclose(volume.affine, expected_affine(step=step), atol=1e-8)
    assert volume.spacing[0] == pytest.approx(2.4)


def test_per_slice_rescale(tmp_path):
    make_series(tmp_path, volume_array(), edit=put(RescaleSlope=lambda k: 1 + k / 2, RescaleIntercept=-5))
    volume = io.read(tmp_path)
    assert volume.slope == (1.0, 1.5, 2.0, 2.5, 3.0)
    assert volume.intercept == (-5.0,)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bits_above_the_stored_ones_are_cleared(tmp_path, dtype):
    array = volume_array(dtype=dtype)
    dirty = (array.astype(np.int32) & 0x0FFF | 0x5000).astype(np.uint16).view(dtype)
    make_series(tmp_path, dirty, bits_stored=12)
    volume = io.read(tmp_path)
    np.testing.assert_array_equal(volume.data, array)
    assert volume.metadata["masked"] == 1


def test_high_bit_shifts(tmp_path):
    array = volume_array(dtype=np.uint16)
    make_series(tmp_path, array << 4, bits_stored=12, edit=put(HighBit=15))
    np.testing.assert_array_equal(io.read(tmp_path).data, array)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_compressed(tmp_path, syntax, dtype):
    array = volume_array((3, 64, 48), dtype=dtype)
    bits = 8 * array.dtype.itemsize
    try:
        make_series(tmp_path, array, compress=syntax, bits_stored=bits)
    except Exception as error:
        pytest.skip(f"no encoder here: {type(error).__name__}")
    volume = io.read(tmp_path)
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, array)


def test_broken_compressed_pixels(tmp_path):
    paths = make_series(tmp_path, volume_array((3, 32, 24), dtype=np.uint16), compress=RLELossless)
    raw = paths[1].read_bytes()
    paths[1].write_bytes(raw[:-200])
    with pytest.raises(InputError, match=r"slice002\.dcm"):
        io.read(tmp_path)


def test_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    import inrformat.io.dicom as module

    make_series(tmp_path, volume_array((3, 32, 24), dtype=np.uint16), compress=RLELossless)

    class NoDecoder:
        is_available = False

    monkeypatch.setattr(module, "get_decoder", lambda uid: NoDecoder())
    with pytest.raises(UnsupportedError, match=r"inrformat\[jpeg\]"):
        io.read(tmp_path)


def test_unknown_syntax(tmp_path):
    paths = make_series(tmp_path, volume_array((3, 32, 24), dtype=np.uint16), compress=RLELossless)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.9.9.9\0"))
    with pytest.raises(UnsupportedError, match="cannot be decoded"):
        io.read(tmp_path)


def test_one_file_is_one_slice(tmp_path):
    array = volume_array((1, 6, 7))
    (path,) = make_series(tmp_path, array, edit=put(SpacingBetweenSlices=3))
    volume = io.read(path)
    assert volume.shape == (1, 6, 7)
    assert volume.spacing == pytest.approx((3, 0.8, 0.6))
    np.testing.assert_allclose(volume.affine[:3, 3], (-10, 20, 30))


def test_no_positions_sorts_by_instance_number(tmp_path):
    array = volume_array()
    spoil = drop("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "PixelSpacing")
    make_series(tmp_path, array, reverse_files=True, edit=spoil)
    volume = io.read(tmp_path)
    np.testing.assert_array_equal(volume.data, array)
    assert volume.spacing == (1, 1, 1)
    assert volume.metadata["positions"] == []


def test_imager_pixel_spacing_is_the_fallback(tmp_path):
    def edit(dataset, k):
        del dataset.PixelSpacing
        dataset.ImagerPixelSpacing = [0.3, 0.4]

    make_series(tmp_path, volume_array(), edit=edit)
    assert io.read(tmp_path).spacing == pytest.approx((2.5, 0.3, 0.4))


def test_file_without_preamble_and_suffix(tmp_path):
    array = volume_array()
    for path in make_series(tmp_path, array, syntax=ImplicitVRLittleEndian):
        raw = path.read_bytes()
        length = int.from_bytes(raw[140:144], "little")
        path.with_suffix("").write_bytes(raw[144 + length :])
        path.unlink()
    np.testing.assert_array_equal(io.read(tmp_path).data, array)


def test_monochrome1_and_padding_are_told(tmp_path):
    def edit(dataset, k):
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.add_new("PixelPaddingValue", "SS", -99)

    for syntax in ("1.2.840.10008.1.2.1", ImplicitVRLittleEndian):
        make_series(tmp_path / syntax, volume_array(), syntax=syntax, edit=edit)
        metadata = io.read(tmp_path / syntax).metadata
        assert metadata["photometric"] == "MONOCHROME1"
        assert metadata["padding"] == -99


def test_metadata_is_plain_and_complete(tmp_path):
    import msgpack

    def edit(dataset, k):
        dataset.AcquisitionTime = f"1011{k:02d}"
        dataset.add_new(0x00091001, "LO", "private")
        dataset.add_new(0x00880200, "SQ", [])
        dataset.ImageComments = "x" * 5
        dataset.add_new(0x00420011, "OB", bytes(70_000))

    paths = make_series(tmp_path, volume_array(), edit=edit)
    metadata = dict(io.read(tmp_path).metadata)
    assert msgpack.unpackb(msgpack.packb(metadata)) == metadata
    assert len(metadata["tags"]) < 2000
    assert b"private" not in metadata["tags"]
    assert b"xxxxx" in metadata["tags"]
    assert metadata["sop_instance_uids"] == [str(pydicom.dcmread(p).SOPInstanceUID) for p in paths]
    assert metadata["per_slice"]["AcquisitionTime"] == [f"1011{k:02d}" for k in range(5)]
    assert metadata["positions"] == [[-10, 20, 30], [-10, 20, 40]]
    essential = io.read(tmp_path, metadata="essential").metadata
    assert "sop_instance_uids" not in essential
    assert "per_slice" not in essential
    with pytest.raises(UsageError):
        io.read(tmp_path, metadata="some")


def test_enhanced_multi_frame(tmp_path):
    array = volume_array(dtype=np.uint16)
    order = [4, 2, 0, 1, 3]
    positions = [(-10.0, 20.0, 30.0 + 2.5 * k) for k in order]
    make_enhanced(tmp_path / "multi.dcm", array[order], positions)
    for path in (tmp_path, tmp_path / "multi.dcm"):
        volume = io.read(path)
        np.testing.assert_array_equal(volume.data, array)
        np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-9)
        assert (volume.slope, volume.intercept) == ((2.0,), (-7.0,))


def test_multi_frame_without_positions(tmp_path):
    path = tmp_path / "multi.dcm"
    array = volume_array(dtype=np.uint16)
    make_enhanced(path, array, np.zeros((5, 3)))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(path)
    with pytest.raises(InputError, match="without a position"):
        io.read(path)


# --- choosing a series ----------------------------------------------------------------------------


def two_series(folder: Path) -> tuple[str, str]:
    make_series(folder / "a", volume_array(), edit=put(SeriesInstanceUID="1.2.3.4", SeriesNumber=7))
    make_series(
        folder / "b",
        volume_array((4, 5, 5)),
        edit=put(SeriesInstanceUID="1.2.3.5", SeriesNumber=8, SeriesDescription="evil\x1b[2J"),
    )
    return "1.2.3.4", "1.2.3.5"


def test_several_series_are_listed(tmp_path):
    two_series(tmp_path)
    with pytest.raises(InputError) as caught:
        io.read(tmp_path)
    message = str(caught.value)
    assert "series 7: a test, MR, 5 images of 6x7" in message
    assert "series 8" in message
    assert "\x1b" not in message
    assert PATIENT.split("^")[0] not in message


@pytest.mark.parametrize("wanted", ["1.2.3.5", "8"])
def test_series_by_uid_or_number(tmp_path, wanted):
    two_series(tmp_path)
    assert io.read(tmp_path, series=wanted).shape == (4, 5, 5)


@pytest.mark.parametrize(("wanted", "reason"), [("1.2.3", "several"), ("99", "no series"), ("", "no series")])
def test_series_that_is_not_one(tmp_path, wanted, reason):
    two_series(tmp_path)
    with pytest.raises(UsageError, match=reason):
        io.read(tmp_path, series=wanted)


def test_list_series(tmp_path):
    two_series(tmp_path)
    found = list_series(tmp_path)
    assert [(info.number, info.images, info.matrix) for info in found] == [("7", 5, (6, 7)), ("8", 4, (5, 5))]
    assert len(found[0].files) == 5


def test_other_objects_are_ignored(tmp_path):
    array = volume_array()
    make_series(tmp_path, array)
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", generate_uid()
    report.SeriesInstanceUID = generate_uid()
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    pydicom.dcmwrite(tmp_path / "report.dcm", report, enforce_file_format=True)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    np.testing.assert_array_equal(io.read(tmp_path).data, array)


# --- what is refused ------------------------------------------------------------------------------


def refused(folder: Path, reason: str, **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=reason) as caught:
            io.read(folder, **options)
    assert "Erika" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_slices_say_where(tmp_path):
    paths = make_series(tmp_path, volume_array((9, 4, 4)))
    for k in (3, 4):
        paths[k].unlink()
    refused(tmp_path, r"2 missing slices \(2 after slice 3 at 35\.00 mm; usual step 2\.5 mm\)")
    volume = io.read(tmp_path, allow_irregular=True)
    assert volume.shape == (7, 4, 4)
    assert volume.metadata["irregular"] == 1
    assert [p[2] for p in volume.metadata["positions"]] == [30, 32.5, 35, 42.5, 45, 47.5, 50]
    assert volume.affine[2, 0] == pytest.approx(20 / 6)


def test_jitter_is_accepted_and_uneven_steps_are_not(tmp_path):
    def at(*z):
        return [(0, 0, v) for v in z]

    make_series(tmp_path / "a", volume_array(), positions=at(0, 2.4, 5, 7.6, 10))
    assert io.read(tmp_path / "a").metadata["positions"][1] == [0, 0, 2.4]
    make_series(tmp_path / "b", volume_array(), positions=at(0, 2, 5, 7.5, 10))
    refused(tmp_path / "b", "uneven spacing: steps from 2 to 3 mm")
    assert io.read(tmp_path / "b", allow_irregular=True).shape == (5, 6, 7)


def test_shifted_slices(tmp_path):
    positions = [(0.0 if k != 2 else 5.0, 0, 2.5 * k) for k in range(5)]
    make_series(tmp_path, volume_array(), positions=positions)
    refused(tmp_path, "shifted against each other")


def test_shared_positions(tmp_path):
    make_series(tmp_path, volume_array((6, 4, 4)), positions=[(0, 0, k // 2) for k in range(6)])
    refused(tmp_path, "share a position")
    refused(tmp_path, "share a position", allow_irregular=True)


def only(k_wanted, **values):
    def edit(dataset, k):
        if k == k_wanted:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (only(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "orientation differs"),
        (only(2, PixelSpacing=[0.8, 0.7]), "pixel spacing differs"),
        (only(2, Rows=3), "one matrix"),
        (only(2, PixelRepresentation=0), "pixel format differs"),
        (put(PhotometricInterpretation="RGB", SamplesPerPixel=3), "not a grayscale image"),
        (put(PhotometricInterpretation="PALETTE COLOR"), "not a grayscale image"),
        (put(BitsAllocated=1, BitsStored=1, HighBit=0), "1 bits allocated"),
        (put(BitsAllocated=12), "12 bits allocated"),
        (put(BitsStored=17), "BitsStored"),
        (put(HighBit=3), "HighBit"),
        (put(PixelRepresentation=7), "PixelRepresentation"),
        (put(PixelSpacing=[0, 1]), "PixelSpacing"),
        (put(PixelSpacing="1"), "PixelSpacing"),
        (put(ImagePositionPatient=[1, 2]), "ImagePositionPatient"),
        (put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "right angles"),
        (put(ImageOrientationPatient=[0] * 6), "right angles"),
        (put(RescaleSlope=0), "RescaleSlope"),
        (put(NumberOfFrames=4), "without a position"),
        (put(Rows=0), "Rows"),
        (put(Rows=65535, Columns=65535), "cut short|memory"),
        (drop("BitsAllocated"), "BitsAllocated is missing"),
        (drop("Rows"), "incomplete"),
        (drop("ImageOrientationPatient"), "no ImageOrientationPatient"),
        (drop("PixelData"), "no integer pixel data"),
    ],
)
def test_bad_headers(tmp_path, edit, reason):
    make_series(tmp_path, volume_array(), edit=edit)
    refused(tmp_path, reason)


def test_missing_positions_in_some(tmp_path):
    make_series(
        tmp_path, volume_array(), edit=lambda d, k: drop("ImagePositionPatient")(d, k) if k == 1 else None
    )
    refused(tmp_path, "some have none")


def test_no_positions_and_no_numbers(tmp_path):
    make_series(tmp_path, volume_array(), edit=drop("ImagePositionPatient", "InstanceNumber"))
    refused(tmp_path, "neither positions nor")


def test_float_pixels(tmp_path):
    def edit(dataset, k):
        del dataset.PixelData
        dataset.BitsAllocated = dataset.BitsStored = 32
        dataset.HighBit = 31
        dataset.FloatPixelData = bytes(6 * 7 * 4)

    make_series(tmp_path, volume_array(), edit=edit)
    refused(tmp_path, "floating-point")


def test_empty_folder_and_absent_path(tmp_path):
    refused(tmp_path, "no DICOM images")
    refused(tmp_path / "nothing", "no such file")
    (tmp_path / "notes.dcm").write_text("this is no DICOM")
    refused(tmp_path, "not a DICOM file")
    refused(tmp_path / "notes.dcm", "not a DICOM file")


def test_truncated_pixels(tmp_path):
    array = volume_array()
    paths = make_series(tmp_path, array)
    paths[4].write_bytes(paths[4].read_bytes()[:-10])
    refused(tmp_path, r"slice005\.dcm: cut short: 74 of 84 bytes of pixel data \(10 missing\)")
    volume = io.read(tmp_path, skip_unreadable=True)
    np.testing.assert_array_equal(volume.data, array[:4])
    assert volume.metadata["left_out"] == 1


def test_truncated_slice_inside_the_series(tmp_path):
    array = volume_array()
    paths = make_series(tmp_path, array)
    paths[2].write_bytes(paths[2].read_bytes()[:-10])
    volume = io.read(tmp_path, skip_unreadable=True)
    np.testing.assert_array_equal(volume.data, array[[0, 1, 3, 4]])
    assert volume.metadata["irregular"] == 1
    assert [p[2] for p in volume.metadata["positions"]] == [30, 32.5, 37.5, 40]
    paths[3].unlink()  # a gap that nobody asked for is still an error
    refused(tmp_path, "missing slice", skip_unreadable=True)


def test_all_slices_truncated(tmp_path):
    for path in make_series(tmp_path, volume_array()):
        path.write_bytes(path.read_bytes()[:-10])
    refused(tmp_path, r"\(and 4 more unreadable files\)")
    refused(tmp_path, "no slice", skip_unreadable=True)


def test_every_truncation_is_an_input_error(tmp_path):
    """Whatever byte a file ends at, there is an InputError or the slice is whole."""
    (path,) = make_series(tmp_path / "whole", volume_array((1, 6, 7)))
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(raw[:length])
        refused(cut, "cut")


def test_nothing_of_the_patient_is_warned_of_or_logged(tmp_path, caplog, recwarn):
    """pydicom warns of and logs values that break the rules, the patient's name among them."""

    def edit(dataset, k):
        dataset.PatientID = "secret-" + "x" * 80  # longer than its kind may be

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_series(tmp_path / "in", volume_array(), edit=edit)
    caplog.set_level("DEBUG")
    caplog.clear()
    io.write(io.read(tmp_path / "in"), tmp_path / "out")
    assert not [r for r in caplog.records if "secret" in r.getMessage() or "Erika" in r.getMessage()]
    assert not [w for w in recwarn if "secret" in str(w.message)]
    assert pydicom.dcmread(tmp_path / "out" / "IM000001.dcm").PatientID.startswith("secret")


def test_noise_in_the_header_never_escapes(tmp_path):
    """Random damage gives a volume or an InrError, never another exception, and never the patient's name."""
    (path,) = make_series(tmp_path / "whole", volume_array((1, 6, 7)))
    raw = bytearray(path.read_bytes())
    generator = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(raw)
        for place in generator.integers(128, len(raw) - 84, 4):
            damaged[place] = generator.integers(256)
        (tmp_path / "x.dcm").write_bytes(damaged)
        try:
            io.read(tmp_path / "x.dcm")
        except (InputError, UnsupportedError) as error:
            assert "Erika" not in str(error)


# --- real series ----------------------------------------------------------------------------------


def test_chest_ct(data_dir):
    with pytest.raises(InputError, match=r"000275\.dcm: cut short: 523978 of 524288 .*310 missing"):
        io.read(data_dir / "chest-ct")
    volume = io.read(data_dir / "chest-ct", skip_unreadable=True)
    assert volume.shape == (274, 512, 512)
    assert volume.data.dtype == np.uint16
    assert (volume.slope, volume.intercept) == ((1.0,), (-1000.0,))
    assert volume.metadata["left_out"] == 1


def test_mr_t1_7t(data_dir):
    volume = io.read(data_dir / "mr-t1-7t")
    assert volume.shape == (384, 384, 274)
    assert volume.data.dtype == np.int16
    assert (volume.data.min(), volume.data.max()) == (0, 278)
    np.testing.assert_allclose(volume.spacing, (2 / 3, 2 / 3, 0.7), atol=1e-4)


def test_brain_mr(data_dir):
    with pytest.raises(InputError, match="series=") as caught:
        io.read(data_dir / "brain-mr")
    assert str(caught.value).count("\n") == 4
    for series, shape in (("5", (175, 192, 192)), ("6", (55, 512, 384))):
        with pytest.raises(InputError, match="1 missing slice"):
            io.read(data_dir / "brain-mr", series=series)
        assert io.read(data_dir / "brain-mr", series=series, allow_irregular=True).shape == shape


def test_head_phantom_ct(data_dir):
    folder = data_dir / "head-phantom-ct"
    volume = io.read(folder, series="202")
    assert volume.shape == (140, 512, 512)
    assert volume.spacing == pytest.approx((1, 0.451171875, 0.451171875))
    (tilted,) = [info for info in list_series(folder) if info.images == 54]
    volume = io.read(folder, series=tilted.uid)
    header = pydicom.dcmread(tilted.files[0], stop_before_pixels=True)
    step = volume.affine[:3, 0]
    normal = np.cross(volume.affine[:3, 2], volume.affine[:3, 1])
    tilt = np.degrees(np.arccos(step @ normal / np.linalg.norm(step) / np.linalg.norm(normal)))
    assert tilt == pytest.approx(abs(float(header.GantryDetectorTilt)), abs=0.01)
    assert np.linalg.norm(step) == pytest.approx(2.5, abs=1e-3)
    with pytest.raises(InputError, match=r"not a grayscale|one matrix"):
        io.read(folder, series=next(info.uid for info in list_series(folder) if info.number == "401"))


def test_real_position_of_every_slice(data_dir, tmp_path):
    """The affine puts every slice of the tilted series where its file says."""
    (tilted,) = [info for info in list_series(data_dir / "head-phantom-ct") if info.images == 54]
    for path in tilted.files:
        shutil.copy(path, tmp_path / path.name)
    affine = io.read(tmp_path).affine
    for path in tilted.files:
        position = np.array(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient, float)
        index = np.linalg.solve(affine, [*position, 1])
        np.testing.assert_allclose(index[1:3], 0, atol=1e-4)
        assert index[0] == pytest.approx(round(index[0]), abs=1e-4)
