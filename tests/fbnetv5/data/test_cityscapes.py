from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.cityscapes import CLASS_IDS
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.targets import IGNORE
from tests.fbnetv5.data.rearrange import SPLITS, as_cityscapes

SIZE = (64, 64)


@pytest.fixture
def cityscapes(image_folder: Path, tmp_path: Path) -> Path:
    return as_cityscapes(image_folder, tmp_path / "cityscapes")


def test_labels_are_the_classes_of_the_benchmark(cityscapes: Path, image_folder: Path) -> None:
    assert layout_of(cityscapes).name == "Cityscapes"
    data, original = open_folder(cityscapes), open_folder(image_folder)
    assert (len(data), len(data.test), len(data.targets["mask"].classes)) == (24, len(SPLITS["val"]), 19)
    assert data.notes[0] == "images of test left out, whose labels are not published: 2"
    for index, name in enumerate(data.names):
        sample, expected = data.sample(index, SIZE), original.sample(int(name.split("_")[1]), SIZE)
        assert torch.equal(sample.image, expected.image)
        mask = expected.targets["mask"]
        assert torch.equal(sample.targets["mask"], torch.where(mask == 0, IGNORE, mask - 1))


def test_ids_follow_the_definition_of_the_benchmark(cityscapes: Path) -> None:
    path = cityscapes / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.arange(64 * 64).reshape(64, 64).astype(np.uint8)).save(path)
    mask = open_folder(cityscapes).labels(0)["mask"].flatten()[:256]
    classes = open_folder(cityscapes).targets["mask"].classes
    assert {classes[mask[id_]]: id_ for id_ in range(256) if mask[id_] != IGNORE} == CLASS_IDS


def test_train_ids_are_read_as_they_are(cityscapes: Path) -> None:
    folder = cityscapes / "gtFine/train/ulm"
    (folder / "ulm_000000_000019_gtFine_labelIds.png").unlink()
    ids = np.full((64, 64), 18, np.uint8)
    ids[0] = 255
    Image.fromarray(ids).save(folder / "ulm_000000_000019_gtFine_labelTrainIds.png")
    assert np.array_equal(open_folder(cityscapes).labels(0)["mask"].numpy(), ids)


def test_images_without_label_are_left_out_and_none_is_refused(cityscapes: Path) -> None:
    labels = sorted((cityscapes / "gtFine/train/ulm").iterdir())
    labels[0].unlink()
    data = open_folder(cityscapes)
    assert (len(data), data.notes[0]) == (23, "images of train without a label file left out: 1")
    Image.new("L", (8, 8)).save(labels[1])
    with pytest.raises(UserError, match=r"ulm_000001_000019_gtFine_labelIds\.png is 8x8, its image is 64x64"):
        open_folder(cityscapes)
    for path in labels[1:]:
        path.unlink()
    with pytest.raises(UserError, match="gtFine/train has no label of any image"):
        open_folder(cityscapes)
