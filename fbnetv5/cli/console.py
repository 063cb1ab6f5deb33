"""Terminal output of all commands: results on stdout, progress and status lines on stderr; interruptions.

rich is loaded on use: ``--help`` prints without it, and its import would take longer than all of this package.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from export.errors import UserError
from export.files import finite
from export.progress import Progress as ReportProgress
from export.progress import silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

UNEXPECTED_ERROR = 70
"""Exit code of an error of this program: EX_SOFTWARE of sysexits.h. 1 means that a check failed."""
TABLE_WIDTH = 10_000
"""Maximum width of a printed table or line of progress, in characters: rich would shorten a wider one."""
BROKEN_PIPE = 141
"""Exit code of shells for a process ended by a broken pipe: 128 + SIGPIPE."""


def is_first_process() -> bool:
    """Whether this process prints: launchers of several processes number them in RANK, and only the first prints."""
    return os.environ.get("RANK", "0") == "0"


@cache
def console() -> "Console":
    """The console of stderr."""
    from rich.console import Console

    # Where stderr is a file, rich takes a width of 80 and would cut lines of progress.
    return Console(stderr=True, width=None if sys.stderr.isatty() else TABLE_WIDTH)


def print_status(line: str, *, style: str = "") -> None:
    """Print a status line, unwrapped, on stderr."""
    from rich.text import Text

    # Text, not markup: rich would read the "[rtx]" of a pip extra as a style tag and remove it.
    console().print(Text(line, style=style), soft_wrap=True)


def print_log(line: str) -> None:
    """Print a status line of work that may run in several processes, in the first of them."""
    if is_first_process():
        print_status(line)


class OutputClosedError(Exception):
    """The reader of stdout has closed it, as in ``fbnetv5 doctor | head -1``."""


@contextmanager
def safe_streams() -> Iterator[None]:
    """A context in which a closed stream discards its text, and characters that a stream cannot encode are escaped.

    Raises:
        SystemExit: the reader of stdout has closed it; the exit code is ``BROKEN_PIPE``.
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
            if sys.stdout is not stdout:  # typer replaces stdout when the pipe breaks while it prints a help text
                raise OutputClosedError
            stdout.flush()
    except (OutputClosedError, BrokenPipeError):
        # The interpreter flushes stdout again when it exits; this flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout, in ASCII where stdout is not UTF-8; figures that are not finite are null."""
    utf_8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _write(json.dumps(finite(document), indent=2, ensure_ascii=not utf_8) + "\n")


def print_line(text: str) -> None:
    """Print one line of a result, unwrapped, on stdout."""
    _write(text + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a result as a table on stdout, one line per row; columns of numbers are right-aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and rows[0][number][:1].isdigit()
        table.add_column(Text(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=TABLE_WIDTH).print(table)
    _write(text.getvalue())


@contextmanager
def progress_bar() -> "Iterator[Progress]":
    """A context with a progress bar on stderr, with the remaining time; nothing is printed for work without stages."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console(),
        disable=not is_first_process(),
    )
    bar.start()
    try:
        yield bar
    finally:
        if bar.tasks:
            bar.stop()
        else:
            bar.live.stop()  # Progress.stop prints an empty line where stderr is no terminal


def stage_lines(bar: "Progress") -> ReportProgress:
    """A callback (stage, done, total) that shows the progress of each stage on its own line.

    A stage that begins again, for the next network, gets a new line. Of several processes the first shows its own.
    """
    if not is_first_process():
        return silent
    lines: dict[str, TaskID] = {}
    ended: set[str] = set()

    def report(stage: str, done: int, total: int) -> None:
        if stage not in lines or (stage in ended and done < total):
            lines[stage] = bar.add_task(stage, total=total, note="")
            if not console().is_terminal:
                print_status(f"{stage}: {total} steps")
        bar.update(lines[stage], completed=done)
        (ended.add if done >= total else ended.discard)(stage)

    return report


@contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """A context in which Ctrl+C ends the command with one line; ``hint`` tells how to continue the work.

    Raises:
        UserError: the user interrupted the work.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise UserError(f"interrupted; finished work is kept. To continue: {hint}") from None


class RunReport:
    """The callbacks of a run that can be resumed: its line of progress is made when it starts."""

    def __init__(self, make_report: Callable[[Any], Callable[[Any], None]]) -> None:
        """Remember how the line is made.

        Args:
            make_report: opened configuration -> the callback that shows an entry of the history.
        """
        self._make_report = make_report
        self._report: Callable[[Any], None] | None = None
        self._skips = (0, 0)
        """Skipped steps and unreadable images as of the last entry."""
        self.folder: Path | None = None
        """The run folder; None before the run has started."""
        self.prepared: Any = None
        """The opened configuration; None before the run has started."""

    def started(self, folder: Path, prepared: Any) -> None:
        """Make the line of progress."""
        self.folder, self.prepared, self._report = folder, prepared, self._make_report(prepared)

    def report(self, entry: Any) -> None:
        """Show an entry of the run's history, and a line if steps were skipped or images replaced since the last."""
        assert self._report is not None
        self._report(entry)
        skips = (entry.skipped_steps, entry.unreadable_images)
        if skips != self._skips:
            steps, images = skips
            print_status(f"step {entry.step}: {steps} steps skipped, {images} unreadable images replaced so far")
        self._skips = skips


@contextmanager
def resumable(command: str, make_report: Callable[[Any], Callable[[Any], None]]) -> Iterator[RunReport]:
    """A context in which Ctrl+C ends a run with one line, which has the command that continues it.

    Args:
        command: of the run, such as "search".
        make_report: see ``RunReport``.

    Raises:
        UserError: the user interrupted the run.
    """
    run = RunReport(make_report)
    try:
        yield run
    except KeyboardInterrupt:
        if run.folder is None:
            raise
        from fbnetv5.runs.processes import relaunch_command

        hint = relaunch_command(f"{command} --resume {run.folder}")
        raise UserError(f"interrupted; finished work is kept. To continue: {hint}") from None


def check_resume_options(context: typer.Context, *, allowed: Sequence[str] = ()) -> None:
    """Raise UserError for options beside ``--resume`` but those allowed: the run folder contains all settings."""
    if options := options_beside(context, ("resume", "json", *allowed)):
        raise UserError(f"--resume uses the settings stored in the run folder; leave out {options}")


def options_beside(context: typer.Context, allowed: Sequence[str]) -> str:
    """The options on the command line that are not among the names of ``allowed``, such as "--seed, --config"."""
    options = []
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in allowed:
            options.append(f"--{name.replace('_', '-')}")
    return ", ".join(options)
