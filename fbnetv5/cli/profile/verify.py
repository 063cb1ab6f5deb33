"""``fbnetv5 profile verify``: compares a latency table with whole networks measured now."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import options_beside, print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Resolution, SpaceName, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    NETWORKS,
    SPACE,
    STAGES,
    VARIANT,
    Encoder,
    Width,
)
from fbnetv5.cli.profile.tables import print_errors

if TYPE_CHECKING:
    from fbnetv5.api import Verification


def verify(
    context: typer.Context,
    table: Annotated[Path, typer.Argument(help="Latency table file; it is not changed.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder whose networks are measured, at their tasks and resolution, instead of random networks. "
            "Of fbnetv5 branch: its network and the other trees of pareto.json."
        ),
    ] = None,
    space: SpaceName = SPACE,
    variant: Variant = VARIANT,
    stages: Stages = STAGES,
    blocks_per_path: Blocks = BLOCKS_PER_PATH,
    encoder: Encoder = None,
    width: Width = 1.0,
    resolution: Resolution = "224x224",
    tasks: Tasks = None,
    data: Data = None,
    networks: Annotated[int, typer.Option(min=2, help="Number of random networks to measure.")] = NETWORKS,
    json: Json = False,
) -> None:
    """Compare a latency table with whole networks measured now."""
    if run is not None and (unused := options_beside(context, ("table", "run", "json"))):
        raise UserError(f"--run measures the networks of the run, at their tasks and resolution: leave out {unused}")
    from fbnetv5 import api

    scope = (
        None
        if run is not None
        else api.scope(
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
    )
    with progress_bar() as bar:
        verification = api.profile_verify(table, run=run, scope=scope, networks=networks, progress=stage_lines(bar))
    print_verification(table, verification, as_json=json)


def print_verification(path: Path, verification: "Verification", *, as_json: bool) -> None:
    """Print the errors of the table at ``path`` on the networks measured now."""
    if as_json:
        print_json(verification.to_json())
        return
    compared = f"{path} compared with {verification.report.networks} networks measured now"
    if verification.speed is None:
        print_line(f"{compared}, at the machine's speed of today: no network of the table was measured again")
        print_errors(verification.report)
        return
    print_line(f"{compared}, scaled to the machine's speed when the table was measured")
    print_errors(verification.report)
    print_line(f"the machine now runs at {verification.speed:.1%} of its speed when the table was measured")
