from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.predictions import ClassScores, ScoredBoxes
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.deploy.predict.predictions import ClassMap
from fbnetv5.deploy.predict.truth import open_labelled
from fbnetv5.tasks import task_types


def test_labels_of_all_tasks_become_predictions(image_folder: Path) -> None:
    frames, truth = open_labelled(image_folder, tuple(task_types()))
    first = next(frames)
    predictions, classes = truth(first)
    sample = Scenes("train", size=(64, 64), count=1)[0]
    assert set(predictions) == set(task_types())
    boxes, label, mask = predictions["det"], predictions["cls"], predictions["seg"]
    assert isinstance(boxes, ScoredBoxes)
    np.testing.assert_allclose(boxes.xyxy, sample.targets["boxes"].xyxy, atol=0.01)
    assert isinstance(label, ClassScores)
    assert classes["cls"][int(label.probabilities.argmax())] == CLASSES["label"][sample.targets["label"]]
    assert isinstance(mask, ClassMap)
    np.testing.assert_array_equal(mask.ids, sample.targets["mask"])


def test_the_labels_of_shards_are_drawn(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_shards(open_folder(image_folder), tmp_path / "shards", lambda *stage: None)
    frames, truth = open_labelled(tmp_path / "shards", ("det",))
    read = list(frames)
    assert len({frame.name for frame in read}) == 24
    assert all(frame.image is not None and frame.image.size == (64, 64) for frame in read)
    assert set(truth(read[0])[0]) == {"det"}


def test_an_image_with_a_wrong_label_is_left_out_with_the_reason(image_folder: Path) -> None:
    Image.new("L", (64, 64), color=200).save(image_folder / "masks" / "01.png")
    frames, truth = open_labelled(image_folder, ("seg",))
    first, second, third = (next(frames) for _ in range(3))
    assert second.image is None
    assert f"{image_folder / 'masks' / '01.png'} holds class id 200" in second.reason
    assert first.image is not None
    assert set(truth(third)[0]) == {"seg"}


def test_labels_of_other_tasks_are_no_truth(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(UserError, match="has no labels for det, only label: leave out --truth"):
        open_labelled(tmp_path, ("det",))
    frames, truth = open_labelled(tmp_path, ("det", "cls"))
    assert set(truth(next(frames))[0]) == {"cls"}
