"""``fbnetv5 search``: a network for every task in one run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from export.errors import UserError
from fbnetv5.cli.console import (
    console,
    interruptible,
    is_first_process,
    print_json,
    print_table,
    progress_bar,
    refuse_others,
    say,
    stage_lines,
)
from fbnetv5.cli.options import (
    Blocks,
    Data,
    Json,
    Luts,
    Runs,
    Stages,
    Strict,
    Tasks,
    Variant,
    make_space,
    resolve_device,
    say_layout,
    task_names,
)

if TYPE_CHECKING:
    from fbnetv5.architecture import Architecture
    from fbnetv5.costs.ranges import CostRange
    from fbnetv5.search.reinforce.config import SearchConfig
    from fbnetv5.search.reinforce.entry import SearchEntry
    from fbnetv5.search.reinforce.prepare import Prepared
    from fbnetv5.spaces.space import Space


def search(
    context: typer.Context,
    flops: Annotated[str | None, typer.Option(help="Budget, such as 400M or det=1.2G@320x640,400M.")] = None,
    latency: Annotated[str | None, typer.Option(help="Budget, such as 8ms; needs a latency table.")] = None,
    device: Annotated[str | None, typer.Option(help="Device whose table counts or predicts milliseconds.")] = None,
    table: Annotated[Path | None, typer.Option(help="Latency table to use, of whatever machine.")] = None,
    tasks: Tasks = None,
    data: Data = None,
    size: Annotated[str, typer.Option(help="Size of the images the search trains on, HEIGHTxWIDTH.")] = "64x64",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    strict: Strict = False,
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file that sets any other field of the search, such as steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the run; its date and time if not given.")] = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    resume: Annotated[Path | None, typer.Option(help="Run folder of a search to go on with.")] = None,
    json: Json = False,
) -> None:
    """Search a network for every task in one run."""
    from fbnetv5.runs.processes import process_group_cleanup, relaunch_command
    from fbnetv5.search.reinforce.config import SearchConfig
    from fbnetv5.search.reinforce.prepare import prepare
    from fbnetv5.search.reinforce.run import run_search, start_run

    if resume is not None:
        refuse_others(context)
        folder, prepared = resume, prepare(SearchConfig.load(resume))
    else:
        say_layout(data)
        chosen = _search_config(
            flops=flops,
            latency=latency,
            table=_table(device, table, luts),
            foreign=table is not None,
            tasks=task_names(tasks),
            data=data,
            size=size,
            space=make_space(variant, stages, blocks_per_path, strict),
            seed=seed,
            fields=config,
        )
        folder, prepared = start_run(chosen, runs / _run_name(name), print_ranges, say)
    way_on = f"go on with: {relaunch_command(f'search --resume {folder}')}"
    with process_group_cleanup(), progress_bar() as bar, interruptible(way_on):
        found = run_search(folder, prepared, search_report(bar, prepared), stage_lines(bar))
    if is_first_process():
        print_found(folder, found, as_json=json)


def _run_name(name: str | None) -> str:
    if name is None:
        return time.strftime("%Y%m%d-%H%M%S")
    if name != Path(name).name or "\\" in name or name in ("", "..", "latest"):
        raise UserError(f"--name {name!r} is not the name of a run: it has no slashes; --runs says in which folder")
    return name


def _table(device: str | None, table: Path | None, luts: Path) -> Path | None:
    """The latency table asked for by file or by device."""
    if table is not None or device is None:
        return table
    from latency.table import measured_tables, table_path

    path = table_path(luts, device)
    if path.exists():
        return path
    measured = measured_tables(luts, device)
    if len(measured) == 1:
        say(f"the latency table is {measured[0]}")
        return measured[0]
    if measured:
        names = ", ".join(map(str, measured))
        raise UserError(f"{luts} has several latency tables of {device}: {names}; choose one with --table")
    resolve_device(device)
    raise UserError(f"there is no latency table {path}; make it with: fbnetv5 profile --device {device}")


def _search_config(
    *,
    flops: str | None,
    latency: str | None,
    table: Path | None,
    foreign: bool,
    tasks: tuple[str, ...],
    data: Path | None,
    size: str,
    space: "Space",
    seed: int,
    fields: Path | None,
) -> "SearchConfig":
    from fbnetv5.costs.budgets import parse_budgets
    from fbnetv5.data.config import DataConfig
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.search.reinforce.config import SearchConfig

    if (flops is None) == (latency is None):
        raise UserError("a search needs one budget: either --flops, such as 400M, or --latency, such as 8ms")
    if latency is not None and table is None:
        raise UserError("--latency needs a measured device: add --device cpu, or --table FILE")
    budgets = parse_budgets(flops or latency or "", unit="macs" if flops else "ms", tasks=tasks)
    return SearchConfig.make(
        fields,
        budgets=budgets,
        space=space,
        data=DataConfig.of(data, size=parse_resolution(size)),
        table=None if table is None else str(table.resolve()),
        other_machine_table=foreign,
        seed=seed,
    )


def search_report(bar: Progress, prepared: "Prepared") -> "Callable[[SearchEntry], None]":
    """Shows the step, and each task's loss, expected cost and entropy; without a terminal, in a line now and then."""
    from fbnetv5.costs.budgets import format_cost

    config, unit = prepared.config, {task: table.unit for task, table in prepared.tables.items()}
    line = bar.add_task("search", total=config.total_steps, note="")

    def report(now: "SearchEntry") -> None:
        costs = {task: format_cost(cost, unit[task]) for task, cost in now.expected_cost.items()}
        losses = {task: now.losses.get(task, float("nan")) for task in costs}
        short = ", ".join(f"{task} {losses[task]:.2f} {cost}" for task, cost in costs.items())
        bar.update(line, completed=now.step, description=now.phase, note=short)
        if not console.is_terminal and now.step % 100 == 0:
            tasks = "; ".join(
                f"{task} loss {losses[task]:.3f}, expected cost {cost}, entropy {now.entropy[task]:.3f}"
                for task, cost in costs.items()
            )
            say(f"step {now.step} of {config.total_steps}, {now.phase}: {tasks}")

    return report


def print_ranges(ranges: "Sequence[CostRange]") -> None:
    from fbnetv5.costs.budgets import format_cost

    for found in ranges:
        costs = [format_cost(value, found.unit) for value in (found.min_cost, found.expected, found.max_cost)]
        say(f"{found.task}: networks of this space cost {costs[0]} to {costs[2]}, a random one {costs[1]}")


def print_found(folder: Path, found: "dict[str, Architecture]", *, as_json: bool) -> None:
    """The architectures on stdout; on stderr, whatever the form, a warning for each task without a signal."""
    for task, one in found.items():
        if not one.provenance["panel"]["has_signal"]:
            say(
                f"{task}: the search found no signal: what it predicts of networks does not rank "
                f"{one.provenance['panel']['architectures']} others that it ran. Treat the network as a random one of "
                "its budget, or search longer (more steps, more labelled images)"
            )
    if as_json:
        print_json({"run": str(folder), "architectures": {task: one.to_json() for task, one in found.items()}})
        return
    rows = [
        [
            task,
            f"{one.cost.macs / 1e6:.1f}M",
            f"{one.cost.params / 1e6:.2f}M",
            one.latency_text,
            f"{one.provenance['score']:.3f} {one.provenance['metric']}",
            f"{one.provenance['panel']['rank_correlation']:.2f}",
            str(folder / f"{task}.json"),
        ]
        for task, one in found.items()
    ]
    print_table(["task", "multiply-adds", "params", "predicted", "held-out score", "rank corr.", "file"], rows)
