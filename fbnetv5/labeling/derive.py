"""Labels that follow from other labels of an image, as ``--derive TASK=RULE`` names them.

    cls=largest-box       the class of the box with the largest area
    cls=central-box       the class of the box whose centre is closest to the image's centre
    seg=instances         the class map of the masks of COCO's annotations (polygons, run lengths) over background, 0
    saliency=instances    the pixels of all of these masks;    edges=instances    their outlines
    saliency=seg          the pixels of a class map that are not class 0;   edges=seg    the borders between its classes

Shape legend: H x W pixels of the image, M boxes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from export.errors import UserError
from fbnetv5.data.folder import KINDS
from fbnetv5.data.instance_masks import InstanceMasks, read_instance_masks
from fbnetv5.data.maps import borders
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.shape_maps import map_classes
from fbnetv5.data.targets import IGNORE, Target

Labels = Mapping[str, Any]
Rule: TypeAlias = Callable[[str, Labels, Resolution], Any]
"""(name of the image in its data set, its labels, its (H, W)) -> the derived label; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """The rule that makes the label of one target."""

    target: str
    classes: tuple[str, ...]
    rule: Rule


RULES: Mapping[str, tuple[str, ...]] = {
    "seg": ("instances",),
    "cls": ("largest-box", "central-box"),
    "saliency": ("instances", "seg"),
    "edges": ("instances", "seg"),
}
"""By task, the names of its rules; labels are derived in this order."""
TARGETS = {"seg": "mask", "cls": "label", "saliency": "saliency", "edges": "edges"}


def make_derivations(rules: Mapping[str, str], root: Path, targets: Mapping[str, Target]) -> dict[str, Derivation]:
    """The derivations by task, in the order in which they are applied.

    Args:
        rules: by task, as the user names them.
        root: folder of the data set.
        targets: labels that it has or gets from teachers.

    Raises:
        UserError: there is no such rule, the labels that it reads are missing, or class names do not match.
    """
    for task, name in rules.items():
        if name not in RULES.get(task, ()):
            listed = ", ".join(f"{key}={rule}" for key, names in RULES.items() for rule in names)
            raise UserError(f"there is no rule --derive {task}={name}; there are: {listed}")
    masks = read_instance_masks(root) if "instances" in rules.values() else None
    available = dict(targets)
    derivations: dict[str, Derivation] = {}
    for task in RULES:
        if task in rules:
            derivations[task] = derivation = _derivation(task, rules[task], masks, available)
            available.setdefault(derivation.target, Target(kind=KINDS[derivation.target], classes=derivation.classes))
    return derivations


def _derivation(task: str, rule: str, masks: InstanceMasks | None, targets: Mapping[str, Target]) -> Derivation:
    source = {"seg": "mask", "largest-box": "boxes", "central-box": "boxes"}.get(rule)
    if source is not None and source not in targets:
        labels, teacher = ("boxes", "det") if source == "boxes" else ("class maps", "seg")
        raise UserError(f"--derive {task}={rule} reads {labels}, and there are none: add a teacher of {teacher}")
    if task == "cls":
        names = targets["boxes"].classes
        classes = _matching(task, names, targets)
        ids = [classes.index(name) for name in names]
        return Derivation(target="label", classes=classes, rule=_box_class(rule, ids))
    if masks is not None and rule == "instances":
        return _of_instances(task, masks, targets)
    make = {"saliency": salient, "edges": edges_of_classes}[task]
    return Derivation(target=task, classes=(), rule=lambda _, labels, __: _converted(make, labels.get("mask")))


def _of_instances(task: str, masks: InstanceMasks, targets: Mapping[str, Target]) -> Derivation:
    if task != "seg":
        make = masks.saliency if task == "saliency" else masks.edges
        return Derivation(target=task, classes=(), rule=lambda name, _, size: _tensor(make(name, size)))
    names = map_classes(masks.classes)
    if len(names) > IGNORE:
        raise UserError(f"the data set has {len(names)} classes, and a mask file has {IGNORE} at most")
    if _matching(task, names, targets) != names:
        raise UserError(
            "the data set's class maps have other classes than background and its boxes: leave out --derive seg"
        )
    return Derivation(target="mask", classes=names, rule=lambda name, _, size: _tensor(masks.class_map(name, size)))


def _matching(task: str, names: tuple[str, ...], targets: Mapping[str, Target]) -> tuple[str, ...]:
    """The classes of the task's labels, which must contain ``names``."""
    target = TARGETS[task]
    classes = targets[target].classes if target in targets else names
    if missing := [name for name in names if name not in classes]:
        raise UserError(
            f"the data set's classes of {task} lack {missing[0]!r}, a class of its boxes: leave out --derive {task}"
        )
    return classes


def _box_class(rule: str, ids: list[int]) -> Rule:
    def derive(_: str, labels: Labels, size: Resolution) -> int | None:
        boxes = labels.get("boxes")
        if boxes is None or not len(boxes.labels):
            return None
        sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
        scores = sides.prod(1)
        if rule == "central-box":
            centres = boxes.xyxy[:, :2] + sides / 2
            scores = -(centres - torch.tensor([size[1] / 2, size[0] / 2])).norm(dim=1)
        return ids[int(boxes.labels[scores.argmax()])]

    return derive


def salient(ids: torch.Tensor) -> torch.Tensor:
    """1 where a class map, uint8 [H, W], is neither class 0 nor IGNORE: uint8 [H, W]."""
    return ((ids != 0) & (ids != IGNORE)).to(torch.uint8)


def edges_of_classes(ids: torch.Tensor) -> torch.Tensor:
    """1 on the borders between classes of a class map, on the side of the larger id; none at IGNORE: uint8 [H, W]."""
    return torch.from_numpy(borders(ids.numpy())) * (ids != IGNORE)


def _converted(make: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor | None) -> torch.Tensor | None:
    return None if ids is None else make(ids)


def _tensor(values: np.ndarray[Any, Any] | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values)
