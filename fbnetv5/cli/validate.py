"""``fbnetv5 validate``: checks on any machine that an exported folder computes what was exported, and times it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from export.errors import VerificationError
from fbnetv5.cli.console import print_json, print_line, print_log, progress_bar, stage_lines
from fbnetv5.cli.options import Json


def validate(
    folder: Annotated[Path, typer.Argument(help="Folder written by fbnetv5 export, with its manifest.json.")],
    json: Json = False,
) -> None:
    """Validate an exported folder on this machine, and time it.

    The files are compared with their checksums, and the outputs of the ONNX file and of the engine with the outputs
    stored by the export. It needs no torch. Exit code 1 means that a check failed.
    """
    from fbnetv5 import api

    with progress_bar() as bar:
        result = api.validate(folder, log=print_log, progress=stage_lines(bar))
    document = result.to_json()
    if json:
        print_json(document)
    else:
        print_validation(document)
    if result.failure is not None:
        raise VerificationError(result.failure)


def print_validation(document: dict[str, Any]) -> None:
    """Print the result of every check, then the latencies."""
    words = {True: "passed", False: "FAILED", None: "note"}
    for finding in document["findings"]:
        print_line(f"{finding['check']}: {words[finding['passed']]}: {finding['detail']}")
    for name, latency in document["latency_ms"].items():
        print_line(f"{name}: {latency['median']:.3f} ms (median), {latency['p90']:.3f} ms (p90)")
