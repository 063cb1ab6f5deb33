"""``fbnetv5 show``: a network block by block."""

from typing import Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, print_table
from fbnetv5.cli.options import Json


def show(
    network: Annotated[str, typer.Argument(help="fbnetv3-a to fbnetv3-g, or an architecture file.")], json: Json = False
) -> None:
    """A network: blocks, multiply-adds, params, live paths."""
    from fbnetv5.deploy.show import show as describe

    document = describe(network)
    if json:
        print_json(document)
        return
    size = "x".join(str(side) for side in document["resolution"])
    macs, params = document["macs"] / 1e6, document["params"] / 1e6
    print_line(f"{document['name']} at {size}: {macs:.6f}M multiply-adds, {params:.6f}M params")
    if "skippable" in document:
        blocks, paths = document["skippable"], ", ".join(f"1/{path}" for path in document["paths"])
        print_line(f"live paths {paths}; {blocks['live']} of {blocks['all']} skippable blocks are live")
    rows = [
        [
            row["name"],
            row["block"],
            f"{row['macs'] / 1e6:.3f}M",
            f"{row['params'] / 1e6:.4f}M",
            shape_text(row["output"]),
        ]
        for row in document["blocks"]
    ]
    print_table(["name", "block", "multiply-adds", "params", "output"], rows)


def shape_text(shape: list[int] | None) -> str:
    return "" if shape is None else "x".join(str(side) for side in shape)
