"""Options and arguments that several commands share, and functions that turn them into objects."""

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from export.errors import UnavailableError, UserError
from fbnetv5.cli.console import is_first_process, print_status

if TYPE_CHECKING:
    from fbnetv5.costs.budgets import Budget
    from fbnetv5.data.config import DataConfig
    from fbnetv5.spaces.space import Space
    from latency.backend import Backend

SIZE = "HEIGHTxWIDTH"
"""Placeholder of an image size in help texts."""
FIT = "stretch|letterbox"
"""Placeholder of a fit in help texts."""

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on stdout; messages go to stderr.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images and labels, in one of the layouts of docs/data.md.", show_default="built-in demo scenes"
    ),
]
StrictData = Annotated[
    bool,
    typer.Option(
        "--strict-data", help="Refuse a data set of which something was repaired, left out or not used on opening."
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
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Trained network to imitate: an architecture file with weights beside it or, for classification, an "
        "exported folder, an ONNX file with its description, timm:NAME, or soft-labels for the probabilities that "
        "fbnetv5 label --soft-labels stored with the images."
    ),
]
TableDevice = Annotated[
    str | None,
    typer.Option(help="Device whose latency table in --luts predicts latency: cpu, or an NVIDIA GPU such as a100."),
]
TableFile = Annotated[
    Path | None, typer.Option(help="Latency table file to use, also of another machine, instead of --device.")
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar=SIZE,
        help="Size that images of the search are fitted to.",
        show_default="the budget's resolution; 64x64 for the demo scenes",
    ),
]
FIT_HELP = "How images are fitted to the size: stretch, or letterbox, which keeps their aspect and pads them with grey."
Fit = Annotated[
    str | None,
    typer.Option(
        metavar=FIT, help=FIT_HELP, show_default="letterbox if det learns from a folder of --data, else stretch"
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the run folder.", show_default="date and time")]
Resume = Annotated[
    Path | None,
    typer.Option(help="Run folder of an interrupted search to continue; settings are read from the folder."),
]


def make_space(variant: str, stages: int, blocks_per_path: int, strict: bool) -> "Space":
    """Make the search space from the options of a command.

    Raises:
        UserError: one of the options is wrong.
    """
    from fbnetv5.spaces.four_path import FourPathSpace

    return FourPathSpace(variant=cast("Any", variant), stages=stages, blocks_per_path=blocks_per_path, strict=strict)


def print_layout(data: Path | None, *, strict: bool = False) -> None:
    """Print the layout in which a folder of images is read, and what was repaired or left out, if a folder is named.

    The folder is opened for that, and its header index is stored: opening it again is quick, except for tar files.

    Args:
        data: the folder.
        strict: refuse the folder if anything was repaired or left out.

    Raises:
        UserError: the folder is unfit.
    """
    if data is None or not is_first_process():
        return
    from fbnetv5.data.layouts import layout_of, open_folder

    line = "; ".join([f"{data}: read as {layout_of(data).name}", *(notes := open_folder(data).notes)])
    if strict and notes:
        raise UserError(f"{line}. Correct the data set, or leave out --strict-data")
    print_status(line)


def search_images(
    data: Path | None, size: str | None, fit: str | None, *, tasks: Sequence[str], budgets: Iterable["Budget"]
) -> "DataConfig":
    """The images of a search from the options of a command; prints how those of a folder are read.

    Args:
        data: the folder; None for the demo scenes.
        size: as text; None for the largest resolution of the budgets, or the usual size of the demo scenes.
        fit: its name; None for ``default_fit``.
        tasks: names of the tasks.
        budgets: of the search.

    Raises:
        UserError: the size or the fit is wrong, or the folder's path is not UTF-8.
    """
    from fbnetv5.data.config import DataConfig
    from fbnetv5.data.fit import default_fit, parse_fit
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.tasks import needed_targets

    images = DataConfig.of(data)
    if size is not None:
        images = images.changed(size=parse_resolution(size))
    elif data is not None:
        images = images.changed(size=max((budget.resolution for budget in budgets), key=math.prod))
    usual_fit = default_fit(needed_targets(tasks), is_folder=data is not None)
    images = images.changed(fit=usual_fit if fit is None else parse_fit(fit))
    print_fit(images)
    return images


def print_fit(images: "DataConfig") -> None:
    """Print how the images of a folder become the input of the network; demo scenes have its size."""
    if images.folder is not None and is_first_process():
        height, width = images.size
        verb = {"stretch": "stretched", "letterbox": "letterboxed"}[images.fit]
        print_status(f"{images.folder}: images are {verb} to {height}x{width} (--fit, --size)")


def print_soft_labels(data: Path | None, tasks: Sequence[str]) -> None:
    """Say so if a training without a teacher leaves the soft labels of a folder unused."""
    if data is None or not is_first_process():
        return
    from fbnetv5.data.layouts import open_folder
    from fbnetv5.tasks import needed_targets

    soft = set(needed_targets(tasks, soft=True)) - set(needed_targets(tasks))
    if soft & open_folder(data).targets.keys():
        print_status(f"{data} has soft labels, which are not used; --teacher soft-labels learns from them")


def print_teacher_fit(teacher: str | None, images: "DataConfig") -> None:
    """Say so if the images of a folder reach the teacher with another fit than it was trained with."""
    if teacher is None or images.folder is None or not is_first_process():
        return
    from fbnetv5.training.distillation import fit_of_teacher

    fit = fit_of_teacher(teacher)
    if fit not in (None, images.fit):
        print_status(
            f"teacher {teacher} was trained with --fit {fit}, and sees images with --fit {images.fit} here: it teaches "
            f"best with --fit {fit}"
        )


def architecture_file(task: str | None, architecture: Path | None) -> Path:
    """The architecture file of a network that is named by its file or by its task.

    Raises:
        UserError: neither is named.
    """
    if architecture is not None:
        return architecture
    from fbnetv5.runs.folder import BRANCHED

    if task is None:
        raise UserError("name a network: --task det for runs/latest/det.json, or --arch FILE")
    latest = Path("runs/latest")
    branched = latest / f"{BRANCHED}.json"
    return branched if branched.exists() else latest / f"{task}.json"


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
            f"{error}. Other ways: --runtime torch or onnxruntime measures a GPU of this machine without TensorRT; "
            f"fbnetv5 profile bundle FOLDER --device {device} writes a bundle to measure on the device; "
            f"fbnetv5 profile estimate --device {device} computes a rough table from its data sheet"
        ) from None


def run_name(name: str | None) -> str:
    """The name of the run folder; by default, the date and time.

    Raises:
        UserError: the name is a path or reserved.
    """
    if name is None:
        return time.strftime("%Y%m%d-%H%M%S")
    if name != Path(name).name or "\\" in name or name in ("", "..", "latest"):
        raise UserError(
            f"--name {name!r} is not the name of a folder in --runs; it must have no slashes, and not be 'latest'"
        )
    return name


def find_table(device: str | None, table: Path | None, luts: Path, profile_options: str = "") -> Path | None:
    """The latency table file that the options name by file or by device; None if they name none.

    Args:
        device: of the table.
        table: the file.
        luts: folder of latency tables.
        profile_options: of the command that makes a missing table, as text.

    Raises:
        UserError: the device has no table, or several.
    """
    if table is not None or device is None:
        return table
    from latency.table import measured_tables, table_path

    path = table_path(luts, device)
    if path.exists():
        return path
    measured = measured_tables(luts, device)
    if len(measured) == 1:
        print_status(f"latency table: {measured[0]}")
        return measured[0]
    if measured:
        names = ", ".join(map(str, measured))
        raise UserError(f"{luts} has several latency tables of {device}: {names}; choose one with --table")
    resolve_device(device)
    raise UserError(
        f"there is no latency table {path}; make it with: fbnetv5 profile --device {device}{profile_options}"
    )


def one_budget(flops: str | None, latency: str | None) -> tuple[str, str]:
    """The text and the unit, "macs" or "ms", of the only budget.

    Raises:
        UserError: there is no budget, or two.
    """
    if flops is not None and latency is None:
        return flops, "macs"
    if latency is None or flops is not None:
        raise UserError("this needs exactly one budget: either --flops, such as 400M, or --latency, such as 8ms")
    return latency, "ms"


def only_budget(flops: str | None, latency: str | None, *, has_table: bool) -> tuple[str, str]:
    """The text and the unit, "macs" or "ms", of the only budget of a search with or without a latency table.

    Raises:
        UserError: there is no budget, or two, or a latency without a latency table.
    """
    amount, unit = one_budget(flops, latency)
    if unit == "ms" and not has_table:
        raise UserError("--latency needs a latency table: add --device cpu, or --table FILE")
    return amount, unit
