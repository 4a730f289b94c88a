"""spec/: the container's chapter says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from inrformat.container import CODES, DEFAULT_LIMITS, Reader, VolumeHeader, build, codes
from inrformat.container.headers import Measured, ModelHeader, Provenance

FOLDER = Path(__file__).parents[1] / "spec"
SPEC = "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.md")))
CONTAINER = "\n".join(
    path.read_text() for path in Path(codes.__file__).parent.glob("*.py") if path.name != "codes.py"
)


def described() -> dict[str, str]:
    """The codes that the specification must explain: all of them, once its chapters are one document."""
    whole = (FOLDER / "inrv.md").exists()
    return {code: rule for code, rule in CODES.items() if whole or f'"{code}"' in CONTAINER}


def test_every_code_is_in_the_table_with_its_rule() -> None:
    for code, rule in described().items():
        assert re.search(rf"^\| `{code}` \|.*\| {re.escape(rule)} \|", SPEC, re.MULTILINE), code


def test_every_code_stands_at_the_rule_that_it_names() -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", SPEC, flags=re.DOTALL)
    groups = re.findall(r"\[([a-z][a-z0-9, -]*)\](?!\()", prose)
    named = {code.strip() for group in groups for code in group.split(",")}
    assert {code for code in named if "-" in code} - set(CODES) == set()
    assert set(described()) - named == set()


def test_every_limit_and_every_field_is_in_a_table() -> None:
    for field in fields(DEFAULT_LIMITS):
        power = getattr(DEFAULT_LIMITS, field.name).bit_length() - 1
        number = f"{2**power}" if power < 10 else f"2^{power}"
        assert f"| `{field.name}` | {number} |" in SPEC
    for header in (VolumeHeader, Measured, Provenance, ModelHeader):
        for field in fields(header):
            assert f"| `{field.name}` |" in SPEC


def test_the_worked_example_is_a_file_of_ours() -> None:
    block = re.search(r"```hex\n(.*?)```", SPEC, re.DOTALL)
    assert block is not None
    data = bytes.fromhex("".join(line[6:] for line in block[1].splitlines()))
    with Reader(data) as reader:
        reader.check_all()
        header = VolumeHeader.unpack(reader.read("HEAD"))
        assert header.shape == (1, 2, 2)
        assert build([("HEAD", header.pack()), ("SIRN", reader.read("SIRN"))]) == data
