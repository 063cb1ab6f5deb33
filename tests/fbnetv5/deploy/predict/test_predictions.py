import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from export.errors import UserError
from export.placement import place
from export.runners import Array
from fbnetv5.data.predictions import NMS_IOU, ClassScores, ScoredBoxes
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, decode, overlaps, softmax, suppress
from fbnetv5.tasks import detection

WHOLE = place((16, 16), (16, 16), "stretch")


def draw_boxes(rng: np.random.Generator, count: int) -> Array:
    corners = rng.random((count, 2)) * 10
    return np.concatenate([corners, corners + rng.random((count, 2)) * 6], axis=1).astype(np.float32)


@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), classes=st.integers(1, 3))
def test_duplicates_are_those_of_torchvision(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, labels = draw_boxes(rng, count), rng.integers(0, classes, count)
    scores = rng.permutation(count).astype(np.float32)
    expected = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), NMS_IOU)
    assert suppress(boxes, scores, labels).tolist() == expected.tolist()


def test_overlaps_are_those_of_torchvision() -> None:
    boxes = draw_boxes(np.random.default_rng(0), 20)
    expected = box_iou(torch.from_numpy(boxes[:1]), torch.from_numpy(boxes))[0]
    np.testing.assert_allclose(overlaps(boxes[0], boxes), expected, atol=1e-6)


def test_softmax_is_that_of_torch() -> None:
    logits = np.array([1000.0, 999.0, -5.0], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits), torch.from_numpy(logits).softmax(0), rtol=1e-6)


def test_the_three_forms_of_a_detector_give_the_same_boxes() -> None:
    rng = np.random.default_rng(1)
    boxes = torch.from_numpy(draw_boxes(rng, 60)[None])
    scores = torch.from_numpy(rng.permutation(180).reshape(1, 60, 3).astype(np.float32) / 180)
    selected = detection.select(boxes, scores)
    ((kept, best, labels),) = detection.suppress(selected)
    forms = ([boxes, scores], list(selected), [kept, best, labels])
    for outputs in forms:
        found = decode("det", [output.numpy() for output in outputs], WHOLE)
        assert isinstance(found, ScoredBoxes)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.scores, best)
        np.testing.assert_allclose(found.xyxy, kept.clamp(0, 16), rtol=1e-6)


def test_maps_have_the_size_of_the_image() -> None:
    tall = place((20, 10), (16, 16), "letterbox")
    logits = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).numpy()
    ids = decode("seg", [logits], tall)
    assert isinstance(ids, ClassMap)
    assert ids.ids.shape == (20, 10)
    expected = np.stack([tall.map_to_original(plane) for plane in logits[0]]).argmax(0)
    np.testing.assert_array_equal(ids.ids, expected)
    depth = decode("depth", [logits[:, :1]], tall)
    assert isinstance(depth, DepthMap)
    assert depth.metres.shape == (20, 10)
    normals = decode("normals", [logits[:, :3]], tall)
    assert isinstance(normals, NormalMap)
    np.testing.assert_allclose(np.linalg.norm(normals.vectors, axis=0), 1, rtol=1e-5)
    scores = decode("cls", [logits[:, :, 0, 0]], tall)
    assert isinstance(scores, ClassScores)
    assert scores.probabilities.shape == (4,)
    with pytest.raises(UserError, match="no way to show the outputs of task poetry"):
        decode("poetry", [logits], tall)
