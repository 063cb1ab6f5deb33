"""``fbnetv5 report``: writes the HTML page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from fbnetv5.cli.console import print_json, print_line
from fbnetv5.cli.options import Json


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a search, a training or a labelling, finished or not.")] = Path(
        "runs/latest"
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write.", show_default="RUN/report.html")
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML page that shows a run.

    It shows the networks, the course of the run, Pareto fronts, predictions beside true labels, latency, precision, and
    what these figures do not show. The page is one file, which loads nothing.
    """
    from fbnetv5 import api

    page = api.report(run, output=output)
    if json:
        print_json({"page": str(page)})
    else:
        print_line(str(page))
