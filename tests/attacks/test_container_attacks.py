"""Runs the attacks of container_cases.py; README.md lists them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import inrformat
from inrformat.container import CODES
from inrformat.container.codes import LIMIT, UNSUPPORTED, fail
from inrformat.errors import FormatError, LimitError, UnsupportedError

sys.path.insert(0, str(Path(__file__).parent))
import lattice_cases
from container_cases import ATTACKS, VALID, Attack, measured, read_all, readme_lines

PACKAGE = Path(inrformat.__file__).parent


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack) -> None:
    """The right error, soon, and without allocating what the file asks for."""
    error, seconds, peak = measured(attack)
    assert f"[{attack.code}" in str(error)
    assert isinstance(error, UnsupportedError if attack.code in UNSUPPORTED else FormatError)
    assert isinstance(error, LimitError) == (attack.code in LIMIT)
    assert str(error).isprintable() and str(error).isascii()
    assert len(str(error)) < 300
    assert peak < 2**24, f"{peak} bytes allocated"
    assert seconds < 5


def test_the_file_that_the_attacks_start_from_is_valid() -> None:
    assert read_all(VALID)["meta"]["modality"] == "CT"


def test_readme_lists_every_attack() -> None:
    listed = (Path(__file__).parent / "README.md").read_text().splitlines()
    assert [line for line in listed if line[:1].isdigit() and "test_attack[" in line] == readme_lines()


def _codes_raised(path: Path) -> set[str]:
    """The literal codes in `fail(...)`, `.error(...)` and the errors' own constructors."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("fail", "error", "FormatError", "LimitError"):
                found.add(str(node.args[0].value))
    return found


def test_every_code_that_the_container_raises_is_provoked_by_an_attack() -> None:
    raised = set().union(*(_codes_raised(path) for path in (PACKAGE / "container").glob("*.py")))
    assert raised - set(CODES) == set()
    assert raised - {attack.code for attack in (*ATTACKS, *lattice_cases.ATTACKS)} == set()


def test_the_container_makes_its_errors_in_one_place() -> None:
    for path in (PACKAGE / "container").glob("*.py"):
        if path.name != "codes.py":
            for name in ("FormatError(", "LimitError(", "UnsupportedError("):
                assert name not in path.read_text(), f"{path.name} raises by itself: use codes.fail"


def test_the_whole_package_uses_known_codes_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert _codes_raised(path) - set(CODES) == set(), path


def test_a_code_that_is_not_listed_cannot_be_raised() -> None:
    with pytest.raises(AssertionError, match="unknown error code"):
        raise fail("no-such-code", "message")
