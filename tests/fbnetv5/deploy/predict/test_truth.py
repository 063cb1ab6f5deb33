from pathlib import Path

import numpy as np

from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.deploy.predict.predictions import ClassMap, ClassScores, ScoredBoxes
from fbnetv5.deploy.predict.truth import open_labelled
from fbnetv5.tasks import task_types


def test_labels_of_all_tasks_become_predictions(image_folder: Path) -> None:
    frames, truth = open_labelled(image_folder, tuple(task_types()))
    first = next(frames)
    predictions, classes = truth(first.name)
    sample = Scenes("train", size=(64, 64), count=1)[0]
    assert set(predictions) == set(task_types())
    boxes, label, mask = predictions["det"], predictions["cls"], predictions["seg"]
    assert isinstance(boxes, ScoredBoxes)
    np.testing.assert_allclose(boxes.xyxy, sample.targets["boxes"].xyxy, atol=0.01)
    assert isinstance(label, ClassScores)
    assert classes["cls"][int(label.probabilities.argmax())] == CLASSES["label"][sample.targets["label"]]
    assert isinstance(mask, ClassMap)
    np.testing.assert_array_equal(mask.ids, sample.targets["mask"])
