"""The spaces on four paths by the names that ``--space`` takes."""

from typing import Any

from export.errors import UserError
from fbnetv5.spaces.four_path import FourPaths, FourPathSpace
from fbnetv5.spaces.wide import WideSpace

DEFAULT, STRICT, WIDE = "default", "strict", "wide"


def four_path_space(name: str, *, variant: str, stages: int, blocks_per_path: int) -> FourPaths:
    """The space of a name.

    Args:
        name: "default", in which every block and fusion edge that keeps its input's shape may be skipped; "strict", in
            which only blocks of later stages may be skipped, the narrow reading of FBNetV5 (arXiv 2111.10007); or
            "wide", in which each of the default's blocks also has a kernel, an expansion and squeeze-excite to choose,
            and each path a width.
        variant: FBNetV3 of stage 0: "a", "c", "f", "ac" or "a-lite".
        stages: number of stages after stage 0.
        blocks_per_path: number of blocks per path in each later stage.

    Raises:
        UserError: no space has this name, or another field is out of range.
    """
    fields: dict[str, Any] = {"variant": variant, "stages": stages, "blocks_per_path": blocks_per_path}
    if name in (DEFAULT, STRICT):
        return FourPathSpace(**fields, strict=name == STRICT)
    if name == WIDE:
        return WideSpace(**fields)
    raise UserError(f"unknown space {name!r}; there are: {DEFAULT}, {STRICT}, {WIDE}")
