"""spec/inrv.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from inrformat import decode
from inrformat.coding import bank, sine
from inrformat.container import CODES, DEFAULT_LIMITS, Reader, VolumeHeader, build
from inrformat.container.headers import LatentHeader, LatticeHeader, Measured, ModelHeader, Provenance

SPEC_FOLDER = Path(__file__).parents[1] / "spec"
SPEC = (SPEC_FOLDER / "inrv.md").read_text()


def test_every_code_is_in_the_table_with_its_rule() -> None:
    for code, rule in CODES.items():
        assert re.search(rf"^\| `{code}` \|.*\| {re.escape(rule)} \|", SPEC, re.MULTILINE), code


def test_every_code_stands_at_the_rule_that_it_names() -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", SPEC, flags=re.DOTALL)
    groups = re.findall(r"\[([a-z][a-z0-9, -]*)\](?!\()", prose)
    named = {code.strip() for group in groups for code in group.split(",")}
    assert {code for code in named if "-" in code} - set(CODES) == set()
    assert set(CODES) - named == set()


def test_every_limit_and_every_field_is_in_a_table() -> None:
    for field in fields(DEFAULT_LIMITS):
        power = getattr(DEFAULT_LIMITS, field.name).bit_length() - 1
        number = f"{2**power}" if power < 10 else f"2^{power}"
        assert f"| `{field.name}` | {number} |" in SPEC
    for header in (VolumeHeader, LatticeHeader, LatentHeader, Measured, Provenance, ModelHeader):
        for field in fields(header):
            assert f"| `{field.name}` |" in SPEC


def test_the_worked_example_is_a_file_of_ours() -> None:
    block = re.search(r"```hex\n(.*?)```", SPEC, re.DOTALL)
    assert block is not None
    data = bytes.fromhex("".join(line[6:] for line in block[1].splitlines()))
    with Reader(data) as reader:
        reader.check_all()
        header = VolumeHeader.unpack(reader.read("HEAD"))
        assert build([("HEAD", header.pack()), ("SIRN", reader.read("SIRN"))]) == data
    assert decode(data, level="preview").data.tolist() == [[[255, 168], [95, 0]]]
    assert data == (SPEC_FOLDER / "vectors" / "valid" / "example.inrv").read_bytes()


def test_the_tables_of_the_format_are_those_of_the_specification() -> None:
    for digest in (bank.SHA256, sine.SHA256):
        assert f"\n    {digest}\n" in SPEC
    assert bank.bank()[0, 0, 126:131].tolist() == [1, 3, 65277, 3, 1]
    assert bank.bank()[1, 28, 126:131].tolist() == [2419, 2642, 2935, 2642, 2419]
    assert sine.sine_table()[[0, 1, 2, 3, 4096, 8192, 16384, 49152]].tolist() == [
        *(0, 2, 3, 5),
        *(6270, 11585, 16383, -16383),
    ]
