"""An export into an archive and back: every file, byte for byte."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pydicom
import pytest
from archive_factory import HERE, decode_stand_in, encode_stand_in, there_and_back, tree
from dicom_factory import AXIAL, PATIENT, make_enhanced, make_series, volume_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    OphthalmicTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

import inrformat
from inrformat import cli
from inrformat.archive import archive, contents, objects, pixels, restore, verify
from inrformat.archive import scan as scanning
from inrformat.archive.places import Folder, place_of
from inrformat.archive.scan import scan
from inrformat.container.files import atomic_write, temporary_name
from inrformat.errors import InputError, OutputError, UsageError

pytestmark = pytest.mark.usefixtures("stand_in")


def jobs(export):
    """The shapes of the volumes that are found, and the reasons of the other files."""
    found = scan(place_of(str(export)))
    shapes = sorted(job.shape for job in found.jobs if job.shape)
    return shapes, sorted(file.reason for job in found.jobs if not job.shape for file in job.files)


# --- what becomes a volume ------------------------------------------------------------------------


def test_a_series_and_what_is_none(export, tmp_path):
    make_series(export / "a", volume_array())
    (export / "notes.txt").write_text("hello")
    (export / "empty").write_bytes(b"")
    done = there_and_back(tmp_path)
    assert (done.volumes, done.kept, done.made) == (1, {"not a DICOM file": 2}, 2)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_byte_orders_and_types(export, tmp_path, syntax, dtype):
    make_series(export, volume_array((4, 5, 7), dtype), syntax=syntax)  # 35 bytes a slice: odd, and padded
    done = there_and_back(tmp_path)
    assert done.volumes == (0 if (syntax, dtype) == (ExplicitVRBigEndian, np.uint8) else 1)


def test_irregular_tilted_rescaled_and_in_any_order(export, tmp_path):
    def edit(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + k, -k

    positions = [(0, k, k * k) for k in range(5)]
    make_series(export, volume_array(), positions=positions, edit=edit, reverse_files=True)
    assert there_and_back(tmp_path).volumes == 1


def test_bits_above_those_stored_come_back(export, tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (4, 6, 7)).astype(np.uint16)
    make_series(export, array, bits_stored=12)
    assert there_and_back(tmp_path).volumes == 1


def test_a_series_is_split_where_slices_share_a_position(export):
    def echo(dataset, k):
        dataset.EchoTime = 5 * (1 + k // 5)
        dataset.TriggerTime = 3 * k  # differs everywhere, and tells nothing

    positions = [(0, 0, 2.5 * (k % 5)) for k in range(10)]
    make_series(export, volume_array((10, 6, 7)), positions=positions, edit=echo)
    assert jobs(export) == ([(5, 6, 7)] * 2, [])
    shutil.rmtree(export)
    make_series(export, volume_array((10, 6, 7)), positions=positions)  # nothing but the instance numbers
    found = scan(place_of(str(export))).jobs
    assert [job.shape for job in found] == [(5, 6, 7)] * 2
    first = min(found, key=lambda job: job.files[0].paths)  # the larger one comes first, by the UIDs' lengths
    assert [file.paths[0] for file in first.files] == [b"slice%03d.dcm" % k for k in range(1, 6)]


def test_orientations_and_matrices_of_one_series_are_volumes_of_their_own(export):
    make_series(export / "a", volume_array())
    one = pydicom.dcmread(export / "a" / "slice001.dcm")

    def same_series(dataset, k):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = one.StudyInstanceUID, one.SeriesInstanceUID

    make_series(export / "b", volume_array((3, 6, 7)), orientation=((0, 1, 0), (0, 0, -1)), edit=same_series)
    make_series(export / "c", volume_array((2, 4, 4)), edit=same_series)
    assert jobs(export) == ([(2, 4, 4), (3, 6, 7), (5, 6, 7)], [])


def test_enhanced_multi_frame(export, tmp_path):
    positions = [(0, 0, z) for z in (4.0, 0.0, 2.0)]
    make_enhanced(export / "e.dcm", volume_array((3, 6, 7)), positions)
    assert scan(place_of(str(export))).jobs[0].files[0].slices == (2, 0, 1)
    assert there_and_back(tmp_path).volumes == 1


def test_frames_of_several_times_at_each_position(export, tmp_path):
    places = [(0, 0, z) for _ in range(3) for z in range(4)]
    make_enhanced(export / "e.dcm", volume_array((12, 6, 7)), places)
    assert there_and_back(tmp_path).volumes == 1
    with pytest.raises(InputError, match="share a position"):
        inrformat.read(export / "e.dcm", allow_irregular=True)


def test_classes_that_begin_like_a_secondary_capture(export, tmp_path):
    make_series(export / "oct", volume_array(), edit=kept(SOPClassUID=OphthalmicTomographyImageStorage))
    made = kept(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    make_series(export / "capture", volume_array(), edit=made)
    assert jobs(export) == ([(5, 6, 7)], ["a secondary capture"] * 5)


def test_one_more_file_changes_few_packs(export, monkeypatch):
    monkeypatch.setattr(scanning, "PACK_BYTES", 1000)
    for k in range(200):
        (export / f"b{k:03d}").write_bytes(bytes(100))
    before = {job.key for job in scan(place_of(str(export))).jobs}
    (export / "a").write_bytes(bytes(95))
    after = scan(place_of(str(export))).jobs
    assert len(before) > 20 and len({job.key for job in after} - before) <= 4
    assert max(job.size for job in after) <= 1000


def test_a_file_that_no_section_holds_is_refused_unread(export, tmp_path):
    with (export / "large").open("wb") as file:
        file.truncate((8 << 30) + 1)
    (export / "a").write_bytes(b"a")
    done = archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert (done.files, done.refused, done.exit_code) == (1, {"larger than 8 GiB": 1}, 8)


def test_who_may_learns_which_files_were_left_out(export, tmp_path, monkeypatch, capsys):
    store = str(tmp_path / "archive")
    (export / "DOE^JANE.txt").symlink_to("nowhere")
    (export / "a").write_bytes(b"a")
    with monkeypatch.context() as broken:
        broken.setattr(objects, "_write_pack", lambda *_: 1 / 0)
        archive(str(export), store, workers=HERE)
    left = contents(store, patient=True)["left_out"]
    assert [(file["path"], file["reason"]) for file in left] == [
        ("DOE^JANE.txt", "a link"),
        ("a", "ZeroDivisionError"),
    ]
    assert "left_out" not in contents(store)
    assert cli.main(["info", store, "--patient"]) == 0
    assert "'DOE^JANE.txt': LEFT OUT, a link" in capsys.readouterr().out
    archive(str(export), store, workers=HERE)
    assert [file["path"] for file in contents(store, patient=True)["left_out"]] == ["DOE^JANE.txt"]


def test_frames_without_positions_are_kept(export, tmp_path):
    dataset = make_enhanced(export / "e.dcm", volume_array((3, 6, 7)), [(0, 0, z) for z in range(3)])
    del dataset.PerFrameFunctionalGroupsSequence
    pydicom.dcmwrite(export / "e.dcm", dataset)
    assert there_and_back(tmp_path).volumes == 0


def kept(**changes):
    def edit(dataset, k):
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (kept(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localizer"),
        (kept(SOPClassUID=SecondaryCaptureImageStorage), "a secondary capture"),
        (kept(PhotometricInterpretation="RGB", SamplesPerPixel=3), "not a grayscale image (RGB)"),
        (kept(PixelData=b"12"), "truncated pixel data"),
        (
            lambda dataset, k: dataset.pop("PixelData"),
            "no integer pixel data (the file is cut short, or holds",
        ),
        (lambda dataset, k: [dataset.pop(t) for t in ("Rows", "PixelData")], "not an image"),
        (kept(BitsAllocated=32, BitsStored=32, HighBit=31, PixelData=bytes(200)), "pixels of 32 bits"),
        (kept(ImagePositionPatient=["1", "nan", "2"]), "ImagePositionPatient must be 3 finite numbers"),
    ],
)
def test_what_is_no_volume_is_kept_with_its_reason(export, tmp_path, edit, reason):
    make_series(export, volume_array(), edit=edit)
    shapes, reasons = jobs(export)
    assert not shapes and len(reasons) == 5 and reasons[0].startswith(reason)
    there_and_back(tmp_path)


def test_compressed_and_deflated_syntaxes_are_kept(export, tmp_path):
    make_series(export / "a", volume_array((2, 6, 7)), compress=pydicom.uid.RLELossless)
    make_series(export / "b", volume_array((2, 6, 7)), syntax=DeflatedExplicitVRLittleEndian)
    make_series(export / "c", volume_array((1, 6, 7)))
    make_series(export / "d", volume_array((2, 6, 7)))
    (export / "d" / "slice002.dcm").write_bytes((export / "d" / "slice002.dcm").read_bytes()[:-7])
    assert jobs(export)[1] == [
        *["a deflated data set"] * 2,
        *["a single image"] * 2,
        *["compressed pixels (RLE Lossless)"] * 2,
        "truncated pixel data",
    ]
    there_and_back(tmp_path)


def test_a_dicomdir_and_broken_headers_are_kept(export, tmp_path):
    (export / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    (export / "cut.dcm").write_bytes(bytes(128) + b"DICM")
    (export / "noise").write_bytes(b"\x08\x00" + os.urandom(3000))
    assert there_and_back(tmp_path).volumes == 0


# --- nothing is lost ------------------------------------------------------------------------------


def test_whatever_the_codec_does_the_files_come_back(export, tmp_path, monkeypatch):
    make_series(export, volume_array())

    def broken(volume, quality):
        raise ZeroDivisionError(PATIENT)

    monkeypatch.setattr(
        pixels, "decode_volume", lambda source, use_sr=False: _changed(decode_stand_in(source))
    )
    assert there_and_back(tmp_path).kept == {"not coded: could not be proved identical (PromiseError)": 5}
    assert len(list((tmp_path / "archive").rglob("*.inr?"))) == 1
    shutil.rmtree(tmp_path / "archive"), shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(pixels, "encode_volume", broken)
    assert there_and_back(tmp_path).kept == {"not coded: ZeroDivisionError": 5}


def _changed(volume):
    data = volume.data.copy()
    data[2, 3, 4] ^= 1
    return type(volume)(data)


def test_copies_are_stored_once_and_come_back_everywhere(export, tmp_path):
    paths = make_series(export / "a", volume_array())
    (export / "b").mkdir()
    for path in paths:
        shutil.copy(path, export / "b" / path.name)
    done = there_and_back(tmp_path)
    assert (done.files, done.volumes, done.made) == (10, 1, 1)


def test_two_files_with_one_uid(export, tmp_path):
    make_series(export, volume_array(), edit=kept(SOPInstanceUID="1.2.3"))
    assert there_and_back(tmp_path).volumes == 1


def test_it_goes_on_where_it_was_and_takes_what_is_new(export, tmp_path):
    paths = make_series(export, volume_array())
    assert there_and_back(tmp_path).made == 1
    again = archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert (again.made, again.unchanged, again.files) == (0, 1, 5)
    stat = paths[0].stat()
    data = bytearray(paths[0].read_bytes())
    data[-1] ^= 1
    paths[0].write_bytes(data)
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # neither size nor time tell
    make_series(export / "b", volume_array((4, 5, 5)))
    shutil.rmtree(tmp_path / "out")
    done = there_and_back(tmp_path)
    assert (done.made, done.unchanged, done.volumes) == (2, 0, 2)
    assert len(list((tmp_path / "archive" / "objects").rglob("*.inr?"))) == 2  # what was replaced is gone


def test_what_has_left_the_export_stays_in_the_archive(export, tmp_path):
    make_series(export / "a", volume_array())
    make_series(export / "b", volume_array((3, 4, 4)))
    before = tree(export)
    archive(str(export), str(tmp_path / "archive"), workers=HERE)
    shutil.rmtree(export / "a")
    (export / "b" / "slice003.dcm").unlink()
    assert archive(str(export), str(tmp_path / "archive"), workers=HERE).files == len(before)
    restore(str(tmp_path / "archive"), str(tmp_path / "out"), workers=HERE)
    assert tree(tmp_path / "out") == before


def test_other_parameters_do_it_again(export, tmp_path):
    make_series(export, volume_array())
    there_and_back(tmp_path)
    done = archive(str(export), str(tmp_path / "archive"), quality=pixels.Quality(ratio=9), workers=HERE)
    assert (done.made, done.volumes) == (1, 1)


# --- what goes wrong ------------------------------------------------------------------------------


def test_links_and_pipes_are_refused_and_said(export, tmp_path, capsys):
    (tmp_path / "secret").write_text("not part of the export")
    make_series(export, volume_array())
    (export / "out").symlink_to(tmp_path / "secret")
    (export / "folder").symlink_to(tmp_path)
    os.mkfifo(export / "pipe")
    assert cli.main(["archive", str(export), str(tmp_path / "archive"), "--workers", "1"]) == 8
    assert "REFUSED: 2 x a link" in capsys.readouterr().out
    assert contents(str(tmp_path / "archive"))["files"] == 5


def test_an_unreadable_file_and_a_failing_series_leave_the_rest_done(export, tmp_path, monkeypatch):
    make_series(export / "a", volume_array())
    make_series(export / "b", volume_array((3, 4, 4)))
    before = tree(export)
    real = Folder.open

    def refuse(self, name):
        if name == b"b/slice002.dcm" and refuse.on:
            raise PermissionError(13, "Permission denied")
        return real(self, name)

    refuse.on = True
    monkeypatch.setattr(Folder, "open", refuse)
    done = archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert (done.exit_code, done.files, done.refused) == (8, 7, {"cannot be read (Permission denied)": 1})
    refuse.on = False
    monkeypatch.setattr(objects, "_write_pack", lambda *_: 1 / 0)
    monkeypatch.setattr(objects, "_write_series", lambda *_: 1 / 0)
    done = archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert (done.exit_code, done.failed, done.files) == (8, {"ZeroDivisionError": 1}, 7)
    assert contents(str(tmp_path / "archive"))["failed"] == [{"reason": "ZeroDivisionError", "count": 1}]
    monkeypatch.undo()
    pixels_of = pytest.MonkeyPatch()
    pixels_of.setattr(pixels, "encode_volume", encode_stand_in)
    pixels_of.setattr(pixels, "decode_volume", decode_stand_in)
    assert there_and_back(tmp_path).exit_code == 0
    pixels_of.undo()
    assert tree(tmp_path / "out") == before


def test_a_full_disk(export, tmp_path, monkeypatch):
    make_series(export / "a", volume_array())
    make_series(export / "b", volume_array((3, 4, 4)))
    real, calls = Folder.write, []

    def full(self, name, parts):
        calls.append(name)
        if len(calls) == 1:
            raise OutputError("a file cannot be written (No space left on device)")
        real(self, name, parts)

    monkeypatch.setattr(Folder, "write", full)
    done = archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert (done.exit_code, done.made, done.files) == (8, 1, 3)
    monkeypatch.setattr(Folder, "write", real)
    assert there_and_back(tmp_path).made == 1


def test_a_file_that_changes_meanwhile_is_taken_by_the_next_run(export, tmp_path, monkeypatch):
    paths = make_series(export, volume_array())
    before = objects.make

    def change(job, *rest):
        paths[1].write_bytes(paths[1].read_bytes() + b"more")
        return before(job, *rest)

    monkeypatch.setattr("inrformat.archive.run.make", change)
    done = archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert done.failed == {"a file changed while it was archived": 1}
    monkeypatch.setattr("inrformat.archive.run.make", before)
    assert there_and_back(tmp_path).volumes == 1


def test_one_run_at_a_time_and_no_archive_in_the_export(export, tmp_path):
    from inrformat.archive.manifest import Manifest

    store = place_of(str(tmp_path / "archive"))
    with Manifest(store, write=True), pytest.raises(OutputError, match="in use"):
        Manifest(store, write=True, patience=0.1)
    with pytest.raises(UsageError, match="in each other"):
        archive(str(export), str(export / "archive"))
    with pytest.raises(InputError, match="no archive"):
        restore(str(export), str(tmp_path / "out"))


def test_objects_without_a_manifest_are_not_swept_away(export, tmp_path):
    make_series(export, volume_array())
    there_and_back(tmp_path)
    (tmp_path / "archive" / "manifest.sqlite").unlink()
    with pytest.raises(OutputError, match="without a manifest"):
        archive(str(export), str(tmp_path / "archive"), workers=HERE)


def test_what_a_killed_run_left_is_swept_away(export, tmp_path):
    make_series(export, volume_array())
    there_and_back(tmp_path)
    for name in ("ab/half.inrv", "ab/.inr-0123.tmp"):
        (tmp_path / "archive" / "objects" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "archive" / "objects" / name).write_bytes(b"half")
    archive(str(export), str(tmp_path / "archive"), workers=HERE)
    assert len(tree(tmp_path / "archive" / "objects")) == 1


# --- restore, verify ------------------------------------------------------------------------------


def test_restore_overwrites_nothing_and_leaves_by_no_link(export, tmp_path):
    make_series(export / "a", volume_array())
    make_series(export / "b", volume_array((3, 4, 4)))
    archive(str(export), str(tmp_path / "archive"), workers=HERE)
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "slice001.dcm").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (out / "b").symlink_to(tmp_path / "elsewhere")
    done = restore(str(tmp_path / "archive"), str(out), workers=HERE)
    assert (done.exit_code, done.files) == (8, 4)
    assert done.failed == {"another file is there already": 1, "a link is in the way": 3}
    assert (out / "a" / "slice001.dcm").read_text() == "mine" and not list((tmp_path / "elsewhere").iterdir())


def test_restore_removes_what_a_killed_one_left_and_nothing_else(export, tmp_path):
    ours = f"{temporary_name()[:-5]}{{}}.tmp".format  # names that differ in one digit
    make_series(export / "a", volume_array())
    (export / "a" / ours(0)).write_text("an original, whatever it is called")
    archive(str(export), str(tmp_path / "archive"), workers=HERE)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / "a" / ours(1)).mkdir(parents=True)
    (out / "b").mkdir()
    elsewhere.mkdir()
    left = [out / ours(2), out / "a" / ours(3)]
    mine = [
        elsewhere / ours(4),
        out / "b" / ours(5),  # where nothing is restored
        out / "a" / ours(1) / ours(6),
        out / "a" / ".inr-0123.tmp",
        out / "a" / f"{ours(7)}.dcm",
        out / "a" / f"x{ours(8)}",
    ]
    for path in left + mine:
        path.write_text("half")
    (out / "a" / ours(9)).symlink_to(mine[0])
    os.mkfifo(out / "a" / ours("a"))
    with atomic_write(out / "a" / "note") as file:  # one that another process is writing
        file.write(b"note")
        before = set(out.rglob("*"))
        done = restore(str(tmp_path / "archive"), str(out), workers=HERE)
        made = {out / "a" / path.name for path in (export / "a").iterdir()}
        assert set(out.rglob("*")) == (before - set(left)) | made
    assert (out / "a" / "note").read_bytes() == b"note"
    assert (done.exit_code, done.identical) == (0, 6) and all(path.read_text() == "half" for path in mine)
    original = out / "a" / ours(0)
    os.utime(original, ns=(1, 1))
    assert restore(str(tmp_path / "archive"), str(out), workers=HERE).identical == 6
    assert original.stat().st_mtime_ns == 1  # it was not removed and written again


def test_nothing_is_removed_behind_a_link(export, tmp_path):
    make_series(export / "a", volume_array())
    archive(str(export), str(tmp_path / "archive"), workers=HERE)
    left = tmp_path / "elsewhere" / temporary_name()
    left.parent.mkdir()
    left.write_text("half")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(left.parent)
    restore(str(tmp_path / "archive"), str(tmp_path / "out"), workers=HERE)
    assert left.read_text() == "half"


def test_verify_finds_any_changed_byte(export, tmp_path, capsys):
    make_series(export, volume_array())
    (export / "note").write_text("kept")
    there_and_back(tmp_path)
    store = str(tmp_path / "archive")
    assert verify(store, workers=HERE).exit_code == 0
    proof = verify(store, rebuild=True, workers=HERE)
    assert (proof.objects, proof.files, proof.rebuilt, proof.failed) == (2, 6, 6, {})
    assert cli.main(["verify", store, "--restore", "--workers", "1"]) == 0
    path = next((tmp_path / "archive").rglob("*.inrv"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert verify(store, workers=HERE).failed == {"an object has another SHA-256 than the manifest says": 1}
    assert cli.main(["verify", store, "--workers", "1"]) == 4
    path.unlink()
    assert verify(store, workers=HERE).exit_code == 4


def test_what_is_for_files_and_what_for_archives(export, tmp_path):
    assert cli.main(["verify", str(export), "--original", "x"]) == 2
    assert cli.main(["verify", "x.inrv", "--restore"]) == 2
    assert cli.main(["info", str(export)]) == 3
    assert cli.main(["archive", str(tmp_path / "nothing"), str(tmp_path / "a")]) == 3
    (export / "x").write_text("x")
    assert cli.main(["archive", str(export), str(tmp_path / "a"), "--workers", "0"]) == 2


def test_nothing_of_the_patient_is_said(export, tmp_path, capsys, caplog):
    folder = export / PATIENT
    make_series(folder, volume_array(), edit=kept(PatientName=PATIENT))
    (folder / "x.dcm").write_bytes(b"\x08\x00" + PATIENT.encode() * 9)
    (folder / f"{PATIENT}-link").symlink_to("nowhere")
    store, out = str(tmp_path / "archive"), str(tmp_path / "out")
    commands = [
        ["archive", str(export), store, "--workers", "1"],
        ["info", store],
        ["verify", store, "--workers", "1"],
        ["restore", store, out, "--workers", "1"],
        ["restore", store, out, "--workers", "1"],
    ]
    for command in commands:
        cli.main(command), cli.main([*command, "--json"])
    said = capsys.readouterr()
    assert PATIENT not in said.out + said.err + caplog.text
    assert cli.main(["info", store, "--patient"]) == 0
    assert PATIENT in capsys.readouterr().out


def test_names_that_are_not_utf8(export, tmp_path):
    try:
        (export / os.fsdecode(b"caf\xe9\n\x1b")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    there_and_back(tmp_path)


def test_the_positions_are_those_of_the_slices(export):
    make_series(export, volume_array(), orientation=AXIAL, reverse_files=True)
    names = [file.paths[0] for file in scan(place_of(str(export))).jobs[0].files]
    assert names == sorted(names, reverse=True)


@pytest.mark.slow
def test_the_whole_of_the_real_data(data_dir, tmp_path):
    (tmp_path / "export").symlink_to(data_dir)
    done = there_and_back(tmp_path)
    assert done.volumes == 7 and done.kept["truncated pixel data"] == 1
