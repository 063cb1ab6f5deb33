"""``fbnetv5 eval``: all figures of a network on the test images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, print_table
from fbnetv5.cli.options import Data, Json, architecture_file, say_layout

if TYPE_CHECKING:
    from fbnetv5.evaluate import Evaluation


def evaluate(
    task: Annotated[str | None, typer.Option(help="Task whose network to measure.")] = None,
    arch: Annotated[Path | None, typer.Option(help="Architecture file; runs/latest/TASK.json if not given.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Safetensors file; the file beside the architecture file if not given.")
    ] = None,
    data: Data = None,
    size: Annotated[
        str | None, typer.Option(help="Size of the images, HEIGHTxWIDTH; the size of its training if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a network on the test images: top-1 and top-5, COCO's twelve, IoU by class, and so on."""
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.evaluate import evaluate_file

    say_layout(data)
    image_size = None if size is None else parse_resolution(size)
    evaluation = evaluate_file(architecture_file(task, arch), task=task, weights=weights, data=data, size=image_size)
    if json:
        print_json(evaluation.to_json())
    else:
        print_evaluation(evaluation)


def print_evaluation(evaluation: "Evaluation") -> None:
    height, width = evaluation.size
    print_line(f"{evaluation.task} on {evaluation.images} test images of {height}x{width}:")
    rows: list[list[str]] = []
    for name, value in evaluation.figures.items():
        values = value.items() if isinstance(value, dict) else [("", value)]
        rows += [[f"{name} {label}".strip(), "-" if part is None else f"{part:.4f}"] for label, part in values]
    print_table(["figure", "value"], rows)
