"""Lossy on request: what is restored is valid DICOM that says what it is."""

from __future__ import annotations

import csv
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from archive_factory import HERE, tree
from dicom_factory import make_enhanced, make_series, volume_array

import inrformat
from inrformat import cli
from inrformat.archive import archive, pixels, restore, verify
from inrformat.fit import plan

HEAD = inrformat.head_phantom((16, 32, 32)).data
SOURCE = (HEAD - HEAD.min()).astype(np.uint16)


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        for name, preset in plan.PRESETS.items():
            settings = replace(preset.settings, steps=40, batch=1024, depth=2)
            patch.setitem(plan.PRESETS, name, replace(preset, settings=settings))
        yield


def edit(dataset, k):
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio, dataset.LossyImageCompressionMethod = "4.5", "ISO_10918_1"
    dataset.add_new(0x00091010, "LO", "a private element")
    dataset.SmallestImagePixelValue = 0
    dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.KVP, dataset.AcquisitionNumber, dataset.PositionReferenceIndicator = "120", "1", ""
    dataset.PatientPosition, dataset.Manufacturer, dataset.AccessionNumber = "HFS", "x", ""
    dataset.ReferringPhysicianName = ""


@pytest.fixture(scope="module")
def made(quick, tmp_path_factory):
    """A folder with an export, a lossy archive of it, and what that gives back."""
    folder = tmp_path_factory.mktemp("lossy")
    paths = make_series(folder / "export" / "s", SOURCE, bits_stored=12, edit=edit)
    make_enhanced(folder / "export" / "e.dcm", volume_array((3, 6, 7)), [(0, 0, z) for z in range(3)])
    (folder / "export" / "notes.txt").write_text("kept")
    store, out = str(folder / "archive"), folder / "out"
    done = archive(str(folder / "export"), store, quality=pixels.Quality(ratio=10), workers=HERE)
    assert done.volumes == 1 and done.exit_code == 0, done
    assert done.kept["not coded: multi-frame objects are kept exact"] == 1
    assert verify(store, rebuild=True, workers=HERE).exit_code == 0
    back = restore(store, str(out), workers=HERE)
    assert (back.files, back.identical, back.failed) == (len(paths) + 2, 2, {})
    return folder


