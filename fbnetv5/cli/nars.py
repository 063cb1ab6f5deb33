"""``fbnetv5 nars``: searches for an architecture and the recipe of its training together."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.errors import UserError
from fbnetv5.cli.console import (
    check_resume_options,
    interruptible,
    print_json,
    print_line,
    print_status,
    print_table,
    progress_bar,
    stage_lines,
)
from fbnetv5.cli.options import (
    Data,
    Fit,
    Json,
    Luts,
    Name,
    Resume,
    Runs,
    Seed,
    Size,
    TableDevice,
    TableFile,
    Teacher,
    find_table,
    print_layout,
    print_teacher_fit,
    run_name,
    search_images,
)

if TYPE_CHECKING:
    from fbnetv5.architecture import Architecture
    from fbnetv5.search.nars.config import NarsConfig
    from fbnetv5.search.nars.constraints import Constraints
    from fbnetv5.search.nars.entry import NarsEntry
    from fbnetv5.search.nars.run import Result

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
Params = Annotated[str | None, typer.Option(metavar="BUDGET", help="Maximum number of parameters, such as 5M.")]
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

    Give one budget or several, which hold together: --flops, --latency, --params. With --arch, none is needed.
    """
    from fbnetv5.search.nars.config import NarsConfig
    from fbnetv5.search.nars.prepare import prepare
    from fbnetv5.search.nars.run import run_nars, start_nars
    from fbnetv5.search.nars.runner import choose_runner

    bar = progress_bar()
    runner = choose_runner(jobs, ray, gpus_per_trial, stage_lines(bar))
    if resume is not None:
        check_resume_options(context, allowed=("jobs", "ray", "gpus_per_trial"))
        folder, prepared = resume, prepare(NarsConfig.load(resume))
    else:
        print_layout(data)
        settings = _nars_config(
            task=task,
            budgets={"macs": flops, "ms": latency, "params": params},
            arch=arch,
            space=space,
            width=width,
            device=device,
            table=table,
            luts=luts,
            teacher=teacher,
            images=(data, size, fit),
            seed=seed,
            fields=config,
        )
        folder, prepared = start_nars(settings, runs / run_name(name), print_ranges, print_status)
    with bar, interruptible(f"fbnetv5 nars --resume {folder}"):
        result = run_nars(folder, prepared, runner, nars_report(prepared.config))
    print_result(folder, result, as_json=json)


def _nars_config(
    *,
    task: str,
    budgets: dict[str, str | None],
    arch: Path | None,
    space: str,
    width: float,
    device: str | None,
    table: Path | None,
    luts: Path,
    teacher: str | None,
    images: tuple[Path | None, str | None, str | None],
    seed: int,
    fields: Path | None,
) -> "NarsConfig":
    """The configuration of a search from the options of the command.

    Raises:
        UserError: an option is wrong, or there is no budget.
    """
    from fbnetv5.search.nars.config import NarsConfig
    from fbnetv5.search.nars.scope import searched_networks
    from fbnetv5.search.nars.table import profile_options

    if budgets["ms"] is not None and device is None and table is None:
        raise UserError("--latency needs a latency table: add --device cpu, or --table FILE")
    texts = {unit: text for unit, text in budgets.items() if text is not None}
    if not texts and arch is None:
        raise UserError("a search for an architecture needs a budget: --flops, --latency or --params; or --arch FILE")
    networks = searched_networks(task, texts, arch=arch, space=space, width=width)
    settings = NarsConfig.make(
        fields,
        task_name=task,
        teacher=teacher,
        data=search_images(*images, tasks=[task], budgets=networks["budgets"]),
        seed=seed,
        **networks,
    )
    print_teacher_fit(settings.teacher, settings.data)
    file = find_table(device, table, luts, profile_options(settings, luts))
    return settings if file is None else settings.with_table(file, other_machine=table is not None)


def print_ranges(constraints: "Constraints") -> None:
    """Print the smallest and the largest cost of the space, in the unit of each budget."""
    for line in constraints.ranges():
        print_status(line)


def nars_report(config: "NarsConfig") -> "Callable[[NarsEntry], None]":
    """A callback that prints a line after every batch of trainings."""
    from fbnetv5.tasks import task_types

    metric = task_types()[config.task_name].metric

    def report(entry: "NarsEntry") -> None:
        failed = f" ({entry.failed} failed)" if entry.failed else ""
        print_status(
            f"{entry.step} trainings{failed}, {entry.seconds / 60:.1f} min: best {metric.label} {entry.best:.3f} at "
            f"step {entry.stop_at}; predictor on held-out trainings: tau {entry.tau:.2f}, mean error "
            f"{entry.mean_absolute_error:.3f}, {100 * entry.coverage:.0f} % inside its 80 % interval"
        )

    return report


def print_result(folder: Path, result: "Result", *, as_json: bool) -> None:
    """Print the best pair and the command that trains it."""
    if as_json:
        document = {
            "run": str(folder),
            "trial": result.trial,
            "score": result.score,
            "architecture": result.architecture.to_json(),
            "recipe": result.recipe,
            "train_command": train_command(folder, result.architecture),
        }
        print_json(document)
        return
    metric = result.architecture.make_task().metric
    print_line(f"trial {result.trial} is the best: held-out {metric.label} {result.score:.3f}")
    print_pair(folder, result.architecture, result.recipe)


def print_pair(folder: Path, architecture: "Architecture", recipe: "Mapping[str, Any]") -> None:
    """Print an architecture, its recipe, and the command that trains it."""
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


def train_command(folder: Path, architecture: "Architecture") -> str:
    """The command that trains the pair of a folder."""
    from fbnetv5.runs.config import Run

    words = ["fbnetv5", "train", "--arch", f"{folder / architecture.file_name}.json", "--init", "scratch"]
    words += ["--config", str(folder / "recipe.json")]
    data, teacher = Run.load(folder).data.folder, architecture.provenance.get("teacher")
    for option, value in (("--data", data), ("--teacher", teacher)):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
