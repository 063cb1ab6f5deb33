"""``fbnetv5 derive``: derives the networks of another budget from a finished run, without another search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.branch import print_network
from fbnetv5.cli.console import print_json, progress_bar, stage_lines
from fbnetv5.cli.nars import print_pair
from fbnetv5.cli.options import Json, Luts, TableDevice, TableFile, find_table, one_budget
from fbnetv5.cli.search import print_architectures

if TYPE_CHECKING:
    from fbnetv5.deploy.derive import Derived

Flops = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum multiply-adds of the whole network, such as 700M or 1.2G@320x640; of a search also by task: "
        "det=700M,400M.",
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum latency of the whole network, such as 20ms, instead of --flops; by the latency table of the "
        "run, or that of --device or --table.",
    ),
]


def derive(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished fbnetv5 search, branch or nars.")],
    flops: Flops = None,
    latency: Latency = None,
    device: TableDevice = None,
    table: TableFile = None,
    luts: Luts = Path("luts"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to make.", show_default="RUN/derived/BUDGET")
    ] = None,
    json: Json = False,
) -> None:
    """Derive the networks of another budget from a finished run.

    It takes seconds. Of a search, a network per task comes with the shared weights, by the panel; of a branched
    network, one with the weights of the run, by its trained routing; of fbnetv5 nars an architecture and its recipe,
    without weights, by the predictor. Give one budget: --flops or --latency.
    """
    from fbnetv5.deploy.derive import derive as derive_network
    from fbnetv5.deploy.derive import table_options

    amount, unit = one_budget(flops, latency)
    file = find_table(device, table, luts, table_options(run, amount, unit, luts))
    with progress_bar() as bar:
        derived = derive_network(
            run,
            amount,
            unit=unit,
            table=file,
            other_machine=table is not None,
            output=output,
            progress=stage_lines(bar),
        )
    print_derived(run, derived, as_json=json)


def print_derived(run: Path, derived: "Derived", *, as_json: bool) -> None:
    """Print the derived networks: one of several tasks, one with its recipe, or one per task."""
    from fbnetv5.runs.folder import BRANCHED

    networks, recipe = derived.architectures, derived.recipe
    per_task = recipe is None and BRANCHED not in networks
    if as_json:
        documents = {name: architecture.to_json() for name, architecture in networks.items()}
        found = {"architectures": documents} if per_task else {"architecture": next(iter(documents.values()))}
        print_json({"run": str(run), "folder": str(derived.folder), **found, **({"recipe": recipe} if recipe else {})})
    elif per_task:
        print_architectures(derived.folder, networks, as_json=False)
    elif recipe is None:
        print_network(derived.folder / f"{BRANCHED}.json", networks[BRANCHED])
    else:
        print_pair(derived.folder, next(iter(networks.values())), recipe)
