"""Writes the page of a run: ``fbnetv5.api.report``, and ``report.html`` at the end of the commands that make runs.

What reads runs and draws pages loads on use: every command that ends with a page imports this module.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from export.files import AnyPath, atomic_write_text
from export.progress import Log

if TYPE_CHECKING:
    from fbnetv5.data.sample import ImageSet

NAME = "report.html"
"""Of the page in a run folder."""


def report(run: AnyPath = "runs/latest", *, output: AnyPath | None = None) -> Path:
    """Write one HTML page that shows a run, finished or not; returns its path.

    Examples:
        >>> page = api.report("runs/latest")

    Args:
        run: the folder of a search, a training or a labelling.
        output: the file to write; None for ``report.html`` in the run folder.

    Raises:
        UserError: it is no run folder, a file in it is damaged or of another version, or the page cannot be written.
    """
    path = Path(run) / NAME if output is None else Path(output)
    _write(path, Path(run), None)
    return path


def finish_with_report(run: Path, log: Log, test: "ImageSet | None" = None) -> None:
    """Write the page of a run that has just ended. The results are written already, so nothing here fails the run.

    Args:
        run: the run folder.
        log: prints a line for the user, if the page cannot be written.
        test: test images of the run, if they are open already.
    """
    try:
        _write(run / NAME, run, test)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever is wrong with the page, the run has its results
        reason = " ".join(str(error).split()) or type(error).__name__
        log(f"the page {run / NAME} was not written ({reason}); the results of the run are complete")


def _write(path: Path, run: Path, test: "ImageSet | None") -> None:
    """Write the page of a run; ``test`` are its test images, if they are open already."""
    from fbnetv5.deploy.report.files import open_run
    from fbnetv5.deploy.report.page import make_page
    from latency.page.render import render

    atomic_write_text(path, render(make_page(open_run(run), test)))
