import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.runners import Array
from fbnetv5.data.config import DataConfig
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, Prediction
from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.images import as_prediction, data_url, describe, embedded, enlarged, prediction_items
from fbnetv5.tasks import needed_targets, task_types
from latency.page.content import Gallery, Text

HALF = np.full((4, 6), 0.5, dtype=np.float32)
PREDICTIONS: dict[str, tuple[Prediction, str]] = {
    "class": (ClassScores(np.array([0.25, 0.75], dtype=np.float32)), "cat 0.75"),
    "boxes": (ScoredBoxes(np.array([[0, 0, 2, 2]], np.float32), np.ones(1), np.ones(1, int)), "1 boxes above 0.3: cat"),
    "map": (ClassMap(np.array([[0, 1], [255, 1]], dtype=np.uint8)), "pixels of dog, cat"),
    "probability": (ProbabilityMap(HALF), "probabilities, high is bright"),
    "depth": (DepthMap(HALF), "0.50 to 0.50 m, near is bright"),
    "normals": (NormalMap(np.stack([HALF] * 3)), "directions as colours"),
}


@pytest.mark.parametrize(("prediction", "text"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_drawn_predictions_are_described_in_words(prediction: Prediction, text: str) -> None:
    assert describe(prediction, ("dog", "cat"), 0.3) == text


def test_an_enlarged_prediction_lies_at_the_same_place_of_the_larger_image() -> None:
    boxes: ScoredBoxes[Array] = ScoredBoxes(np.array([[1, 2, 3, 4]], np.float32), np.ones(1), np.ones(1, int))
    large = enlarged(boxes, 3)
    assert isinstance(large, ScoredBoxes)
    assert large.xyxy.tolist() == [[3, 6, 9, 12]]
    ids = enlarged(ClassMap(np.array([[1, 2]], dtype=np.uint8)), 2)
    assert isinstance(ids, ClassMap)
    assert ids.ids.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_small_images_are_enlarged_and_large_ones_reduced() -> None:
    image = Image.new("RGB", (64, 32))
    drawn = embedded(image, PREDICTIONS["class"][0], ("dog", "cat"), 0.3, "an image")
    assert (drawn.alt, decoded(drawn.url).size) == ("an image: cat 0.75", (256, 128))
    assert decoded(data_url(Image.new("RGB", (4000, 2000)))).size == (448, 224)


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))


def test_every_task_of_the_demo_scenes_has_labels_that_can_be_drawn() -> None:
    tasks = task_types()
    sample = DataConfig(scenes=(1, 1, 1)).open(needed_targets(tasks)).test[0]
    for name, task in tasks.items():
        prediction = as_prediction(name, sample.targets, len(CLASSES.get(task.targets[0], ())))
        assert prediction is not None, name
    assert as_prediction("cls", {}, 10) is None


def test_a_run_has_pairs_of_truth_and_prediction_for_every_task(search_run: Path) -> None:
    galleries = prediction_items(open_run(search_run))
    assert [item.title.partition(":")[0] for item in galleries if isinstance(item, Gallery)] == ["cls", "det", "seg"]
    for gallery in galleries:
        assert isinstance(gallery, Gallery)
        assert [image.alt.split(": ")[1] for image in gallery.images] == ["true labels", "predicted"] * 4


def test_missing_images_and_weights_are_said(search_run: Path) -> None:
    config = search_run / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"folder": null', '"folder": "/none"'), "utf-8")
    (text,) = prediction_items(open_run(search_run))
    assert isinstance(text, Text)
    assert text.paragraphs[0].startswith("No image is shown: ")
    for file in search_run.glob("*.safetensors"):
        file.unlink()
    (text,) = prediction_items(open_run(search_run))
    assert isinstance(text, Text)
    assert "no network with weights" in text.paragraphs[0]
