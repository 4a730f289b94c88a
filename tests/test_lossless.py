"""Lossless and bounded files: exact whatever the voxels are, bounded where asked, brick by brick."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrformat
from inrformat import Volume, cli, errors
from inrformat.coding import bricks, lanes, lattice, mixtures
from inrformat.coding.lattice import CONSTANT, GREATEST
from inrformat.coding.levels import Levels
from inrformat.container.headers import LatticeHeader
from inrformat.container.layout import Reader, build
from inrformat.fit import tuning, zones
from inrformat.models import registry
from inrformat.models.context import NETWORKS
from inrformat.models.integers import LARGEST_WEIGHT, SCALE, Network

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
RNG = np.random.default_rng(7)


def noisy(shape, dtype=np.int16, sigma=20.0, mean=100.0):
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    picture = mean + 60 * np.sin(z / 9) * np.cos(y / 11) + 80 * np.sin((x + y) / 17)
    return np.rint(picture + RNG.normal(0, sigma, shape)).astype(dtype)


def exact(data, **keywords):
    """The file of a volume that was seen to come back."""
    file = inrformat.encode(Volume(data), lossless=True, **keywords)
    back = inrformat.decode(file)
    assert back.data.dtype == data.dtype
    assert np.array_equal(back.data, data)
    assert "lossy" not in back.metadata
    return file


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_every_type_and_its_full_range(dtype):
    info = np.iinfo(dtype)
    data = RNG.integers(info.min, info.max + 1, (7, 33, 40)).astype(dtype)
    data.flat[:2] = info.min, info.max
    assert len(exact(data)) <= data.nbytes + 1024
    picture = noisy((9, 40, 33), dtype=np.int16).clip(info.min, info.max).astype(dtype)
    assert len(exact(picture)) < picture.nbytes


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 2), (2, 1, 1), (1, 64, 64), (64, 1, 64), (3, 2, 1), (5, 7, 11), (65, 30, 129)]
)
def test_every_shape(shape):
    exact(noisy(shape))


def test_a_constant_volume_takes_almost_nothing():
    assert len(exact(np.full((40, 50, 60), -2000, np.int16))) < 1000


def test_sparse_histograms_and_padding():
    every_fourth = noisy((16, 64, 64), sigma=5) // 4 * 4
    plain = len(exact(noisy((16, 64, 64), sigma=5) // 4))
    assert abs(len(exact(every_fourth)) - plain) < 0.05 * plain
    values = np.sort(RNG.choice(65536, 200, replace=False)).astype(np.uint16)
    few = values[np.clip(noisy((16, 64, 64), sigma=3), 0, 199)]
    assert Levels.of_integers(few, 0).greatest == 199
    exact(few)
    padded = noisy((8, 64, 64), mean=0, sigma=15)
    padded[:, :20] = -2000
    levels = Levels.of_integers(padded, 0)
    assert levels.values is not None
    assert levels.values[0][0] == -2000
    assert levels.greatest < 400
    exact(padded)


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(-32768, 32767), min_size=1, max_size=300), st.integers(0, 2**32 - 1))
def test_levels_and_values_are_one_to_one(values, seed):
    values = np.array(sorted(values), np.int16)
    data = np.random.default_rng(seed).choice(values, (3, 4, 500)).astype(np.int16)
    levels = Levels.of_integers(data, 0)
    assert levels.greatest <= int(data.max()) - int(data.min())
    assert np.array_equal(levels.to_values(levels.of(data), data.dtype), data)


@pytest.mark.parametrize("bound", [1, 2, 4, 16, 3.7, 1000])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_no_voxel_is_further_off_than_the_bound(bound, dtype):
    data = noisy((20, 48, 50), dtype=dtype)
    if dtype is np.float32:
        data += RNG.random(data.shape, np.float32)
    file = inrformat.encode(Volume(data), max_error=bound)
    error = inrformat.decode(file).data.astype(float) - data
    assert np.abs(error).max() <= bound
    assert abs(error.mean()) < 0.03 * bound or bound > np.ptp(data)
    info = inrformat.verify(file, original=Volume(data))
    assert info.measured.promise.kind == "max_error"
    assert info.measured.promise.value == bound
    assert info.measured.max_error == pytest.approx(np.abs(error).max())


def test_more_error_takes_fewer_bytes():
    data = noisy((20, 64, 64))
    sizes = [len(inrformat.encode(Volume(data), max_error=bound)) for bound in (1, 2, 4, 8)]
    assert len(exact(data)) > sizes[0] > sizes[1] > sizes[2] > sizes[3]


def test_floats_are_bounded_only():
    data = noisy((4, 20, 20), dtype=np.float32)
    with pytest.raises(errors.InputError, match="integers"):
        inrformat.encode(data, lossless=True)
    with pytest.raises(errors.UsageError, match="too small"):
        inrformat.encode(data, max_error=1e-6)


@pytest.fixture(scope="module")
def scan():
    """A volume of several bricks, smaller ones than usual, and its lossless file."""
    data = noisy((70, 140, 150))
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(bricks, "BRICK", (64, 128, 128))
        return data, inrformat.encode(Volume(data), lossless=True)


def test_a_region_reads_its_bricks_alone(scan):
    data, file = scan
    opened = inrformat.open(file)
    assert np.array_equal(opened[69, 100:, 3:140], data[69, 100:, 3:140])
    read = []
    part = opened.reader.read_part
    opened.reader.read_part = lambda *a: read.append(a) or part(*a)  # type: ignore[method-assign]
    assert np.array_equal(opened[2:30, 100:130, 0], data[2:30, 100:130, 0])
    assert len(read) == 1  # of 8
    assert read[0][2] < 0.15 * len(file)


def smooth_kernel(shape: lattice.Shape) -> np.ndarray:
    """Noise of which a kernel in y and x passes only the lower frequencies, rounded: what CT makes of a head."""
    noise = np.random.default_rng(3).normal(0, 1, shape)
    spectrum = np.fft.fftn(noise, axes=(1, 2))
    ky, kx = (np.fft.fftfreq(n) for n in shape[1:])
    passed = np.exp(-((np.hypot(ky[:, None], kx) / 0.13) ** 4))
    picture = np.fft.ifftn(spectrum * passed, axes=(1, 2)).real
    return np.rint(picture / picture.std() * 60 + 500).astype(np.int16)


@pytest.mark.parametrize("bound", [{"lossless": True}, {"max_error": 1}])
def test_linear_predictors_where_neighbours_say_more(bound, monkeypatch):
    data = smooth_kernel((32, 96, 96))
    monkeypatch.setattr(importlib.import_module("inrformat.encode"), "TUNED_VOXELS", 1000)
    for name, value in (("PIECES", 6), ("PREDICTED_PIECES", 4), ("STEPS", 60)):
        monkeypatch.setattr(tuning, name, value)
    file = inrformat.encode(data, **bound)
    assert sum(body_of(file, "PRED")[:64:4]) >= 2
    assert np.abs(inrformat.decode(file).data.astype(int) - data).max() == bound.get("max_error", 0)
    monkeypatch.setattr(tuning, "_predictors", lambda *_: {})
    without = inrformat.encode(data, **bound)
    assert not any(body_of(without, "PRED")[:64:4])
    assert len(file) < 0.98 * len(without)
    whole = inrformat.decode(file).data
    monkeypatch.setattr(bricks, "PART", 777)
    assert np.array_equal(inrformat.open(file)[3:9, 40:50, 7:80], whole[3:9, 40:50, 7:80])


def patchy(shape: lattice.Shape) -> np.ndarray:
    """Noise that is coarse along y in one half and along x in the other, as wide in both."""
    noise = np.random.default_rng(4).normal(0, 1, shape)
    half = shape[2] // 2
    along_y, along_x = (noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis) for axis in (1, 2))
    return np.rint(np.where(np.arange(shape[2]) < half, along_y, along_x) * 30 + 500).astype(np.int16)


def test_zones_where_noise_is_not_the_same_everywhere(monkeypatch):
    data = patchy((16, 160, 192))
    monkeypatch.setattr(importlib.import_module("inrformat.encode"), "TUNED_VOXELS", 1000)
    for name, value in (("PIECES", 8), ("STEPS", 60)):
        monkeypatch.setattr(tuning, name, value)
    for name, value in (("ZONE", (16, 80, 48)), ("SETS", (2, 2)), ("STEPS", 80), ("ROUND_STEPS", 60)):
        monkeypatch.setattr(zones, name, value)
    file = inrformat.encode(data, lossless=True)
    section = body_of(file, "ZONE")
    assert section[:4] == bytes([2, 1, 2, 4])
    left, right = {section[i] for i in (4, 5, 8, 9)}, {section[i] for i in (6, 7, 10, 11)}
    assert len(left) == len(right) == 1 and left != right
    assert np.array_equal(inrformat.decode(file).data, data)
    monkeypatch.setattr(bricks, "PART", 777)
    assert np.array_equal(inrformat.open(file)[3:9, 40:50, 7:80].data, data[3:9, 40:50, 7:80])
    monkeypatch.setattr(zones, "fit", lambda before, model, *_: model)
    assert len(file) < len(inrformat.encode(data, lossless=True))


def test_zones_that_do_not_pay_are_not_stored(monkeypatch):
    monkeypatch.setattr(importlib.import_module("inrformat.encode"), "TUNED_VOXELS", 1000)
    for name, value in (("PIECES", 4), ("STEPS", 30)):
        monkeypatch.setattr(tuning, name, value)
    for name, value in (("ZONE", (16, 32, 32)), ("SETS", (4, 4)), ("STEPS", 30), ("ROUND_STEPS", 10)):
        monkeypatch.setattr(zones, name, value)
    noise = np.random.default_rng(5).normal(500, 9, (16, 96, 96)).astype(np.int16)
    file = inrformat.encode(noise, lossless=True)
    with Reader(file) as reader:
        assert reader.has("TUNE") and not reader.has("ZONE")


def test_a_volume_of_any_size_has_zones_enough_and_not_too_many():
    for shape in (
        (1, 1, 1),
        (274, 512, 512),
        (140, 512, 513),
        (4000, 16, 16),
        (2048, 2048, 2048),
        (1, 65536, 1),
    ):
        boxes = zones.cut(shape)
        assert 1 <= len(boxes) <= zones.MOST
        assert sum(int(np.prod([b - a for a, b in box], dtype=np.int64)) for box in boxes) == np.prod(shape)
    assert len(zones.cut((274, 512, 512))) == 9 * 4 * 4


def test_info_of_a_lossless_and_of_a_bounded_file(scan):
    _, file = scan
    found = inrformat.info(file)
    assert found.sr is None
    assert found.bound == {"lossless": True, "max_error": 0.0, "bricks": (2, 2, 2)}
    reference = registry.default_context().reference
    assert found.context == {
        "name": reference.name,
        "version": reference.version,
        "sha256": reference.sha256.hex(),
        "embedded": False,
        "tuned": True,
    }
    data = noisy((5, 20, 21))
    found = inrformat.info(inrformat.encode(data, max_error=3.7, context=registry.default_context()))
    assert found.bound == {"lossless": False, "max_error": 3.0, "bricks": (1, 1, 1)}
    assert found.context["embedded"]
    assert not found.context["tuned"]
    found = inrformat.info(inrformat.encode(data.astype(np.float32), max_error=3.7))
    assert not found.bound["lossless"]
    assert 3.6 < found.bound["max_error"] < 3.7
    found = inrformat.info(inrformat.encode(data, seconds=0.1))
    assert found.bound is found.context is None


def changed(file, **bodies):
    """The file with other bytes in some sections, and right checksums; None: without the section."""
    with Reader(file) as reader:
        sections = [(name, bodies.get(name, reader.read(name))) for name in reader.types]
    return build([(name, body) for name, body in sections if body is not None])


def test_verify_opens_the_bricks(scan):
    _, file = scan
    inrformat.verify(file)
    header = LatticeHeader.unpack(body_of(file, "LATT"))
    kinds = b"\x09" + body_of(file, "TUNE")[1:]
    for code, bodies in (
        ("out-of-range", {"TUNE": kinds}),
        ("bad-index", {"BIDX": body_of(file, "BIDX")[:-8]}),
        ("bad-index", {"BRIX": body_of(file, "BRIX")[:-1]}),
        ("missing-section", {"LATT": None}),
        ("missing-section", {"BIDX": None}),
        ("record-truncated", {"LATT": b""}),
    ):
        with pytest.raises(errors.FormatError) as caught:
            inrformat.verify(changed(file, **bodies))
        assert caught.value.code == code
    unknown = LatticeHeader(**{**vars(header), "model": replace(header.model, sha256=bytes(32))}).pack()
    inrformat.verify(changed(file, LATT=unknown))  # the model is not here: the rest is right
    with pytest.raises(errors.FormatError):
        inrformat.verify(changed(file, LATT=unknown, BIDX=b""))


def test_verify_tells_a_promise_that_is_not_kept():
    data = noisy((5, 20, 21))
    file = inrformat.encode(data, max_error=3)
    other = data.copy()
    other.flat[int(np.argmax(inrformat.decode(file).data == data))] += 4
    with pytest.raises(errors.PromiseError, match=r"at most 3; it decodes to 4|PSNR"):
        inrformat.verify(file, original=Volume(other))


def test_files_of_another_kind_are_named():
    pack = build([("FILE", b""), ("REST", b"")])
    with pytest.raises(errors.FormatError, match="this is a pack, not a volume"):
        inrformat.decode(pack)
    with pytest.raises(errors.FormatError, match="this is a pack, not a model"):
        registry.load_model(pack)
    with pytest.raises(errors.FormatError, match="this is a model, not a volume"):
        inrformat.decode(registry.SHIPPED / registry.DEFAULT)


def test_the_preview_needs_no_brick(scan):
    data, file = scan
    opened = inrformat.open(file)
    opened.reader.read_part = None  # type: ignore[method-assign]
    preview = opened.preview().data
    assert preview.shape == (18, 35, 38)
    assert abs(float(preview.mean()) - float(data.mean())) < 5


def damage(file, place):
    """One byte of section BRIX changed."""
    with Reader(file) as reader:
        at = reader.info("BRIX").offset
    broken = bytearray(file)
    broken[at + place] ^= 0x40
    return bytes(broken)


def test_a_damaged_brick_costs_only_itself(scan):
    data, file = scan
    broken = damage(file, 100)
    with pytest.raises(errors.FormatError) as caught:
        inrformat.decode(broken)
    assert caught.value.code == "damaged-brick"
    assert "brick 0 (z 0:35, y 0:70, x 0:75)" in str(caught.value)
    volume = inrformat.decode(broken, damaged="fill")
    assert volume.metadata["damaged"] == [[[0, 35], [0, 70], [0, 75]]]
    wrong = volume.data != data
    assert wrong[:35, :70, :75].any()
    wrong[:35, :70, :75] = False
    assert not wrong.any()
    assert np.array_equal(inrformat.open(broken)[40:, 100:, 100:], data[40:, 100:, 100:])
    assert "lossy" in volume.metadata and "psnr" not in volume.metadata["lossy"]
    with inrformat.open(broken, damaged="fill") as opened:
        cut = opened.cut(((30, 60), (60, 140), (10, 20)))
        assert cut.metadata["damaged"] == [[[0, 5], [0, 10], [0, 10]]]
        assert np.array_equal(cut.data[5:], data[35:60, 60:140, 10:20])
        assert "damaged" not in opened.preview().metadata
        assert "damaged" not in opened.cut(((40, 60), (80, 140), (80, 90))).metadata
    with pytest.raises(errors.FormatError):
        inrformat.verify(broken)
    with pytest.raises(errors.UsageError):
        inrformat.decode(file, damaged="ignore")


def test_the_command_says_what_is_damaged(scan, tmp_path, capsys):
    broken = tmp_path / "broken.inrv"
    broken.write_bytes(damage(scan[1], 100))
    command = ["decode", str(broken), str(tmp_path / "a.npy"), "--damaged", "fill"]
    assert cli.main(command) == 0
    assert "DAMAGED, and filled: 0:35,0:70,0:75" in capsys.readouterr().out
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["damaged"] == [[[0, 35], [0, 70], [0, 75]]]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bytes_on_any_number_of_threads_and_in_any_batch(scan, threads, monkeypatch):
    data, file = scan
    before = torch.get_num_threads()
    monkeypatch.setattr(bricks, "PART", 1000 * threads)
    try:
        torch.set_num_threads(threads)
        again = inrformat.encode(Volume(data[:40, :80, :90].copy()), lossless=True)
        assert np.array_equal(inrformat.decode(again).data, data[:40, :80, :90])
        assert np.array_equal(inrformat.open(file)[60:, :, :20], data[60:, :, :20])
    finally:
        torch.set_num_threads(before)
    monkeypatch.undo()
    sections = [body_of(f, "BRIX") for f in (again, inrformat.encode(data[:40, :80, :90], lossless=True))]
    assert sections[0] == sections[1]


def body_of(file, section):
    with Reader(file) as reader:
        return reader.read(section)


@CUDA
def test_the_same_bytes_on_cuda(scan):
    data, file = scan
    assert body_of(inrformat.encode(data, lossless=True, device="cuda"), "BRIX") == body_of(file, "BRIX")
    assert np.array_equal(inrformat.decode(file, device="cuda").data, data)


def test_a_context_model_needs_something_to_learn_from_and_an_end():
    from inrformat.fit.context import train_context

    with pytest.raises(errors.InputError, match="so few voxels"):
        train_context([np.zeros((1, 1, 1), np.int16)], steps=3)
    with pytest.raises(errors.UsageError, match="budget"):
        train_context([noisy((4, 8, 8))], seconds=-1)


def test_a_context_model_of_ones_own_is_stored_in_the_file(tmp_path):
    from inrformat.fit.context import train_context

    data = noisy((20, 40, 40))
    trained = train_context([data], steps=20)
    again = train_context([data], steps=20)
    assert all(np.array_equal(trained.weights[k], again.weights[k]) for k in trained.weights)
    path = tmp_path / "own.inrm"
    path.write_bytes(
        registry.pack_integers(trained, name="own", version=1, licence="MIT", trained_on="noise")
    )
    model = registry.load_context(path)
    file = exact(data, context=model)
    with Reader(file) as reader:
        assert reader.read("CTXM") == path.read_bytes()
        header = LatticeHeader.unpack(reader.read("LATT"))
    assert header.model.name == "own"
    with pytest.raises(errors.UsageError, match="saved"):
        exact(data, context=trained)


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(errors.FormatError, match="no context model"):
        registry.load_context(registry.SHIPPED / registry.DEFAULT)
    with pytest.raises(errors.FormatError, match="super-resolution"):
        registry.load_model(registry.SHIPPED / registry.DEFAULT_CONTEXT)


def test_an_unknown_context_model_is_said_to_be_missing(scan):
    _, file = scan
    with Reader(file) as reader:
        sections = [(name, reader.read(name)) for name in reader.types]
    header = LatticeHeader.unpack(dict(sections)["LATT"])
    other = header.model.__class__("other", 1, bytes(32))
    changed = LatticeHeader(**{**header.__dict__, "model": other}).pack()
    file = build([(t, changed if t == "LATT" else body) for t, body in sections])
    with pytest.raises(errors.ModelNotFoundError, match="other 1 is not here"):
        inrformat.decode(file)
    assert inrformat.decode(file, level="preview").data.size  # the base needs no context model


# --- the parts ------------------------------------------------------------------------------------


def test_the_mixtures_are_distributions():
    rows = mixtures.frequencies().astype(np.int64)
    assert (rows.sum(axis=1) == mixtures.TOTAL).all()
    assert (rows[:, mixtures.ESCAPE] > 0).all()
    width = np.arange(len(rows)) // (mixtures.TAILS * mixtures.PHASES)
    reach = np.array([mixtures.reach(w) for w in range(mixtures.WIDTHS)])[width]
    columns = np.arange(mixtures.COLUMNS)[None] - mixtures.ZERO
    inside = np.abs(columns) <= reach[:, None]
    inside[:, mixtures.ESCAPE] = True
    assert ((rows > 0) == inside).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 9), st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_lanes_give_back_what_they_were_given(count, width, sizes, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    classes = []
    for n in sizes:
        tables = rng.integers(0, len(mixtures.frequencies()), (count, n))
        slots = rng.integers(0, mixtures.TOTAL, (count, n))
        columns = (mixtures.starts()[tables] <= slots[..., None]).sum(-1) - 1
        bottoms = np.where(columns == 0, rng.integers(0, 256, columns.shape), rng.integers(0, columns + 1))
        classes.append(tuple(map(torch.from_numpy, (tables, columns, bottoms))))
    states, words = lanes.encode(classes, width)
    counts = torch.tensor([len(w) for w in words])
    rows = torch.zeros(count, int(counts.max()) + 1, dtype=torch.int64)
    for row, word in zip(rows, words, strict=True):
        row[: len(word)] = word
    decoder = lanes.Decoder(states.clone(), rows, counts)
    for tables, columns, bottoms in classes:
        assert torch.equal(decoder.decode(tables, bottoms), columns)
    assert not decoder.finish().any()


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.floats(0.1, 10)] * 3))
def test_every_voxel_becomes_known_once(shape, spacing):
    order = lattice.schedule(shape, spacing)
    visits = torch.zeros(1, *shape)
    lattice.roots(visits, order).add_(1)
    for grid, kind in lattice.order_of_classes(visits, order):
        points = lattice.Lattice.points(visits, grid.split, kind)
        points += 1
        assert points.shape[1:] == grid.class_shape(kind)
    assert (visits == 1).all()


def test_a_context_holds_known_points_alone():
    """What is not yet known may change without changing a class's context."""
    order = lattice.schedule((6, 9, 7), (1, 1, 1))
    span = lattice.Span(500, 1)
    truth = torch.randint(0, 500, (1, 6, 9, 7), generator=torch.Generator().manual_seed(1)).float()
    known = [torch.full_like(truth, fill) for fill in (0.0, 499.0)]
    contexts: list[list[torch.Tensor]] = [[], []]
    for bricks_, seen in zip(known, contexts, strict=True):
        lattice.roots(bricks_, order).copy_(lattice.roots(truth, order))
        for grid, kind in lattice.order_of_classes(bricks_, order):
            rows = grid.class_shape(kind)[0]
            seen.append(lattice.Context.of(grid, kind, (slice(0, 1), slice(0, rows)), span).features)
            grid.set(kind, lattice.Lattice.points(truth, grid.split, kind))
    assert len(contexts[0]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*contexts, strict=True))


