"""``fbnetv5 space``: shows what a search can choose from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fbnetv5.cli.console import print_json, print_line, print_status, print_table
from fbnetv5.cli.options import Blocks, Data, Json, Resolution, SpaceName, Stages, Tasks, Variant

CostTemplate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write a cost file with a key for every block of the space and head of the tasks, for --cost of fbnetv5 "
        "search; name, unit and values are null, to be filled in. A file that exists gets the keys that it lacks.",
    ),
]


def space(
    space: SpaceName = "default",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    resolution: Resolution = "224x224",
    tasks: Tasks = None,
    data: Data = None,
    cost_template: CostTemplate = None,
    json: Json = False,
) -> None:
    """Show a search space: its variables, size and costs per task."""
    from fbnetv5 import api

    description = api.space(
        space=space,
        variant=variant,
        stages=stages,
        blocks_per_path=blocks_per_path,
        resolution=resolution,
        tasks=tasks,
        data=data,
        cost_template=cost_template,
    )
    if cost_template is not None:
        print_status(f"{cost_template}: {len(description.costs_to_fill_in)} values to fill in")
    document = description.to_json()
    if json:
        print_json(document)
    else:
        print_space(description.space.label, document)


def print_space(label: str, document: dict[str, Any]) -> None:
    """Print the size of a space, then the multiply-adds of each task's networks."""
    bits = document["log2_architectures"]
    print_line(f"{label}: {len(document['variables'])} variables, 2^{bits:.0f} architectures")
    rows = [
        [task, *(f"{macs[key] / 1e6:.1f}M" for key in ("min", "expected", "max"))]
        for task, macs in document["macs"].items()
    ]
    print_table(["task", "min multiply-adds", "mean of random networks", "max multiply-adds"], rows)
