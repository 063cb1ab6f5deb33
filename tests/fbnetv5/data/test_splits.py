import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from export.errors import UserError
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.scenes import TARGETS
from fbnetv5.data.splits import SHARES, open_splits, split_of, without_policies


def images_of(split: ImageSet) -> set[bytes]:
    return {split[index].image.numpy().tobytes() for index in range(len(split))}


def test_demo_splits_share_no_image() -> None:
    splits = open_splits(None, size=(32, 32), targets=TARGETS, counts=(30, 20, 10))
    sets = [images_of(split) for split in (splits.weights, splits.policies, splits.test)]
    assert [len(images) for images in sets] == [30, 20, 10]
    assert all(not first & second for first, second in combinations(sets, 2))


def test_demo_splits_have_the_stated_sizes() -> None:
    splits = open_splits(None, size=(64, 64), targets=TARGETS)
    assert [len(split) for split in (splits.weights, splits.policies, splits.test)] == [8000, 2000, 1000]
    assert splits.weights.targets == splits.policies.targets == splits.test.targets


def test_a_folder_is_divided_completely(image_folder: Path) -> None:
    splits = open_splits(image_folder, size=(64, 64), targets=TARGETS)
    sets = [images_of(split) for split in (splits.weights, splits.policies, splits.test)]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 24
    assert all(sets)


def test_a_further_image_moves_no_other(image_folder: Path) -> None:
    before = images_of(open_splits(image_folder, size=(64, 64), targets=TARGETS).weights)
    Image.new("RGB", (64, 64)).save(image_folder / "images/000.png")
    after = images_of(open_splits(image_folder, size=(64, 64), targets=TARGETS).weights)
    assert before <= after
    assert len(after - before) <= 1


@given(st.text(min_size=1, alphabet=st.characters(codec="utf-8")))
def test_every_name_has_one_split(name: str) -> None:
    assert split_of(name) == split_of(name) in (0, 1, 2)


def test_augmented_copies_of_an_image_are_in_one_split() -> None:
    splits = {split_of(f"train/images/{image}_jpg.rf.{copy:032x}.jpg") for image in range(50) for copy in range(3)}
    assert splits == {0, 1, 2}
    for image in range(50):
        assert len({split_of(f"train/images/{image}_jpg.rf.{copy:032x}.jpg") for copy in range(3)}) == 1


def test_a_name_that_is_not_utf_8_has_a_split() -> None:
    assert split_of(os.fsdecode(b"\xff.png")) in (0, 1, 2)


def test_shares_are_about_those_stated() -> None:
    counts_by_split = Counter(split_of(f"{number:012d}.jpg") for number in range(5000))
    assert [counts_by_split[split] / 5000 for split in range(3)] == pytest.approx(SHARES, abs=0.02)


def test_a_folder_too_small_to_divide_is_refused(image_folder: Path) -> None:
    (image_folder / "instances.json").unlink()
    for folder in ("images", *(form.folder for form in FORMATS.values())):
        for path in sorted((image_folder / folder).iterdir())[1:]:
            path.unlink()
    with pytest.raises(UserError, match="each needs at least 1") as caught:
        open_splits(image_folder, size=(64, 64), targets=TARGETS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(0, 64), (64, 65), (-32, 32), (100, 64)])
def test_a_size_off_the_stride_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="multiples of 32"):
        open_splits(None, size=size, targets=TARGETS)


@pytest.mark.parametrize(("max_held_out", "expected"), [(1, 1), (5, 5), (20, 20), (999, 20)])
def test_a_training_learns_from_all_but_the_held_out_images(max_held_out: int, expected: int) -> None:
    splits = open_splits(None, size=(32, 32), targets=TARGETS, counts=(30, 20, 10))
    images, held_out = without_policies(splits, max_held_out)
    assert (len(images), len(held_out)) == (50 - expected, expected)
    assert images_of(images) | images_of(held_out) == images_of(splits.weights) | images_of(splits.policies)
    assert not images_of(images) & images_of(held_out)
    assert images_of(held_out) <= images_of(splits.policies)


def test_held_out_images_are_evenly_spaced_over_their_split() -> None:
    splits = open_splits(None, size=(32, 32), targets=TARGETS, counts=(1, 20, 1))
    _, held_out = without_policies(splits, 4)
    expected = {splits.policies[index].image.numpy().tobytes() for index in (0, 5, 10, 15)}
    assert images_of(held_out) == expected
