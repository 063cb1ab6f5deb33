"""The structure of the code: short functions and files, and a test file per module."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT) for package in ("export", "latency", "fbnetv5") for path in (ROOT / package).rglob("*.py")
)
MAX_FUNCTION = 45
"""Lines of the body, without signature and docstring: those of the Python interface have a line per argument."""
MAX_FILE = 450
"""Lines."""
WITHOUT_TEST_FILE: dict[str, str] = {
    "fbnetv5/spaces/__init__.py": "test_four_path.py reads spaces of every kind with it",
}
"""Modules without a mirrored test file, each with its reason."""


def tree_of(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def mirrored_test(module: Path) -> Path:
    """``export/x/y.py`` -> ``tests/export/x/test_y.py``; ``__init__.py`` -> ``test_init.py``."""
    return Path("tests") / module.parent / f"test_{module.stem.strip('_')}.py"


def has_code(module: Path) -> bool:
    """Whether the module defines functions or classes; other modules have nothing to test."""
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree_of(module).body)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_functions_and_files_are_short(module: Path) -> None:
    functions = (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    long = {node.name: lines for node in functions if (lines := lines_of(node)) > MAX_FUNCTION}
    assert not long
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= MAX_FILE


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    assert not body or body[-1].end_lineno is not None
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_every_module_has_a_test_file() -> None:
    missing = {str(module) for module in MODULES if has_code(module) and not (ROOT / mirrored_test(module)).exists()}
    assert missing == WITHOUT_TEST_FILE.keys()
