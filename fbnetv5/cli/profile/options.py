"""Options that several commands of ``fbnetv5 profile`` share, and functions that turn them into objects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.options import make_space, task_names

if TYPE_CHECKING:
    from fbnetv5.deploy.profile import Scope
    from fbnetv5.spaces.space import Space
    from latency.profile import Network

NETWORKS = 48
"""Default number of whole networks to measure, where the space has as many."""
VARIANT, STAGES, BLOCKS_PER_PATH = "a", 4, 2
"""Default parameters of the space."""

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


def make_scope(
    variant: str,
    stages: int,
    blocks_per_path: int,
    resolution: str,
    tasks: str | None,
    data: Path | None,
    *,
    encoder: str | None = None,
    width: float = 1.0,
) -> "Scope":
    """Make the scope of a latency table from the options of a command.

    Raises:
        UserError: one of the options is wrong.
    """
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.data.splits import targets_of
    from fbnetv5.data.targets import class_names
    from fbnetv5.deploy.profile import Scope

    names = task_names(tasks)
    return Scope(
        space=_space(variant, stages, blocks_per_path, encoder, width, copies=len(names)),
        tasks=names,
        classes=class_names(targets_of(data)),
        resolution=parse_resolution(resolution),
    )


def draw_networks(scope: "Scope", networks: int | None) -> "list[Network]":
    """Draw the whole networks of ``--networks``; by default ``NETWORKS``, or all of a space with fewer.

    Raises:
        UserError: the space has fewer networks than ``--networks``, or by default than a correction needs.
    """
    from fbnetv5.deploy.profile_networks import networks_to_fit

    if networks is None:
        return networks_to_fit(scope, NETWORKS, or_all=True)
    return networks_to_fit(scope, networks)


def _space(
    variant: str, stages: int, blocks_per_path: int, encoder: str | None, width: float, *, copies: int
) -> "Space":
    """The space of ``encoder``, "stages" being that of ``fbnetv5 nars``, or else the space of the variant."""
    if encoder is None:
        if width != 1.0:
            raise UserError("--width is the factor of an encoder's widths: add --encoder")
        return make_space(variant, stages, blocks_per_path, strict=False)
    if (variant, stages, blocks_per_path) != (VARIANT, STAGES, BLOCKS_PER_PATH):
        raise UserError("--encoder replaces --variant, --stages and --blocks-per-path: leave them out")
    from fbnetv5.spaces.branching import BranchingSpace
    from fbnetv5.spaces.stages import StageSpace

    if encoder == "stages":
        return StageSpace(width=width)
    return BranchingSpace(encoder=encoder, width=width, copies=copies)
