"""Options that several commands of ``fbnetv5 profile`` share, and functions that turn them into objects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.options import make_space, task_names

if TYPE_CHECKING:
    from fbnetv5.deploy.profile import Scope

NETWORKS = 48
"""Default number of whole networks to measure."""

Device = Annotated[str, typer.Option(help="Device of the latency table: cpu, or an NVIDIA GPU such as a100 or orin.")]
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
    int,
    typer.Option(
        "--networks",
        min=0,
        help="Number of random whole networks to measure; the correction of the sum of blocks is fitted on them. "
        "0: no correction.",
    ),
]


def make_scope(
    variant: str, stages: int, blocks_per_path: int, resolution: str, tasks: str | None, data: Path | None
) -> "Scope":
    """Make the scope of a latency table from the options of a command.

    Raises:
        UserError: one of the options is wrong.
    """
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.data.splits import targets_of
    from fbnetv5.data.targets import class_names
    from fbnetv5.deploy.profile import Scope

    return Scope(
        space=make_space(variant, stages, blocks_per_path, strict=False),
        tasks=task_names(tasks),
        classes=class_names(targets_of(data)),
        resolution=parse_resolution(resolution),
    )
