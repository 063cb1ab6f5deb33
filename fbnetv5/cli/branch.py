"""``fbnetv5 branch``: searches for one network of all tasks that decides where the tasks branch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    console,
    is_first_process,
    print_json,
    print_line,
    print_log,
    print_status,
    print_table,
    progress_bar,
    resumable,
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
)
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from rich.progress import Progress

    from fbnetv5.api import Architecture, BranchResult
    from fbnetv5.search.bmtas.entry import BranchEntry
    from fbnetv5.search.bmtas.prepare import Prepared


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
Encoder = Annotated[
    str, typer.Option(help="Encoder: fbnetv3-a to fbnetv3-g, mobilenetv2, efficientnet-lite0 or resnet50.")
]
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
    from fbnetv5 import api
    from fbnetv5.runs.processes import process_group_cleanup

    if resume is not None:
        check_resume_options(context)
    with process_group_cleanup(), progress_bar() as bar, resumable("branch", partial(branch_report, bar)) as run:
        if resume is not None:
            result = api.resume_branch(resume, started=run.started, report=run.report)
        else:
            result = api.branch(
                flops=flops,
                latency=latency,
                device=device,
                table=table,
                tasks=tasks,
                encoder=encoder,
                init=init,
                data=data,
                strict_data=strict_data,
                size=size,
                fit=fit,
                config=config,
                seed=seed,
                name=name,
                runs=runs,
                luts=luts,
                log=print_log,
                started=run.started,
                report=run.report,
            )
    if is_first_process():
        print_branched(result, as_json=json)
        finish_with_report(result.run, print_log, run.prepared.splits.test)


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


def print_branched(result: "BranchResult", *, as_json: bool) -> None:
    """Print the network that a search found."""
    if as_json:
        print_json(result.to_json())
    else:
        print_network(result.file, result.architecture)


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
