"""``fbnetv5 derive``: derives the network of another budget from a finished run, without another search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.branch import print_network
from fbnetv5.cli.console import print_json, print_log
from fbnetv5.cli.nars import print_pair
from fbnetv5.cli.options import Json, Luts, TableDevice, TableFile

if TYPE_CHECKING:
    from fbnetv5.api import Derived

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
    from fbnetv5 import api

    derived = api.derive(
        run, flops=flops, latency=latency, device=device, table=table, luts=luts, output=output, log=print_log
    )
    print_derived(derived, as_json=json)


def print_derived(derived: "Derived", *, as_json: bool) -> None:
    """Print the derived network."""
    if as_json:
        print_json(derived.to_json())
    elif derived.recipe is not None:
        print_pair(derived.folder, derived.architecture, derived.recipe)
    else:
        print_network(derived.file, derived.architecture)
