"""Label Studio's JSON export (https://labelstud.io/guide/task_format): boxes, class maps and classes.

    result.json, export.json or project-*.json      a list of tasks, each with "data" and "annotations"
    images/NAME.jpg                                 or beside the JSON file

Of a task the first annotation that is not cancelled is read. Rectangles and polygons give boxes, in percent of the
image; those of an image whose areas are polygons with labels alone give its class map over background, class 0, as in
``fbnetv5.data.shape_maps``. The only choice of an image is its class. The image is found by the file name at the end of
"data"'s path or address, with or without the prefix that an upload adds ("1a2b3c4d-NAME.jpg").

A rotated rectangle gives the upright box around it. Left out: brushes, ellipses, key points, predictions and relations;
export brushes as COCO or PNG. The file has no splits, so images are divided by name.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any
from urllib.parse import unquote

from export.errors import UserError
from fbnetv5.data.class_names import classes_of
from fbnetv5.data.drawn_objects import ROTATED, DrawnObject, DrawnObjects, upright_box
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import image_names_within, is_image
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.notes import Notes
from fbnetv5.data.shape_maps import Shape

PATTERNS = ("result.json", "export.json", "project-*.json")
HEAD_BYTES = 1 << 16
MARKS = re.compile(rb'\A\s*(\xef\xbb\xbf)?\s*\[\s*\{.*"(annotations|completions)"', re.DOTALL)
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
RECTANGLE, POLYGON, CHOICES = "rectanglelabels", "polygonlabels", "choices"
OBJECTS = (RECTANGLE, POLYGON)
"""Types of results that are read as objects."""
AREA_KEYS = frozenset({"height", "points", "rle", "radiusX", "vertices"})
"""Of which a result that covers an area has one; a key point has a "width" alone."""


@dataclass(slots=True, kw_only=True)
class Region:
    """A result of an annotation."""

    kind: str
    value: dict[str, Any]
    where: str
    id: Any = None
    """What the tool calls it; an attribute of a region repeats the region's id and outline."""

    @property
    def label(self) -> str:
        """The only label of the region.

        Raises:
            UserError: it has none or several.
        """
        labels = self.value.get(self.kind)
        if not isinstance(labels, list) or len(labels) != 1:
            raise UserError(
                f'{self.where} must have one label in "{self.kind}", got {short(labels)}. Correct the region'
            )
        return str(labels[0])

    def numbers(self, *keys: str) -> list[float]:
        """Values by key.

        Raises:
            UserError: one is missing or no finite number.
        """
        values = [self.value.get(key) for key in keys]
        return _numbers(values, self.where)


@dataclass(slots=True, kw_only=True)
class Task:
    """An annotated image."""

    path: str
    where: str
    regions: list[Region]


def find_exports(root: Path) -> list[Path]:
    """The exports in a folder."""
    paths = dict.fromkeys(path for pattern in PATTERNS for path in sorted(root.glob(pattern)))
    return [path for path in paths if MARKS.match(_start(path))]


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def is_label_studio(root: Path) -> bool:
    """Whether a folder has an export with a list of annotated tasks."""
    return bool(find_exports(root))


