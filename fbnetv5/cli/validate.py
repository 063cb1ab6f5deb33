"""``fbnetv5 validate``: whether an exported folder still is the same network."""

from pathlib import Path
from typing import Annotated, Any

import typer

from export.errors import VerificationError
from fbnetv5.cli.console import outermost, print_json, print_line, progress_bar, say, stage_lines
from fbnetv5.cli.options import Json


def validate(
    folder: Annotated[Path, typer.Argument(help="An exported folder, with its manifest.json.")], json: Json = False
) -> None:
    """Check on any machine that an exported folder still is the same network, and time it; needs no torch."""
    from fbnetv5.deploy.validate import validate_folder

    with progress_bar() as bar:
        validation, found = validate_folder(folder, say, outermost(stage_lines(bar)))
    if json:
        print_json({"folder": str(folder), **found})
    else:
        print_validation(found)
    if not validation.passed:
        failed = next(finding for finding in validation.findings if finding.passed is False)
        raise VerificationError(f"{folder}: {failed.what}: {failed.detail}")


def print_validation(found: dict[str, Any]) -> None:
    words = {True: "passed", False: "FAILED", None: "-"}
    for finding in found["findings"]:
        print_line(f"{finding['what']}: {words[finding['passed']]}: {finding['detail']}")
    for name, times in found["latency_ms"].items():
        print_line(f"{name}: {times['median']:.3f} ms (median), {times['p90']:.3f} ms (p90)")
