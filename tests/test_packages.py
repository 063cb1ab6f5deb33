"""What holds the packages together: the direction of imports, and light imports."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"export": {"latency", "fbnetv5"}, "latency": {"fbnetv5"}, "fbnetv5": set()}
HEAVY = {
    "rich",
    "jinja2",
    "plotly",
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "pycuda",
    "timm",
    "accelerate",
    "numpy",
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        modules = imported(path)
        assert not {module.partition(".")[0] for module in modules} & FORBIDDEN[package], path
        if path.name != "__main__.py" and "cli" not in path.relative_to(ROOT).parts:
            assert not any(module.startswith("fbnetv5.cli") for module in modules), path


MAX_IMPORTS = 15
"""Of the project's own modules, in any module but ``LISTS``."""
LISTS = ("fbnetv5.api", "fbnetv5.cli.entry")
"""The two lists of everything that users call."""


@cache
def project_imports() -> dict[str, set[str]]:
    """Every module of the three packages, and which of the others it imports anywhere in its code."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in FORBIDDEN
        for path in (ROOT / package).rglob("*.py")
    }
    return {module: (imported(path) & files.keys()) - {module} for module, path in files.items()}


def package_of(module: str) -> str:
    """One of export and latency, or a package or module directly in fbnetv5."""
    first, _, rest = module.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "fbnetv5" and rest else first


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    list(TopologicalSorter(project_imports()).static_order())


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, others in project_imports().items():
        found = {package_of(other) for other in others} - {package_of(module), "fbnetv5"}
        graph.setdefault(package_of(module), set()).update(found)
    del graph["fbnetv5"]  # its __init__ registers the integrations
    list(TopologicalSorter(graph).static_order())


def test_search_methods_do_not_import_each_other() -> None:
    methods = {path.name for path in (ROOT / "fbnetv5" / "search").iterdir() if (path / "__init__.py").exists()}
    assert methods
    for module, others in project_imports().items():
        own = module.split(".")[2] if module.startswith("fbnetv5.search.") else None
        if own in methods:
            imported_methods = {
                other.split(".")[2] for other in others if other.startswith("fbnetv5.search.")
            } & methods
            assert imported_methods <= {own}, module


def test_fbnetv5_holds_few_packages_and_modules() -> None:
    inside = {package_of(module) for module in project_imports() if module.startswith("fbnetv5.")}
    assert len(inside) <= 17, sorted(inside)


def test_modules_import_few_others() -> None:
    for module, others in project_imports().items():
        assert module in LISTS or len(others - {"fbnetv5"}) <= MAX_IMPORTS, module


COMMANDS = [
    "",
    "show",
    "space",
    "profile",
    "label",
    "convert",
    "search",
    "branch",
    "nars",
    "derive",
    "train",
    "eval",
    "export",
    "predict",
    "report",
    "validate",
    "check",
    "doctor",
]
PROFILE_COMMANDS = ["profile verify", "profile bundle", "profile import", "profile estimate"]


@pytest.mark.parametrize("command", [*COMMANDS, *PROFILE_COMMANDS])
def test_help_loads_no_heavy_package(command: str) -> None:
    code = (
        "import sys; from fbnetv5.cli import app; from typer.testing import CliRunner; "
        f"result = CliRunner().invoke(app, {[*command.split(), '--help']}); "
        "assert result.exit_code == 0, result.output; "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_module_imports_without_tensorrt_and_pycuda() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in FORBIDDEN
        for path in (ROOT / package).rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    ]
    code = (
        "import sys, importlib; sys.modules.update({'tensorrt': None, 'tensorrt_rtx': None, 'pycuda': None}); "
        f"[importlib.import_module(name) for name in {names}]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