@pytest.fixture
def restored(made, tmp_path):
    """The originals and what became of them, of a copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    paths = sorted((tmp_path / "export" / "s").iterdir())
    return [(pydicom.dcmread(path), pydicom.dcmread(tmp_path / "out" / "s" / path.name)) for path in paths]


def test_it_is_marked_and_keeps_the_rest(restored, tmp_path):
    for old, new in restored:
        assert new.SOPInstanceUID != old.SOPInstanceUID and new.SeriesInstanceUID != old.SeriesInstanceUID
        assert new.StudyInstanceUID == old.StudyInstanceUID
        assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
        assert new.LossyImageCompression == "01"
        assert len(new.LossyImageCompressionRatio) == 2 and new.LossyImageCompressionRatio[0] == 4.5
        assert list(new.LossyImageCompressionMethod) == ["ISO_10918_1", "INRFORMAT"]
        assert list(new.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        assert "Lanczos" in new.DerivationDescription
        assert new.DerivationCodeSequence[-1].CodeValue == "113040"
        assert new.SourceImageSequence[-1].ReferencedSOPInstanceUID == old.SOPInstanceUID
        for keyword in (
            "RescaleSlope",
            "RescaleIntercept",
            "ImagePositionPatient",
            "PatientName",
            "BitsStored",
        ):
            assert new[keyword] == old[keyword]
        assert new[0x00091010].value == "a private element" and "SmallestImagePixelValue" not in new
        assert 0 < np.abs(new.pixel_array.astype(int) - old.pixel_array).mean() < 1000
    uids = {str(new.SeriesInstanceUID) for _, new in restored}
    assert len(uids) == 1
    mapped = next((tmp_path / "out").glob("uid-map-*.csv"))
    rows = [(row["original"], row["restored"]) for row in csv.DictReader(mapped.open())]
    assert rows == [(old.SOPInstanceUID, new.SOPInstanceUID) for old, new in restored]


def test_it_is_the_same_every_time(restored, tmp_path):
    before = tree(tmp_path / "out")
    again = restore(str(tmp_path / "archive"), str(tmp_path / "out"), workers=HERE)
    assert not again.failed and tree(tmp_path / "out") == before


def test_super_resolution_is_asked_for_and_said(restored, tmp_path, monkeypatch):
    store = str(tmp_path / "archive")
    assert cli.main(["restore", store, str(tmp_path / "sr"), "--super-resolution", "--workers", "1"]) == 0
    new = pydicom.dcmread(tmp_path / "sr" / "s" / "slice001.dcm")
    path = next((tmp_path / "archive").rglob("*.inrv"))
    model = inrformat.info(path).sr
    assert ("super-resolution" in new.DerivationDescription) == (model is not None)


def test_a_bound_is_what_the_derivation_says(tmp_path):
    def with_text(dataset, k):
        edit(dataset, k)
        dataset.DerivationDescription = "MPR of series 3"

    make_series(tmp_path / "export" / "s", SOURCE, bits_stored=12, edit=with_text)
    store = str(tmp_path / "archive")
    archive(str(tmp_path / "export"), store, quality=pixels.Quality(max_error=4), workers=HERE)
    assert not restore(store, str(tmp_path / "out"), workers=HERE).failed
    new = pydicom.dcmread(tmp_path / "out" / "s" / "slice001.dcm")
    assert new.DerivationDescription.startswith("MPR of series 3; Lossy compression (INRFORMAT), ratio ")
    assert new.DerivationDescription.endswith(":1, no stored value off by more than 4")


def test_what_is_in_the_way_costs_only_itself(restored, tmp_path):
    store, out = str(tmp_path / "archive"), tmp_path / "again"
    (out / "s").mkdir(parents=True)
    (out / "s" / "slice003.dcm").write_bytes(b"another")
    back = restore(store, str(out), workers=HERE)
    assert back.failed == {"another file is there already": 1} and back.files == len(restored) + 1
    maps = [next(folder.glob("uid-map-*.csv")) for folder in (out, tmp_path / "out")]
    assert maps[0].read_bytes() == maps[1].read_bytes()
    (out / "s" / "slice003.dcm").unlink()
    assert not restore(store, str(out), workers=HERE).failed
    assert tree(out) == tree(tmp_path / "out")


def test_a_uid_map_takes_no_archived_files_name(restored, tmp_path):
    """What a lossy restore gave is archived and restored in the same way."""
    store, out = str(tmp_path / "archive2"), tmp_path / "out2"
    archive(str(tmp_path / "out"), store, quality=pixels.Quality(ratio=10), workers=HERE)
    back = restore(store, str(out), workers=HERE)
    assert not back.failed
    (first,) = (tmp_path / "out").glob("uid-map-*.csv")
    assert (out / first.name).read_bytes() == first.read_bytes()
    assert len(list(out.glob("uid-map-*.csv"))) == 2


def test_validators_find_nothing_that_was_not_there_before(restored, tmp_path):
    """pydicom's strict reading, and David Clunie's dciodvfy where it is installed."""
    validate = shutil.which("dciodvfy")
    for old, new in restored[:2]:
        with strict():
            for _ in pydicom.dcmread(new.filename).iterall():
                pass
        if validate is not None:
            assert _errors(validate, new.filename) <= _errors(validate, old.filename)
    if validate is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")


@contextmanager
def strict():
    """pydicom refuses values that are not valid."""
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        yield
    finally:
        pydicom.config.settings.reading_validation_mode = before


def _errors(validate, path) -> set[str]:
    said = subprocess.run([validate, path], capture_output=True, check=False).stderr.decode("latin-1")
    return {line for line in said.splitlines() if line.startswith("Error")}


def test_junk_above_the_stored_bits_is_kept_exact(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (4, 6, 7)).astype(np.uint16)
    make_series(tmp_path / "export", array, bits_stored=12)
    store = str(tmp_path / "archive")
    done = archive(str(tmp_path / "export"), store, quality=pixels.Quality(ratio=5), workers=HERE)
    assert done.kept == {"not coded: pixels with bits above those stored are kept exact": 4}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d, k: d.pop("SOPClassUID"), "a header could not be written again"),
        (lambda d, k: setattr(d, "SOPInstanceUID", "1.2.3"), "slices that share a SOP Instance UID"),
        (lambda d, k: d.add_new(0x00082112, "LO", "no sequence"), "a header could not be written again"),
        (lambda d, k: setattr(d, "BitsStored", 12 if k else 16), "slices of different stored bits"),
    ],
)
def test_what_no_lossy_restore_could_write_is_kept_exact(tmp_path, spoil, reason):
    """Found out before the pixels are gone, not when somebody wants them back."""

    def edit(dataset, k):
        spoil(dataset, k)
        dataset.HighBit = dataset.BitsStored - 1

    make_series(tmp_path / "export", SOURCE[:4], edit=edit)
    store = str(tmp_path / "archive")
    done = archive(str(tmp_path / "export"), store, quality=pixels.Quality(ratio=5), workers=HERE)
    assert len(done.kept) == 1 and reason in next(iter(done.kept)), done.kept
    assert restore(store, str(tmp_path / "out"), workers=HERE).identical == 4


def test_one_target():
    assert cli.main(["archive", "a", "b", "--ratio", "5", "--psnr", "30"]) == 2
