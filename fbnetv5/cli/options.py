"""Options and arguments that several commands have, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from export.errors import UnavailableError, UserError
from fbnetv5.cli.console import is_first_process, say

if TYPE_CHECKING:
    from fbnetv5.spaces.space import Space
    from latency.backend import Backend

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Data = Annotated[Path | None, typer.Option(help="Folder of your images; without it the demo scenes.")]
Tasks = Annotated[str | None, typer.Option(help="Comma-separated tasks.", show_default="cls,det,seg")]
Variant = Annotated[str, typer.Option(help="FBNetV3 letter of stage 0: a, c or f.")]
Stages = Annotated[int, typer.Option(help="Stages after stage 0.")]
Blocks = Annotated[int, typer.Option("--blocks-per-path", help="Blocks on each path in each of those stages.")]
Strict = Annotated[bool, typer.Option("--strict", help="Only later stages' blocks may be skipped.")]
Luts = Annotated[Path, typer.Option(help="Folder of latency tables.")]
Runs = Annotated[Path, typer.Option(help="Folder of runs.")]


def make_space(variant: str, stages: int, blocks_per_path: int, strict: bool) -> "Space":
    from fbnetv5.spaces.four_path import FourPathSpace

    return FourPathSpace(variant=cast("Any", variant), stages=stages, blocks_per_path=blocks_per_path, strict=strict)


def say_layout(data: Path | None) -> None:
    """Say as what a folder of images is read."""
    if data is None or not is_first_process():
        return
    from fbnetv5.data.layouts import layout_of

    say(f"{data}: read as {layout_of(data).name}")


def architecture_file(task: str | None, arch: Path | None) -> Path:
    if arch is not None:
        return arch
    if task is None:
        raise UserError("name a network: --task det for runs/latest/det.json, or --arch FILE")
    return Path("runs/latest") / f"{task}.json"


def task_names(tasks: str | None) -> tuple[str, ...]:
    """The tasks of a comma-separated list, which must exist, or those that commands work on without one."""
    from fbnetv5.tasks import check_names, default_tasks

    if tasks is None:
        return default_tasks()
    names = tuple(name.strip() for name in tasks.split(","))
    if len(set(names)) != len(names) or not all(names):
        raise UserError(f"--tasks {tasks!r} is not a list of different tasks, such as {','.join(default_tasks())}")
    check_names(names)
    return names


def resolve_device(device: str, *, precision: str = "fp32", threads: int = 1) -> "Backend":
    """Open the backend of a device; for a device that is not here the error names the two other ways."""
    from latency.devices import resolve

    try:
        return resolve(device, precision=precision, threads=threads)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}. Two other ways: fbnetv5 profile bundle FOLDER --device {device} writes a bundle to measure on "
            f"the device; fbnetv5 profile estimate --device {device} computes a rough table from its data sheet"
        ) from None
