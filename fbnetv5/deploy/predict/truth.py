"""The images of a labelled data set, and their labels in the form of predictions, to be drawn beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, Prediction
from fbnetv5.deploy.predict.run import Truth
from fbnetv5.deploy.predict.sources import Frame, read_file
from fbnetv5.tasks import task_types

FORMS: Mapping[str, Callable[[Any, int], Prediction]] = {
    "label": lambda label, classes: ClassScores(np.eye(classes, dtype=np.float32)[label]),
    "boxes": lambda boxes, _: ScoredBoxes(
        boxes.xyxy.numpy(), np.ones(len(boxes.labels), dtype=np.float32), boxes.labels.numpy()
    ),
    "mask": lambda ids, _: ClassMap(ids.numpy()),
    "parts": lambda ids, _: ClassMap(ids.numpy()),
    "saliency": lambda values, _: ProbabilityMap(values.numpy().astype(np.float32)),
    "edges": lambda values, _: ProbabilityMap(values.numpy().astype(np.float32)),
    "depth": lambda values, _: DepthMap(values.numpy()),
    "normals": lambda values, _: NormalMap(values.numpy()),
}
"""By target: (label, number of classes) -> prediction."""


def open_labelled(folder: Path, tasks: Sequence[str]) -> tuple[Iterator[Frame], Truth]:
    """The images of a data set in one of the layouts that ``--data`` reads, and their labels of these tasks.

    An image with a label that cannot be read has this as the reason why it is none.

    Raises:
        UserError: the folder is in no known layout, or has no labels of the tasks.
    """
    data = open_folder(folder)
    targets = {task: task_types()[task].targets[0] for task in tasks}
    target_of = {task: target for task, target in targets.items() if target in data.targets}
    if not target_of:
        raise UserError(
            f"{folder} has no labels for {', '.join(tasks)}, only {', '.join(data.targets)}: leave out --truth"
        )

    read_labels = lru_cache(maxsize=1)(data.labels)  # of an image, by ``frames`` and then by ``truth``

    def frames() -> Iterator[Frame]:
        for index in range(len(data)):
            name = data.names[index] if data.names else f"{index:08d}.png"  # shards have no list of names
            frame = replace(read_file(data.path(index), name), index=index)
            try:
                read_labels(index)
            except UserError as error:
                frame = replace(frame, image=None, reason=frame.reason or str(error))
            yield frame

    def truth(frame: Frame) -> tuple[dict[str, Prediction], dict[str, Sequence[str]]]:
        labels = read_labels(frame.index)
        present = {task: target for task, target in target_of.items() if target in labels}
        classes: dict[str, Sequence[str]] = {task: data.targets[target].classes for task, target in present.items()}
        return (
            {task: FORMS[target](labels[target], len(classes[task])) for task, target in present.items()},
            classes,
        )

    return frames(), truth
