"""The rule of direction: which part may import which. docs/architecture.md draws the picture."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pysim"

# Part of pysim -> the parts it may import, beside itself.
_BASE = {"errors", "atomic"}
_PLAIN = _BASE | {"config", "workload", "result"}
ALLOWED = {
    "errors": set(),
    "atomic": set(),
    "config": _BASE,
    "workload": _BASE,
    "result": _BASE | {"config", "workload"},
    "energy": _BASE | {"config", "result"},
    "models": _PLAIN,
    "data": _PLAIN,
    "sparse": _PLAIN | {"store", "_core"},
    "sim": _PLAIN | {"_core"},
    "pruning": _PLAIN | {"models", "sparse"},
    "lowering": _PLAIN | {"sparse"},
    "training": _PLAIN | {"data", "pruning"},
    "store": _PLAIN,
    "runner": _PLAIN
    | {"energy", "models", "data", "sparse", "sim", "pruning", "lowering", "training", "store"},
    "report": _PLAIN | {"store"},
    "cli": _BASE | {"config", "energy", "result", "runner", "report"},
}
WITHOUT_TORCH = {
    "errors",
    "atomic",
    "config",
    "workload",
    "result",
    "energy",
    "sim",
    "store",
    "report",
    "cli",
}


def _imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _part(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


SOURCES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def test_every_part_has_a_rule():
    assert {_part(path) for path in SOURCES} == set(ALLOWED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_follow_the_rule_of_direction(path):
    part = _part(path)
    for name in _imports(path):
        pieces = name.split(".")
        if pieces[0] == "pysim" and len(pieces) > 1 and not pieces[1].startswith("__"):
            assert pieces[1] in ALLOWED[part] | {part}, f"{part} must not import pysim.{pieces[1]}"
        if pieces[0] == "torch":
            assert part not in WITHOUT_TORCH, f"{part} must not import torch"


CPP_ALLOWED = {
    "base": {"base"},
    "kernels": {"base", "kernels"},
    "sim": {"base", "sim"},
    "bindings": {"base", "kernels", "sim", "bindings"},
}
CPP_SOURCES = sorted((ROOT / "csrc").rglob("*.[ch]*"))


@pytest.mark.parametrize("path", CPP_SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_includes_follow_the_rule_of_direction(path):
    if path.name == "CMakeLists.txt":
        return
    folder = path.relative_to(ROOT / "csrc").parts[0]
    for target in re.findall(r'#include "([^"]+)"', path.read_text()):
        assert target.split("/")[0] in CPP_ALLOWED[folder], f"{folder} must not include {target}"
    if folder != "bindings":
        assert "pybind11" not in path.read_text()
