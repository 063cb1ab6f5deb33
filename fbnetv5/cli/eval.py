"""``fbnetv5 eval``: evaluates a network on the test images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, print_table
from fbnetv5.cli.options import SIZE, ArchitectureFile, Data, Json, architecture_file, print_layout

if TYPE_CHECKING:
    from fbnetv5.evaluate import Evaluation


def evaluate(
    task: Annotated[str | None, typer.Option(help="Task whose network in runs/latest is evaluated.")] = None,
    arch: ArchitectureFile = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Safetensors file of the weights.", show_default="TASK.safetensors beside the architecture"),
    ] = None,
    data: Data = None,
    size: Annotated[
        str | None,
        typer.Option(metavar=SIZE, help="Size that images are resized to.", show_default="size of the training"),
    ] = None,
    json: Json = False,
) -> None:
    """Evaluate a network on the test images.

    All metrics of its tasks are printed, e.g. top-1 and top-5 accuracy, COCO's twelve metrics, or IoU per class.
    """
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.evaluate import evaluate_file

    print_layout(data)
    image_size = None if size is None else parse_resolution(size)
    file = architecture_file(task, arch)
    evaluations = evaluate_file(file, task=task, weights=weights, data=data, size=image_size)
    if json:
        documents = {name: evaluation.to_json() for name, evaluation in evaluations.items()}
        print_json({"tasks": documents} if len(documents) > 1 else next(iter(documents.values())))
        return
    for evaluation in evaluations.values():
        print_evaluation(evaluation)


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the metric of the task, then a table of all metrics and counts of the evaluation."""
    (height, width), metric = evaluation.size, evaluation.metric
    print_line(
        f"{evaluation.task} on {evaluation.images} test images of {height}x{width}: "
        f"{metric.label} {evaluation.value:.4f}"
    )
    rows: list[list[str]] = []
    for name, figure in evaluation.figures.items():
        values = figure.items() if isinstance(figure, dict) else [("", figure)]
        rows += [[f"{name} {label}".strip(), "-" if value is None else f"{value:.4f}"] for label, value in values]
    print_table(["metric", "value"], rows)
