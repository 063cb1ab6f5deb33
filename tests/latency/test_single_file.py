import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from latency.bundle import measure_py
from latency.single_file import join_modules

FIRST = '''
"""First."""
import math
HALF = 0.5
def area(radius: float) -> float:
    return math.pi * radius**2  # kept: a comment
'''
SECOND = """
from typing import TYPE_CHECKING
from latency.first import (
    HALF,
)
if TYPE_CHECKING:
    from latency.first import area
def half_area(radius: float) -> float:
    from latency.first import area
    return HALF * area(radius)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where modules of a package "latency" of the test's own are found."""
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency" / "__init__.py").touch()
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "latency"}
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path / "latency"


def write(package: Path, **texts: str) -> list[str]:
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    return [f"latency.{name}" for name in texts]


def run(text: str) -> ModuleType:
    module = ModuleType("joined")
    exec(text, module.__dict__)
    return module


def test_the_joined_text_imports_no_joined_module_and_works_like_them(package: Path) -> None:
    text = join_modules(write(package, first=FIRST, second=SECOND))
    assert "import HALF" not in text
    assert "# kept: a comment" in text
    assert run(text).half_area(2.0) == pytest.approx(6.2831853)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("def area() -> None: ...", "latency.first and latency.second both define 'area'"),
        ("HALF: float = 0.25", "both define 'HALF'"),
        ("from latency.third import x", "latency.second line 1 cannot be joined: from latency.third import x"),
        ("from latency.first import area as disc", "cannot be joined: .* as disc"),
        ("import latency.first", "cannot be joined: import latency.first"),
        ("from latency import first", "cannot be joined"),
    ],
)
def test_modules_that_cannot_be_joined_are_refused(package: Path, second: str, message: str) -> None:
    modules = write(package, first=FIRST, second=second)
    with pytest.raises(ValueError, match=message):
        join_modules(modules)


def test_measure_py_is_python_that_loads_no_heavy_package(tmp_path: Path) -> None:
    path = tmp_path / "measure.py"
    path.write_text(measure_py())
    spec = importlib.util.spec_from_file_location("measure_of_a_bundle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    assert callable(module.main)
    imports = {
        line.split()[1].partition(".")[0] for line in path.read_text().splitlines() if line.startswith("import ")
    }
    assert imports <= sys.stdlib_module_names | {"numpy"}


def test_measure_py_runs_on_the_python_of_older_devices() -> None:
    """Python 3.10, the oldest that a bundle promises, lacks these names and parses no later syntax."""
    later = {"Self", "Never", "assert_never", "LiteralString", "Required", "NotRequired", "Unpack", "override"}
    later |= {"StrEnum", "UTC", "tomllib", "ExceptionGroup", "chdir"}
    tree = ast.parse(measure_py(), feature_version=(3, 10))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    assert not imported & later
