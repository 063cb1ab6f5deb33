"""Run folders: made once, and the newest of a folder of runs linked as ``latest``."""

import os
from collections.abc import Callable
from pathlib import Path

from export.errors import UserError


def make_folder(folder: Path, *, otherwise: str) -> None:
    """Make a run folder.

    Args:
        folder: to make.
        otherwise: the flag that names another, for the message, e.g. "--name".

    Raises:
        UserError: it exists already or cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(
            f"{folder} exists already; go on with --resume {folder} or choose another {otherwise}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}") from None


def point_latest(folder: Path, say: Callable[[str], None]) -> None:
    """Make the link ``latest`` in the folder's parent name the folder; say so where there can be no links.

    Raises:
        UserError: something else is called ``latest``.
    """
    link = latest_link(folder.parent)
    temporary = link.with_name(f".latest.{os.getpid()}")
    try:
        temporary.symlink_to(folder.name)
        temporary.replace(link)
    except OSError as error:
        say(
            f"{link} cannot be made to name this run ({error.strerror or error}), and may name an older one: "
            f"add --run {folder} to export, and --arch {folder}/TASK.json to train and eval"
        )


def latest_link(runs: Path) -> Path:
    """The link in a folder of runs that names the newest.

    Raises:
        UserError: something else has that name.
    """
    link = runs / "latest"
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link} is not a link; move it away, the name is kept for the newest run")
    return link
