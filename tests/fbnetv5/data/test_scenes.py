import hashlib
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import CLASSES, LEAST_SIDE, Scenes, Split, compose, photographs, products

SPLITS: tuple[Split, Split] = ("train", "test")
SIZES = {"smallest": (32, 32), "usual": (64, 64), "wide": (96, 192), "tall": (160, 64)}


def same(one: Sample, other: Sample) -> bool:
    tensors = ("image", "boxes", "box_labels", "mask")
    return one.label == other.label and all(torch.equal(getattr(one, n), getattr(other, n)) for n in tensors)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_every_scene_is_labelled_and_within_its_picture(size: tuple[int, int]) -> None:
    scenes = Scenes("test", size=size, count=40)
    for scene in map(scenes.__getitem__, range(len(scenes))):
        assert scene.boxes is not None
        assert scene.box_labels is not None
        assert scene.image.shape == (3, *size)
        assert 1 <= len(scene.boxes) == len(scene.box_labels) <= 4
        assert ((scene.boxes[:, 2:] - scene.boxes[:, :2]) >= LEAST_SIDE).all()
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()
        assert scene.label in scene.box_labels


@given(index=st.integers(0, 10**6), seed=st.integers(0, 2**32), split=st.sampled_from(SPLITS))
@settings(max_examples=60, deadline=None)
def test_boxes_are_the_extent_of_each_class_in_the_mask(index: int, seed: int, split: Split) -> None:
    scene = compose(split, index, size=(64, 64), seed=seed)
    assert scene.mask is not None
    assert scene.boxes is not None
    assert scene.box_labels is not None
    assert set(scene.mask.flatten().tolist()) - {0} == {label + 1 for label in scene.box_labels.tolist()}
    for label in set(scene.box_labels.tolist()):
        ys, xs = torch.nonzero(scene.mask == label + 1, as_tuple=True)
        mine = scene.boxes[scene.box_labels == label]
        union = [*mine[:, :2].amin(0).tolist(), *mine[:, 2:].amax(0).tolist()]
        assert union == [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def test_label_is_the_class_of_most_pixels_where_classes_differ() -> None:
    for scene in (compose("train", index, size=(64, 64), seed=0) for index in range(80)):
        assert scene.mask is not None
        assert scene.box_labels is not None
        if len(set(scene.box_labels.tolist())) == len(scene.box_labels):
            assert int(torch.bincount(scene.mask.flatten().long())[1:].argmax()) == scene.label


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
    alike = [(small, large) for small, large in pairs if torch.equal(*(s.box_labels for s in (small, large)))]  # type: ignore[arg-type]
    assert len(alike) >= 54
    assert sum(small.label == large.label for small, large in alike) >= len(alike) - 2
    for small, large in alike:
        assert small.boxes is not None
        assert large.boxes is not None
        assert (small.boxes * 3.5 - large.boxes).abs().max() < 3.5 * 4


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
    boxes = torch.cat([scene.boxes for scene in scenes if scene.boxes is not None])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert (sides <= 12).float().mean() > 0.1
    assert (sides >= 40).float().mean() > 0.1
    assert np.bincount([scene.label for scene in scenes], minlength=len(CLASSES.labels)).min() >= 20


def test_the_test_scenes_are_the_ones_that_published_figures_were_measured_on() -> None:
    digest = hashlib.sha256()
    scenes = Scenes("test", size=(64, 64), count=1000)
    for scene in (scenes[index] for index in range(1000)):
        for labels in (scene.image, scene.boxes, scene.box_labels, scene.mask):
            assert labels is not None
            digest.update(labels.numpy().tobytes())
        digest.update(bytes([scene.label]))
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
