"""A batch that survives: killed runs, killed workers, a cluster, a place behind a URL."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from archive_factory import tree
from dicom_factory import make_series, volume_array

from inrformat.archive import archive, contents, restore, verify
from inrformat.archive.workers import Workers

SLOW_DISK = 0.005
"""Seconds that a restore waits for the disk: most of its time, as with large files."""

DRIVER = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from archive_factory import decode_stand_in, encode_stand_in
from inrformat import cli
from inrformat.archive import pixels

def slowly(volume, quality):
    time.sleep(0.03)
    return encode_stand_in(volume, quality)

def durably(descriptor, fsync=os.fsync):
    time.sleep({SLOW_DISK})
    fsync(descriptor)

pixels.encode_volume, pixels.decode_volume = slowly, decode_stand_in
if sys.argv[1] == "restore":
    os.fsync = durably
sys.exit(cli.main(sys.argv[1:]))
"""


def make_export(folder: Path, series: int) -> dict[bytes, str]:
    for k in range(series):
        make_series(folder / f"s{k}", volume_array((4, 12 + k, 16), seed=k))
    (folder / "notes.txt").write_text("not a DICOM file")
    return tree(folder)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE)


def test_killed_at_any_moment_and_run_again(tmp_path):
    export, store, out = (str(tmp_path / name) for name in ("export", "archive", "out"))
    before = make_export(tmp_path / "export", 24)
    chance = random.Random(0)
    seen = []
    for _ in range(8):
        run = start("archive", export, store, "--workers", "1")
        wanted = (seen[-1] if seen else 0) + chance.randrange(4)  # so many objects, and then a moment more
        deadline = time.monotonic() + 20
        while len(list((tmp_path / "archive").rglob("*.inr?"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        run.kill()
        run.wait()
        if (tmp_path / "archive" / "manifest.sqlite").exists():
            files = contents(store)["files"]
            assert not seen or files >= 4 * (seen[-1] - 1)  # nothing that was committed is lost
        seen.append(len(list((tmp_path / "archive").rglob("*.inr?"))))
        assert tree(tmp_path / "export") == before
    assert 0 < seen[-1] < 25
    assert start("archive", export, store, "--workers", "1").wait() == 0
    assert len(list((tmp_path / "archive" / "objects").rglob("*"))) <= 2 * 25  # and nothing is there twice
    assert contents(store)["files"] == len(before) and contents(store)["volumes"] == 24
    assert start("verify", store, "--restore", "--workers", "1").wait() == 0
    assert start("restore", store, out, "--workers", "1").wait() == 0
    assert tree(tmp_path / "out") == before


def test_a_restore_killed_at_any_moment_and_run_again(tmp_path):
    export, store, out = (str(tmp_path / name) for name in ("export", "archive", "out"))
    before = make_export(tmp_path / "export", 12)
    assert start("archive", export, store, "--workers", "1").wait() == 0
    chance, done, left = random.Random(1), 0, 0
    for _ in range(6):
        run = start("restore", store, out, "--workers", "1")
        wanted = min(done + 1 + chance.randrange(6), len(before) - 4)  # so many files, and then a moment more
        deadline = time.monotonic() + 20
        while _restored(tmp_path / "out")[0] < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.random() * 2 * SLOW_DISK)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        done, halves = _restored(tmp_path / "out")
        left += halves
        whole = {name: sha256 for name, sha256 in tree(tmp_path / "out").items() if b"/.inr-" not in name}
        assert whole.items() <= before.items()  # nothing half written has its name
    assert left and done < len(before)
    assert start("restore", store, out, "--workers", "1").wait() == 0
    assert tree(tmp_path / "out") == before
    assert len(list((tmp_path / "out").rglob("*"))) == len(before) + 12  # and the series' folders


def _restored(out: Path) -> tuple[int, int]:
    """Files that are whole, and temporary ones."""
    names = [path.name for path in out.rglob("*") if path.suffix]
    return sum(not name.endswith(".tmp") for name in names), sum(name.endswith(".tmp") for name in names)


def test_files_that_cannot_grow(tmp_path):
    """What a full disk does, from the system itself: the one large object fails, the rest is done."""
    export, store = str(tmp_path / "export"), str(tmp_path / "archive")
    before = make_export(tmp_path / "export", 3)
    (tmp_path / "export" / "large").write_bytes(random.Random(0).randbytes(2**21))
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
    run = [sys.executable, "-c", limit + DRIVER, "archive", export, store, "--workers", "1"]
    assert subprocess.run(run, stdout=subprocess.DEVNULL, check=False).returncode == 8
    found = contents(store)
    assert (
        found["volumes"] == 3 and found["files"] == len(before) - 1
    )  # the pack is the one that is too large
    assert found["failed"] == [{"reason": "a file cannot be written (File too large)", "count": 1}]
    assert not list((tmp_path / "archive").rglob("*.tmp"))
    assert start("archive", export, store, "--workers", "1").wait() == 0
    assert contents(store)["files"] == len(before) + 1


def test_no_worker_outlives_a_killed_run(tmp_path):
    """Whatever the codec does: without one, the series are kept in packs."""
    before = make_export(tmp_path / "export", 6)
    export, store, out = (str(tmp_path / name) for name in ("export", "archive", "out"))
    run = start("archive", export, store, "--workers", "2")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not children.exists():
        run.kill()
        pytest.skip("this system does not list a process's children")
    deadline = time.monotonic() + 30
    while len(pids := children.read_text().split()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)  # two workers, and the one that tracks their semaphores
    run.kill()
    run.wait()
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)
    assert archive(export, store, workers=Workers(2)).files == len(before)
    assert verify(store, rebuild=True, workers=Workers(2)).rebuilt == len(before)
    assert restore(store, out, workers=Workers(2)).identical == len(before)
    assert tree(tmp_path / "out") == before


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _die_once(folder: str, item: int) -> int:
    """In a worker: the first to come dies."""
    try:
        (Path(folder) / "died").touch(exist_ok=False)
    except FileExistsError:
        return item * item
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def test_a_pool_survives_a_killed_worker(tmp_path):
    done = dict(Workers(2).map(partial(_die_once, str(tmp_path)), range(9)))
    assert done == {k: k * k for k in range(9)}


def test_an_item_that_kills_each_worker_is_given_up(tmp_path):
    done = dict(Workers(2).map(_die, range(6)))
    assert isinstance(done[3], Exception)
    assert all(done[k] == k * k for k in range(6) if k != 3)


def _pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_a_cluster_of_two_workers_one_of_which_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    before = make_export(tmp_path / "export", 8)
    export, store, out = (str(tmp_path / name) for name in ("export", "archive", "out"))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, resources={"GPU": 1}, silence_logs=50
    ) as cluster:
        workers = Workers(dask=cluster.scheduler_address, device="cuda")  # the resource, not the device
        pids = {result for _, result in workers.map(_pid, range(8))}
        assert len(pids) == 2 and os.getpid() not in pids
        os.kill(pids.pop(), signal.SIGKILL)
        done = archive(export, store, workers=workers)
        assert done.files == len(before) and done.exit_code == 0
        assert restore(store, out, workers=Workers(dask=cluster.scheduler_address)).identical == len(before)
    assert tree(tmp_path / "out") == before


