from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.pascal_context import CLASSES, NYU_CLASSES, PART_IDS, PARTS, read_parts, read_valid_normals
from fbnetv5.data.splits import open_splits
from fbnetv5.data.targets import IGNORE
from tests.fbnetv5.data.multi_task_folders import (
    IDS,
    SIDE,
    TEST,
    context_classes,
    make_pascal_context,
    save_parts,
    scene,
)

TARGETS = ("mask", "parts", "saliency", "normals", "edges")
NAN = float("nan")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pascal_context(tmp_path_factory.mktemp("pascal") / "PASCAL_MT")


def test_the_layout_is_recognised_with_its_targets(root: Path) -> None:
    assert layout_of(root).name == "PASCAL-Context"
    targets = open_folder(root).targets
    assert set(targets) == set(TARGETS)
    assert (targets["mask"].classes, targets["parts"].classes) == (CLASSES, PARTS)
    assert (len(CLASSES), len(PARTS)) == (21, 7)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 23])
def test_labels_are_those_of_the_files(root: Path, number: int) -> None:
    labels, expected = open_folder(root).sample(number, SIDE).targets, scene(number).targets
    assert torch.equal(labels["mask"], expected["mask"])
    assert torch.equal(labels["saliency"], expected["saliency"])
    if number % 2:
        assert "parts" not in labels
    else:
        merged = torch.tensor([0, 1, 2, 6], dtype=torch.uint8)[expected["parts"].long()]
        assert torch.equal(labels["parts"], merged)
    classes = torch.from_numpy(context_classes(number).astype(np.int64))
    normals = expected["normals"].masked_fill(classes != 284, NAN)
    torch.testing.assert_close(labels["normals"], normals, atol=0.006, rtol=0, equal_nan=True)
    lines = labels["edges"] == 1
    beside = torch.zeros_like(lines)
    for axis in (0, 1):
        differ = classes.narrow(axis, 0, 63) != classes.narrow(axis, 1, 63)
        beside.narrow(axis, 0, 63).logical_or_(differ)
        beside.narrow(axis, 1, 63).logical_or_(differ)
    assert not (lines & ~beside).any()
    assert 0.3 < lines.sum() / beside.sum() < 0.7


def test_images_of_val_are_the_test_split(root: Path) -> None:
    splits = open_splits(root, size=SIDE, targets=["mask"])
    masks = [splits.test[index].targets["mask"] for index in range(len(splits.test))]
    assert len(masks) == len(TEST)
    assert all(torch.equal(mask, scene(number).targets["mask"]) for mask, number in zip(masks, TEST, strict=True))
    assert len(splits.weights) + len(splits.policies) == 20


def test_a_mask_of_voc_comes_before_one_of_context(root: Path, tmp_path: Path) -> None:
    path = make_pascal_context(tmp_path / "P") / f"semseg/pascal-context/{IDS[1]}.png"
    Image.fromarray(np.full(SIDE, IGNORE, dtype=np.uint8)).save(path)
    assert "mask" in open_folder(tmp_path / "P").sample(1, SIDE).targets


def test_the_parts_of_a_person_are_merged_to_six(tmp_path: Path) -> None:
    assert len(PART_IDS) == 24
    assert set(PART_IDS.values()) == set(range(1, 7))
    masks = {name: np.zeros(SIDE, dtype=bool) for name in PART_IDS}
    for row, mask in enumerate(masks.values()):
        mask[2 * row : 2 * row + 3] = True
    save_parts(tmp_path / "a.mat", [(3, {"head": np.ones(SIDE)}), (15, masks)])
    parts = read_parts(tmp_path / "a.mat")
    assert parts is not None
    assert parts[: 2 * len(PART_IDS) : 2, 0].tolist() == list(PART_IDS.values())
    assert (parts[50:] == 0).all()


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([(15, {"wing": np.ones(SIDE)})], "a person has no part 'wing'"),
        ([(15, {"head": np.ones(SIDE), "neck": np.ones((3, 4))})], "is no annotation of PASCAL-Part"),
    ],
)
def test_other_annotations_are_refused(tmp_path: Path, objects: list, message: str) -> None:  # type: ignore[type-arg]
    save_parts(tmp_path / "a.mat", objects)
    with pytest.raises(UserError, match=message) as caught:
        read_parts(tmp_path / "a.mat")
    assert str(tmp_path / "a.mat") in str(caught.value)
    savemat(tmp_path / "a.mat", {"anno": np.zeros((2, 2))})
    with pytest.raises(UserError, match="is no annotation of PASCAL-Part"):
        read_parts(tmp_path / "a.mat")


def test_normals_need_the_classes_of_their_image(root: Path, tmp_path: Path) -> None:
    copy = make_pascal_context(tmp_path / "P")
    classes, normals = copy / f"pascal-context/trainval/{IDS[0]}.mat", copy / f"normals_distill/{IDS[0]}.png"
    savemat(classes, {"LabelMap": np.zeros((3, 4))})
    with pytest.raises(UserError, match=r"2008_000000\.png is 64x64 and .*2008_000000\.mat is 4x3\. Replace the files"):
        read_valid_normals(normals)
    classes.unlink()
    with pytest.raises(
        UserError, match=r"no .*trainval/2008_000000\.mat, whose .* add it, or remove .*distill/2008_0000"
    ):
        read_valid_normals(normals)
    assert len(set(NYU_CLASSES)) == 170
