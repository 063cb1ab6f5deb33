"""The files of a new data set that describe all of its images: ``instances.json``, ``labels.json``, ``left-out.jsonl``.

They are written from the files of the chunks one image at a time, so that memory does not grow with the data set, and
contain nothing that differs between two runs on the same images.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from export.errors import UserError
from export.files import atomic_write, read_json, write_json
from fbnetv5.data.targets import Target
from fbnetv5.labeling.chunks import DECIMALS, ImageRow, json_line, read_chunk
from fbnetv5.tasks import task_types

INSTANCES = "instances.json"
LABELS = "labels.json"
LEFT_OUT = "left-out.jsonl"
SCHEMA = 1
CLASS_LISTS = {"label": "labels", "mask": "mask_classes", "parts": "part_classes"}
"""By target: the top-level list of its class names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSummary:
    """What a new data set contains."""

    folder: Path
    images: int
    left_out: int
    """Images that cannot be used; ``left-out.jsonl`` names them."""
    labelled: Mapping[str, Mapping[str, int]]
    """By task: the number of images whose label was kept, is from the teacher, or was derived."""
    soft_labels: int = 0
    """Images with a soft label."""

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` document."""
        return {
            "folder": str(self.folder),
            "images": self.images,
            "left_out": self.left_out,
            "tasks": {task: {"labelled": sum(counts.values()), **counts} for task, counts in self.labelled.items()},
            **({"soft_labels": self.soft_labels} if self.soft_labels else {}),
        }


def assemble(
    folder: Path, chunks: Iterable[Path], targets: Mapping[str, Target], settings: Mapping[str, Any]
) -> LabelSummary:
    """Write the files of a data set whose chunks are finished.

    Args:
        folder: the data set.
        chunks: files of the chunks in order.
        targets: labels of the data set.
        settings: that produced them, for ``labels.json``.

    Raises:
        UserError: no image got a label, or a file cannot be written.
    """
    files = list(chunks)
    summary = summarise(folder, files, targets)
    _write_lines(folder / INSTANCES, lambda out: _write_instances(out, files, targets))
    write_labels(summary, files, settings)
    return summary


def summarise(folder: Path, files: Sequence[Path], targets: Mapping[str, Target]) -> LabelSummary:
    """Count the images and labels of a data set whose chunks are finished.

    Args:
        folder: the data set.
        files: of the chunks.
        targets: labels of the data set.

    Raises:
        UserError: no image got a label.
    """
    counts = Counter((target, origin) for row in _rows(files) for target, origin in row.origins.items())
    images = sum(row.name is not None for row in _rows(files))
    left_out = sum(row.name is None for row in _rows(files))
    if not counts:
        raise UserError(
            f"none of {images} images got a label: lower --threshold, and see --preview; {folder} is unfinished"
        )
    return LabelSummary(
        folder=folder,
        images=images,
        left_out=left_out,
        labelled={
            task: {origin: counts[target, origin] for origin in ("kept", "teacher", "derived")}
            for task, target in _targets_by_task(targets).items()
        },
        soft_labels=sum(count for (target, _), count in counts.items() if target == "soft_label"),
    )


def write_labels(summary: LabelSummary, files: Sequence[Path], settings: Mapping[str, Any]) -> None:
    """Write ``left-out.jsonl`` if images were left out, and ``labels.json``, which marks the data set as finished.

    Args:
        summary: of the data set.
        files: of its chunks.
        settings: that produced the labels.

    Raises:
        UserError: a file cannot be written.
    """
    if summary.left_out:
        _write_lines(summary.folder / LEFT_OUT, lambda out: _write_left_out(out, files))
    document = {name: value for name, value in summary.to_json().items() if name != "folder"}
    write_json(summary.folder / LABELS, {"schema": SCHEMA, "kind": "labels", **document, "settings": dict(settings)})


def read_labels(folder: Path) -> tuple[LabelSummary, dict[str, Any]]:
    """The summary and the settings of a finished data set.

    Raises:
        UserError: its ``labels.json`` is damaged.
    """
    document = read_json(folder / LABELS, what="labels", schema=SCHEMA)
    try:
        tasks = {
            task: {name: count for name, count in counts.items() if name != "labelled"}
            for task, counts in document["tasks"].items()
        }
        summary = LabelSummary(
            folder=folder,
            images=document["images"],
            left_out=document["left_out"],
            labelled=tasks,
            soft_labels=document.get("soft_labels", 0),
        )
        return summary, dict(document["settings"])
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / LABELS} is damaged ({error}): label into another folder") from None


def _targets_by_task(targets: Mapping[str, Target]) -> dict[str, str]:
    """By task, its target, of those that the data set has."""
    first = {name: task.targets[0] for name, task in task_types().items()}
    return {task: target for task, target in first.items() if target in targets}


def _rows(files: Iterable[Path]) -> Iterator[ImageRow]:
    for file in files:
        yield from read_chunk(file)


def _used(files: Iterable[Path]) -> Iterator[tuple[int, ImageRow]]:
    """The images that were not left out, numbered from 1 on."""
    return enumerate((row for row in _rows(files) if row.name is not None), start=1)


def _write_lines(path: Path, write: Callable[[TextIO], None]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        write(out)


def _write_left_out(out: TextIO, files: Iterable[Path]) -> None:
    for row in _rows(files):
        if row.name is None:
            out.write(json_line({"image": row.source, "reason": row.reason}) + "\n")


def _write_instances(out: TextIO, files: Sequence[Path], targets: Mapping[str, Target]) -> None:
    """COCO's format with the fields of the layout for several tasks, see ``fbnetv5.data.folder``."""
    labels = targets["label"].classes if "label" in targets else ()
    out.write("{")
    for target, name in CLASS_LISTS.items():
        if target in targets:
            out.write(f'"{name}": {json_line(list(targets[target].classes))},\n')
    _write_list(out, "images", (_image(number, row, labels, targets) for number, row in _used(files)))
    if "boxes" in targets:
        out.write(",\n")
        _write_list(out, "annotations", _annotations(files))
        categories = ({"id": number, "name": name} for number, name in enumerate(targets["boxes"].classes, start=1))
        out.write(f',\n"categories": {json_line(list(categories))}')
    out.write("}\n")


def _write_list(out: TextIO, name: str, items: Iterable[Mapping[str, Any]]) -> None:
    out.write(f'"{name}": [')
    for position, item in enumerate(items):
        out.write(f"{',' if position else ''}\n{json_line(item)}")
    out.write("\n]")


def _image(number: int, row: ImageRow, labels: tuple[str, ...], targets: Mapping[str, Target]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": number, "file_name": row.name, "width": row.size[1], "height": row.size[0]}
    if row.label is not None:
        record["label"] = labels[row.label]
    if row.soft_label is not None:
        record["soft_label"] = {labels[class_id]: value for class_id, value in row.soft_label.items()}
    if "boxes" in targets and row.boxes is None:
        record["boxes"] = False
    if row.test:
        record["split"] = "test"
    return record


def _annotations(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, row in _used(files):
        objects = zip(row.boxes or (), row.box_labels or (), strict=True)
        crowds = zip(row.ignored_boxes or (), row.ignored_box_labels or (), strict=True)
        for is_crowd, (box, label) in [*((0, each) for each in objects), *((1, each) for each in crowds)]:
            number += 1
            bbox = coco_box(box)
            yield {
                "id": number,
                "image_id": image,
                "category_id": label + 1,
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], DECIMALS),
                "iscrowd": is_crowd,
            }


def coco_box(corners: Sequence[float]) -> list[float]:
    """(x0, y0, x1, y1) -> COCO's [x, y, width, height]."""
    x0, y0, x1, y1 = corners
    return [x0, y0, round(x1 - x0, DECIMALS), round(y1 - y0, DECIMALS)]
