"""``fbnetv5 branch``: searches for one network of all tasks that decides where the tasks branch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    console,
    interruptible,
    is_first_process,
    print_json,
    print_line,
    print_status,
    print_table,
    progress_bar,
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
    StrictData,
    TableDevice,
    TableFile,
    Tasks,
    find_table,
    only_budget,
    print_layout,
    run_name,
    search_images,
    task_names,
)
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from rich.progress import Progress

    from fbnetv5.architecture import Architecture
    from fbnetv5.search.bmtas.config import BranchConfig
    from fbnetv5.search.bmtas.entry import BranchEntry
    from fbnetv5.search.bmtas.prepare import Prepared
    from fbnetv5.search.bmtas.trees import TreeCosts


Flops = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum multiply-adds of the whole network, all heads included, such as 900M or 1.2G@320x640.",
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum latency of the whole network, such as 20ms, instead of --flops. Needs --device or --table.",
    ),
]
Encoder = Annotated[str, typer.Option(help="Encoder: fbnetv3-a to fbnetv3-g, mobilenetv2 or resnet50.")]
Init = Annotated[
    str,
    typer.Option(
        help="Initial weights of the encoder: scratch (random), torchvision or timm (pretrained on ImageNet), or a "
        ".safetensors file of such a model."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(help="JSON or YAML file with further fields, such as steps (schema: docs/schemas/branch.json)."),
]


def branch(
    context: typer.Context,
    flops: Flops = None,
    latency: Latency = None,
    device: TableDevice = None,
    table: TableFile = None,
    tasks: Tasks = None,
    encoder: Encoder = "fbnetv3-a",
    init: Init = "scratch",
    data: Data = None,
    strict_data: StrictData = False,
    size: Size = None,
    fit: Fit = None,
    config: ConfigFile = None,
    seed: Seed = 0,
    name: Name = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Search for one network of all tasks, and where they branch.

    Give one budget for the whole network: --flops or --latency.
    """
    from fbnetv5.runs.processes import process_group_cleanup, relaunch_command
    from fbnetv5.search.bmtas.config import BranchConfig
    from fbnetv5.search.bmtas.prepare import prepare
    from fbnetv5.search.bmtas.run import run_branch, start_branch

    if resume is not None:
        check_resume_options(context)
        folder, prepared = resume, prepare(BranchConfig.load(resume))
    else:
        print_layout(data, strict=strict_data)
        settings = _branch_config(
            flops=flops,
            latency=latency,
            device=device,
            table=table,
            luts=luts,
            tasks=task_names(tasks),
            encoder=encoder,
            init=init,
            data=data,
            size=size,
            fit=fit,
            seed=seed,
            fields=config,
        )
        folder, prepared = start_branch(settings, runs / run_name(name), _range_printer(settings), print_status)
    hint = relaunch_command(f"branch --resume {folder}")
    with process_group_cleanup(), progress_bar() as bar, interruptible(hint):
        architecture = run_branch(folder, prepared, branch_report(bar, prepared))
    if is_first_process():
        finish_with_report(folder, print_status, prepared.splits.test)
        print_branched(folder, architecture, as_json=json)


def _branch_config(
    *,
    flops: str | None,
    latency: str | None,
    device: str | None,
    table: Path | None,
    luts: Path,
    tasks: tuple[str, ...],
    encoder: str,
    init: str,
    data: Path | None,
    size: str | None,
    fit: str | None,
    seed: int,
    fields: Path | None,
) -> "BranchConfig":
    """The configuration of a search from the options of the command.

    Raises:
        UserError: an option is wrong, there is not exactly one budget, or the device has no latency table.
    """
    from fbnetv5.costs.budgets import parse_budgets
    from fbnetv5.networks.pretrained import PUBLISHED, SCRATCH
    from fbnetv5.search.bmtas.config import BranchConfig
    from fbnetv5.search.bmtas.prepare import profile_options

    budget, unit = only_budget(flops, latency, has_table=device is not None or table is not None)
    whole = parse_budgets(budget, unit=unit, tasks=("network",))["network"]
    settings = BranchConfig.make(
        fields,
        budget=whole,
        task_names=tasks,
        encoder=encoder,
        init=init if init in (SCRATCH, *PUBLISHED) else str(Path(init).resolve()),
        data=search_images(data, size, fit, tasks=tasks, budgets=[whole]),
        seed=seed,
    )
    file = find_table(device, table, luts, profile_options(settings, luts))
    return settings if file is None else settings.with_table(file, other_machine=table is not None)


def _range_printer(config: "BranchConfig") -> "Callable[[TreeCosts], None]":
    """A callback that prints the costs of the two extreme trees and of a uniform routing."""
    from fbnetv5.costs.budgets import format_cost

    def show(costs: "TreeCosts") -> None:
        unit = costs.unit
        shared, uniform, separate = (
            format_cost(cost, unit) for cost in (costs.all_shared, costs.uniform, costs.all_separate)
        )
        print_status(
            f"{config.space.label}: {shared} if all tasks share every layer, {uniform} expected of a uniform routing, "
            f"{separate} if they share none"
        )

    return show


def branch_report(bar: "Progress", prepared: "Prepared") -> "Callable[[BranchEntry], None]":
    """A callback that shows the step, the losses and the expected cost; in logs, a line per 100 steps."""
    from fbnetv5.costs.budgets import format_cost

    config = prepared.config
    line = bar.add_task("branch", total=config.steps, note="")

    def report(entry: "BranchEntry") -> None:
        losses = ", ".join(f"{task} loss {loss:.2f}" for task, loss in entry.losses.items())
        note = f"{losses}, cost {format_cost(entry.expected_cost, prepared.costs.unit)}"
        bar.update(line, completed=entry.step, description=entry.phase, note=note)
        if not console().is_terminal and entry.step % 100 == 0:
            print_status(
                f"step {entry.step} of {config.steps}, {entry.phase}: {note}, routing entropy {entry.entropy:.3f} nats"
            )

    return report


def print_branched(folder: Path, architecture: "Architecture", *, as_json: bool) -> None:
    """Print the network that a search found."""
    file = folder / "branched.json"
    if as_json:
        print_json({"run": str(folder), "file": str(file), "architecture": architecture.to_json()})
        return
    print_network(file, architecture)


def print_network(file: Path, architecture: "Architecture") -> None:
    """Print the network of a file: where its tasks branch, its cost, and its metrics on held-out images."""
    from fbnetv5.deploy.tree import tree_lines

    for text in tree_lines(architecture):
        print_line(text)
    rows = [
        [name, task.metric.label, f"{architecture.provenance['scores'][name]:.3f}"]
        for name, task in architecture.make_tasks().items()
    ]
    print_table(["task", "held-out metric", "value"], rows)
    macs, params = architecture.cost.macs / 1e6, architecture.cost.params / 1e6
    print_line(f"{file}: {macs:.1f}M multiply-adds, {params:.2f}M params, latency {architecture.latency_text}")
