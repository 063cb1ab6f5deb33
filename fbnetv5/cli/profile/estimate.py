"""``fbnetv5 profile estimate``: computes a rough latency table from the data sheet of a GPU, without measuring."""

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv5.cli.console import print_json, print_line, print_table, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Luts, Resolution, SpaceName, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    SPACE,
    STAGES,
    VARIANT,
    Encoder,
    GpuDevice,
    Precision,
    Width,
)

if TYPE_CHECKING:
    from fbnetv5.api import EstimateResult


def estimate(
    device: GpuDevice,
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
    luts: Luts = Path("luts"),
    json: Json = False,
) -> None:
    """Estimate a latency table from a GPU's data sheet, unmeasured.

    The values are rough: peak compute, memory bandwidth, and a shortest time for each kernel.
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
        estimated = api.profile_estimate(device, scope=scope, precision=precision, luts=luts, progress=stage_lines(bar))
    print_estimates(estimated, as_json=json)


def print_estimates(estimated: "EstimateResult", *, as_json: bool) -> None:
    """Print the blocks of an estimated table."""
    if as_json:
        print_json(estimated.to_json())
        return
    path, table = estimated.path, estimated.table
    rows = [
        [key, f"{entry.latency_ms:.4f} ms {entry.kind}", entry.bound]
        for key, entry in table.entries.items()
        if key in estimated.keys
    ]
    print_table(["block", "latency", "bound by"], rows)
    print_line(
        f"{path}: {len(rows)} blocks estimated from {table.peak_tflops:g} TFLOPS and {table.bandwidth_gb_s:g} GB/s "
        f"({table.source}), with {table.kernel_floor_us:g} us or more for each kernel ({table.kernel_floor_source}); "
        f"nothing was measured on this device. Search with: --latency BUDGET --table {path}"
    )
