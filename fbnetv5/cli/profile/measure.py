"""``fbnetv5 profile`` without a sub-command: measures the blocks of a search space into a latency table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import interruptible, print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Luts, Resolution, Stages, Tasks, Variant, resolve_device
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    STAGES,
    VARIANT,
    Device,
    Encoder,
    FitNetworks,
    Precision,
    Runtime,
    Threads,
    Width,
    draw_networks,
    make_scope,
)
from fbnetv5.cli.profile.tables import print_profile

if TYPE_CHECKING:
    from fbnetv5.deploy.profile import Scope
    from latency.backend import Backend
    from latency.profile import Plan


def measure(
    context: typer.Context,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "fp32",
    variant: Variant = VARIANT,
    stages: Stages = STAGES,
    blocks_per_path: Blocks = BLOCKS_PER_PATH,
    encoder: Encoder = None,
    width: Width = 1.0,
    resolution: Resolution = "224x224",
    tasks: Tasks = None,
    data: Data = None,
    threads: Threads = 1,
    networks: FitNetworks = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the blocks and networks that the table lacks, and measure nothing.")
    ] = False,
    luts: Luts = Path("luts"),
    json: Json = False,
) -> None:
    """Measure the blocks of a search space into a latency table.

    Whole networks are measured too, to correct the sum of their blocks. An HTML report is written beside the table.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context, context.invoked_subcommand)
        return
    backend = resolve_device(device, runtime=runtime, precision=precision, threads=threads)
    scope = make_scope(variant, stages, blocks_per_path, resolution, tasks, data, encoder=encoder, width=width)
    _measure(backend, scope, networks, luts=luts, dry_run=dry_run, as_json=json)


def _refuse_options(context: typer.Context, subcommand: str) -> None:
    """Raise UserError for options before a sub-command, which would have no effect."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"options of a sub-command come after its name: fbnetv5 profile {subcommand} ... {option}")


def _measure(
    backend: "Backend", scope: "Scope", networks: int | None, *, luts: Path, dry_run: bool, as_json: bool
) -> None:
    """Measure the table of a scope on a device, or with ``dry_run`` print what it lacks."""
    from fbnetv5.deploy.profile import graphs_of, write_report
    from latency.profile import plan, profile
    from latency.protocol import Timing
    from latency.table import table_path

    path = table_path(luts, backend.device, backend.precision, threads=backend.threads, runtime=backend.runtime)
    timing = Timing()
    graphs, whole_networks = graphs_of(scope), draw_networks(scope, networks)
    if dry_run:
        print_plan(path, plan(graphs, whole_networks, path=path, backend=backend, timing=timing), as_json=as_json)
        return
    with progress_bar() as bar, interruptible("run the same command again"):
        result = profile(graphs, whole_networks, path=path, backend=backend, timing=timing, progress=stage_lines(bar))
    report = write_report(path, result.table, scope)
    print_profile(path, report, result, [graph.key for graph in graphs], as_json=as_json)


def print_plan(path: Path, missing: "Plan", *, as_json: bool) -> None:
    """Print the blocks and networks that are missing in the table at ``path``."""
    if as_json:
        print_json({"table": str(path), "blocks": list(missing.blocks), "networks": list(missing.networks)})
        return
    for key in (*missing.blocks, *missing.networks):
        print_line(key)
    print_line(f"{path} lacks {len(missing.blocks)} blocks and {len(missing.networks)} networks")
