"""``fbnetv5 search``: searches for one network per task in one run."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    console,
    is_first_process,
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
)
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from rich.progress import Progress

    from fbnetv5.api import Architecture, SearchResult
    from fbnetv5.search.reinforce.entry import SearchEntry
    from fbnetv5.search.reinforce.prepare import Prepared


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
Params = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum number of parameters of each network, such as 5M: the weights of its convolutions and linear "
        "layers, head included; per task as for --flops.",
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
    params: Params = None,
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

    Give a budget or several, which hold together: --flops, --latency, --params. Repeat one of them for a family: the
    search runs for the middle value, and the networks of the others are derived from it.
    """
    from fbnetv5 import api
    from fbnetv5.runs.processes import process_group_cleanup

    if resume is not None:
        check_resume_options(context)
    with process_group_cleanup(), progress_bar() as bar, resumable("search", partial(search_report, bar)) as run:
        progress = stage_lines(bar)
        if resume is not None:
            result = api.resume_search(resume, started=run.started, report=run.report, progress=progress)
        else:
            result = api.search(
                flops=flops,
                latency=latency,
                params=params,
                device=device,
                table=table,
                tasks=tasks,
                data=data,
                strict_data=strict_data,
                size=size,
                fit=fit,
                variant=variant,
                stages=stages,
                blocks_per_path=blocks_per_path,
                strict=strict,
                config=config,
                seed=seed,
                name=name,
                runs=runs,
                luts=luts,
                log=print_log,
                started=run.started,
                report=run.report,
                progress=progress,
            )
    if is_first_process():
        print_search(result, as_json=json)
        finish_with_report(result.run, print_log, run.prepared.splits.test)


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
    if as_json:
        print_json(result.to_json())
        return
    print_architectures(result.run, result.architectures)
    for label, architectures in result.family.items():
        print_architectures(result.run / DERIVED / label, architectures)


def warn_of_no_signal(architectures: "Mapping[str, Architecture]") -> None:
    """Print a warning for each task whose panel does not rank networks."""
    for task, architecture in architectures.items():
        panel = architecture.provenance["panel"]
        if not panel["has_signal"]:
            print_status(
                f"{task}: the search found no signal: its predictions do not rank {panel['architectures']} networks "
                "that it measured. Treat the network as a random network within the budget, or search longer "
                "(more steps, more labelled images)"
            )


def print_architectures(folder: Path, architectures: "Mapping[str, Architecture]") -> None:
    """Print a table of the networks of a search, whose files are in ``folder``."""
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
