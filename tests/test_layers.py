"""Imports run downward only, and importing the package is cheap (see CONTRIBUTING.md, 'Layers')."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "inrformat"
LAYERS = (
    "cli",
    "demo bench",
    "inspect train_sr archive",
    "encode",
    "job",
    "fit decode",
    "residual latents",
    "models progress",
    "coding io",
    "container resample metrics phantom region parallel",
    "volume",
    "errors positions precision",
)
"""From the top down: a module imports from lower layers alone, and a package from itself."""
HEIGHT = {name: -i for i, layer in enumerate(LAYERS) for name in layer.split()}


def rooms(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path):
    """(line, room) of every import of ours that runs, inside functions too; those for type checkers do not."""
    package = ("inrformat", *path.relative_to(PACKAGE).parts[:-1])

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            modules = [module] if len(module) > 1 else [[*module, alias.name] for alias in node.names]
        else:
            modules = []
        yield from ((node.lineno, m[1]) for m in modules if m[0] == "inrformat" and len(m) > 1)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text()))


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    own = rooms(path)
    assert own in HEIGHT, f"say in LAYERS, and in CONTRIBUTING.md, where {own} belongs"
    upward = [(line, r) for line, r in imports(path) if r != own and HEIGHT[r] >= HEIGHT[own]]
    assert not upward, f"{own} imports what is not below it"


def test_decoding_knows_nothing_of_encoding():
    """Reached from decode and what it imports: neither encode nor fit."""
    reached, todo = set(), ["decode"]
    while todo:
        room = todo.pop()
        if room not in reached:
            reached.add(room)
            todo += [r for path in FILES if rooms(path) == room for _, r in imports(path)]
    assert not reached & {"encode", "fit", "train_sr", "cli"}


def test_importing_the_package_loads_nothing_heavy():
    heavy = "torch numpy pydicom PIL msgpack zstandard tqdm"
    code = f"import inrformat, sys; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_survive_the_import_of_their_modules():
    """Function encode and module encode share a name; the function wins, whatever was imported before."""
    code = (
        "import inrformat.decode, inrformat.encode, inrformat\n"
        "assert callable(inrformat.decode) and callable(inrformat.encode)\n"
        "assert inrformat.open is inrformat.File and dir(inrformat) == sorted(inrformat.__all__)\n"
        "assert all(getattr(inrformat, name) is not None for name in inrformat.__all__)\n"
        "assert not hasattr(inrformat, 'compress')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_decoding_leaves_torchs_compiler_alone():
    """Its import takes a second; `init` of a model's weights without memory would cause it."""
    code = (
        "import sys, inrformat\n"
        "data = inrformat.encode(inrformat.head_phantom((16, 24, 24)), ratio=8, factors=(1, 2, 2), progress=False)\n"
        "print(inrformat.info(data).sr is not None, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
