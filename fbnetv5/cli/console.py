"""What all commands share of the terminal: results on stdout, progress and remarks on stderr, interruptions."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from export.errors import UserError

console = Console(stderr=True)
UNEXPECTED = 70
"""Exit code of an error that is ours, as sysexits.h has it; 1 says that a check failed."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


def is_first_process() -> bool:
    """Whether to speak: launchers of several processes number them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    console.print(Text(line), soft_wrap=True)


class OutputClosedError(Exception):
    """Whoever reads stdout has closed it, as ``fbnetv5 doctor | head -1`` does."""


@contextmanager
def safe_streams() -> Iterator[None]:
    """Let no stream end the work: closed ones lead nowhere, and one without our characters gets escapes.

    Raises:
        SystemExit: stdout was closed by its reader; 141, as shells call the end by a broken pipe.
    """
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stdout = sys.stdout
    try:
        try:
            yield
        finally:
            if sys.stdout is not stdout:  # typer replaces it when a pipe breaks under its help
                raise OutputClosedError
            stdout.flush()
    except (OutputClosedError, BrokenPipeError):
        # The interpreter flushes stdout once more at its end; let it do so into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout, in ASCII where stdout is not UTF-8."""
    utf_8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _write(json.dumps(document, indent=2, ensure_ascii=not utf_8, allow_nan=False) + "\n")


def print_line(text: str) -> None:
    """One line of a result, unwrapped, on stdout."""
    _write(text + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A result as a table on stdout; the columns after the first are right-aligned where they hold numbers."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and rows[0][number][:1].isdigit()
        table.add_column(Text(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=max(120, Console().width)).print(table)
    _write(text.getvalue())


def progress_bar() -> Progress:
    """A progress bar on stderr, with time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not is_first_process(),
    )


def outermost(report: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Reports the first stage that is told of and none of its parts."""
    first: str | None = None

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal first
        first = first or stage
        if stage == first:
            report(stage, done, total)

    return tell


def stage_lines(bar: Progress) -> Callable[[str, int, int], None]:
    """Shows each stage of a work on a line of its own: (stage, done, total)."""
    lines: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in lines:
            lines[stage] = bar.add_task(stage, total=total, note="")
            if not console.is_terminal:
                say(f"{stage}: {total}")
        bar.update(lines[stage], completed=done)

    return report


@contextmanager
def interruptible(way_on: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise UserError(f"interrupted; what was done is kept, {way_on}") from None


def refuse_others(context: typer.Context) -> None:
    """Refuse flags beside ``--resume``: all that they could say is in the folder."""
    others = []
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in ("resume", "json"):
            others.append(f"--{name.replace('_', '-')}")
    if others:
        raise UserError(f"--resume goes on with what its folder says; leave out {', '.join(others)}")
