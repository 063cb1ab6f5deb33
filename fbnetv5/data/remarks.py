"""Remarks on a data set that can be read: classes and files that nothing uses, and images in training and test split.

Left out: copies that only their pixels show, as all images would have to be read.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fbnetv5.data.image_files import SUFFIXES
from fbnetv5.data.labelled_images import LabelledImages
from fbnetv5.data.roboflow import source_name
from fbnetv5.data.split_names import has_split_word
from fbnetv5.data.targets import BOXES, CLASS

IMAGE_SUFFIXES = (*SUFFIXES, ".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".tga", ".dng")
"""Of files that hold images, read or not."""
MAX_LISTED = 3
"""Names or groups of files that a note lists."""


def remarks(root: Path, data: LabelledImages) -> Iterator[str]:
    """The notes on a data set of image files in a folder."""
    yield from _unused_classes(data)
    yield from _unused_files(root, data)
    yield from _copies(data)


def _unused_classes(data: LabelledImages) -> Iterator[str]:
    """A note for each target, of images' classes or of boxes, some of whose classes no image has."""
    for name, target in data.targets.items():
        if target.kind in (CLASS, BOXES):
            used = data.class_ids(name)
            unused = [repr(label) for class_id, label in enumerate(target.classes) if class_id not in used]
            if unused:
                yield f"classes of {name} that nothing is labelled with: {_listed(unused)}"


def _unused_files(root: Path, data: LabelledImages) -> Iterator[str]:
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


def _copies(data: LabelledImages) -> Iterator[str]:
    """A note on images of the test split of which the training split has an augmented copy."""
    training = set(_sources(name for name in data.names if name not in data.test))
    if copies := sum(source in training for source in _sources(data.test)):
        yield f"images of the test split of which Roboflow has an augmented copy in the training split: {copies}"


def _sources(names: Iterable[str]) -> Iterator[str]:
    """The paths, without the folder of the split, of images that Roboflow's copies are made of; none for other images.

    The split is the first folder that is called so. Folders of classes remain, which may have files of the same name.
    """
    for name in names:
        if (source := source_name(name)) != name:
            *folders, file = PurePosixPath(source).parts
            if (split := next(filter(has_split_word, folders), None)) is not None:
                folders.remove(split)
            yield "/".join((*folders, file))


def _listed(items: list[str]) -> str:
    rest = len(items) - MAX_LISTED
    return ", ".join(items[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
