"""bundle.py: the small sections of a file as one."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import inrformat
from inrformat.container import Reader, build
from inrformat.container.__main__ import main
from inrformat.container.bundle import MOST_BYTES, SECTION, bundled
from inrformat.container.dictionary import DICTIONARY
from inrformat.models import registry

sys.path.insert(0, str(Path(__file__).parent / "attacks"))
from container_cases import SECTIONS

SPEC = (Path(__file__).parents[1] / "spec" / "inrv.md").read_text()
SMALL = ("HEAD", "meas", "prov")
TYPES = st.text("ABCZabcz", min_size=4, max_size=4)
FILES = st.lists(st.tuples(TYPES, st.binary(max_size=300)), min_size=1, max_size=6, unique_by=lambda s: s[0])


@given(sections=FILES, types=st.sets(TYPES, max_size=3))
def test_what_is_bundled_is_read_as_if_it_were_not(
    sections: list[tuple[str, bytes]], types: set[str]
) -> None:
    types.add(sections[0][0])
    with Reader(build(bundled(sections, types))) as reader:
        reader.check_all()
        assert reader.sections[0].type == SECTION
        assert set(reader.bundled) == types & {name for name, _ in sections}
        for name, body in sections:
            assert reader.has(name) and reader.read(name) == body and reader.info(name).length == len(body)
            assert (
                reader.read_part(name, len(body) // 2, len(body) // 4)
                == body[len(body) // 2 :][: len(body) // 4]
            )


def test_what_cannot_be_bundled_is_left_as_it_is() -> None:
    sections = [("HEAD", b"x"), ("prov", b"y"), ("meta", b"z")]
    assert bundled(sections, ("prov",)) == sections  # the first has to be in it
    for body in (bytes(MOST_BYTES), bytes(MOST_BYTES - 12)):
        large = [("HEAD", b"x"), ("prov", body)]
        assert bundled(large, SMALL) == large
    fits = [("HEAD", b"x"), ("prov", bytes(MOST_BYTES - 13))]
    assert [name for name, _ in bundled(fits, SMALL)] == [SECTION]


def test_a_bundle_takes_a_third_of_its_records() -> None:
    sections = [(name.decode(), body) for name, body in SECTIONS]
    whole, small = (len(build(s)) for s in (sections, bundled(sections, SMALL)))
    records = sum(len(body) for name, body in sections if name in SMALL)
    assert whole - small > 2 * records / 3


def test_the_dictionary_is_that_of_the_specification_and_knows_the_shipped_models() -> None:
    block = re.search(r"```base64\n(.*?)```", SPEC, re.DOTALL)
    assert block is not None and base64.b64decode(block[1]) == DICTIONARY
    assert f"{len(DICTIONARY):,} bytes (SHA-256 `{hashlib.sha256(DICTIONARY).hexdigest()}`)" in SPEC
    for name in (
        registry.DEFAULT,
        registry.DEFAULT_RESTORER,
        registry.DEFAULT_LATENTS,
        registry.DEFAULT_CONTEXT,
    ):
        assert hashlib.sha256((registry.SHIPPED / name).read_bytes()).digest() in DICTIONARY, name


def test_volumes_are_written_with_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = inrformat.head_phantom((16, 24, 24)).data
    for keywords in ({"ratio": 10}, {"lossless": True}):
        data = inrformat.encode(volume, **keywords)  # type: ignore[arg-type]
        assert inrformat.decode(data).data.shape == volume.shape
        section = inrformat.info(data).sections[0]
        assert section["type"] == SECTION and {"HEAD", "meas"} <= set(section["holds"])
    path = tmp_path / "a.inrv"
    path.write_bytes(data)
    assert main(["list", str(path)]) == 0
    assert "the bundle holds HEAD, " in capsys.readouterr().out
    assert main(["extract", str(path), "HEAD", str(tmp_path / "head")]) == 0
    with Reader(path) as reader:
        assert (tmp_path / "head").read_bytes() == reader.read("HEAD")


def test_a_volume_of_many_slopes_has_a_bundle_as_long_as_it_fits() -> None:
    for slices, fits in ((100, True), (8000, False)):
        volume = inrformat.Volume(
            np.arange(4 * slices, dtype=np.uint16).reshape(slices, 2, 2),
            slope=tuple(1 + z / 7 for z in range(slices)),
            intercept=(0.0,) * slices,
        )
        data = inrformat.encode(volume, lossless=True)
        assert (inrformat.info(data).sections[0]["type"] == SECTION) == fits
        assert inrformat.decode(data).slope == volume.slope
