"""With a real PACS: Orthanc on loopback. Out of it, through an archive, and back into it."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from archive_factory import HERE, tree
from dicom_factory import make_series, volume_array
from pydicom.uid import ImplicitVRLittleEndian

from inrformat.archive import archive, restore

pynetdicom = pytest.importorskip("pynetdicom", reason="the extra 'pacs' is not installed")
SERVER = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.usefixtures("stand_in"),
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason="Orthanc (Debian: orthanc) is not installed"),
]


class Pacs:
    """A running Orthanc."""

    def __init__(self, folder: Path) -> None:
        self.http, self.dicom = _free_port(), _free_port()
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "Plugins": [],
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowGet": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [str(SERVER), str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.get("/system")
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    pytest.fail("Orthanc does not start")
                time.sleep(0.1)

    def get(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def instances(self) -> dict[str, bytes]:
        """SOP Instance UID -> the whole file."""
        files = (self.get(f"/instances/{name}/file") for name in json.loads(self.get("/instances")))
        return {str(pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID): data for data in files}

    def forget_all(self) -> None:
        for name in json.loads(self.get("/patients")):
            self.get(f"/patients/{name}", method="DELETE")

    def c_store(self, paths: list[Path]) -> None:
        datasets = [pydicom.dcmread(path) for path in paths]
        entity = pynetdicom.AE()
        for kind in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
            entity.add_requested_context(*kind)
        link = entity.associate("127.0.0.1", self.dicom)
        assert link.is_established
        assert all(link.send_c_store(dataset).Status == 0 for dataset in datasets)
        link.release()

    def c_get(self, sop_class: str, query: pydicom.Dataset, folder: Path) -> None:
        """Save what a C-GET gives."""
        folder.mkdir()

        def save(event):
            event.dataset.file_meta = event.file_meta
            event.dataset.save_as(folder / f"{event.dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
            return 0

        entity = pynetdicom.AE()
        find = pynetdicom.sop_class.StudyRootQueryRetrieveInformationModelGet
        entity.add_requested_context(find)
        entity.add_requested_context(sop_class)
        role = pynetdicom.build_role(sop_class, scp_role=True)
        handlers = [(pynetdicom.evt.EVT_C_STORE, save)]
        link = entity.associate("127.0.0.1", self.dicom, ext_neg=[role], evt_handlers=handlers)
        assert link.is_established
        assert [status.Status for status, _ in link.send_c_get(query, find)][-1] == 0
        link.release()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    server = Pacs(tmp_path_factory.mktemp("orthanc"))
    yield server
    server.process.terminate()
    server.process.wait(30)


def test_out_of_a_pacs_and_back(pacs, tmp_path):
    def private(dataset, k):
        dataset.add_new(0x00091001, "LO", f"private {k}")

    sent = make_series(tmp_path / "a", volume_array((6, 16, 12)), edit=private)
    sent += make_series(tmp_path / "b", volume_array((4, 9, 8), np.uint16), syntax=ImplicitVRLittleEndian)
    for path in sent:
        pacs.get("/instances", path.read_bytes())
    stored = pacs.instances()
    assert len(stored) == 10

    export = tmp_path / "export"
    for k, name in enumerate(json.loads(pacs.get("/series"))):
        with zipfile.ZipFile(io.BytesIO(pacs.get(f"/series/{name}/archive"))) as packed:
            packed.extractall(export / f"zip{k}")
    one = pydicom.dcmread(sent[0])
    query = pydicom.Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID, query.SeriesInstanceUID = one.StudyInstanceUID, one.SeriesInstanceUID
    pacs.c_get(one.SOPClassUID, query, export / "cget")
    before = tree(export)
    assert len(before) == 16

    store, out = str(tmp_path / "archive"), tmp_path / "out"
    done = archive(str(export), store, workers=HERE)
    assert done.exit_code == 0 and done.volumes >= 2 and done.files == 16
    assert restore(store, str(out), workers=HERE).identical == 16
    assert tree(out) == before

    pacs.forget_all()
    assert not pacs.instances()
    pacs.c_store([path for path in out.rglob("*.dcm") if "cget" not in path.parts])
    again = pacs.instances()
    assert again.keys() == stored.keys()
    for uid, data in again.items():
        new, old = (pydicom.dcmread(io.BytesIO(d)) for d in (data, stored[uid]))
        assert new == old and new.PixelData == old.PixelData
        assert np.array_equal(new.pixel_array, old.pixel_array)
