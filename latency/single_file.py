"""Joins modules of this project into one file that imports none of them, for devices without this project.

The source text is kept, comments too: only the imports between the joined modules are removed. So no two modules may
define the same name, and they must import each other's names without renaming them.
"""

import ast
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("export", "fbnetv5", "latency")


def join_modules(modules: Sequence[str]) -> str:
    """Concatenate the text of these modules; each may import the modules before it.

    Raises:
        ValueError: a module imports a module of the project that is not in the list, or cannot be joined.
    """
    owners: dict[str, str] = {}
    parts = []
    for module in modules:
        text = _source(module)
        tree = ast.parse(text)
        for name in _defined(tree):
            if name in owners:
                raise ValueError(f"{owners[name]} and {module} both define {name!r}")
            owners[name] = module
        parts.append(f"# {module.replace('.', '/')}.py\n\n{_without_imports(text, tree, module, modules)}")
    return "\n\n".join(parts)


def _source(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")


def _defined(tree: ast.Module) -> list[str]:
    """The names that a module defines at top level."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return names


def _without_imports(text: str, tree: ast.Module, module: str, modules: Sequence[str]) -> str:
    """The text without its imports of joined modules; ``pass`` replaces an import inside a block."""
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or not _is_project_import(node):
            continue
        if not isinstance(node, ast.ImportFrom) or node.module not in modules or any(n.asname for n in node.names):
            raise ValueError(f"{module} line {node.lineno} cannot be joined: {ast.unparse(node)}")
        assert node.end_lineno is not None
        removed: list[str | None] = [None] * (node.end_lineno - node.lineno + 1)
        if node.col_offset:
            removed[0] = " " * node.col_offset + "pass"
        lines[node.lineno - 1 : node.end_lineno] = removed  # type: ignore[assignment]
    return "\n".join(line for line in lines if line is not None).rstrip() + "\n"


def _is_project_import(node: ast.Import | ast.ImportFrom) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return any(name.split(".")[0] in PACKAGES for name in names)
