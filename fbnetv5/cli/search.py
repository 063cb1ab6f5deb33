"""``fbnetv5 search``: searches for one network per task in one run."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.errors import UserError
from fbnetv5.cli.console import (
    check_resume_options,
    console,
    is_first_process,
    options_beside,
    print_json,
    print_log,
    print_status,
    print_table,
    progress_bar,
    resumable,
    stage_lines,
)
from fbnetv5.cli.options import (
    Blocks,
    Cost,
    Data,
    Fit,
    Json,
    Luts,
    MemoryFamily,
    Name,
    ParamsFamily,
    Resume,
    Runs,
    Seed,
    Size,
    SpaceName,
    Stages,
    StrictData,
    TableDevice,
    TableFile,
    Tasks,
    Variant,
    budgets_by_file,
)
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from rich.progress import Progress

    from fbnetv5.api import Architecture, SearchResult
    from fbnetv5.search.reinforce.entry import SearchEntry
    from fbnetv5.search.reinforce.later.loop import LaterEntry
    from fbnetv5.search.reinforce.later.prepare import LaterPrepared
    from fbnetv5.search.reinforce.prepare import Prepared

USED_SHARE_OF_BUDGET = 0.95
"""Share of a budget below which the command says that a network leaves a part of it unused."""

Flops = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum multiply-adds of each network, head included, such as 400M or 1.2G. Per task, and at another "
        "image size than 224x224: det=1.2G@320x640,400M. Repeat one of the budgets for a family of networks.",
    ),
]
Latency = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum latency of each network, such as 8ms or 900us; per task as for --flops. "
        "Needs --device or --table.",
    ),
]
Init = Annotated[
    str,
    typer.Option(
        help="Initial weights of stage 0: scratch (random), timm (FBNetV3-B pretrained on ImageNet, which fits variant "
        "a), or a .safetensors file of such a model."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON or YAML file with further fields of the search, such as steps (schema: docs/schemas/search.json)."
    ),
]


Add = Annotated[
    str | None,
    typer.Option(
        metavar="TASK",
        help="Add this task to the finished search of --run, into RUN/added/TASK: only its head is trained, and no "
        "file of the run changes. The budget is that of the run unless --flops, --latency, --params or --cost "
        "sets others.",
    ),
]
AddedTo = Annotated[
    Path | None, typer.Option(help="Run folder of the finished search for --add.", show_default="runs/latest")
]
OF_ADD = (
    "add", "run", "flops", "latency", "params", "cost", "memory", "device", "table", "data", "strict_data", "config",
    "seed", "name", "luts", "json",
)  # fmt: skip
"""Names of the options that ``--add`` uses; the run has the other settings."""


def search(
    context: typer.Context,
    flops: Flops = None,
    latency: Latency = None,
    params: ParamsFamily = None,
    cost: Cost = None,
    memory: MemoryFamily = None,
    device: TableDevice = None,
    table: TableFile = None,
    tasks: Tasks = None,
    data: Data = None,
    strict_data: StrictData = False,
    size: Size = None,
    fit: Fit = None,
    space: SpaceName = "default",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    init: Init = "scratch",
    config: ConfigFile = None,
    seed: Seed = 0,
    name: Name = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    add: Add = None,
    run: AddedTo = None,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Search for one network per task, or add a task to a search.

    Give a budget or several, which hold together: --flops, --latency, --params, --cost; --memory goes with them. Repeat
    one of them for a family: the search runs for the middle value, and the networks of the others are derived from it.
    """
    from fbnetv5 import api
    from fbnetv5.runs.processes import process_group_cleanup

    _check_combination(context, add=add, run=run, resume=resume)
    with process_group_cleanup(), progress_bar() as bar, resumable("search", partial(make_report, bar)) as state:
        hooks: dict[str, Any] = {"started": state.started, "report": state.report, "progress": stage_lines(bar)}
        tables: dict[str, Any] = {"device": device, "table": table, "luts": luts}
        others: dict[str, Any] = {"config": config, "seed": seed, "name": name, "log": print_log, **tables, **hooks}
        if resume is not None:
            result = api.resume_search(resume, **hooks)
        elif add is not None:
            added_to = run or Path("runs/latest")
            budgets: dict[str, Any] = {"flops": _only(flops), "latency": _only(latency), "params": _only(params)}
            budgets["memory"] = _only(memory)
            budgets["costs"] = {file: _only(values) for file, values in budgets_by_file(cost).items()}
            result = api.add_task(add, run=added_to, data=data, strict_data=strict_data, **budgets, **others)
        else:
            result = api.search(
                flops=flops,
                latency=latency,
                params=params,
                costs=budgets_by_file(cost),
                memory=memory,
                tasks=tasks,
                data=data,
                strict_data=strict_data,
                size=size,
                fit=fit,
                space=space,
                variant=variant,
                stages=stages,
                blocks_per_path=blocks_per_path,
                init=init,
                runs=runs,
                **others,
            )
    if is_first_process():
        print_search(result, as_json=json)
        finish_with_report(result.run, print_log, state.prepared.splits.test)


def _only(values: list[str] | None) -> str | None:
    """The value of a budget's option for ``--add``, which makes no family."""
    way_out = "--add finds one network: give each budget once, or derive others from it with fbnetv5 derive"
    if values and len(values) > 1:
        raise UserError(way_out)
    return values[0] if values else None


