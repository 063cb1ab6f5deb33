"""``fbnetv5 nars``: searches for an architecture and the recipe of its training together."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    print_json,
    print_line,
    print_log,
    print_status,
    print_table,
    progress_bar,
    resumable,
    stage_lines,
)
from fbnetv5.cli.options import (
    Data,
    Fit,
    Json,
    Luts,
    Memory,
    Name,
    Params,
    Resume,
    Runs,
    Seed,
    Size,
    TableDevice,
    TableFile,
    Teacher,
)
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from fbnetv5.api import Architecture, NarsResult
    from fbnetv5.search.nars.entry import NarsEntry
    from fbnetv5.search.nars.prepare import Prepared

Flops = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET", help="Maximum multiply-adds of the network, head included, such as 400M or 40M@64x64."
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(metavar="BUDGET", help="Maximum latency of the network, such as 8ms. Needs --device or --table."),
]
OnlyArchitecture = Annotated[
    Path | None, typer.Option("--arch", help="Architecture file: search the recipe of this network alone.")
]
SpaceName = Annotated[
    str, typer.Option("--space", help="Space of the architectures: stages (FBNetV3's own) or four-path (FBNetV5's).")
]
Width = Annotated[float, typer.Option(help="Factor of all widths of the space of stages.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON or YAML file with further fields, such as recipes, training or iterations "
        "(schema: docs/schemas/nars.json)."
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Trainings at the same time on this machine.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Run the trainings on a Ray cluster: its address, or auto for that of this machine. All nodes must see "
        "the run folder.",
    ),
]
GpusPerTrial = Annotated[float, typer.Option(min=0.0, help="GPUs of a training on the Ray cluster; may be a fraction.")]


def nars(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="Task of the network.")] = "cls",
    flops: Flops = None,
    latency: Latency = None,
    params: Params = None,
    memory: Memory = None,
    arch: OnlyArchitecture = None,
    space: SpaceName = "stages",
    width: Width = 1.0,
    device: TableDevice = None,
    table: TableFile = None,
    teacher: Teacher = None,
    data: Data = None,
    size: Size = None,
    fit: Fit = None,
    config: ConfigFile = None,
    seed: Seed = 0,
    name: Name = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    jobs: Jobs = 1,
    ray: Ray = None,
    gpus_per_trial: GpusPerTrial = 0.0,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Search for an architecture together with its training recipe.

    Give one budget or several, which hold together: --flops, --latency, --params; and --memory
    beside them. With --arch, none is needed.
    """
    from fbnetv5 import api

    if resume is not None:
        check_resume_options(context, allowed=("jobs", "ray", "gpus_per_trial"))
    with progress_bar() as bar, resumable("nars", nars_report) as run:
        hooks: dict[str, Any] = {"started": run.started, "report": run.report, "progress": stage_lines(bar)}
        if resume is not None:
            result = api.resume_nars(
                resume,
                jobs=jobs,
                ray=ray,
                gpus_per_trial=gpus_per_trial,
                **hooks,
            )
        else:
            result = api.nars(
                task=task,
                flops=flops,
                latency=latency,
                params=params,
                memory=memory,
                arch=arch,
                space=space,
                width=width,
                device=device,
                table=table,
                teacher=teacher,
                data=data,
                size=size,
                fit=fit,
                config=config,
                seed=seed,
                name=name,
                runs=runs,
                luts=luts,
                jobs=jobs,
                ray=ray,
                gpus_per_trial=gpus_per_trial,
                log=print_log,
                **hooks,
            )
    print_result(result, as_json=json)
    finish_with_report(result.run, print_log, run.prepared.splits.test)


def nars_report(prepared: "Prepared") -> "Callable[[NarsEntry], None]":
    """A callback that prints a line after every batch of trainings."""
    metric = prepared.task.metric

    def report(entry: "NarsEntry") -> None:
        failed = f" ({entry.failed} failed)" if entry.failed else ""
        print_status(
            f"{entry.step} trainings{failed}, {entry.seconds / 60:.1f} min: best {metric.label} {entry.best:.3f} at "
            f"step {entry.stop_at}; predictor on held-out trainings: tau {entry.tau:.2f}, mean error "
            f"{entry.mean_absolute_error:.3f}, {100 * entry.coverage:.0f} % inside its 80 % interval"
        )

    return report


def print_result(result: "NarsResult", *, as_json: bool) -> None:
    """Print the best pair and the command that trains it."""
    if as_json:
        print_json(result.to_json())
        return
    metric = result.architecture.make_task().metric
    print_line(f"trial {result.trial} is the best: held-out {metric.label} {result.score:.3f}")
    print_pair(result.run, result.architecture, result.recipe)


def print_pair(folder: Path, architecture: "Architecture", recipe: "Mapping[str, Any]") -> None:
    """Print an architecture, its recipe, and the command that trains it."""
    from fbnetv5.search.nars.results import train_command

    print_table(["recipe", "value"], [[name, f"{value}"] for name, value in recipe.items()])
    macs, params = architecture.cost.macs / 1e6, architecture.cost.params / 1e6
    latency, predicted = architecture.latency_text, architecture.provenance.get("predicted")
    print_line(
        f"{folder / architecture.file_name}.json: {macs:.1f}M multiply-adds, {params:.2f}M params, latency {latency}"
    )
    if predicted is not None:
        label = architecture.make_task().metric.label
        print_line(
            f"predicted {label} after {predicted['step']} steps: {predicted['score']:.3f}, with a mean error of "
            f"{predicted['mean_error']:.3f} on held-out trials"
        )
    print_line(f"To train it: {train_command(folder, architecture)}")
