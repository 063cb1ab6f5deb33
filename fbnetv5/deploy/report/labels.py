"""A labelled data set: how many images have labels, from where, of which classes, and a few of them drawn."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv5.data.labelled_images import LabelledImages
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import evenly_spaced
from fbnetv5.data.targets import IGNORE
from fbnetv5.deploy.predict.sources import read_file
from fbnetv5.deploy.report.files import RunFiles
from fbnetv5.deploy.report.images import as_prediction, embedded
from fbnetv5.deploy.report.looks import look
from fbnetv5.tasks import task_types
from latency.page.content import EmbeddedImage, Figure, Gallery, Item, Section, Table, Text, side_by_side
from latency.page.plots import axis, bars, colour, make_plot, plain

ORIGINS = {"kept": "kept", "teacher": "by the teacher", "derived": "derived"}
MAX_OPENED = 50_000
"""Images of a data set that is opened for the counts by class; a larger one would take minutes."""
MAX_MAPS = 200
"""Class maps, or images of shards, that are read for the counts by class."""
MAX_CLASSES = 40
"""Classes of a plot, the most frequent ones."""
MAX_TICKS = 10
"""Below this number an axis of counts has a tick for each; else ticks could lie between whole numbers."""
PREVIEWS = 6
"""Images that are drawn for each task."""


def label_sections(files: RunFiles) -> list[Section]:
    """The sections of a finished labelling."""
    tasks, settings = files.config["tasks"], files.config["settings"]
    sections = [
        Section(name="labels", title="Labels", items=[_counts_figure(tasks, files.config["images"])]),
        Section(name="teachers", title="Teachers and thresholds", items=[_teachers(settings)]),
    ]
    if files.config["images"] > MAX_OPENED:
        remark = f"Counts by class and drawn images are left out for more than {MAX_OPENED:,} images."
        return [*sections, Section(name="classes", title="Classes", items=[Text(paragraphs=[remark], style="soft")])]
    data = open_folder(files.folder)
    figures = [_classes_figure(task, data) for task in tasks]
    if shown := side_by_side(figures):
        sections.append(Section(name="classes", title="Classes", items=shown))
    return [*sections, Section(name="images", title="Labelled images", items=_previews(data, list(tasks)))]


def _counts_figure(tasks: Mapping[str, Mapping[str, int]], images: int) -> Figure:
    """Images with labels by task and origin."""
    traces = [
        bars(
            [counts[origin] for counts in tasks.values()],
            [plain(task) for task in tasks],
            name=name,
            orientation="h",
            marker={"color": [colour(look(task)) for task in tasks], "pattern": {"shape": shape, "solidity": 0.35}},
            hovertemplate=f"%{{y}}: %{{x}} {name}<extra></extra>",
        )
        for (origin, name), shape in zip(ORIGINS.items(), ("", "/", "x"), strict=True)
    ]
    rows = [
        [task, *(f"{counts[origin]}" for origin in ORIGINS), f"{images - counts['labelled']}"]
        for task, counts in tasks.items()
    ]
    return Figure(
        title="Images with labels",
        caption=f"Of {images:,} images, by task. Plain: kept; stripes: by the teacher; crosses: derived.",
        plot=make_plot(
            traces,
            x=_count_axis("images", images),
            y=axis("", autorange="reversed", type="category"),
            height=90 + 38 * len(tasks),
            legend=False,
            barmode="stack",
        ),
        table=Table(head=["task", *ORIGINS.values(), "without a label"], rows=rows),
    )


def _teachers(settings: Mapping[str, Any]) -> Table:
    rows = [
        [
            task,
            str(teacher.get("teacher")),
            f"{teacher.get('threshold')}",
            ", ".join(f"{name} {share:g}" for name, share in teacher.get("thresholds", {}).items()) or "-",
            str(teacher.get("sha256", teacher.get("version", "-")))[:12],
        ]
        for task, teacher in settings.get("teachers", {}).items()
    ]
    rows += [[task, f"derived: {rule}", "-", "-", "-"] for task, rule in settings.get("derive", {}).items()]
    return Table(head=["task", "labels by", "minimum confidence", "of classes", "SHA-256, first 12"], rows=rows)


def _classes_figure(task: str, data: LabelledImages) -> Figure | None:
    """How often each class occurs; None for tasks without classes."""
    target = task_types()[task].targets[0]
    names = data.targets[target].classes if target in data.targets else ()
    if not names:
        return None
    counts, what = _class_counts(target, data)
    common = {class_id for class_id, _ in counts.most_common(MAX_CLASSES)}
    order = [class_id for class_id in range(len(names)) if class_id in common or len(names) <= MAX_CLASSES]
    trace = bars(
        [counts[class_id] for class_id in order],
        [plain(names[class_id]) for class_id in order],
        orientation="h",
        marker={"color": colour(look(task))},
        hovertemplate="%{y}: %{x}<extra></extra>",
    )
    more = "" if len(order) == len(names) else f" {len(names) - len(order)} classes with fewer or none are left out."
    plot = make_plot(
        [trace],
        x=_count_axis(what, max(counts.values(), default=0)),
        y=axis("", autorange="reversed", type="category"),
        height=90 + 22 * len(order),
        legend=False,
    )
    rows = [[name, f"{counts[class_id]}"] for class_id, name in enumerate(names)]
    return Figure(
        title=f"{task}: classes",
        caption=f"Number of {what} by class.{more}",
        plot=plot,
        table=Table(head=["class", what], rows=rows),
    )


def _count_axis(title: str, highest: int) -> dict[str, Any]:
    """An axis of whole numbers from 0."""
    return axis(title, range=[0, max(1, highest)], **({"dtick": 1} if highest < MAX_TICKS else {}))


def _class_counts(target: str, data: LabelledImages) -> tuple[Counter[int], str]:
    """(by class id its count, what is counted)."""
    of_maps = target not in ("label", "boxes")
    some = MAX_MAPS if of_maps or not data.names else len(data)  # a record of shards has the bytes of its image
    indices = evenly_spaced(len(data), some)
    of_some = "" if len(indices) == len(data) else f" of {len(indices)} images"
    if of_maps:
        ids = (class_id for index in indices for class_id in _ids(data.labels(index).get(target)))
        return Counter(ids), f"images with such pixels{of_some and f', {of_some.strip()}'}"
    records = map(data.record, indices)
    if target == "label":
        return Counter(record.label for record in records if record.label is not None), f"images{of_some}"
    return Counter(class_id for record in records for class_id in record.box_labels or ()), f"boxes{of_some}"


def _ids(class_map: Any) -> Iterator[int]:
    if class_map is not None:
        yield from (int(class_id) for class_id in np.unique(class_map.numpy()) if class_id != IGNORE)


def _previews(data: LabelledImages, tasks: Sequence[str]) -> list[Item]:
    """A gallery per task: labels of a few images."""
    shown: dict[str, list[EmbeddedImage]] = {task: [] for task in tasks}
    for index in evenly_spaced(len(data), PREVIEWS):
        name = data.names[index] if data.names else f"image {index}"
        frame, labels = read_file(data.path(index), name), data.labels(index)
        if frame.image is None:
            continue
        for task in tasks:
            target = task_types()[task].targets[0]
            classes = data.targets[target].classes if target in data.targets else ()
            label = as_prediction(task, labels, len(classes))
            if label is not None:
                shown[task].append(embedded(frame.image, label, classes, None, Path(name).name))
    return [Gallery(title=f"{task}: labels", images=images) for task, images in shown.items() if images]
