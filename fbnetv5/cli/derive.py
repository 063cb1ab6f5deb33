"""``fbnetv5 derive``: derives the network of another budget from a finished run, without another search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.branch import print_network
from fbnetv5.cli.console import print_json
from fbnetv5.cli.nars import print_pair
from fbnetv5.cli.options import Json, Luts, TableDevice, TableFile, find_table, one_budget

if TYPE_CHECKING:
    from fbnetv5.deploy.derive import Derived

Flops = Annotated[
    str | None,
    typer.Option(metavar="BUDGET", help="Maximum multiply-adds of the whole network, such as 700M or 1.2G@320x640."),
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
    run: Annotated[Path, typer.Argument(help="Run folder of a finished fbnetv5 branch or nars.")],
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
    """Derive the network of another budget from a finished run.

    The run is one of fbnetv5 branch or nars, and it takes seconds. A branched network comes with the weights of the
    run, by its trained routing; an architecture and its recipe, without weights, by the predictor. Give one budget:
    --flops or --latency.
    """
    from fbnetv5.deploy.derive import derive as derive_network
    from fbnetv5.deploy.derive import table_options

    amount, unit = one_budget(flops, latency)
    file = find_table(device, table, luts, table_options(run, amount, unit, luts))
    derived = derive_network(run, amount, unit=unit, table=file, other_machine=table is not None, output=output)
    print_derived(run, derived, as_json=json)


def print_derived(run: Path, derived: "Derived", *, as_json: bool) -> None:
    """Print the derived network."""
    if as_json:
        document = {"run": str(run), "folder": str(derived.folder), "architecture": derived.architecture.to_json()}
        print_json(document if derived.recipe is None else {**document, "recipe": derived.recipe})
        return
    if derived.recipe is not None:
        print_pair(derived.folder, derived.architecture, derived.recipe)
        return
    print_network(derived.folder / "branched.json", derived.architecture)
