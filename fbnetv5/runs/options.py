"""The options that several commands and functions of ``fbnetv5.api`` have in common, turned into objects."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.errors import UnavailableError, UserError
from export.files import AnyPath
from export.progress import Log
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.fit import default_fit, parse_fit
from fbnetv5.data.resolution import parse_resolution
from fbnetv5.runs.folder import BRANCHED, LATEST, missing_network
from fbnetv5.tasks import needed_targets
from latency.backend import Backend
from latency.backends import open_backend
from latency.devices import gpu
from latency.runtimes.onnxruntime import CPU
from latency.table import measured_tables, table_path

Amount = str | float
"""A budget as users write it: text with its unit, such as "400M" or "8ms", or a number of multiply-adds or ms."""
CostBudgets = Mapping[str, Amount] | Mapping[Path, Amount]
"""Budgets by cost file, such as {"energy.json": 5.0}."""
CostFamilies = Mapping[str, Amount | Sequence[Amount]] | Mapping[Path, Amount | Sequence[Amount]]
"""The same, each with one budget or one per member of a family."""
Size = str | int | Sequence[int]
"""An image size as users write it: 224, "224", "320x640" or (320, 640), height first."""
Fields = AnyPath | Mapping[str, Any]
"""Further fields of a configuration: a JSON or YAML file, or a mapping of the same fields."""


def path_of(path: AnyPath | None) -> Path | None:
    """The path of an option that may be left out."""
    return None if path is None else Path(path)


def fields_of(config: Fields | None) -> Path | Mapping[str, Any] | None:
    """The further fields of a configuration, or the path of their file."""
    return config if config is None or isinstance(config, Mapping) else Path(config)


def search_images(
    data: Path | None, size: Size | None, fit: str | None, *, tasks: Sequence[str], budgets: Iterable[Budget], log: Log
) -> DataConfig:
    """The images of a search; logs how those of a folder are fitted.

    Args:
        data: the folder; None for the demo scenes.
        size: of the images; None for the largest resolution of the budgets, or the usual size of the demo scenes.
        fit: its name; None for ``default_fit``.
        tasks: names of the tasks.
        budgets: of the search.
        log: called with the line.

    Raises:
        UserError: the size or the fit is wrong, or the folder's path is not UTF-8.
    """
    images = DataConfig.of(data)
    if size is not None:
        images = images.changed(size=parse_resolution(size))
    elif data is not None:
        images = images.changed(size=max((budget.resolution for budget in budgets), key=math.prod))
    usual_fit = default_fit(needed_targets(tasks), is_folder=data is not None)
    images = images.changed(fit=usual_fit if fit is None else parse_fit(fit))
    describe_fit(images, log)
    return images


def describe_fit(images: DataConfig, log: Log) -> None:
    """Log how the images of a folder become the input of the network; demo scenes have its size."""
    if images.folder is not None:
        height, width = images.size
        verb = {"stretch": "stretched", "letterbox": "letterboxed"}[images.fit]
        log(f"{images.folder}: images are {verb} to {height}x{width} (--fit, --size)")


def architecture_file(task: str | None, architecture: AnyPath | None) -> Path:
    """The architecture file of a network that is named by its file or by its task.

    Raises:
        UserError: neither is named, or ``runs/latest`` has no network of the task.
    """
    if architecture is not None:
        return Path(architecture)
    if task is None:
        raise UserError("name a network: --task det for runs/latest/det.json, or --arch FILE")
    latest = Path("runs/latest")
    branched = latest / f"{BRANCHED}.json"
    file = branched if branched.exists() else latest / f"{task}.json"
    if latest.exists() and not file.exists():
        raise missing_network(latest, task)
    return file


def run_folder(runs: AnyPath, name: str | None) -> Path:
    """The folder of a new run; its name is the date and time by default.

    Raises:
        UserError: the name is a path or reserved.
    """
    if name is None:
        return Path(runs) / time.strftime("%Y%m%d-%H%M%S")
    if name != Path(name).name or "\\" in name or name in ("", "..", "latest"):
        raise UserError(
            f"--name {name!r} is not the name of a folder in --runs; it must have no slashes, and not be 'latest'"
        )
    return Path(runs) / name


def open_device(device: str, *, runtime: str | None = None, precision: str = "fp32", threads: int = 1) -> Backend:
    """Open the backend of a device; without a runtime, of the usual one.

    Raises:
        UnavailableError: the device is not on this machine; the message names the two other ways to get a table.
    """
    try:
        return open_backend(device, runtime=runtime, precision=precision, threads=threads)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}. Other ways: --runtime torch or onnxruntime measures a GPU of this machine without TensorRT; "
            f"fbnetv5 profile bundle FOLDER --device {device} writes a bundle to measure on the device; "
            f"fbnetv5 profile estimate --device {device} computes a rough table from its data sheet"
        ) from None


def without_link(run: AnyPath) -> Path:
    """The path of a run folder without the link ``latest``, which may point to a newer run before a command ends."""
    path = Path(run)
    for link in (path, *path.parents):
        if link.name == LATEST and link.is_symlink():
            return link.parent / link.readlink() / path.relative_to(link)
    return path


def find_table(
    device: str | None, table: AnyPath | None, luts: Path, log: Log, profile_options: str = ""
) -> Path | None:
    """The latency table file that the options name by file or by device; None if they name none.

    Args:
        device: of the table.
        table: the file.
        luts: folder of latency tables.
        log: called with the name of the table, if it is not the usual one of the device.
        profile_options: of the command that makes a missing table, as text.

    Raises:
        UserError: the device has no table, or several; or both options are given.
        UnavailableError: the device has no table, and is not on this machine.
    """
    if table is not None and device is not None:
        raise UserError(f"--table {table} is used instead of the table of --device {device}: leave out one of them")
    if device is None:
        return path_of(table)
    if device != CPU:
        gpu(device)
    path = table_path(luts, device)
    if path.exists():
        return path
    measured = measured_tables(luts, device)
    if len(measured) == 1:
        log(f"latency table: {measured[0]}")
        return measured[0]
    if measured:
        names = ", ".join(map(str, measured))
        raise UserError(
            f"{luts} has several latency tables of {device}: {names}; choose one with --table instead of --device"
        )
    open_device(device).close()
    raise UserError(
        f"there is no latency table {path}; make it with: fbnetv5 profile --device {device}{profile_options}"
    )