def read_label_studio(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of this layout; images are named by their paths in it.

    Raises:
        UserError: there are several exports, the export is damaged, an image is missing, or a region is wrong.
    """
    exports = find_exports(root)
    if not exports:
        raise UserError(f"{root} has none of {', '.join(PATTERNS)} with a list of annotated tasks")
    file, *others = exports
    if others:
        raise UserError(f"{root} has the exports {' and '.join(path.name for path in exports)}: keep one")
    notes, tasks = Notes(), dict[str, Task]()
    for task in _tasks(file, root, notes):
        if task.path in tasks:
            raise UserError(f"{task.where} is of {task.path}, as {tasks[task.path].where} is. Keep one task per image")
        tasks[task.path] = task
    regions = [region for task in tasks.values() for region in task.regions]
    objects = [(region.label, region.where) for region in regions if region.kind in OBJECTS]
    choices = [(region.label, region.where) for region in regions if region.kind == CHOICES]
    if not objects and not choices:
        raise UserError(f"{file} has no rectangle, polygon or choice of any image. Annotate one at least")
    classes, labels = classes_of(objects, "a label"), classes_of(choices, "a choice")
    drawn = DrawnObjects(labels=labels, objects=classes, notes=notes)
    images = {Path(path).relative_to(root).as_posix(): _record(task, drawn, headers) for path, task in tasks.items()}
    return drawn.data_set(images)


def _record(task: Task, drawn: DrawnObjects, headers: HeaderIndex) -> ImageRecord:
    """The record of a task's image, with its labels."""
    record, choices = image_record(task.path, headers), [region for region in task.regions if region.kind == CHOICES]
    if len(choices) > 1:
        drawn.notes.add("images with several choices, whose class is left out")
    record.label = drawn.labels.index(choices[0].label) if len(choices) == 1 else None
    objects = [_object(region, drawn, record.size) for region in task.regions if region.kind in OBJECTS]
    drawn.add(record, objects, is_complete=not any(_unread_areas(task.regions)))
    return record


def _unread_areas(regions: list[Region]) -> Iterator[Region]:
    """The regions that cover an area and are not read, such as brushes and outlines whose label is a result apart."""
    read = {region.id for region in regions if region.kind in OBJECTS} - {None}
    return (
        region
        for region in regions
        if region.kind not in OBJECTS and AREA_KEYS & region.value.keys() and region.id not in read
    )


def _tasks(file: Path, root: Path, notes: Notes) -> Iterator[Task]:
    """The annotated images of an export."""
    by_name: dict[str, list[str]] = {}
    for name in sorted(image_names_within(root)):
        by_name.setdefault(name.rpartition("/")[2], []).append(name)
    for position, task in enumerate(_document(file)):
        where = f"{file}: task {position}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise UserError(f'{where} must be an object with "data", got {short(task)}')
        where += f" (id {short(task['id'])})" if "id" in task else ""
        results = _results(task)
        if results is None:
            notes.add("tasks without an annotation left out")
            continue
        name = _find(task["data"], by_name, where, root)
        regions = [_region(result, f"{where}, result {number}") for number, result in enumerate(results)]
        for region in regions:
            if region.kind not in (*OBJECTS, CHOICES):
                notes.add(f"{region.kind or 'other'} regions left out")
        yield Task(path=f"{root}{os.sep}{name}", where=where, regions=regions)


def _document(file: Path) -> list[Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {error}. Export it again, as JSON") from None
    if not isinstance(document, list):
        raise UserError(f"{file} must be a list of tasks. Export the project as JSON")
    return document


def _results(task: dict[str, Any]) -> list[Any] | None:
    """The results of the first annotation that counts; None without one."""
    annotations = task.get("annotations", task.get("completions"))
    for annotation in annotations if isinstance(annotations, list) else ():
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            results = annotation.get("result")
            return results if isinstance(results, list) else []
    return None


def _region(result: Any, where: str) -> Region:
    value = result.get("value") if isinstance(result, dict) else None
    if not isinstance(value, dict):
        return Region(kind="", value={}, where=where)
    kind = str(result.get("type", ""))
    if kind == CHOICES and ("x" in value or "points" in value):
        kind = "choices of single"  # they describe a region and not the image
    return Region(kind=kind, value=value, where=where, id=short(result.get("id")) if "id" in result else None)


def _find(data: dict[str, Any], by_name: dict[str, list[str]], where: str, root: Path) -> str:
    """The path in the folder of a task's image."""
    names = [_file_name(text) for text in data.values() if isinstance(text, str)]
    names = [name for name in names if name and is_image(name)]
    for name in [*names, *(UPLOAD_PREFIX.sub("", name) for name in names)]:
        if len(paths := by_name.get(name, [])) > 1:
            raise UserError(f"{where} is of {name!r}, which is {paths[0]} and {paths[1]}. Give each image its own name")
        if paths:
            return paths[0]
    raise UserError(f"{where} is of {short(names[0] if names else data)}, which is not in {root}. Put its image there")


def _file_name(text: str) -> str:
    """The file name at the end of a path or address, such as "/data/local-files/?d=photos/a.jpg" or "s3://b/a.jpg"."""
    path = text.partition("?d=")[2] or text.partition("?")[0]
    return re.split(r"[/\\]", unquote(path))[-1]


def _numbers(values: list[Any], where: str) -> list[float]:
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) != len(values):
        raise UserError(f"{where} must have finite numbers in percent, got {short(values)}. Correct or remove it")
    return numbers


def _object(region: Region, drawn: DrawnObjects, size: tuple[int, int]) -> DrawnObject:
    """The object of a rectangle or polygon in an image of (H, W)."""
    class_id = drawn.objects.index(region.label)
    if region.kind == POLYGON:
        outline = _polygon(region, drawn.map_id(class_id), size)
        return DrawnObject(class_id=class_id, outline=outline, where=region.where)
    x, y, width, height = region.numbers("x", "y", "width", "height")
    box = [x * size[1] / 100, y * size[0] / 100, width * size[1] / 100, height * size[0] / 100]
    if angle := _numbers([region.value.get("rotation", 0)], region.where)[0]:
        drawn.notes.add(ROTATED)
        box = upright_box(box, angle, (box[0], box[1]), size)
    return DrawnObject(class_id=class_id, outline=box, where=region.where)


def _polygon(region: Region, class_id: int, size: tuple[int, int]) -> Shape:
    """The shape of a polygon, whose points are in percent."""
    points = region.value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise UserError(f'{region.where}: "points" must be three or more [x, y] in percent. Correct or remove it')
    values = _numbers([value for point in points for value in point], region.where)
    scaled = (value * size[1 - number % 2] / 100 for number, value in enumerate(values))
    return Shape(class_id=class_id, polygons=(tuple(scaled),))


LABEL_STUDIO = Layout(
    name="Label Studio",
    looks_like="result.json, export.json or project-*.json of Label Studio with its images in images/ or beside",
    fits=is_label_studio,
    read=read_label_studio,
)
