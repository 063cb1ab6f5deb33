"""Images get the labels that they have, those of teachers, and derived ones, in this order."""

import json
from pathlib import Path

import pytest
import torch

from export.errors import UnavailableError, UserError
from fbnetv5.labeling.config import LabelConfig, TeacherConfig
from fbnetv5.labeling.labeller import Labelled, LeftOut, read_image
from fbnetv5.labeling.run import open_labelling
from tests.fbnetv5.data.test_image_files import FAILING
from tests.fbnetv5.labeling.labelled_scenes import make_labeller, number_of, true_mask
from tests.fbnetv5.labeling.teachers.onnx_files import classifier


def test_all_images_are_labelled_and_unreadable_ones_left_out(tmp_path: Path) -> None:
    labeller = make_labeller(tmp_path, derive={"saliency": "seg"})
    Path(labeller.source.path(4)).write_bytes(b"damaged")
    results = list(labeller.label(range(12)))
    assert [result.index for result in results if isinstance(result, LeftOut)] == [4]
    labelled = [result for result in results if isinstance(result, Labelled)]
    assert len(labelled) == 11
    for result in labelled:
        mask = true_mask(number_of(labeller.source.names[result.index]))
        assert (result.labels["mask"] == mask).float().mean() > 0.97
        assert torch.equal(result.labels["saliency"], (result.labels["mask"] == 1) | (result.labels["mask"] == 2))
        assert result.origins["saliency"] == "derived"
    assert list(labeller.targets) == ["label", "mask", "saliency"]


@pytest.mark.skipif(not FAILING.exists(), reason="needs the proc file system of Linux")
def test_no_image_is_left_out_because_the_storage_fails(tmp_path: Path) -> None:
    labeller = make_labeller(tmp_path, derive={"saliency": "seg"})
    path = Path(labeller.source.path(4))
    path.unlink()
    path.symlink_to(FAILING)
    with pytest.raises(UnavailableError, match="Input/output error"):
        list(labeller.label(range(12)))


def test_existing_labels_are_kept_and_gaps_filled(image_folder: Path, tmp_path: Path) -> None:
    document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
    del document["images"][3]["label"]
    (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    (image_folder / "masks" / "05.png").unlink()
    names: dict[str, str | None] = {"red": "bag", "green": "shirt"}
    teacher = TeacherConfig(teacher=str(classifier(tmp_path / "cls.onnx")), threshold=0.0, classes=names)
    config = LabelConfig(images=str(image_folder), teachers={"cls": teacher}, derive={"saliency": "seg"})
    labeller = open_labelling(config).labeller
    results = {result.index: result for result in labeller.label(range(24)) if isinstance(result, Labelled)}
    assert {index for index, result in results.items() if result.origins["label"] == "teacher"} == {3}
    classes = labeller.targets["label"].classes
    assert classes[results[3].labels["label"]] in names.values()
    assert classes[results[2].labels["label"]] == document["images"][2]["label"]
    assert "mask" not in results[5].labels
    assert results[5].origins["saliency"] == "kept"


def test_an_image_of_more_than_8_bits_is_refused(image_folder: Path) -> None:
    assert read_image(image_folder / "images" / "00.png").shape == (3, 64, 64)
    with pytest.raises(UserError, match="more than 8 bits a channel"):
        read_image(image_folder / "depth" / "00.png")
