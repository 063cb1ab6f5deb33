"""Thresholds, class names and what is left out."""

from typing import Any

import pytest
import torch

from export.errors import UserError
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.data.targets import CLASS, IGNORE, Target
from fbnetv5.labeling.config import TeacherConfig
from fbnetv5.labeling.rules import LabelRule, make_rule
from fbnetv5.labeling.teachers.decoders import DenseValues, ScoredMap

ANIMALS = ("cat", "dog", "car")


def rule(task: str = "cls", names: tuple[str, ...] = ANIMALS, **config: Any) -> LabelRule:
    return make_rule(task, names, TeacherConfig(**config), 0.5, {})


def test_a_class_needs_the_threshold_of_its_name() -> None:
    scores = ClassScores(torch.tensor([0.55, 0.3, 0.15]))
    assert rule()(scores) == 0
    assert rule(threshold=0.6)(scores) is None
    assert rule(thresholds={"cat": 0.6})(scores) is None
    assert rule(thresholds={"dog": 0.6})(scores) == 0


def test_names_are_mapped_merged_and_left_out() -> None:
    mapped = rule("det", classes={"cat": "animal", "dog": "animal", "car": None})
    assert mapped.classes == ("animal",)
    boxes = torch.arange(12.0).view(3, 4)
    labels = mapped(ScoredBoxes(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 2, 0])))
    assert torch.equal(labels.xyxy, boxes[[0, 2]])
    assert labels.labels.tolist() == [0, 0]
    only_dogs = rule("det", classes={"dog": "dog", "*": None})
    assert only_dogs.classes == ("dog",)
    assert only_dogs.class_ids.tolist() == [-1, 0, -1]


def test_uncertain_pixels_and_those_of_left_out_classes_are_ignored() -> None:
    prediction = ScoredMap(torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0.9, 0.4, 0.9, 0.4]]))
    assert rule("seg")(prediction).tolist() == [[0, IGNORE, 2, IGNORE]]
    assert rule("seg", classes={"cat": None})(prediction).tolist() == [[IGNORE, IGNORE, 1, IGNORE]]


def test_maps_without_classes() -> None:
    plain = rule("saliency", names=(), threshold=0.7)
    assert plain(ProbabilityMap(torch.tensor([[0.6, 0.7]]))).tolist() == [[0, 1]]
    values = torch.tensor([[1.5]])
    assert rule("depth", names=())(DenseValues(values)) is values


def test_the_classes_of_the_data_set_are_used() -> None:
    existing = {"label": Target(kind=CLASS, classes=("dog", "horse", "cat"))}
    config = TeacherConfig(classes={"car": None})
    assert make_rule("cls", ANIMALS, config, 0.5, existing).class_ids.tolist() == [2, 0, -1]
    with pytest.raises(UserError, match="has class 'car', and the data set has 'dog', 'horse', 'cat': map its classes"):
        make_rule("cls", ANIMALS, TeacherConfig(), 0.5, existing)


@pytest.mark.parametrize(
    ("task", "names", "config", "message"),
    [
        ("det", ANIMALS, {"classes": {"cow": "animal"}}, "names 'cow', which is no class of the teacher"),
        ("det", ANIMALS, {"thresholds": {"cow": 0.5}}, "names 'cow', which is no class; there are 'cat', 'dog', 'car'"),
        ("det", ANIMALS, {"classes": {"*": None}}, "leaves out all classes"),
        ("seg", tuple(map(str, range(256))), {}, "has 256 classes, and a mask file has 255 at most"),
    ],
)
def test_names_of_nothing_are_refused(task: str, names: tuple[str, ...], config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule(task, names, **config)


def test_a_soft_label_has_the_most_probable_classes_and_adds_those_of_one_name() -> None:
    scores = ClassScores(torch.tensor([0.3, 0.25, 0.45]))
    label = rule().soft_label(scores, 2)
    assert label is not None
    assert label.class_ids.tolist() == [2, 0]
    assert label.probabilities.tolist() == pytest.approx([0.45, 0.3])
    merged = rule(classes={"cat": "animal", "dog": "animal"}).soft_label(scores, 5)
    assert merged is not None
    assert merged.probabilities.tolist() == pytest.approx([0.55, 0.45])
    assert rule(classes={"car": None}).soft_label(scores, 2) is None
    dogs = rule(classes={"dog": None}).soft_label(scores, 5)
    assert dogs is not None
    assert dogs.probabilities.tolist() == pytest.approx([0.45, 0.3])