def test_a_place_behind_a_url(tmp_path, monkeypatch):
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import fsspec

    before = make_export(tmp_path / "export", 2)
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        s3 = fsspec.filesystem("s3", endpoint_url=f"http://{host}:{port}")
        s3.mkdir("bucket")
        s3.put(str(tmp_path / "export"), "bucket/export", recursive=True)
        here = Workers(1)
        for _ in range(2):  # the second time it finds all done
            done = archive("s3://bucket/export", "s3://bucket/archive", workers=here)
            assert done.files == len(before) and done.exit_code == 0, done
        assert done.made == 0
        assert verify("s3://bucket/archive", rebuild=True, workers=here).rebuilt == len(before)
        assert restore("s3://bucket/archive", str(tmp_path / "out"), workers=here).identical == len(before)
        assert tree(tmp_path / "out") == before
        assert restore("s3://bucket/archive", "s3://bucket/out", workers=here).identical == len(before)
        assert len(s3.find("bucket/out")) == len(before)
    finally:
        running.stop()


def test_with_the_codec_itself(tmp_path):
    import inrformat
    from inrformat.errors import UnsupportedError

    array = inrformat.head_phantom((6, 24, 24)).data
    try:
        inrformat.encode(array, lossless=True)
    except UnsupportedError:
        pytest.skip("this version has no lossless codec")
    make_series(tmp_path / "export", array)
    export, store, out = (str(tmp_path / name) for name in ("export", "archive", "out"))
    done = archive(export, store, workers=Workers(1))
    assert done.volumes == 1 and not done.kept
    assert verify(store, rebuild=True, workers=Workers(1)).rebuilt == 6
    assert restore(store, out, workers=Workers(1)).identical == 6
    assert tree(tmp_path / "out") == tree(tmp_path / "export")
