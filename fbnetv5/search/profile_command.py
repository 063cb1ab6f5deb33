"""The options with which ``fbnetv5 profile`` measures the blocks of a search, for messages that name the command."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fbnetv5.data.config import DataConfig
from fbnetv5.data.resolution import Resolution
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPaths
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.spaces.wide import WideSpace


def options_text(space: Space, resolution: Resolution, tasks: Iterable[str], data: DataConfig, luts: Path) -> str:
    """The options besides the device, as text that begins with a space.

    Args:
        space: whose blocks the table needs.
        resolution: at which the networks run.
        tasks: whose heads the table needs.
        data: whose classes the heads have.
        luts: folder of the table.
    """
    options = {
        **_space_options(space),
        "--resolution": "x".join(map(str, resolution)),
        "--tasks": ",".join(tasks),
        "--data": data.folder,
        "--luts": None if luts.resolve() == Path("luts").resolve() else str(luts),
    }
    return "".join(f" {option} {shlex.quote(value)}" for option, value in options.items() if value is not None)


def _space_options(space: Space) -> dict[str, Any]:
    """Options that name the space; None leaves one out, because ``profile`` has the same default."""
    match space:
        case FourPaths():
            fields = {"variant": "--variant", "stages": "--stages", "blocks_per_path": "--blocks-per-path"}
            usual = type(space).model_fields
            values = {option: (getattr(space, field), usual[field].default) for field, option in fields.items()}
            changed = {option: None if value == default else str(value) for option, (value, default) in values.items()}
            return {"--space": "wide" if isinstance(space, WideSpace) else None, **changed}
        case BranchingSpace():
            return {"--encoder": space.encoder, "--width": None if space.width == 1.0 else f"{space.width:g}"}
        case StageSpace():
            return {"--encoder": "stages", "--width": f"{space.width:g}"}
    raise TypeError(f"no options for {space!r}")
