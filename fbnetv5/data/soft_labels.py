"""Soft labels: a teacher's probabilities of the most probable classes of an image, in a folder for several tasks.

{"file_name": "0.jpg", ..., "soft_label": {"cat": 0.71, "dog": 0.2}}

The classes are those of the target "label". The probabilities are stored as the teacher computed them, most probable
class first; the other classes have the rest of 1. A loss divides them by their sum
(``fbnetv5.tasks.divergence.soft_label_divergence``).
"""

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from export.errors import UserError
from fbnetv5.data.labelled_images import ImageRecord

TOLERANCE = 1e-3
"""By which the sum of the probabilities may exceed 1, as rounding makes it."""


def add_soft_labels(
    records: Mapping[int, Mapping[str, Any]], images: Mapping[str, ImageRecord], classes: tuple[str, ...], where: str
) -> tuple[str, ...]:
    """Add each listed image's soft label to its record; return the names of the classes, () without any soft label.

    Args:
        records: of "images" by id.
        images: by file name.
        classes: of the target "label".
        where: the file, for messages.

    Raises:
        UserError: a soft label is wrong.
    """
    class_ids = {name: class_id for class_id, name in enumerate(classes)}
    labels = {record["file_name"]: record["soft_label"] for record in records.values() if "soft_label" in record}
    for name, label in labels.items():
        images[name].soft_label = _checked(label, class_ids, f"{where}: soft_label {short(label)} of {name!r}")
    return classes if labels else ()


def _checked(label: Any, class_ids: Mapping[str, int], where: str) -> dict[int, float]:
    """Probability by class id, descending."""
    if not isinstance(label, dict) or not label:
        raise UserError(f'{where} is no object of classes and probabilities, such as {{"cat": 0.7}}: correct it')
    if unknown := [name for name in label if name not in class_ids]:
        raise UserError(f'{where} has class {unknown[0]!r}, which is none of the top-level "labels": name it there')
    values = label.values()
    if not all(type(value) in (int, float) and 0 < value <= 1 + TOLERANCE for value in values):
        raise UserError(f"{where} must have probabilities above 0, at most 1: leave out classes without any")
    if sum(values) > 1 + TOLERANCE:
        raise UserError(f"{where} has probabilities with a sum above 1: divide them by their sum")
    return {class_ids[name]: value for name, value in sorted(label.items(), key=lambda item: -item[1])}
