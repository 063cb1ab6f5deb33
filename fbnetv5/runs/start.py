"""What the processes of a run do together at its start: open the images once per machine, and check that they agree.

Processes on several machines need one run folder that all of them see, the same versions and the same images. Without
a check, a run whose machines differ would train on a mixture, or fail hours later when another machine has to resume.
"""

import pickle
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from export.errors import UserError
from export.files import atomic_write
from export.progress import Log
from fbnetv5 import __version__
from fbnetv5.data.config import DataConfig
from fbnetv5.data.describe import description
from fbnetv5.data.labelled_images import ImageView
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.splits import Splits
from fbnetv5.runs.processes import make_accelerator

T = TypeVar("T")

POLL_SECONDS = 0.1
TOKEN_SECONDS = 30.0
"""How long a process looks for the first one's file: network file systems show new files after up to some seconds."""


def describe_images(data: Path | None, log: Log, *, strict: bool = False) -> None:
    """Log the ``description`` of a folder of images in the first process, if a folder is named.

    As in ``once_per_machine`` the other processes do not wait for a message while the folder is indexed.

    Args:
        data: the folder.
        log: called with the line.
        strict: refuse the folder if anything was repaired or left out.

    Raises:
        UserError: the folder is unfit; raised in every process.
    """
    if data is None:
        return
    line = once_per_machine(lambda: description(data, strict=strict))
    if make_accelerator().is_main_process:
        log(line)


def open_images(data: DataConfig, targets: Collection[str]) -> Splits:
    """The splits of a configuration; of the processes on one machine only one reads the labels of a folder.

    Raises:
        UserError: the folder is unfit; raised in every process.
    """
    if data.folder is None:
        return data.open(targets)
    return once_per_machine(lambda: data.open(targets))


def once_per_machine(work: Callable[[], T]) -> T:
    """The value of ``work``, which runs in one process of each machine; the others read a copy from a temporary file.

    They look for the file instead of waiting for a message, for which communication has a time limit: listing a million
    files may take longer.

    Raises:
        UserError: ``work`` raised it in any process; raised in all of them. Any other error is raised in the process
            that ran ``work``, and ends the others of its machine by a UserError.
    """
    accelerator = make_accelerator()
    if accelerator.num_processes == 1:
        return work()
    own_rank = PartialState().local_process_index
    folder = tempfile.mkdtemp(prefix="fbnetv5-") if own_rank == 0 else ""
    folders: list[str] = gather_object([folder])
    file = Path(folders[accelerator.process_index - own_rank]) / "value"
    if own_rank == 0:
        _store(work, file)
    while not file.exists():
        time.sleep(POLL_SECONDS)
    outcome = pickle.loads(file.read_bytes())  # written by the process beside this one
    if isinstance(outcome, _Failure):
        raise UserError(f"the first process on {platform.node()} failed: {outcome.reason}")
    errors = gather_object([outcome if isinstance(outcome, UserError) else None])
    if own_rank == 0:
        shutil.rmtree(folder)
    for error in filter(None, errors):
        raise error
    value: T = outcome
    return value


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error of ``work`` that is no user's mistake."""

    reason: str


def _store(work: Callable[[], object], file: Path) -> None:
    """Write the value of ``work``, or its error, whole; raise the error if it is no user's mistake."""

    def write(outcome: object) -> None:
        with atomic_write(file) as temporary:
            temporary.write_bytes(pickle.dumps(outcome))

    try:
        write(work())
    except UserError as error:
        write(error)
    except BaseException as error:
        write(_Failure(f"{type(error).__name__}: {error}"))
        raise


def check_processes(folder: Path, images: ImageSet) -> None:
    """Check that all processes of a run see its folder, have the same versions, and opened the same images.

    Args:
        folder: of the run, which exists.
        images: one of the sets that this process has opened.

    Raises:
        UserError: the processes differ; raised in each of them.
    """
    accelerator = make_accelerator()
    if accelerator.num_processes == 1:
        return
    token = folder / ".processes"
    if accelerator.is_main_process:
        token.touch()
    accelerator.wait_for_everyone()
    own = _settings(images)
    (first,) = broadcast_object_list([own])
    differing = [f"{what} {own[what]} instead of {value}" for what, value in first.items() if own[what] != value]
    problem = f"has {', '.join(differing)}" if differing else ""
    if not _appears(token):
        problem = f"does not see {folder}, which the first process made"
    process = f"process {accelerator.process_index} on {platform.node()}"
    problems: list[str] = gather_object([problem and f"{process} {problem}"])
    if accelerator.is_main_process:
        token.unlink(missing_ok=True)
    if differences := [text for text in problems if text]:
        raise UserError(
            f"{differences[0]}. All machines of a run need one run folder and one set of images on a file system that "
            "they share, and the same versions. Correct that, then resume"
        )


def wait_for_file(file: Path) -> None:
    """Wait until a file that the first process writes can be seen in this one.

    Raises:
        UserError: it does not appear.
    """
    make_accelerator().wait_for_everyone()
    if not _appears(file):
        raise UserError(
            f"{file}, which the first process wrote, does not appear on {platform.node()}: all machines of a run need "
            "one run folder on a file system that they share"
        )


def _appears(file: Path) -> bool:
    """Whether a file that another process wrote can be seen here, after some waiting."""
    end = time.monotonic() + TOKEN_SECONDS
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _settings(images: ImageSet) -> dict[str, Any]:
    """By name for the user, what must be equal in all processes."""
    return {
        "fbnetv5": __version__,
        **{module.__name__: module.__version__ for module in (torch, np, scipy)},
        "images with checksum": images.checksum if isinstance(images, ImageView) else f"of {len(images)} demo scenes",
    }
