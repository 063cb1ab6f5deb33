"""README and docs: command lines parse, make targets and linked files exist, and no placeholder is left."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from fbnetv5.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line.strip().partition("#")[0].strip()
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.match(r"^ {4}(fbnetv5|torchrun .*fbnetv5|accelerate launch .*fbnetv5) [a-z]", line)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_parses(command: str) -> None:
    arguments = shlex.split(command)
    arguments = arguments[arguments.index("fbnetv5") + 1 :]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    subcommand = group.commands[arguments.pop(0)]
    while isinstance(subcommand, typer.core.TyperGroup) and arguments[0] in subcommand.commands:
        subcommand = subcommand.commands[arguments.pop(0)]
    subcommand.make_context(subcommand.name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_placeholder(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^[A-Z]+(?:_[A-Z]+)+$", prose, flags=re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^# \S+\.py$", "", text, flags=re.MULTILINE)  # a file that an example makes
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for script in re.findall(r"(?<![\w/])(?:benchmarks|tools|fbnetv5|latency|export|docs)/[\w/]+\.(?:py|md)", text):
        assert (ROOT / script).exists(), script
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^ {4}make (\w+)", text, flags=re.MULTILINE)) <= targets
