"""The labels of a chunk of images, on disk: its maps and images in the new data set, the rest in one file.

A chunk's file, one JSON object per line and image, is written last and atomically. If it exists, the chunk is finished,
and so are the maps and images of its lines; otherwise the whole chunk is repeated and its files are replaced by equal
ones.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from export.errors import UserError
from export.files import atomic_write, atomic_write_text
from fbnetv5.data.maps import FORMATS, write_map
from fbnetv5.data.targets import SoftLabel
from fbnetv5.labeling.labeller import Labelled, Labeller, LeftOut, Origin

IMAGES = "images"
WORK = ".labeling"
"""Folder in the new data set of what is unfinished; removed at the end."""
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
    soft_label: dict[int, float] | None = None
    """Probability by class id, descending."""
    origins: dict[str, Origin] = {}
    """By target that it is labelled with: where the label is from."""


def chunk_file(folder: Path, number: int) -> Path:
    """The file of a chunk of a new data set."""
    return folder / WORK / "chunks" / f"{number:08d}.jsonl"


def label_chunk(folder: Path, labeller: Labeller, indices: Sequence[int], file: Path) -> None:
    """Label the images at these positions and write their maps, the images themselves, and the chunk's file.

    Raises:
        UserError: a teacher fails, an existing label is wrong, or a file cannot be written.
    """
    rows = [_write_image(folder, labeller, result) for result in labeller.label(indices)]
    atomic_write_text(file, "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows))


def read_chunk(file: Path) -> Iterator[ImageRow]:
    """The images of a finished chunk."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield ImageRow.model_validate_json(line)


def check_chunks(chunks: Mapping[Path, range], names: Sequence[str]) -> None:
    """Check that the files of the chunks have each image of the source once.

    Args:
        chunks: positions of a chunk's images by the chunk's file.
        names: of all images in the source.

    Raises:
        UserError: a file lacks an image, or has one that is not of its chunk or has it twice.
    """
    for file, indices in chunks.items():
        if sorted(row.source for row in read_chunk(file)) != sorted(_json_text(names[index]) for index in indices):
            raise UserError(f"{file} has other images than its chunk: remove it, and repeat the command")


def _write_image(folder: Path, labeller: Labeller, result: Labelled | LeftOut) -> ImageRow:
    """Write an image and its maps; returns the row of the chunk's file."""
    source = _json_text(labeller.source.names[result.index])
    if isinstance(result, LeftOut):
        return ImageRow(source=source, reason=_json_text(result.reason))
    name = labeller.source.new_names[result.index]
    for target in FORMATS.keys() & result.labels.keys():
        write_map(folder / FORMATS[target].folder / f"{Path(name).stem}.png", target, result.labels[target].numpy())
    place_image(Path(labeller.source.path(result.index)), folder / IMAGES / name)
    boxes = result.labels.get("boxes")
    return ImageRow(
        source=source,
        name=name,
        size=result.size,
        test=labeller.source.is_test(result.index),
        label=result.labels.get("label"),
        boxes=None if boxes is None else [[round(side, DECIMALS) for side in box] for box in boxes.xyxy.tolist()],
        box_labels=None if boxes is None else boxes.labels.tolist(),
        soft_label=_probabilities(result.labels.get("soft_label")),
        origins=dict(sorted(result.origins.items())),
    )


def _probabilities(label: SoftLabel | None) -> dict[int, float] | None:
    """The probability of each class, with the digits that a float32 needs."""
    if label is None:
        return None
    values = (float(str(value)) for value in label.probabilities.numpy())
    return dict(zip(label.class_ids.tolist(), values, strict=True))


def place_image(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to an image file, or a copy where the file system has no such link.

    Raises:
        UserError: it cannot be written.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def _json_text(text: str) -> str:
    """The text with escapes for bytes of a file name that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that a killed process left in the folders of a new data set."""
    folders = [folder, folder / IMAGES, *(folder / form.folder for form in FORMATS.values())]
    for place in [*folders, folder / WORK, folder / WORK / "chunks"]:
        for path in place.glob(".*.tmp"):
            path.unlink()


def json_line(document: Any) -> str:
    """A JSON value on one line."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
