"""Options and arguments that several commands share, and functions that turn them into objects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from export.errors import UnavailableError, UserError
from fbnetv5.cli.console import is_first_process, print_status

if TYPE_CHECKING:
    from fbnetv5.spaces.space import Space
    from latency.backend import Backend

SIZE = "HEIGHTxWIDTH"
"""Placeholder of an image size in help texts."""

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on stdout; messages go to stderr.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images and labels, in one of the layouts of docs/data.md.", show_default="built-in demo scenes"
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(help="Comma-separated tasks; docs/data.md describes all tasks.", show_default="cls,det,seg"),
]
Variant = Annotated[str, typer.Option(help="FBNetV3 network that stage 0 of the search space is made of: a, c or f.")]
Stages = Annotated[int, typer.Option(help="Number of stages after stage 0.")]
Blocks = Annotated[int, typer.Option("--blocks-per-path", help="Number of blocks per path in each later stage.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Let the search skip only blocks of later stages, and not repeated blocks of stage 0 or fusion edges.",
    ),
]
Resolution = Annotated[
    str, typer.Option("--resolution", metavar=SIZE, help="Image size of the deployed network, in pixels.")
]
Luts = Annotated[Path, typer.Option(help="Folder of latency tables.")]
Runs = Annotated[Path, typer.Option(help="Folder in which the run folder is created.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
ArchitectureFile = Annotated[
    Path | None,
    typer.Option("--arch", help="Architecture file of the network.", show_default="runs/latest/TASK.json"),
]


def make_space(variant: str, stages: int, blocks_per_path: int, strict: bool) -> "Space":
    """Make the search space from the options of a command.

    Raises:
        UserError: one of the options is wrong.
    """
    from fbnetv5.spaces.four_path import FourPathSpace

    return FourPathSpace(variant=cast("Any", variant), stages=stages, blocks_per_path=blocks_per_path, strict=strict)


def print_layout(data: Path | None) -> None:
    """Print the layout in which a folder of images is read, if a folder is named."""
    if data is None or not is_first_process():
        return
    from fbnetv5.data.layouts import layout_of

    print_status(f"{data}: read as {layout_of(data).name}")


def architecture_file(task: str | None, architecture: Path | None) -> Path:
    """The architecture file of a network that is named by its file or by its task.

    Raises:
        UserError: neither is named.
    """
    if architecture is not None:
        return architecture
    if task is None:
        raise UserError("name a network: --task det for runs/latest/det.json, or --arch FILE")
    return Path("runs/latest") / f"{task}.json"


def task_names(tasks: str | None) -> tuple[str, ...]:
    """Split a comma-separated list of tasks; None is the list of default tasks.

    Raises:
        UserError: a task is unknown, or named twice.
    """
    from fbnetv5.tasks import check_names, default_tasks

    if tasks is None:
        return default_tasks()
    names = tuple(name.strip() for name in tasks.split(","))
    if len(set(names)) != len(names) or not all(names):
        raise UserError(f"{tasks!r} is not a comma-separated list of different tasks, such as cls,det,seg")
    check_names(names)
    return names


def resolve_device(device: str, *, runtime: str | None = None, precision: str = "fp32", threads: int = 1) -> "Backend":
    """Open the backend of a device; without a runtime, of the usual one.

    Raises:
        UnavailableError: the device is not on this machine; the message names the two other ways to get a table.
    """
    from latency.backends import open_backend

    try:
        return open_backend(device, runtime=runtime, precision=precision, threads=threads)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}. Two other ways: fbnetv5 profile bundle FOLDER --device {device} writes a bundle to measure on "
            f"the device; fbnetv5 profile estimate --device {device} computes a rough table from its data sheet"
        ) from None
