"""``fbnetv5 check``: checks an ONNX file with NVIDIA's parser."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import VerificationError
from fbnetv5.cli.console import print_json, print_line
from fbnetv5.cli.options import Json

if TYPE_CHECKING:
    from export.trt.check import CheckResult


def check(file: Annotated[Path, typer.Argument(help="ONNX file, from any exporter.")], json: Json = False) -> None:
    """Check whether TensorRT accepts an ONNX file; needs no GPU.

    NVIDIA's ONNX parser reads the file. Exit code 1 means that the parser rejects it.
    """
    from export.trt.check import check as check_onnx

    result = check_onnx(file)
    if json:
        print_json(result.to_json())
    else:
        print_result(result)
    if not result.accepted:
        raise VerificationError(f"{result.runtime} {result.version} does not accept {file}")


def print_result(result: "CheckResult") -> None:
    """Print every problem and warning with its hint."""
    for problem in result.problems:
        place = "the file" if problem.node is None else f"node {problem.node} {problem.operator} {problem.name!r}"
        print_line(f"{place}: {problem.code} from the {problem.stage}: {problem.description}")
        if problem.hint:
            print_line(f"  hint: {problem.hint}")
    for warning in result.warnings:
        print_line(f"warning: {warning.message}")
        if warning.hint:
            print_line(f"  hint: {warning.hint}")
    if result.accepted:
        print_line(f"{result.runtime} {result.version} accepts {result.file}: {result.nodes} nodes")
