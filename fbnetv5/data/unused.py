"""What a data set has and no label or image uses: classes, and files that look like images."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fbnetv5.data.image_files import SUFFIXES
from fbnetv5.data.labelled_images import LabelledImages
from fbnetv5.data.targets import BOXES, CLASS

IMAGE_SUFFIXES = (*SUFFIXES, ".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".tga", ".dng")
"""Of files that hold images, read or not."""
MAX_LISTED = 3
"""Names or groups of files that a note lists."""


def unused_classes(data: LabelledImages) -> Iterator[str]:
    """A note for each target, of images' classes or of boxes, some of whose classes no image has."""
    for name, target in data.targets.items():
        if target.kind in (CLASS, BOXES):
            used = data.class_ids(name)
            unused = [repr(label) for class_id, label in enumerate(target.classes) if class_id not in used]
            if unused:
                yield f"classes of {name} that nothing is labelled with: {_listed(unused)}"


def unused_files(root: Path, data: LabelledImages) -> Iterator[str]:
    """A note on the files within the folder that look like images and are neither an image nor a label."""
    used = {os.path.normpath(path) for path in data.files()}
    groups: Counter[str] = Counter()
    base = os.path.normpath(root)
    for folder, folders, files in os.walk(base):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in files:
            if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES) and f"{folder}{os.sep}{name}" not in used:
                groups[(Path(folder).relative_to(base) / f"*{PurePosixPath(name).suffix}").as_posix()] += 1
    if groups:
        yield f"image files not used: {_listed([f'{count} {group}' for group, count in groups.items()])}"


def _listed(items: list[str]) -> str:
    rest = len(items) - MAX_LISTED
    return ", ".join(items[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
