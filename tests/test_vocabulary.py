"""Names, prose and help use the standard terms of docs/glossary.md, and none of the words that these terms replaced."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import typer.main
from typer.core import TyperGroup
from typer.testing import CliRunner

from fbnetv5.cli import app

ROOT = Path(__file__).parent.parent
FOLDERS = ("export", "latency", "fbnetv5", "benchmarks", "docs")
PAGES = ("README.md", "CONTRIBUTING.md")
REPLACED = {
    "rung": "precision stage",
    "rungs": "precision stages",
    "ladder": "precision pipeline",
    "climb": "convert and verify",
    "climbs": "convert and verify",
    "blame": "find the faulty block",
    "culprit": "faulty block",
    "held against": "compared with",
    "hold against": "compare with",
    "holds against": "compares with",
    "proven": "verified",
    "complaint": "failure reason",
    "complaints": "failure reasons",
    "answers": "outputs",
    "deliverable": "export model",
    "audit": "precision check",
    "audited": "checked",
    "audits": "precision checks",
    "flavour": "TensorRT variant",
    "flavours": "TensorRT variants",
    "written_whole": "atomic_write",
    "yardstick": "reference workload",
    "visit": "repetition",
    "visits": "repetitions",
    "rounds": "repetitions",
    "anchors": "re-measured references",
    "isolated_ms": "standalone_ms",
    "alone_ms": "standalone_ms",
    "foreign": "other machine",
    "processor": "CPU",
    "processors": "CPUs",
    "verdict": "summary",
    "verdicts": "summaries",
    "tilt": "logit bias",
    "tilted": "with a logit bias",
    "mean_of_known": "nanmean",
    "crew": "distributed state",
    "same_again": "relaunch command",
    "dearest": "max cost",
    "cheapest": "min cost",
    "NotHere": "UnavailableError",
    "CheckFailed": "VerificationError",
    "slot": "variable, or node",
    "slots": "variables, or nodes",
    "picture": "image",
    "pictures": "images",
}
"""Each replaced word with the term that replaced it."""
REPLACED_PREFIXES = {"LEAST": "MIN", "MOST": "MAX"}
"""First parts of constants."""
REPLACED_NAMES = {
    "one": "the noun of its content",
    "found": "the noun of its content",
    "told": "the noun of its content",
    "known": "the noun of its content",
    "given": "the noun of its content",
    "isolated": "standalone",
    "moved": "ema_update",
    "spread": "evenly_spaced",
    "Parts": "Splits",
    "unfinished": "journal",
}
"""Each replaced name of a variable, parameter, field, function or class with the name that replaced it."""
ALLOWED = {
    ("*", "slots=True"): "a parameter of dataclasses",
    ("*.py", "platform.processor()"): "a function of the standard library",
    ("latency/upgrade.py", "yardstick"): "a field of tables of earlier schemas",
    ("latency/upgrade.py", "processor"): "a field of tables of earlier schemas",
    ("fbnetv5/data/nyud.py", '"picture"'): "a class of NYUD-v2",
    ("export/manifest.py", '"rung"'): "a field of manifests of earlier schemas",
    ("export/manifest.py", '"rungs"'): "a field of manifests of earlier schemas",
    ("export/manifest.py", '"answers"'): "a field of manifests of earlier schemas",
    ("export/manifest.py", '"audited"'): "a field of manifests of earlier schemas",
    ("fbnetv5/runs/config.py", '"pictures"'): "a field of run configurations of schema 1",
    ("docs/timm.md", "anchor"): "anchor boxes of detectors",
    ("benchmarks/ladder.py", "docs/ladder.json"): "a command with the names of its files",
    ("docs/results.md", "docs/ladder.json"): "a command with the names of its files",
}
"""(files, part of a line) -> why that line may contain a replaced word."""
TERMS = {word.lower(): term for word, term in REPLACED.items()}
PATTERN = re.compile(rf"(?<![a-z])({'|'.join(sorted(REPLACED, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
PREFIX = re.compile(rf"\b_?({'|'.join(REPLACED_PREFIXES)})_[A-Z]")


def sources() -> list[Path]:
    """The files with the project's names and prose."""
    files = [path for folder in FOLDERS for suffix in ("py", "md") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    return sorted([*files, *(ROOT / page for page in PAGES)])


def is_allowed(where: str, line: str) -> bool:
    return any(fnmatch(where, files) and part in line for files, part in ALLOWED)


def hits_in(where: str, text: str) -> Iterator[str]:
    """FILE:LINE and the replaced word, of every replaced word of a text."""
    for number, line in enumerate(text.splitlines(), 1):
        if is_allowed(where, line):
            continue
        for match in PATTERN.finditer(line):
            yield f"{where}:{number}: {match[1]} -> {TERMS[match[1].lower()]}"
        for match in PREFIX.finditer(line):
            yield f"{where}:{number}: {match[1]}_ -> {REPLACED_PREFIXES[match[1]]}_"


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module binds to a value, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def test_names_and_prose_have_no_replaced_word() -> None:
    hits = [hit for path in sources() for hit in hits_in(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))]
    assert not hits, "\n" + "\n".join(hits)


def test_variables_are_named_by_nouns() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {name} -> {REPLACED_NAMES[name]}"
        for path in sources()
        if path.suffix == ".py"
        for name, line in names_in(ast.parse(path.read_text(encoding="utf-8")))
        if name in REPLACED_NAMES
    ]
    assert not hits, "\n" + "\n".join(hits)


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The arguments of every command and sub-command."""
    for name, command in group.commands.items():
        yield *path, name
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))


def test_help_has_no_replaced_word() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    hits: list[str] = []
    for command in [(), *commands(group)]:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        hits += hits_in(f"fbnetv5 {' '.join(command)} --help", result.output)
    assert not hits, "\n" + "\n".join(hits)


def test_the_glossary_is_alphabetical_and_defines_each_term_once() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    terms = [line.split("|")[1].strip().lower() for line in lines if line.startswith("| ")][1:]
    assert terms == sorted(set(terms))


def test_every_page_links_to_the_glossary() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/glossary.md" in readme
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "glossary.md" or "glossary.md" in page.read_text(encoding="utf-8"), page
