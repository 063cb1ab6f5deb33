"""The scope of a latency table from options: ``fbnetv5.api.scope``."""

from collections.abc import Sequence

from export.errors import UserError
from export.files import AnyPath
from fbnetv5.data.resolution import parse_resolution
from fbnetv5.data.splits import targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.deploy.profile import Scope
from fbnetv5.runs.options import Size, path_of
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.presets import DEFAULT, four_path_space
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import task_names

VARIANT, STAGES, BLOCKS_PER_PATH = "a", 4, 2
"""Default parameters of the space."""


def scope(
    *,
    space: str = DEFAULT,
    variant: str = VARIANT,
    stages: int = STAGES,
    blocks_per_path: int = BLOCKS_PER_PATH,
    encoder: str | None = None,
    width: float = 1.0,
    resolution: Size = "224x224",
    tasks: str | Sequence[str] | None = None,
    data: AnyPath | None = None,
) -> Scope:
    """What a latency table covers: the blocks of a space and the heads of tasks, at a resolution.

    Examples:
        >>> api.scope(encoder="fbnetv3-b", tasks=["cls", "det"], resolution=(320, 640)).resolution
        (320, 640)

    Args:
        space: "default" or "strict", which have the same blocks, or "wide".
        variant: FBNetV3 of stage 0 of the space: "a", "c", "f", "ac" or "a-lite".
        stages: number of stages after stage 0.
        blocks_per_path: number of blocks per path in each later stage.
        encoder: encoder of ``branch``, such as "fbnetv3-b", instead of that space; or "stages", the space of ``nars``.
        width: factor of all widths of the encoder.
        resolution: height and width in pixels of the deployed network's images, multiples of 32.
        tasks: names of the tasks; None for cls, det and seg.
        data: folder of images, whose classes size the heads; None for the demo scenes.

    Raises:
        UserError: an option is wrong, or the folder is unfit.
    """
    names = task_names(tasks)
    return Scope(
        space=_space(space, variant, stages, blocks_per_path, encoder, width, copies=len(names)),
        tasks=names,
        classes=class_names(targets_of(path_of(data))),
        resolution=parse_resolution(resolution),
    )


def _space(
    name: str, variant: str, stages: int, blocks_per_path: int, encoder: str | None, width: float, *, copies: int
) -> Space:
    """The space of ``encoder``, "stages" being that of ``nars``, or else the four-path space of this name."""
    if encoder is None:
        if width != 1.0:
            raise UserError("--width is the factor of an encoder's widths: add --encoder")
        return four_path_space(name, variant=variant, stages=stages, blocks_per_path=blocks_per_path)
    if (name, variant, stages, blocks_per_path) != (DEFAULT, VARIANT, STAGES, BLOCKS_PER_PATH):
        raise UserError("--encoder replaces --space, --variant, --stages and --blocks-per-path: leave them out")
    if encoder == "stages":
        return StageSpace(width=width)
    return BranchingSpace(encoder=encoder, width=width, copies=copies)
