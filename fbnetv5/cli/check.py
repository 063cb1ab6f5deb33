"""``fbnetv5 check``: the verdict of NVIDIA's parser on an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import VerificationError
from fbnetv5.cli.console import print_json, print_line
from fbnetv5.cli.options import Json

if TYPE_CHECKING:
    from export.trt.check import Verdict


def check(file: Annotated[Path, typer.Argument(help="Any ONNX file.")], json: Json = False) -> None:
    """Ask NVIDIA's own parser whether TensorRT takes an ONNX file; needs no GPU."""
    from export.trt.check import check as ask

    verdict = ask(file)
    if json:
        print_json(verdict.to_json())
    else:
        print_verdict(verdict)
    if not verdict.accepted:
        raise VerificationError(f"{verdict.runtime} {verdict.version} does not take {file}")


def print_verdict(verdict: "Verdict") -> None:
    for problem in verdict.problems:
        place = "the file" if problem.node is None else f"node {problem.node} {problem.operator} {problem.name!r}"
        print_line(f"{place}: {problem.code} from the {problem.stage}: {problem.description}")
        if problem.hint:
            print_line(f"  hint: {problem.hint}")
    for remark in verdict.warnings:
        print_line(f"warning: {remark.message}")
        if remark.hint:
            print_line(f"  hint: {remark.hint}")
    if verdict.accepted:
        print_line(f"{verdict.runtime} {verdict.version} takes {verdict.file}: {verdict.nodes} nodes")