def _check_combination(context: typer.Context, *, add: str | None, run: Path | None, resume: Path | None) -> None:
    """Raise UserError for options that do not go with ``--resume``, ``--add`` or their absence."""
    if resume is not None:
        check_resume_options(context)
    elif add is None and run is not None:
        raise UserError("--run names the search that --add adds a task to; name the task with --add")
    elif add is not None and (options := options_beside(context, OF_ADD)):
        raise UserError(f"--add uses the settings of the run that the task is added to; leave out {options}")


def make_report(bar: "Progress", prepared: "Prepared") -> "Callable[[Any], None]":
    """The callback that shows the progress of a search or of a later task."""
    from fbnetv5.search.reinforce.later.prepare import LaterPrepared

    return later_report(bar, prepared) if isinstance(prepared, LaterPrepared) else search_report(bar, prepared)


def later_report(bar: "Progress", prepared: "LaterPrepared") -> "Callable[[LaterEntry], None]":
    """A callback that shows the step and the loss of a later task; in logs, a line per 100 steps."""
    steps = prepared.config.total_steps
    line = bar.add_task("head", total=steps, note="")

    def report(entry: "LaterEntry") -> None:
        note = ", ".join(f"{task} loss {loss:.3f}" for task, loss in entry.losses.items())
        bar.update(line, completed=entry.step, note=note)
        if not console().is_terminal and entry.step % 100 == 0:
            print_status(f"step {entry.step} of {steps}, head: {note}")

    return report


def search_report(bar: "Progress", prepared: "Prepared") -> "Callable[[SearchEntry], None]":
    """A callback that shows the step, and the loss and expected cost of each task; in logs, a line per 100 steps."""
    config, constraints = prepared.config, prepared.constraints
    line = bar.add_task("search", total=config.total_steps, note="")

    def report(entry: "SearchEntry") -> None:
        expected = entry.expected_cost
        costs = {task: own.texts([expected[name] for name in own.names(task)]) for task, own in constraints.items()}
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


def print_search(result: "SearchResult", *, as_json: bool) -> None:
    """Print the architectures on stdout, and on stderr a warning for each task whose search found no signal."""
    from fbnetv5.runs.derivation import DERIVED

    warn_of_no_signal(result.architectures)
    for architectures in (result.architectures, *result.family.values()):
        warn_of_unused_budgets(architectures)
    if as_json:
        print_json(result.to_json())
        return
    print_architectures(result.run, result.architectures)
    for label, architectures in result.family.items():
        print_architectures(result.run / DERIVED / label, architectures)


def warn_of_no_signal(architectures: "Mapping[str, Architecture]") -> None:
    """Print a warning for each task whose panel does not show that its predictions rank networks."""
    for task, architecture in architectures.items():
        panel = architecture.provenance["panel"]
        if not panel["has_signal"]:
            print_status(
                f"{task}: the search found no signal: the losses of its panel do not show that it can rank networks. "
                "Treat the network as a random network within the budget, or search longer (more steps, more labelled "
                "images)"
            )


def warn_of_unused_budgets(architectures: "Mapping[str, Architecture]") -> None:
    """Print a line for each task whose network leaves a part of every budget unused, if its panel shows a signal."""
    from fbnetv5.costs.budgets import MEMORY, format_cost

    for task, architecture in architectures.items():
        provenance = architecture.provenance
        budgets = provenance["budgets"] if "budgets" in provenance else [provenance["budget"]]
        limits = {budget["unit"]: budget["limit"] for budget in budgets if budget["unit"] != MEMORY}
        used = [(architecture.cost.in_unit(unit) or 0.0, limit, unit) for unit, limit in limits.items()]
        cost, limit, unit = max(used, key=lambda each: each[0] / each[1])
        if cost < USED_SHARE_OF_BUDGET * limit and provenance["panel"]["has_signal"]:
            better = "; a search for this budget could tell better" if "derived_from" in provenance else ""
            print_status(
                f"{task}: the network uses {format_cost(cost, unit)} of {format_cost(limit, unit)}: the panel's fit "
                f"found no larger one within the budget that has a lower loss{better}"
            )


def print_architectures(folder: Path, architectures: "Mapping[str, Architecture]") -> None:
    """Print a table of the networks of a search, whose files are in ``folder``."""
    others = _other_costs(architectures)
    rows = [
        [
            task,
            f"{architecture.cost.macs / 1e6:.1f}M",
            f"{architecture.cost.params / 1e6:.2f}M",
            architecture.latency_text,
            *(costs[task] for costs in others.values()),
            architecture.make_task().metric.label,
            f"{architecture.provenance['score']:.3f}",
            f"{architecture.provenance['panel']['rank_correlation']:.2f}",
            str(folder / f"{task}.json"),
        ]
        for task, architecture in architectures.items()
    ]
    columns = ["task", "multiply-adds", "params", "predicted latency", *others]
    print_table([*columns, "held-out metric", "value", "rank correlation", "file"], rows)


def _other_costs(architectures: "Mapping[str, Architecture]") -> dict[str, dict[str, str]]:
    """By heading and task: the costs of cost files and the peak memory, "-" for a network without such a budget."""
    from fbnetv5.costs.budgets import MEMORY, format_cost, quantity_of

    columns: dict[str, dict[str, str]] = {}
    for task, architecture in architectures.items():
        costs = {**architecture.cost.quantities, MEMORY: architecture.cost.peak_activation_bytes}
        for unit, cost in costs.items():
            if cost is not None:
                heading = "peak memory" if unit == MEMORY else (quantity_of(unit) or (unit,))[0]
                columns.setdefault(heading, dict.fromkeys(architectures, "-"))[task] = format_cost(cost, unit)
    return columns
