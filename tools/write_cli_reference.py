"""Writes docs/cli.md, the reference of all commands with their arguments and options, from the commands themselves.

python tools/write_cli_reference.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperArgument, TyperGroup

from export.files import atomic_write_text
from fbnetv5.cli import app

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
TITLE = """# Commands

All commands with their arguments and options, as `fbnetv5 COMMAND --help` prints them. Terms are defined in the
[glossary](glossary.md). `python tools/write_cli_reference.py` writes this page from the code.
"""


def reference() -> str:
    """The text of the page."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    commands = list(commands_of(root, "fbnetv5"))
    contents = [f"- [`{name}`](#{name.replace(' ', '-')}): {summary(command)}" for name, command in commands]
    parts = [TITLE, f"{root.help}\n", f"{root.epilog}\n", *contents, ""]
    return "\n".join([*parts, *(section(name, command) for name, command in commands)])


def commands_of(group: TyperGroup, prefix: str) -> Iterator[tuple[str, Any]]:
    """The full name and the object of each command; the sub-commands of a command follow it."""
    context = group.make_context(prefix, [], resilient_parsing=True)
    for name in group.list_commands(context):
        command = group.commands[name]
        yield f"{prefix} {name}", command
        if isinstance(command, TyperGroup):
            yield from commands_of(command, f"{prefix} {name}")


def summary(command: Any) -> str:
    """The first line of the help."""
    return str(command.help).partition("\n")[0]


def section(name: str, command: Any) -> str:
    """The section of one command: help, usage, and a table of arguments and options."""
    rows = [row(parameter) for parameter in command.params]
    table = ["| argument or option | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join([f"## {name}", "", command.help, "", "```text", usage(name, command), "```", "", *table])


def usage(name: str, command: Any) -> str:
    """The first line of the help text of a command."""
    arguments = [metavar(parameter) for parameter in command.params if isinstance(parameter, TyperArgument)]
    return " ".join([name, "[OPTIONS]", *arguments, *(["[COMMAND]"] if isinstance(command, TyperGroup) else [])])


def row(parameter: Any) -> str:
    """The row of one argument or option in the table."""
    return f"| {names(parameter)} | {default(parameter)} | {with_links(escape(parameter.help))} |"


def names(parameter: Any) -> str:
    """How an argument or option is written, with a placeholder for its value."""
    if isinstance(parameter, TyperArgument):
        return f"`{metavar(parameter)}`"
    value = "" if parameter.is_flag else f" {metavar(parameter)}"
    return escape(", ".join(f"`{option}{value}`" for option in (*parameter.opts, *parameter.secondary_opts)))


def metavar(parameter: Any) -> str:
    """The placeholder of a value: that of the code, N for a number, or the name in capitals."""
    if parameter.metavar:
        return str(parameter.metavar)
    return "N" if isinstance(parameter.default, int | float) else parameter.name.upper().replace("_", "-")


def default(parameter: Any) -> str:
    """The default value, or "required"; empty for flags and options without a default."""
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return escape(parameter.show_default)
    if isinstance(parameter.default, bool) or not isinstance(parameter.default, str | int | float | Path):
        return ""
    return f"`{parameter.default}`"


def escape(text: str) -> str:
    """The text for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def with_links(text: str) -> str:
    """The text with links to the pages and schemas that it names."""
    return re.sub(r"docs/([\w/]+\.(?:md|json))", r"[docs/\1](\1)", text)


if __name__ == "__main__":
    atomic_write_text(PAGE, reference())
