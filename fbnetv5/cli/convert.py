"""``fbnetv5 convert``: writes a data set of any layout as Parquet shards."""

from pathlib import Path
from typing import Annotated

import typer

from fbnetv5.cli.console import interruptible, print_json, print_line, print_log, progress_bar, stage_lines
from fbnetv5.cli.options import Json, StrictData


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
    from fbnetv5 import api

    with progress_bar() as bar, interruptible("repeat the same command"):
        result = api.convert(data, output, strict_data=strict_data, log=print_log, progress=stage_lines(bar))
    if json:
        print_json(result.to_json())
        return
    weights, policies, test = result.splits.values()
    splits = f"{weights} for weights, {policies} for policies, {test} for testing"
    count = len(result.index.shards)
    print_line(f"{output}: {result.images} images in {count} shard{'' if count == 1 else 's'}: {splits}")
