"""``fbnetv5 eval``: evaluates a network on the test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import is_first_process, print_json, print_line, print_log, print_table
from fbnetv5.cli.options import FIT, FIT_HELP, SIZE, ArchitectureFile, Data, Json, StrictData

if TYPE_CHECKING:
    from fbnetv5.api import Comparison, Evaluation


def evaluate(
    task: Annotated[
        str | None,
        typer.Option(
            help="Task whose network in runs/latest is evaluated; with --arch, the only task of it to evaluate."
        ),
    ] = None,
    arch: ArchitectureFile = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Safetensors file of the weights.", show_default="TASK.safetensors beside the architecture"),
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            help="Architecture file of a network of one task alone, or run folder of such networks, to compare with; "
            "one for each task. Repeat the option for several."
        ),
    ] = None,
    data: Data = None,
    strict_data: StrictData = False,
    size: Annotated[
        str | None,
        typer.Option(metavar=SIZE, help="Size that images are fitted to.", show_default="size of the training"),
    ] = None,
    fit: Annotated[str | None, typer.Option(metavar=FIT, help=FIT_HELP, show_default="fit of the training")] = None,
    json: Json = False,
) -> None:
    """Evaluate a network on the test images.

    All metrics of its tasks are printed, e.g. top-1 and top-5 accuracy, COCO's twelve metrics, or IoU per class. With
    --baseline, so is Delta_m, the mean over its tasks of the relative gain over networks of one task each.
    """
    from fbnetv5 import api
    from fbnetv5.runs.processes import process_group_cleanup

    with process_group_cleanup():
        result = api.evaluate(
            task,
            arch=arch,
            weights=weights,
            baselines=baseline or (),
            data=data,
            strict_data=strict_data,
            size=size,
            fit=fit,
            log=print_log,
        )
    if not is_first_process():
        return
    if json:
        print_json(result.to_json())
        return
    for evaluation in result.tasks.values():
        print_evaluation(evaluation)
    if result.comparison is not None:
        print_comparison(result.tasks, result.comparison)


def print_comparison(evaluations: "Mapping[str, Evaluation]", comparison: "Comparison") -> None:
    """Print the gain of each task over its baseline, and their mean, Delta_m."""
    rows = []
    for name, baseline in comparison.baselines.items():
        evaluation = evaluations[name]
        gain = "-" if baseline.gain_percent is None else f"{baseline.gain_percent:+.2f} %"
        rows.append([name, evaluation.metric.label, f"{evaluation.value:.4f}", f"{baseline.value:.4f}", gain])
    print_table(["task", "metric", "value", "baseline", "gain"], rows)
    if comparison.delta_m_percent is None:
        print_line("no Delta_m: a baseline's metric is 0, and there is no gain relative to 0")
    else:
        print_line(f"Delta_m {comparison.delta_m_percent:+.2f} %, the mean of the gains")


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the metric of the task, then a table of all metrics and counts of the evaluation."""
    (height, width), metric = evaluation.size, evaluation.metric
    manner = "letterboxed to" if evaluation.fit == "letterbox" else "of"
    print_line(
        f"{evaluation.task} on {evaluation.images} test images {manner} {height}x{width}: "
        f"{metric.label} {evaluation.value:.4f}"
    )
    rows: list[list[str]] = []
    for name, figure in evaluation.figures.items():
        values = figure.items() if isinstance(figure, dict) else [("", figure)]
        rows += [[f"{name} {label}".strip(), "-" if value is None else f"{value:.4f}"] for label, value in values]
    print_table(["metric", "value"], rows)
