"""``fbnetv5 validate``: checks that an exported folder still contains the network that was exported."""

from pathlib import Path
from typing import Annotated, Any

import typer

from export.errors import VerificationError
from fbnetv5.cli.console import outermost, print_json, print_line, progress_bar, say, stage_lines
from fbnetv5.cli.options import Json


def validate(
    folder: Annotated[Path, typer.Argument(help="An exported folder, with its manifest.json.")], json: Json = False
) -> None:
    """Check on any machine that an exported folder still has the same network, and time it; needs no torch."""
    from fbnetv5.deploy.validate import validate_folder

    with progress_bar() as bar:
        validation, document = validate_folder(folder, say, outermost(stage_lines(bar)))
    if json:
        print_json({"folder": str(folder), **document})
    else:
        print_validation(document)
    if not validation.passed:
        failed = next(finding for finding in validation.findings if finding.passed is False)
        raise VerificationError(f"{folder}: {failed.check}: {failed.detail}")


def print_validation(document: dict[str, Any]) -> None:
    """Print the result of every check, then the latencies."""
    words = {True: "passed", False: "FAILED", None: "-"}
    for finding in document["findings"]:
        print_line(f"{finding['check']}: {words[finding['passed']]}: {finding['detail']}")
    for name, latency in document["latency_ms"].items():
        print_line(f"{name}: {latency['median']:.3f} ms (median), {latency['p90']:.3f} ms (p90)")
