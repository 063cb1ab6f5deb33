"""Options that several commands of ``fbnetv5 profile`` share."""

from typing import Annotated

import typer

NETWORKS = 48
"""Default number of whole networks to measure, where the space has as many."""
SPACE, VARIANT, STAGES, BLOCKS_PER_PATH = "default", "a", 4, 2
"""Default parameters of the space."""

Device = Annotated[str, typer.Option(help="Device of the latency table: cpu, or an NVIDIA GPU such as a100 or orin.")]
GpuDevice = Annotated[str, typer.Option("--device", help="NVIDIA GPU whose data sheet is used, such as a100 or orin.")]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="Runtime to measure: tensorrt (usual for GPUs), onnxruntime (usual for the CPU), torch or torch-compile.",
        show_default=False,
    ),
]
Precision = Annotated[str, typer.Option(help="Precision of the networks: fp32, fp16 (GPUs only) or int8.")]
Threads = Annotated[int, typer.Option(min=1, help="Number of CPU threads per operator.")]
FitNetworks = Annotated[
    int | None,
    typer.Option(
        "--networks",
        min=0,
        help="Number of random whole networks to measure; the correction of the sum of blocks is fitted on them. "
        "0: no correction.",
        show_default=f"{NETWORKS}, or all of a space with fewer",
    ),
]

Encoder = Annotated[
    str | None,
    typer.Option(
        help="Encoder of fbnetv5 branch, such as fbnetv3-b, instead of the space of --variant: its blocks, and whole "
        "networks that serve all of --tasks. Or stages, the space of fbnetv5 nars.",
        show_default=False,
    ),
]
Width = Annotated[float, typer.Option(help="Factor of all widths of --encoder.")]
