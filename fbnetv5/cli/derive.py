"""``fbnetv5 derive``: derives the networks of another budget from a finished run, without another search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.branch import print_network
from fbnetv5.cli.console import is_first_process, print_json, print_log, progress_bar, stage_lines
from fbnetv5.cli.nars import print_pair
from fbnetv5.cli.options import Cost, Json, Luts, MemoryFamily, ParamsFamily, TableDevice, TableFile, budgets_by_file
from fbnetv5.cli.search import print_architectures, warn_of_no_signal, warn_of_unused_budgets

if TYPE_CHECKING:
    from fbnetv5.api import Derived

Flops = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum multiply-adds of the whole network, such as 700M or 1.2G@320x640; of a search also by task: "
        "det=700M,400M. Repeat one of the budgets for a family of networks.",
    ),
]
Latency = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum latency of the whole network, such as 20ms; by the latency table of the "
        "run, or that of --device or --table.",
    ),
]


def derive(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished fbnetv5 search, branch or nars.")],
    flops: Flops = None,
    latency: Latency = None,
    params: ParamsFamily = None,
    cost: Cost = None,
    memory: MemoryFamily = None,
    device: TableDevice = None,
    table: TableFile = None,
    luts: Luts = Path("luts"),
    resolutions: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Deploy resolutions to choose from, such as 128,160,192: each task of a search gets the network of "
            "the lowest loss, measured on images of its resolution.",
            show_default="that of the budget",
        ),
    ] = None,
    pool: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Run folder of another search of the same space, tasks and images, such as one of another seed: one "
            "fit to both panels chooses the networks, which get the weights of the first run. Repeat it for more.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Run folder to make, if no budget is repeated.",
            show_default="RUN/derived/BUDGET",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Derive the networks of another budget from a finished run.

    It takes seconds, or for a search up to a minute on a CPU. Of a search, a network per task comes with the shared
    weights, by the panel; of a branched network, one with the weights of the run, by its trained routing; of fbnetv5
    nars an architecture and its recipe, without weights, by the predictor. Give a budget or several, which hold
    together: --flops, --latency, --params and, of a search, --cost, whose FILE may be the name of a cost of the run,
    as in energy=3. A branched network takes one. Repeat one of them for a family: networks for each of its values.
    """
    from fbnetv5 import api
    from fbnetv5.runs.processes import process_group_cleanup

    with process_group_cleanup(), progress_bar() as bar:
        derived = api.derive(
            run,
            flops=flops,
            latency=latency,
            params=params,
            memory=memory,
            costs=budgets_by_file(cost),
            device=device,
            table=table,
            luts=luts,
            resolutions=resolutions,
            pool=pool or (),
            output=output,
            log=print_log,
            progress=stage_lines(bar),
        )
    if is_first_process():
        print_derived(derived, as_json=json)


def print_derived(derived: "Derived", *, as_json: bool) -> None:
    """Print the derived networks of each value: one per task, one with its recipe, or one of all tasks."""
    members = (derived, *derived.family.values())
    if derived.per_task:
        warn_of_no_signal(derived.architectures)
        for member in members:
            warn_of_unused_budgets(member.architectures)
    if as_json:
        print_json(derived.to_json())
        return
    for member in members:
        _print_member(member)


def _print_member(derived: "Derived") -> None:
    if derived.per_task:
        print_architectures(derived.folder, derived.architectures)
        return
    ((name, architecture),) = derived.architectures.items()
    if derived.recipe is not None:
        print_pair(derived.folder, architecture, derived.recipe)
    else:
        print_network(derived.folder / f"{name}.json", architecture)
