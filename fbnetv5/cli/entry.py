"""The entry point of the command line: all commands, in the order of ``fbnetv5 --help``, and the handling of errors.

A command is one file of this folder, or a folder with one file per sub-command. The file has the options, the call of
the module that does the work, and the functions that print the result. Heavy packages load when a command runs.
"""

import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from export.errors import UserError
from export.signals import interrupt_on_signals
from fbnetv5.cli.branch import branch
from fbnetv5.cli.check import check
from fbnetv5.cli.console import UNEXPECTED_ERROR, OutputClosedError, print_status, safe_streams
from fbnetv5.cli.convert import convert
from fbnetv5.cli.derive import derive
from fbnetv5.cli.doctor import doctor
from fbnetv5.cli.eval import evaluate
from fbnetv5.cli.export import export
from fbnetv5.cli.huge_pages import restart_in_huge_pages
from fbnetv5.cli.label import label
from fbnetv5.cli.nars import nars
from fbnetv5.cli.predict import predict
from fbnetv5.cli.profile import profile
from fbnetv5.cli.report import report
from fbnetv5.cli.search import search
from fbnetv5.cli.show import show
from fbnetv5.cli.space import space
from fbnetv5.cli.train import train
from fbnetv5.cli.validate import validate
from fbnetv5.data.opened import opened_once

_SMALLER = "Use a smaller batch or smaller images"
_ENDS_FOR_MEMORY = ("Killed", "Bus error", "exited unexpectedly")
"""How processes end for lack of memory, or of shared memory, as torch says it; the signals of crashes are bugs."""


class OrderedGroup(TyperGroup):
    """A group that lists commands in the order of ``COMMANDS``; typer would list command groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an interrupt is one line, where typer would end with an exit code of its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise UserError("interrupted") from None


app = typer.Typer(
    cls=OrderedGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Neural architecture search for several vision tasks: one search finds a network per task, within a budget of "
    "multiply-adds or of milliseconds measured on your device.",
    epilog="Typical order: label, profile, search, train, eval, export, predict, validate. Exit codes: 0 success, 1 a "
    "check failed, 2 wrong input or interrupted, 3 device or runtime not available, 70 error of fbnetv5.",
)
COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "show": show,
    "space": space,
    "profile": profile,
    "label": label,
    "convert": convert,
    "search": search,
    "branch": branch,
    "nars": nars,
    "derive": derive,
    "train": train,
    "eval": evaluate,
    "export": export,
    "predict": predict,
    "report": report,
    "validate": validate,
    "check": check,
    "doctor": doctor,
}
for name, command in COMMANDS.items():
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def main() -> None:
    """Run the command line. Errors that the user can fix print one line; others a traceback, with exit code 70."""
    restart_in_huge_pages()
    interrupt_on_signals()
    with safe_streams(), opened_once():
        _run_app()


def _run_app() -> None:
    """Run the command; print its error and exit with the error's exit code."""
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", UserError.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", UserError.exit_code)
    except OutputClosedError:
        raise
    except Exception as error:  # noqa: BLE001 - any other error is a bug of this program
        if shortage := _shortage(error):
            _fail(shortage, UserError.exit_code)
        traceback.print_exc()
        _fail(
            f"this is a bug of fbnetv5 ({type(error).__name__}: {error}). Report it with the lines above, the command, "
            "and the output of fbnetv5 doctor",
            UNEXPECTED_ERROR,
        )


def _shortage(error: Exception) -> str | None:
    """The line for an error of a machine with too little memory or too few GPUs, as torch reports it; else None."""
    reason = str(error).partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch may not be imported
        return f"the GPU has too little memory: {reason} {_SMALLER}, or stop what else uses the GPU"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in reason:
        return f"this machine has too little memory: {reason or 'no more can be allocated'}. {_SMALLER}"
    if reason.startswith("DataLoader worker") and any(end in reason for end in _ENDS_FOR_MEMORY):
        return (
            f"a process that reads images was ended from outside, mostly for lack of memory: {reason}. Lower "
            "num_workers or prefetch, or give the container more shared memory (docker run --ipc host)"
        )
    if "Duplicate GPU detected" in str(error):  # by NCCL
        return "two processes have one GPU: start one process per GPU (torchrun --nproc_per_node)"
    return None


def _fail(message: str, exit_code: int) -> None:
    print_status(f"error: {message}", style="red")
    raise SystemExit(exit_code)
