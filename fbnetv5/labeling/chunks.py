"""The labels of a chunk of images, on disk: its maps and images in the new data set, the rest in one file.

A chunk's file, one JSON object per line and image, is written last and atomically. If it exists, the chunk is finished,
and so are the maps and images of its lines; otherwise the whole chunk is repeated and its files are replaced by equal
ones.
"""

import filecmp
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from export.errors import UserError
from export.files import atomic_write, atomic_write_text
from fbnetv5.data.maps import FORMATS, write_map
from fbnetv5.data.shard_format import DATA
from fbnetv5.data.targets import SoftLabel
from fbnetv5.labeling.labeller import Labelled, Labeller, LeftOut, Origin

IMAGES = "images"
WORK = ".labeling"
"""Folder in the new data set of what is unfinished; removed at the end."""
SETTINGS = "settings.json"
MAPS = "maps"
"""Folder in ``WORK`` of the maps of images whose shard is unfinished."""
DECIMALS = 2
"""Of a pixel, in the coordinates of boxes."""


class ImageRow(BaseModel):
    """An image in a chunk's file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str
    """Its name in the source."""
    name: str | None = None
    """Its file in the new data set; None if it was left out."""
    reason: str | None = None
    """Why it was left out."""
    size: tuple[int, int] = (0, 0)
    """(H, W)."""
    test: bool = False
    """Whether it is of the test split of the source."""
    label: int | None = None
    boxes: list[list[float]] | None = None
    """(x0, y0, x1, y1) each."""
    box_labels: list[int] | None = None
    ignored_boxes: list[list[float]] | None = None
    """Crowds and difficult objects of the source, which metrics ignore."""
    ignored_box_labels: list[int] | None = None
    soft_label: dict[int, float] | None = None
    """Probability by class id, descending."""
    origins: dict[str, Origin] = {}
    """By target that it is labelled with: where the label is from."""


def chunk_file(folder: Path, number: int) -> Path:
    """The file of a chunk of a new data set."""
    return folder / WORK / "chunks" / f"{number:08d}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Chunks to label."""

    folder: Path
    """Of the maps, in the folders of the layout for several tasks, and of the images."""
    chunks: Mapping[Path, Sequence[int]]
    """Positions of a chunk's images in the source by the chunk's file."""
    with_images: bool = True
    """Whether the images are placed in the folder as well."""


def label_chunk(job: Job, labeller: Labeller, file: Path) -> None:
    """Label the images of a chunk and write their maps, the images themselves if wanted, and the chunk's file.

    Raises:
        UserError: a teacher fails, an existing label is wrong, or a file cannot be written.
    """
    rows = [_write_image(job, labeller, result) for result in labeller.label(job.chunks[file])]
    atomic_write_text(file, "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows))


def read_chunk(file: Path) -> Iterator[ImageRow]:
    """The images of a finished chunk."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield ImageRow.model_validate_json(line)


def check_chunks(chunks: Mapping[Path, Sequence[int]], names: Sequence[str]) -> None:
    """Check that the files of the chunks have each image of the source once.

    Args:
        chunks: positions of a chunk's images by the chunk's file.
        names: of all images in the source.

    Raises:
        UserError: a file lacks an image, or has one that is not of its chunk or has it twice.
    """
    for file, indices in chunks.items():
        if sorted(row.source for row in read_chunk(file)) != sorted(json_text(names[index]) for index in indices):
            raise UserError(f"{file} has other images than its chunk: remove it, and repeat the command")


def _write_image(job: Job, labeller: Labeller, result: Labelled | LeftOut) -> ImageRow:
    """Write the maps of an image, and the image if wanted; returns the row of the chunk's file."""
    source = json_text(labeller.source.names[result.index])
    if isinstance(result, LeftOut):
        return ImageRow(source=source, reason=json_text(result.reason))
    name = labeller.source.new_names[result.index]
    for target in FORMATS.keys() & result.labels.keys():
        write_map(map_file(job.folder, target, name), target, result.labels[target].numpy())
    if job.with_images:
        place_image(Path(labeller.source.path(result.index)), job.folder / IMAGES / name)
    boxes = result.labels.get("boxes")
    ignored = labeller.source.ignored_boxes(result.index)
    return ImageRow(
        source=source,
        name=name,
        size=result.size,
        test=labeller.source.is_test(result.index),
        label=result.labels.get("label"),
        boxes=None if boxes is None else [rounded_box(box, result.size) for box in boxes.xyxy.tolist()],
        box_labels=None if boxes is None else boxes.labels.tolist(),
        ignored_boxes=None if ignored is None else [rounded_box(box, result.size) for box in ignored[0]],
        ignored_box_labels=None if ignored is None else ignored[1],
        soft_label=_probabilities(result.labels.get("soft_label")),
        origins=dict(sorted(result.origins.items())),
    )


def rounded_box(corners: Sequence[float], size: tuple[int, int]) -> list[float]:
    """(x0, y0, x1, y1) in steps of 10^-DECIMALS pixels, at least one step wide and high, inside of an image of (H, W).

    A box of a data set may be narrower, and readers refuse boxes without an area.
    """
    x0, y0, x1, y1 = corners
    height, width = size
    (left, right), (top, bottom) = _rounded(x0, x1, width), _rounded(y0, y1, height)
    return [left, top, right, bottom]


def _rounded(start: float, end: float, length: int) -> tuple[float, float]:
    """The ends of a box along an axis of ``length`` pixels."""
    step = 10**-DECIMALS
    first, last = round(start, DECIMALS), round(end, DECIMALS)
    if first == last:
        first = round(min(first, length - step), DECIMALS)
        last = round(first + step, DECIMALS)
    return first, last


def map_file(folder: Path, target: str, name: str) -> Path:
    """The file of a map of the image of this name."""
    return folder / FORMATS[target].folder / f"{Path(name).stem}.png"


def _probabilities(label: SoftLabel | None) -> dict[int, float] | None:
    """The probability of each class, with the digits that a float32 needs."""
    if label is None:
        return None
    values = (float(str(value)) for value in label.probabilities.numpy())
    return dict(zip(label.class_ids.tolist(), values, strict=True))


def place_image(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to an image file, or a copy where the file system has no such link.

    A target with the bytes of the image stays; any other one is replaced.

    Raises:
        UserError: it cannot be written.
    """
    if target.exists() and (target.samefile(source) or filecmp.cmp(source, target, shallow=False)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.unlink(missing_ok=True)
        target.hardlink_to(source.resolve())
    except OSError:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def json_text(text: str) -> str:
    """The text with escapes for bytes of a file name that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that a killed process left in the folders of a new data set."""
    work = folder / WORK
    maps = [place / form.folder for place in (folder, work / MAPS) for form in FORMATS.values()]
    for place in [folder, folder / IMAGES, folder / DATA, *maps, work, work / "chunks", work / "shards"]:
        for path in place.glob(".*.tmp"):
            path.unlink()


def json_line(document: Any) -> str:
    """A JSON value on one line."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
