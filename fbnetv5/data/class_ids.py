"""Class maps from which nothing can be learned: a network that learns one class has loss 0 and mIoU 1 at once."""

from collections.abc import Iterable

from fbnetv5.data.maps import FORMATS
from fbnetv5.data.targets import IGNORE

BINARY = {0, 255}


def degenerate_reason(target: str, ids_of_files: Iterable[set[int]], *, zero_is_ignored: bool) -> str | None:
    """Why nothing can be learned from the class maps of a target; None if they contain two classes, or none.

    Args:
        target: a key of ``FORMATS``.
        ids_of_files: the ids in each file, of which as many are read as it takes to find two classes.
        zero_is_ignored: 0 is an unlabelled pixel.
    """
    unlabelled = {IGNORE, 0} if zero_is_ignored else {IGNORE}
    ids: set[int] = set()
    for ids_of_file in ids_of_files:
        ids |= ids_of_file
        if len(ids - unlabelled) > 1:
            return None
    if ids == BINARY:
        return (
            f"all {target} files hold 0 and 255 only, which looks like a binary mask, and 255 is a pixel to ignore. "
            f"Save objects as 1 and background as 0 in {FORMATS[target].folder}/; or, for the task saliency, put the "
            "files into saliency/"
        )
    if len(ids - unlabelled) != 1:
        return None
    (id_,) = ids - unlabelled
    start = f"all {target} files hold class {id_} only, so there is nothing to tell apart"
    if zero_is_ignored:
        return (
            f"{start}; 0 is an unlabelled pixel in this layout. If it is a class, put the files into images/ and "
            "masks/, the layout for several tasks"
        )
    return f"{start}. Give another class another id"
