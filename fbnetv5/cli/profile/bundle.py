"""``fbnetv5 profile bundle``: writes a folder with everything needed to measure another device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Resolution, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    STAGES,
    VARIANT,
    Device,
    Encoder,
    FitNetworks,
    Precision,
    Threads,
    Width,
    draw_networks,
    make_scope,
)

if TYPE_CHECKING:
    from latency.on_device import Bundle


def bundle(
    folder: Annotated[Path, typer.Argument(help="Folder to create.")],
    device: Device = "cpu",
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
    json: Json = False,
) -> None:
    """Write a folder to copy to another device and measure there.

    On the device it needs Python, numpy and the device's runtime; its README.md has the steps.
    """
    scope = make_scope(variant, stages, blocks_per_path, resolution, tasks, data, encoder=encoder, width=width)
    from fbnetv5.deploy.profile import graphs_of
    from latency.bundle import Target, write_bundle
    from latency.protocol import Timing

    target = Target(device=device, precision=precision, threads=threads)
    graphs, whole_networks = graphs_of(scope), draw_networks(scope, networks)
    with progress_bar() as bar:
        written = write_bundle(
            graphs, whole_networks, folder=folder, target=target, timing=Timing(), progress=stage_lines(bar)
        )
    print_bundle(folder, written, as_json=json)


def print_bundle(folder: Path, bundle: "Bundle", *, as_json: bool) -> None:
    """Print what the bundle in ``folder`` measures."""
    if as_json:
        counts = {f"{kind}s": len(bundle.of_kind(kind)) for kind in ("block", "network")}
        print_json({"bundle": str(folder), "device": bundle.device, "precision": bundle.precision, **counts})
        return
    print_line(f"{folder}: {len(bundle.graphs)} graphs to time on {bundle.device}; the steps are in its README.md")
