"""``fbnetv5 profile`` without a sub-command: measures the blocks of a search space into a latency table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import interruptible, print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Luts, Resolution, SpaceName, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    SPACE,
    STAGES,
    VARIANT,
    Device,
    Encoder,
    FitNetworks,
    Precision,
    Runtime,
    Threads,
    Width,
)
from fbnetv5.cli.profile.tables import print_profile

if TYPE_CHECKING:
    from fbnetv5.api import ProfilePlan


def measure(
    context: typer.Context,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "fp32",
    space: SpaceName = SPACE,
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
    from fbnetv5 import api

    scope = api.scope(
        space=space,
        variant=variant,
        stages=stages,
        blocks_per_path=blocks_per_path,
        encoder=encoder,
        width=width,
        resolution=resolution,
        tasks=tasks,
        data=data,
    )
    if dry_run:
        missing = api.profile_plan(
            device, scope=scope, runtime=runtime, precision=precision, threads=threads, networks=networks, luts=luts
        )
        print_plan(missing, as_json=json)
        return
    with progress_bar() as bar, interruptible("run the same command again"):
        measured = api.profile(
            device,
            scope=scope,
            runtime=runtime,
            precision=precision,
            threads=threads,
            networks=networks,
            luts=luts,
            progress=stage_lines(bar),
        )
    print_profile(measured, as_json=json)


def _refuse_options(context: typer.Context, subcommand: str) -> None:
    """Raise UserError for options before a sub-command, which would have no effect."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"options of a sub-command come after its name: fbnetv5 profile {subcommand} ... {option}")


def print_plan(missing: "ProfilePlan", *, as_json: bool) -> None:
    """Print the blocks and networks that are missing in a table."""
    if as_json:
        print_json(missing.to_json())
        return
    blocks, networks = missing.plan.blocks, missing.plan.networks
    for key in (*blocks, *networks):
        print_line(key)
    print_line(f"{missing.path} lacks {len(blocks)} blocks and {len(networks)} networks")