def test_octaves_are_rounded_logarithms():
    for step in range(1, 65536, 2):
        assert lattice.octaves(step) == round(8 * np.log2(step))


def test_the_shipped_context_model():
    model = registry.default_context()
    assert model.header is not None
    assert model.header.kind == "context"
    assert len(model.networks) == len(NETWORKS)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 32), min_size=4, max_size=4), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_networks_are_exact(rows, points, seed):
    """With the largest weights and values, whose sums halve often enough: a tie goes to the even number."""
    rng = np.random.default_rng(seed)
    inputs, first, second, last = rows

    def layer(rows, columns):
        weights = rng.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, (rows, columns))
        weights[rng.random(weights.shape) < 0.3] = LARGEST_WEIGHT * rng.choice([-1, 1])
        weights[rng.random(weights.shape) < 0.3] = 256
        return weights

    layers = layer(first, inputs), layer(second, first + 1), layer(last, second + inputs)
    features = rng.choice([-GREATEST, -1, 0, 1, GREATEST], (inputs, points))

    def activations(sums):
        halves = 2 * sums + SCALE
        rounded = halves // (2 * SCALE)
        rounded -= (halves % (2 * SCALE) == 0) & (rounded % 2 == 1)
        return rounded.clip(0, GREATEST)

    hidden = activations(layers[0] @ features)
    deep = activations(layers[1] @ np.concatenate([hidden, np.full((1, points), CONSTANT)]))
    network = Network(*(torch.from_numpy(weights).float() for weights in layers))
    for kind in (torch.int8, torch.float32):
        outputs = network.outputs(torch.from_numpy(features).to(kind))
        assert np.array_equal(outputs.numpy(), layers[2] @ np.concatenate([deep, features]))
