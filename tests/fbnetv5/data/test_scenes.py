import hashlib
import time

import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import (
    CLASSES,
    MAX_OBJECTS,
    MIN_SIDE,
    TARGETS,
    Scenes,
    Split,
    compose,
    photographs,
    products,
)
from tests.samples import stack

SPLITS: tuple[Split, Split] = ("train", "test")
SIZES = {"smallest": (32, 32), "usual": (64, 64), "wide": (96, 192), "tall": (160, 64)}


def same(one: Sample, other: Sample) -> bool:
    first, second = (pytree.tree_leaves((scene.image, stack([scene]).targets)) for scene in (one, other))
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_every_scene_is_labelled_and_within_its_image(size: tuple[int, int]) -> None:
    scenes = Scenes("test", size=size, count=40)
    for scene in map(scenes.__getitem__, range(len(scenes))):
        assert scene.image.shape == (3, *size)
        assert 1 <= len(scene.targets["boxes"].xyxy) == len(scene.targets["boxes"].labels) <= 4
        assert ((scene.targets["boxes"].xyxy[:, 2:] - scene.targets["boxes"].xyxy[:, :2]) >= MIN_SIDE).all()
        assert (scene.targets["boxes"].xyxy[:, :2] >= 0).all()
        assert (scene.targets["boxes"].xyxy[:, 2:] <= torch.tensor([size[1], size[0]])).all()
        assert scene.targets["label"] in scene.targets["boxes"].labels


