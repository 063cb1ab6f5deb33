"""``fbnetv5 convert``: writes a data set of any layout as Parquet shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fbnetv5.cli.console import interruptible, print_json, print_line, progress_bar, stage_lines
from fbnetv5.cli.options import Json, StrictData, print_layout

if TYPE_CHECKING:
    from fbnetv5.data.shard_format import ShardIndex


def convert(
    data: Annotated[Path, typer.Argument(help="Folder of a data set in any layout that --data accepts.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the shards; an unfinished conversion is continued.")
    ],
    strict_data: StrictData = False,
    json: Json = False,
) -> None:
    """Convert a data set into Parquet shards, for millions of images.

    Hugging Face's datasets opens the result as well. Repeat an interrupted command to continue it.
    """
    from fbnetv5.data.layouts import open_folder
    from fbnetv5.data.shard_writer import write_shards
    from fbnetv5.data.splits import filled_split_indices

    print_layout(data, strict=strict_data)
    images = open_folder(data)
    filled_split_indices(images, data)
    with progress_bar() as bar, interruptible("repeat the same command"):
        index = write_shards(images, output, stage_lines(bar))
    if json:
        print_json(summary_of(output, index))
    else:
        weights, policies, test = index.splits
        splits = f"{weights} for weights, {policies} for policies, {test} for testing"
        shards = "1 shard" if len(index.shards) == 1 else f"{len(index.shards)} shards"
        print_line(f"{output}: {sum(index.splits)} images in {shards}: {splits}")


def summary_of(folder: Path, index: "ShardIndex") -> dict[str, Any]:
    """The ``--json`` document."""
    return {
        "folder": str(folder),
        "images": sum(index.splits),
        "shards": len(index.shards),
        "bytes": sum(shard.size for shard in index.shards),
        "splits": dict(zip(("weights", "policies", "test"), index.splits, strict=True)),
        "targets": sorted(index.classes),
    }
