"""``fbnetv5 profile bundle``: writes a folder with everything needed to measure another device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Resolution, SpaceName, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    SPACE,
    STAGES,
    VARIANT,
    Device,
    Encoder,
    FitNetworks,
    Precision,
    Threads,
    Width,
)

if TYPE_CHECKING:
    from fbnetv5.api import ProfileBundle


def bundle(
    folder: Annotated[Path, typer.Argument(help="Folder to create.")],
    device: Device = "cpu",
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
    json: Json = False,
) -> None:
    """Write a folder to copy to another device and measure there.

    On the device it needs Python, numpy and the device's runtime; its README.md has the steps.
    """
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
    with progress_bar() as bar:
        written = api.profile_bundle(
            folder,
            device=device,
            scope=scope,
            precision=precision,
            threads=threads,
            networks=networks,
            progress=stage_lines(bar),
        )
    print_bundle(written, as_json=json)


def print_bundle(written: "ProfileBundle", *, as_json: bool) -> None:
    """Print what a bundle measures."""
    if as_json:
        print_json(written.to_json())
        return
    bundle = written.bundle
    print_line(
        f"{written.folder}: {len(bundle.graphs)} graphs to time on {bundle.device}; the steps are in its README.md"
    )
