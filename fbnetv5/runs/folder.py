"""Run folders: creation, the names of their files, and the link ``latest`` to the newest run."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from export.errors import UserError
from export.files import is_utf8
from export.locks import locked
from fbnetv5.runs.config import Run, RunConfig

LATEST = "latest"
"""Name of the link to the newest run of a folder of runs."""
BRANCHED = "branched"
"""Name of the files of a branched network, without their suffixes."""


def file_name(run: Path, tasks: Sequence[str]) -> str:
    """Name of the files of a network, without their suffixes: its tasks, or that of a run's only, branched network."""
    name = "+".join(tasks)
    return BRANCHED if len(tasks) > 1 and (run / f"{BRANCHED}.json").exists() else name


def networks_of(run: Path) -> list[list[str]]:
    """The tasks of each network of a run: one network per task, or one for all where the run made that.

    Raises:
        UserError: ``run`` is not a run folder.
    """
    tasks = list(Run.load(run).tasks)
    shared = len(tasks) > 1 and (run / f"{file_name(run, tasks)}.json").exists()
    return [tasks] if shared else [[task] for task in tasks]


def make_folder(folder: Path, *, flag: str) -> None:
    """Make a run folder.

    Args:
        folder: to make.
        flag: the flag that sets another folder, for the message, e.g. "--name".

    Raises:
        UserError: the folder exists already or cannot be made, or its path is not UTF-8.
    """
    if not is_utf8(str(folder)):
        raise UserError(f"{str(folder)!a} is not UTF-8: choose another {flag}")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder} exists already; resume it with --resume {folder} or choose another {flag}") from None
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}") from None


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """A context in which no other command runs or resumes the run of the folder, whose checkpoints it would remove.

    Raises:
        UserError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"{folder} is being run by another process: wait for it, or stop it"):
        yield


def make_run(config: RunConfig, folder: Path, log: Callable[[str], None]) -> Path:
    """Make a run folder with its ``config.json``, and point the link ``latest`` beside it to it; returns the folder.

    Raises:
        UserError: the folder exists already, or something cannot be written; no folder is left behind.
    """
    latest_link(folder.parent)
    make_folder(folder, flag="--name")
    try:
        config.save(folder)
    except UserError:
        folder.rmdir()
        raise
    point_latest(folder, log)
    return folder


def point_latest(folder: Path, log: Callable[[str], None]) -> None:
    """Point the link ``latest`` in the folder's parent to the folder; log a line where links are not supported.

    Raises:
        UserError: a file or folder that is not a link is called ``latest``.
    """
    link = latest_link(folder.parent)
    temporary = link.with_name(f".latest.{os.getpid()}")
    try:
        temporary.symlink_to(folder.name)
        temporary.replace(link)
    except OSError as error:
        log(
            f"{link} cannot be pointed to this run ({error.strerror or error}), and may point to an older one: "
            f"add --run {folder} to export, and --arch {folder}/TASK.json to train and eval"
        )


def latest_link(runs: Path) -> Path:
    """The link to the newest run in a folder of runs.

    Raises:
        UserError: a file or folder that is not a link has its name.
    """
    link = runs / LATEST
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link} is not a link; move it away, the name is reserved for the newest run")
    return link


def missing_network(run: Path, name: str) -> UserError:
    """The error of a run that does not have a network of that name, or not yet."""
    names = (path.stem for path in run.glob("*.safetensors") if path.with_suffix(".json").exists())
    available = ", ".join(sorted(names)) or "none yet"
    return UserError(f"{run} has no network for {name!r}; it has: {available}. --resume continues an unfinished search")