@given(index=st.integers(0, 10**6), seed=st.integers(0, 2**32), split=st.sampled_from(SPLITS))
@settings(max_examples=60, deadline=None)
def test_boxes_are_the_extent_of_each_class_in_the_mask(index: int, seed: int, split: Split) -> None:
    scene = compose(split, index, size=(64, 64), seed=seed)
    assert set(scene.targets["mask"].flatten().tolist()) - {0} == {
        label + 1 for label in scene.targets["boxes"].labels.tolist()
    }
    for label in set(scene.targets["boxes"].labels.tolist()):
        ys, xs = torch.nonzero(scene.targets["mask"] == label + 1, as_tuple=True)
        mine = scene.targets["boxes"].xyxy[scene.targets["boxes"].labels == label]
        union = [*mine[:, :2].amin(0).tolist(), *mine[:, 2:].amax(0).tolist()]
        assert union == [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def test_label_is_the_class_of_most_pixels_where_classes_differ() -> None:
    for scene in (compose("train", index, size=(64, 64), seed=0) for index in range(80)):
        if len(set(scene.targets["boxes"].labels.tolist())) == len(scene.targets["boxes"].labels):
            assert int(torch.bincount(scene.targets["mask"].flatten().long())[1:].argmax()) == scene.targets["label"]


@given(index=st.integers(0, 10**6), split=st.sampled_from(SPLITS))
@settings(max_examples=60, deadline=None)
def test_saliency_edges_and_depth_agree_with_mask_and_boxes(index: int, split: Split) -> None:
    labels = compose(split, index, size=(64, 64), seed=0).targets
    mask, salient, depth, edges = (labels[name] for name in ("mask", "saliency", "depth", "edges"))
    assert torch.equal(salient == 1, mask > 0)
    assert torch.equal(depth == MAX_OBJECTS + 1, mask == 0)
    layers = sorted(set(depth.flatten().tolist()) - {MAX_OBJECTS + 1.0})
    assert layers == [float(MAX_OBJECTS - number) for number in reversed(range(len(labels["boxes"].labels)))]
    for number, (box, label) in enumerate(zip(*labels["boxes"], strict=True)):
        mine = depth == MAX_OBJECTS - number
        ys, xs = mine.nonzero(as_tuple=True)
        assert box.tolist() == [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
        assert set(mask[mine].tolist()) == {int(label) + 1}
    farther = torch.zeros(64, 64, dtype=torch.bool)
    farther[1:] |= depth[:-1] > depth[1:]
    farther[:-1] |= depth[1:] > depth[:-1]
    farther[:, 1:] |= depth[:, :-1] > depth[:, 1:]
    farther[:, :-1] |= depth[:, 1:] > depth[:, :-1]
    assert torch.equal(edges == 1, farther)


@given(index=st.integers(0, 10**6), split=st.sampled_from(SPLITS))
@settings(max_examples=30, deadline=None)
def test_normals_lean_outwards_on_objects_and_are_unknown_elsewhere(index: int, split: Split) -> None:
    labels = compose(split, index, size=(64, 64), seed=0).targets
    normals, number = labels["normals"], MAX_OBJECTS - len(labels["boxes"].labels) + 1
    lengths = torch.where(labels["mask"] > 0, 1.0, float("nan"))
    torch.testing.assert_close(normals.norm(dim=0), lengths, equal_nan=True)
    ys, xs = (labels["depth"] == number).nonzero(as_tuple=True)  # the object on top is visible as a whole
    for component, places, sign in ((0, xs, 1), (1, ys, -1)):
        values = sign * normals[component, ys, xs] / normals[2, ys, xs]
        assert values.abs().max() < 1
        order = places.argsort(stable=True)
        assert (values[order].diff() >= -1e-5).all()


@given(index=st.integers(0, 10**6), split=st.sampled_from(SPLITS))
@settings(max_examples=30, deadline=None)
def test_parts_are_the_thirds_of_an_objects_height(index: int, split: Split) -> None:
    labels = compose(split, index, size=(64, 64), seed=0).targets
    parts, top = labels["parts"], MAX_OBJECTS - len(labels["boxes"].labels) + 1
    assert torch.equal(parts == 0, labels["mask"] == 0)
    rows = [set(ids[mine].tolist()) for ids, mine in zip(parts, labels["depth"] == top, strict=True) if mine.any()]
    assert all(len(ids) == 1 for ids in rows)
    column = [ids.pop() for ids in rows]
    assert column == sorted(column)
    assert all(abs(column.count(part) - len(column) / 3) <= 2 for part in (1, 2, 3))


def test_scenes_have_the_requested_labels() -> None:
    whole, some = Scenes("test", size=(32, 32), count=2), Scenes("test", size=(32, 32), count=2, targets=["depth", "x"])
    assert list(whole.targets) == list(whole[0].targets) == list(TARGETS)
    assert list(some.targets) == list(some[0].targets) == ["depth"]
    assert torch.equal(whole[1].targets["depth"], some[1].targets["depth"])
    assert torch.equal(whole[1].image, some[1].image)


def test_scenes_do_not_depend_on_the_order_of_access() -> None:
    forwards, backwards = (Scenes("train", size=(64, 64), count=12, seed=5) for _ in range(2))
    reverse = [backwards[index] for index in reversed(range(12))][::-1]
    assert all(same(forwards[index], reverse[index]) for index in range(12))


def test_first_shifts_and_seed_and_split_change_the_scenes() -> None:
    scene = Scenes("train", size=(64, 64), count=9)[8]
    assert same(scene, Scenes("train", size=(64, 64), count=1, first=8)[0])
    assert not same(scene, Scenes("train", size=(64, 64), count=9, seed=1)[8])
    assert not same(scene, Scenes("test", size=(64, 64), count=9)[8])


def test_a_scene_is_the_same_composition_at_every_size() -> None:
    pairs = [[compose("train", index, size=(side, side), seed=0) for side in (64, 224)] for index in range(60)]
    alike = [
        (small, large) for small, large in pairs if torch.equal(*(s.targets["boxes"].labels for s in (small, large)))
    ]
    assert len(alike) >= 54
    assert sum(small.targets["label"] == large.targets["label"] for small, large in alike) >= len(alike) - 2
    for small, large in alike:
        assert (small.targets["boxes"].xyxy * 3.5 - large.targets["boxes"].xyxy).abs().max() < 3.5 * 4


def test_the_splits_share_neither_products_nor_photographs() -> None:
    train, test = ({item.tobytes() for row in products(split) for item in row} for split in SPLITS)
    assert products("train").shape == (10, 800, 28, 28)
    assert products("test").shape == (10, 150, 28, 28)
    assert not train & test
    grounds = [{photo.tobytes() for photo in photographs(split)} for split in SPLITS]
    assert [len(photos) for photos in grounds] == [12, 5]
    assert not grounds[0] & grounds[1]


def test_sizes_span_the_paths_and_classes_are_balanced() -> None:
    scenes = [compose("train", index, size=(64, 64), seed=0) for index in range(400)]
    boxes = torch.cat([scene.targets["boxes"].xyxy for scene in scenes])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert (sides <= 12).float().mean() > 0.1
    assert (sides >= 40).float().mean() > 0.1
    assert np.bincount([scene.targets["label"] for scene in scenes], minlength=len(CLASSES["label"])).min() >= 20


def test_the_test_scenes_are_the_ones_that_published_figures_were_measured_on() -> None:
    digest = hashlib.sha256()
    scenes = Scenes("test", size=(64, 64), count=1000)
    for scene in (scenes[index] for index in range(1000)):
        for labels in (scene.image, scene.targets["boxes"].xyxy, scene.targets["boxes"].labels, scene.targets["mask"]):
            digest.update(labels.numpy().tobytes())
        digest.update(bytes([scene.targets["label"]]))
    assert digest.hexdigest() == "08813e5f3beb065fa1724e63d7684950881d257ce38e57937aa646c502b6bc94"


def test_composing_is_fast_and_kept_scenes_are_free() -> None:
    scenes = Scenes("train", size=(64, 64), count=200)
    assert scenes[0] is scenes[0]
    start = time.process_time()
    for index in range(200):
        _ = scenes[index]
    # About 0.6 ms a scene on one core; the margin is for busy machines.
    assert time.process_time() - start < 200 * 0.005


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(IndexError, match="scene 3 of 3"):
        _ = Scenes("test", size=(32, 32), count=3)[3]
