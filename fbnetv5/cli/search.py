"""``fbnetv5 search``: searches for one network per task in one run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    console,
    interruptible,
    is_first_process,
    print_json,
    print_status,
    print_table,
    progress_bar,
    stage_lines,
)
from fbnetv5.cli.options import (
    Blocks,
    Data,
    Fit,
    Json,
    Luts,
    Name,
    Resume,
    Runs,
    Seed,
    Size,
    Stages,
    Strict,
    StrictData,
    TableDevice,
    TableFile,
    Tasks,
    Variant,
    find_table,
    make_space,
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
    from fbnetv5.costs.ranges import CostRange
    from fbnetv5.search.reinforce.config import SearchConfig
    from fbnetv5.search.reinforce.entry import SearchEntry
    from fbnetv5.search.reinforce.prepare import Prepared
    from fbnetv5.spaces.space import Space


Flops = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum multiply-adds of each network, head included, such as 400M or 1.2G. Per task, and at another "
        "image size than 224x224: det=1.2G@320x640,400M.",
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum latency of each network, such as 8ms or 900us, instead of --flops; per task as for --flops. "
        "Needs --device or --table.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON or YAML file with further fields of the search, such as steps (schema: docs/schemas/search.json)."
    ),
]


def search(
    context: typer.Context,
    flops: Flops = None,
    latency: Latency = None,
    device: TableDevice = None,
    table: TableFile = None,
    tasks: Tasks = None,
    data: Data = None,
    strict_data: StrictData = False,
    size: Size = None,
    fit: Fit = None,
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    strict: Strict = False,
    config: ConfigFile = None,
    seed: Seed = 0,
    name: Name = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Search for one network per task, all in one run.

    Give one budget: --flops or --latency.
    """
    from fbnetv5.runs.processes import process_group_cleanup, relaunch_command
    from fbnetv5.search.reinforce.config import SearchConfig
    from fbnetv5.search.reinforce.prepare import prepare
    from fbnetv5.search.reinforce.run import run_search, start_run

    if resume is not None:
        check_resume_options(context)
        folder, prepared = resume, prepare(SearchConfig.load(resume))
    else:
        print_layout(data, strict=strict_data)
        settings = _search_config(
            flops=flops,
            latency=latency,
            table=find_table(device, table, luts),
            other_machine=table is not None,
            tasks=task_names(tasks),
            data=data,
            size=size,
            fit=fit,
            space=make_space(variant, stages, blocks_per_path, strict),
            seed=seed,
            fields=config,
        )
        folder, prepared = start_run(settings, runs / run_name(name), print_ranges, print_status)
    hint = relaunch_command(f"search --resume {folder}")
    with process_group_cleanup(), progress_bar() as bar, interruptible(hint):
        architectures = run_search(folder, prepared, search_report(bar, prepared), stage_lines(bar))
    if is_first_process():
        finish_with_report(folder, print_status, prepared.splits.test)
        print_architectures(folder, architectures, as_json=json)


def _search_config(
    *,
    flops: str | None,
    latency: str | None,
    table: Path | None,
    other_machine: bool,
    tasks: tuple[str, ...],
    data: Path | None,
    size: str | None,
    fit: str | None,
    space: "Space",
    seed: int,
    fields: Path | None,
) -> "SearchConfig":
    """The configuration of a search from the options of the command.

    Raises:
        UserError: an option is wrong, or there is not exactly one budget.
    """
    from fbnetv5.costs.budgets import parse_budgets
    from fbnetv5.search.reinforce.config import SearchConfig

    budget, unit = only_budget(flops, latency, has_table=table is not None)
    budgets = parse_budgets(budget, unit=unit, tasks=tasks)
    return SearchConfig.make(
        fields,
        budgets=budgets,
        space=space,
        data=search_images(data, size, fit, tasks=tasks, budgets=budgets.values()),
        table=None if table is None else str(table.resolve()),
        other_machine_table=other_machine,
        seed=seed,
    )


def search_report(bar: "Progress", prepared: "Prepared") -> "Callable[[SearchEntry], None]":
    """A callback that shows the step, and the loss and expected cost of each task; in logs, a line per 100 steps."""
    from fbnetv5.costs.budgets import format_cost

    config, units = prepared.config, {task: table.unit for task, table in prepared.tables.items()}
    line = bar.add_task("search", total=config.total_steps, note="")

    def report(entry: "SearchEntry") -> None:
        costs = {task: format_cost(cost, units[task]) for task, cost in entry.expected_cost.items()}
        losses = {task: entry.losses.get(task, float("nan")) for task in costs}
        note = ", ".join(f"{task} loss {losses[task]:.2f} cost {cost}" for task, cost in costs.items())
        bar.update(line, completed=entry.step, description=entry.phase, note=note)
        if not console().is_terminal and entry.step % 100 == 0:
            tasks = "; ".join(
                f"{task} loss {losses[task]:.3f}, expected cost {cost}, policy entropy {entry.entropy[task]:.3f} nats"
                for task, cost in costs.items()
            )
            print_status(f"step {entry.step} of {config.total_steps}, {entry.phase}: {tasks}")

    return report


def print_ranges(ranges: "Sequence[CostRange]") -> None:
    """Print the costs of each task's networks: minimum, maximum, and mean of random networks."""
    from fbnetv5.costs.budgets import format_cost

    for costs in ranges:
        low, mean, high = (format_cost(value, costs.unit) for value in (costs.min_cost, costs.expected, costs.max_cost))
        print_status(f"{costs.task}: networks of this space cost {low} to {high}, {mean} on average")


def print_architectures(folder: Path, architectures: "dict[str, Architecture]", *, as_json: bool) -> None:
    """Print the architectures on stdout, and on stderr a warning for each task whose search found no signal."""
    for task, architecture in architectures.items():
        panel = architecture.provenance["panel"]
        if not panel["has_signal"]:
            print_status(
                f"{task}: the search found no signal: its predictions do not rank {panel['architectures']} networks "
                "that it measured. Treat the network as a random network within the budget, or search longer "
                "(more steps, more labelled images)"
            )
    if as_json:
        documents = {task: architecture.to_json() for task, architecture in architectures.items()}
        print_json({"run": str(folder), "architectures": documents})
        return
    rows = [
        [
            task,
            f"{architecture.cost.macs / 1e6:.1f}M",
            f"{architecture.cost.params / 1e6:.2f}M",
            architecture.latency_text,
            architecture.make_task().metric.label,
            f"{architecture.provenance['score']:.3f}",
            f"{architecture.provenance['panel']['rank_correlation']:.2f}",
            str(folder / f"{task}.json"),
        ]
        for task, architecture in architectures.items()
    ]
    columns = ["task", "multiply-adds", "params", "predicted latency", "held-out metric", "value"]
    print_table([*columns, "rank correlation", "file"], rows)
