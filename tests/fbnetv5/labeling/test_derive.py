"""Labels that follow from others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.data.scenes import Scenes
from fbnetv5.data.targets import BOXES, CLASS, CLASS_MAP, IGNORE, Boxes, Target
from fbnetv5.labeling.derive import edges_of_classes, make_derivations, salient
from tests.fbnetv5.data.test_instance_masks import write_coco

DETECTED = {"boxes": Target(kind=BOXES, classes=("cat", "dog"))}
TWO = {"boxes": Boxes(torch.tensor([[0.0, 0, 20, 20], [28, 18, 34, 24]]), torch.tensor([0, 1]))}
NONE = {"boxes": Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))}


@pytest.mark.parametrize(("rule", "expected"), [("largest-box", 0), ("central-box", 1)])
def test_the_class_of_an_image_is_that_of_a_box(rule: str, expected: int) -> None:
    derivation = make_derivations({"cls": rule}, Path(), DETECTED)["cls"]
    assert derivation.classes == ("cat", "dog")
    assert derivation.rule("a", TWO, (40, 60)) == expected
    assert derivation.rule("a", NONE, (40, 60)) is None
    assert derivation.rule("a", {}, (40, 60)) is None


def test_the_class_is_an_id_of_the_data_sets_own_classes() -> None:
    targets = DETECTED | {"label": Target(kind=CLASS, classes=("horse", "dog", "cat"))}
    derivation = make_derivations({"cls": "largest-box"}, Path(), targets)["cls"]
    assert derivation.rule("a", TWO, (40, 60)) == 2
    with pytest.raises(UserError, match="classes of cls lack 'cat'"):
        make_derivations({"cls": "largest-box"}, Path(), DETECTED | {"label": Target(kind=CLASS, classes=("dog",))})


def test_saliency_and_edges_of_class_maps_are_those_of_the_scenes() -> None:
    scenes = Scenes("train", size=(64, 64), count=5)
    for scene in map(scenes.__getitem__, range(5)):
        mask = scene.targets["mask"]
        assert torch.equal(salient(mask), scene.targets["saliency"])
        around = np.pad(mask.numpy(), 1, mode="edge")
        neighbours = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
        assert np.array_equal(edges_of_classes(mask).numpy(), (neighbours.min(0) < mask.numpy()).astype(np.uint8))


def test_ignored_pixels_are_neither_salient_nor_edges() -> None:
    ids = torch.tensor([[0, 1, IGNORE, IGNORE, 0]], dtype=torch.uint8)
    assert salient(ids).tolist() == [[0, 1, 0, 0, 0]]
    assert edges_of_classes(ids).tolist() == [[0, 1, 0, 0, 0]]


def test_masks_of_instances_make_three_labels_and_come_before_those_of_class_maps(tmp_path: Path) -> None:
    write_coco(tmp_path, ("triangle", "two polygons"))
    rules = {"edges": "seg", "saliency": "instances", "seg": "instances"}
    derivations = make_derivations(rules, tmp_path, {})
    assert list(derivations) == ["seg", "saliency", "edges"]
    assert derivations["seg"].classes == ("background", "cat", "dog")
    mask = derivations["seg"].rule("train/5.png", {}, (40, 60))
    assert mask is not None
    assert torch.equal(derivations["saliency"].rule("train/5.png", {}, (40, 60)), (mask != 0).to(torch.uint8))
    assert derivations["edges"].rule("train/5.png", {"mask": mask}, (40, 60)).any()
    assert derivations["edges"].rule("train/5.png", {}, (40, 60)) is None


def test_a_class_of_boxes_called_background_is_that_of_the_class_map(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ("triangle", "two polygons"))
    path.write_text(path.read_text(encoding="utf-8").replace('"cat"', '"background"'), encoding="utf-8")
    assert make_derivations({"seg": "instances"}, tmp_path, {})["seg"].classes == ("background", "dog")


def test_rules_without_their_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no rule --derive cls=box; there are: seg=instances, cls=largest-box"):
        make_derivations({"cls": "box"}, tmp_path, DETECTED)
    with pytest.raises(UserError, match="reads boxes, and there are none: add a teacher of det"):
        make_derivations({"cls": "largest-box"}, tmp_path, {})
    with pytest.raises(UserError, match="reads class maps, and there are none: add a teacher of seg"):
        make_derivations({"edges": "seg"}, tmp_path, DETECTED)
    write_coco(tmp_path, ("triangle",))
    with pytest.raises(UserError, match="have other classes than background and its boxes"):
        make_derivations(
            {"seg": "instances"},
            tmp_path,
            {"mask": Target(kind=CLASS_MAP, classes=(*"abc", "background", "cat", "dog"))},
        )
