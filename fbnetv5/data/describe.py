"""One line on how a folder of images is read, for the log of every command with ``--data``."""

import os
from pathlib import Path

from export.errors import UserError
from export.progress import Log
from fbnetv5.data.layouts import layout_of, open_folder


def describe_data(data: Path | None, log: Log, *, strict: bool = False) -> None:
    """Log the ``description`` of a folder of images, if a folder is named; with several processes in the first.

    Args:
        data: the folder.
        log: called with the line.
        strict: refuse the folder if anything was repaired or left out.

    Raises:
        UserError: the folder is unfit.
    """
    if data is not None and os.environ.get("RANK", "0") == "0":
        log(description(data, strict=strict))


def description(data: Path, *, strict: bool) -> str:
    """The layout in which a folder of images is read, and what was repaired or left out.

    The folder is opened for that, and its header index is stored: opening it again is quick.

    Raises:
        UserError: the folder is unfit; or, if ``strict``, anything was repaired or left out.
    """
    line = "; ".join([f"{data}: read as {layout_of(data).name}", *(notes := open_folder(data).notes)])
    if strict and notes:
        raise UserError(f"{line}. Correct the data set, or leave out --strict-data")
    return line
