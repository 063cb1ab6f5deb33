"""``fbnetv5 show``: shows a network block by block."""

from typing import Annotated, Any

import typer

from fbnetv5.cli.console import print_json, print_line, print_table
from fbnetv5.cli.options import Json


def show(
    network: Annotated[
        str, typer.Argument(help="Published network, fbnetv3-a to fbnetv3-g, or path of an architecture file.")
    ],
    json: Json = False,
) -> None:
    """Show the blocks, multiply-adds and parameters of a network."""
    from fbnetv5 import api

    document = api.show(network).to_json()
    if json:
        print_json(document)
    else:
        print_network(document)


def print_network(document: dict[str, Any]) -> None:
    """Print the totals of a network, then a table with one row per block."""
    from fbnetv5.costs.budgets import MEMORY, format_cost, unit_words

    macs, params = document["macs"] / 1e6, document["params"] / 1e6
    size = shape_text(document["resolution"])
    others = [f"{format_cost(cost, unit)}{unit_words(unit)}" for unit, cost in document.get("quantities", {}).items()]
    if "peak_activation_bytes" in document:
        others.append(f"peak of {format_cost(document['peak_activation_bytes'], MEMORY)}{unit_words(MEMORY)}")
    costs = ", ".join([f"{macs:.6f}M multiply-adds", f"{params:.6f}M params", *others])
    print_line(f"{document['name']} at {size}: {costs}")
    for line in document.get("tree", []):
        print_line(line)
    if document.get("skippable", {}).get("all"):
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
    print_table(["name", "block", "multiply-adds", "params", "output shape"], rows)


def shape_text(shape: list[int] | None) -> str:
    """A shape as text, such as "16x56x56"; empty if there is none."""
    return "" if shape is None else "x".join(str(side) for side in shape)
