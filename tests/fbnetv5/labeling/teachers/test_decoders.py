"""Raw outputs of every form become predictions at the image's pixels; wrong forms are refused."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from export.errors import UserError
from export.placement import Placement
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.labeling.teachers.decoders import Decoding, DenseValues, ScoredMap
from fbnetv5.labeling.teachers.preparation import Preparation

SAME = Preparation(size=(64, 64)).placement((64, 64))
DOUBLE = Preparation(size=(64, 64)).placement((128, 128))


def detected(decoding: Decoding, outputs: Sequence[Tensor], place: Placement = SAME) -> ScoredBoxes[Tensor]:
    prediction = decoding(outputs, place)
    assert isinstance(prediction, ScoredBoxes)
    return prediction


def test_logits_become_probabilities() -> None:
    prediction = Decoding(name="logits", classes=2)([torch.tensor([0.0, math.log(3)])], SAME)
    assert isinstance(prediction, ClassScores)
    torch.testing.assert_close(prediction.probabilities, torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("objectness", [False, True])
def test_yolo_rows_become_boxes(transposed: bool, objectness: bool) -> None:
    rows = torch.tensor([[20.0, 30, 10, 20, 0.8, 0.1], [21, 30, 10, 20, 0.7, 0.1], [50, 50, 8, 8, 0.2, 0.6]])
    if objectness:
        rows = torch.cat([rows[:, :4], torch.full((3, 1), 0.5), rows[:, 4:]], 1)
    prediction = detected(Decoding(name="yolo", classes=2), [rows.T if transposed else rows], DOUBLE)
    assert prediction.xyxy.tolist() == [[30.0, 40.0, 50.0, 80.0], [92.0, 92.0, 108.0, 108.0]]
    assert prediction.labels.tolist() == [0, 1]
    torch.testing.assert_close(prediction.scores, torch.tensor([0.8, 0.6]) * (0.5 if objectness else 1.0))


def test_ssd_boxes_with_labels_and_with_scores_of_all_classes_are_the_same() -> None:
    boxes = torch.tensor([[0.0, 0, 0.5, 0.5], [0.25, 0.25, 1, 1]])
    labelled = detected(
        Decoding(name="ssd", classes=3, first_label=1, relative_boxes=True),
        [boxes, torch.tensor([0.9, 0.7]), torch.tensor([3, 1])],
    )
    scores = torch.tensor([[0.0, 0.0, 0.9], [0.7, 0.0, 0.0]])
    scored = detected(Decoding(name="ssd", classes=3), [boxes * 64, scores])
    for prediction in (labelled, scored):
        assert prediction.xyxy.tolist() == [[0.0, 0.0, 32.0, 32.0], [16.0, 16.0, 64.0, 64.0]]
        assert prediction.labels.tolist() == [2, 0]


def test_pixel_logits_become_the_most_probable_class_of_a_plain_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 16, 16) * 3
    prediction = Decoding(name="pixel_logits", classes=5)([logits], SAME)
    assert isinstance(prediction, ScoredMap)
    resized = functional.interpolate(logits[None], size=(64, 64), mode="bilinear", align_corners=False)[0]
    confidences, ids = resized.softmax(0).max(0)
    assert torch.equal(prediction.ids, ids)
    torch.testing.assert_close(prediction.confidences, confidences)


def test_dense_outputs_are_resized_to_the_image() -> None:
    half = Decoding(name="probability")([torch.full((1, 8, 8), 0.5)], DOUBLE)
    assert isinstance(half, ProbabilityMap)
    assert half.probabilities.shape == (128, 128)
    depth = Decoding(name="depth", metres=0.5)(
        [torch.tensor([[3.0, 0.0]]).repeat(2, 1)], Placement((2, 2), (2, 2), 0, 0, (2, 2))
    )
    assert isinstance(depth, DenseValues)
    assert depth.values[:, 0].tolist() == [1.5, 1.5]
    assert depth.values[:, 1].isnan().all()
    normals = Decoding(name="normals")([torch.tensor([0.0, 3.0, 4.0]).view(3, 1, 1).expand(3, 4, 4)], SAME)
    assert isinstance(normals, DenseValues)
    torch.testing.assert_close(normals.values[:, 9, 9], torch.tensor([0.0, 0.6, 0.8]))


BOX, ROW = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[5.0, 5, 9, 9, 0.5]])
WRONG: dict[str, tuple[dict[str, Any], list[Tensor], str]] = {
    "classes": ({"name": "logits", "classes": 3}, [torch.zeros(2)], "has 2 classes, and 3 are named"),
    "two outputs": ({"name": "logits", "classes": 2}, [torch.zeros(2)] * 2, "reads one output, and it has 2"),
    "row length": ({"name": "yolo", "classes": 4}, [ROW], "rows of 8 or 9 numbers for 4 classes"),
    "raw scores": ({"name": "yolo", "classes": 1}, [ROW * 20], "a score is from 0 to 1"),
    "order": ({"name": "ssd", "classes": 1}, [torch.zeros(1), BOX], "list the outputs in this order"),
    "label": ({"name": "ssd", "classes": 1}, [BOX, torch.ones(1), torch.tensor([7])], "labels from 7 to 7"),
    "pixels": ({"name": "pixel_logits", "classes": 2}, [torch.zeros(2, 4)], "reads [N, classes, h, w]"),
    "depth": ({"name": "depth"}, [torch.zeros(2, 4, 4)], "one number per pixel"),
    "normals": ({"name": "normals"}, [torch.zeros(2, 4, 4)], "reads [N, 3, h, w]"),
}


@pytest.mark.parametrize(("fields", "outputs", "message"), WRONG.values(), ids=WRONG)
def test_outputs_of_another_form_are_refused(fields: dict[str, Any], outputs: list[Tensor], message: str) -> None:
    with pytest.raises(UserError) as error:
        Decoding(**fields)(outputs, SAME)
    assert message in str(error.value)
