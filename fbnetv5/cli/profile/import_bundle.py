"""``fbnetv5 profile import``: writes the latency table of a bundle that was measured on its device."""

from pathlib import Path
from typing import Annotated

import typer

from fbnetv5.cli.options import Blocks, Data, Json, Luts, Resolution, SpaceName, Stages, Tasks, Variant
from fbnetv5.cli.profile.options import (
    BLOCKS_PER_PATH,
    SPACE,
    STAGES,
    VARIANT,
    Encoder,
    Width,
)
from fbnetv5.cli.profile.tables import print_profile


def import_bundle(
    folder: Annotated[Path, typer.Argument(help="Folder of the bundle, with the results of its device.")],
    space: SpaceName = SPACE,
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
    """Write the latency table of a bundle measured on its device."""
    from fbnetv5 import api

    scope = api.scope(
        space=space,
        variant=variant,
        stages=stages,
        blocks_per_path=blocks_per_path,
        encoder=encoder,
        width=width,
        resolution=resolution,
        tasks=tasks,
        data=data,
    )
    print_profile(api.profile_import(folder, scope=scope, luts=luts), as_json=json)
