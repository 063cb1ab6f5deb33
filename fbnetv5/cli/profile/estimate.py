"""``fbnetv5 profile estimate``: computes a rough latency table from the data sheet of a GPU, without measuring."""

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv5.cli.console import print_json, print_line, print_table, progress_bar, stage_lines
from fbnetv5.cli.options import Blocks, Data, Json, Luts, Resolution, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    STAGES,
    VARIANT,
    Device,
    Encoder,
    Precision,
    Width,
    make_scope,
)

if TYPE_CHECKING:
    from latency.estimate import EstimatedTable


def estimate(
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
    luts: Luts = Path("luts"),
    json: Json = False,
) -> None:
    """Estimate a latency table from a GPU's data sheet, unmeasured.

    The values are rough: peak compute, memory bandwidth, and a shortest time for each kernel.
    """
    scope = make_scope(variant, stages, blocks_per_path, resolution, tasks, data, encoder=encoder, width=width)
    from fbnetv5.deploy.profile import graphs_of
    from latency.devices import gpu
    from latency.estimate import estimate as estimate_blocks
    from latency.estimate import estimated_path

    path, graphs = estimated_path(luts, device, precision), graphs_of(scope)
    with progress_bar() as bar:
        table = estimate_blocks(graphs, gpu(device), precision, path, stage_lines(bar))
    print_estimates(path, table, [graph.key for graph in graphs], as_json=json)


def print_estimates(path: Path, table: "EstimatedTable", keys: list[str], *, as_json: bool) -> None:
    """Print the blocks called ``keys`` of an estimated table."""
    if as_json:
        about = {"table": str(path), "device": table.device, "precision": table.precision, "kind": table.kind}
        figures = {
            "peak_tflops": table.peak_tflops,
            "bandwidth_gb_s": table.bandwidth_gb_s,
            "kernel_floor_us": table.kernel_floor_us,
        }
        print_json({**about, **figures, "latency_ms": table.values_ms(keys)})
        return
    rows = [
        [key, f"{entry.latency_ms:.4f} ms {entry.kind}", entry.bound]
        for key, entry in table.entries.items()
        if key in keys
    ]
    print_table(["block", "latency", "bound by"], rows)
    print_line(
        f"{path}: {len(rows)} blocks estimated from {table.peak_tflops:g} TFLOPS and {table.bandwidth_gb_s:g} GB/s "
        f"({table.source}), with {table.kernel_floor_us:g} us or more for each kernel ({table.kernel_floor_source}); "
        f"nothing was measured on this device. Search with: --latency BUDGET --table {path}"
    )
