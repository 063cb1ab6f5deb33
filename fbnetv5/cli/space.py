"""``fbnetv5 space``: what a search can choose."""

from typing import Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, print_table
from fbnetv5.cli.options import Blocks, Data, Json, Stages, Strict, Tasks, Variant, make_space, task_names


def space(
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    strict: Strict = False,
    resolution: Annotated[str, typer.Option(help="Deploy resolution, HEIGHTxWIDTH.")] = "224x224",
    tasks: Tasks = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """What a search can choose: slots, size, cost range per task."""
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.data.splits import targets_of
    from fbnetv5.data.targets import class_names
    from fbnetv5.deploy.show import show_space

    chosen = make_space(variant, stages, blocks_per_path, strict)
    document = show_space(chosen, class_names(targets_of(data)), task_names(tasks), parse_resolution(resolution))
    if json:
        print_json(document)
        return
    print_line(
        f"variant {variant}: {len(document['variables'])} variables, "
        f"2^{document['log2_architectures']:.0f} architectures"
    )
    rows = [
        [task, *(f"{found[key] / 1e6:.1f}M" for key in ("min", "expected", "max"))]
        for task, found in document["macs"].items()
    ]
    print_table(["task", "min", "expected", "max"], rows)
