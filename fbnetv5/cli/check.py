"""``fbnetv5 check``: checks an ONNX file with NVIDIA's parser and builder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError, VerificationError
from fbnetv5.cli.console import print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Json

if TYPE_CHECKING:
    from export.trt.check import CheckResult, Problem

_SHAPE = "NAME=1x3x224x224"

Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar=_SHAPE,
        help="Shape of a dynamic input, or the values of an input that sets sizes; repeat it for several inputs.",
        show_default="1 per dynamic axis, 3x224x224 after the first of four",
    ),
]
Build = Annotated[
    bool | None,
    typer.Option(
        "--build/--no-build",
        help="Build an engine, or let the builder validate the network and choose no kernels, which takes seconds.",
        show_default="--build for files of up to 500 MB with their weights",
    ),
]


def check(
    file: Annotated[Path, typer.Argument(help="ONNX file, from any exporter.")],
    build: Build = None,
    shape: Shape = None,
    json: Json = False,
) -> None:
    """Check whether TensorRT makes an engine of an ONNX file.

    NVIDIA's parser and builder read the file. Exit code 1 means that one of them refuses it.
    """
    from fbnetv5 import api

    with progress_bar() as bar:
        result = api.check(file, shapes=read_shapes(shape or ()), build=build, progress=stage_lines(bar))
    if json:
        print_json(result.to_json())
    else:
        print_result(result)
    if not result.accepted:
        raise VerificationError(f"{result.runtime} {result.version} does not accept {file}")


def read_shapes(options: Sequence[str]) -> dict[str, list[int]]:
    """The numbers by input name.

    Raises:
        UserError: an option has another form.
    """
    shapes = {}
    for option in options:
        name, _, numbers = option.rpartition("=")
        if not name or not re.fullmatch(r"-?\d+(x-?\d+)*", numbers):
            raise UserError(f"--shape {option!r} has another form than {_SHAPE}")
        shapes[name] = [int(number) for number in numbers.split("x")]
    return shapes


def print_result(result: "CheckResult") -> None:
    """Print every problem and warning with its hint."""
    for problem in result.problems:
        print_line(f"{_place(problem)}: {problem.code} from the {problem.stage}: {problem.description}")
        if problem.hint:
            print_line(f"  hint: {problem.hint}")
    for warning in result.warnings:
        print_line(f"warning: {warning.message}")
        if warning.hint:
            print_line(f"  hint: {warning.hint}")
    if result.accepted:
        done = "builds an engine of" if result.built else "accepts, without a build,"
        print_line(f"{result.runtime} {result.version} {done} {result.file}: {result.nodes} nodes{_shapes(result)}")


def _place(problem: "Problem") -> str:
    """Where the problem is, such as "node 3 TopK 'best' in head (If), then (then_branch)"."""
    if problem.node is None:
        return "the file"
    within = f" in {', '.join(problem.within)}" if problem.within else ""
    return f"node {problem.node} {problem.operator} {problem.name!r}{within}"


def _shapes(result: "CheckResult") -> str:
    """The shapes of dynamic inputs."""
    shapes = [
        f"{name}={'x'.join(map(str, numbers))}{' (chosen; --shape names another)' if name in result.chosen else ''}"
        for name, numbers in result.shapes.items()
    ]
    return f", for {', '.join(shapes)}" if shapes else ""
