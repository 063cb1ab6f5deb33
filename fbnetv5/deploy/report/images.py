"""Images for a page, with labels or predictions drawn: true labels beside the predictions of a run's networks."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.image_files import rgb
from fbnetv5.data.loading import evenly_spaced
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.data.sample import ImageSet
from fbnetv5.deploy.predict.drawing import draw_task
from fbnetv5.deploy.predict.models import Predictor, load
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, Prediction
from fbnetv5.deploy.predict.truth import FORMS
from fbnetv5.deploy.report.files import RunFiles
from fbnetv5.tasks import needed_targets, task_types
from latency.page.content import EmbeddedImage, Gallery, Item, Text

IMAGES = 4
"""Test images with predictions."""
MIN_SCORE = 0.3
"""Of boxes that are drawn."""
SIDE = 224
"""Pixels: smaller images are enlarged by whole factors to about this side, larger ones reduced."""
QUALITY = 80
"""Of the JPEG files in the page."""


def prediction_items(files: RunFiles, test: ImageSet | None = None) -> list[Item]:
    """A gallery per task: a few test images with true labels and predictions; a sentence where there are no images.

    Args:
        files: of the run.
        test: the test images, if they are open already.
    """
    networks = [file for file in _network_files(files) if file.with_suffix(".safetensors").exists()]
    if not networks:
        return [Text(paragraphs=["The run has no network with weights yet."], style="soft")]
    try:
        images = test if test is not None else files.run.data.open(needed_targets(files.tasks)).test
        return _galleries(networks, images)
    except UserError as error:
        return [Text(paragraphs=[f"No image is shown: {error}"], style="warning")]


def _network_files(files: RunFiles) -> list[Path]:
    """The architecture files of the run's result."""
    return [files.folder / f"{name}.json" for name in files.architectures]


def _galleries(networks: Sequence[Path], images: ImageSet) -> list[Item]:
    indices = evenly_spaced(len(images), IMAGES)
    samples = [images[index] for index in indices]
    items: list[Item] = []
    for file in networks:
        model = load(file, threads=torch.get_num_threads())
        shown: dict[str, list[EmbeddedImage]] = {task: [] for task in model.tasks}
        for index, sample in zip(indices, samples, strict=True):
            pixels = Image.fromarray(sample.image.permute(1, 2, 0).contiguous().numpy())
            predictions = model(pixels)
            for task in model.tasks:
                true = as_prediction(task, sample.targets, len(model.labels[task]))
                shown[task] += _pair(pixels, index, task, true, predictions[task], model)
        items += [Gallery(title=f"{task}: true labels and predictions", images=pairs) for task, pairs in shown.items()]
    return items


def as_prediction(task: str, targets: Mapping[str, Any], classes: int) -> Prediction | None:
    """The true label as a prediction; None if the image has none, or one of a kind that cannot be drawn."""
    target = task_types()[task].targets[0]
    form = FORMS.get(target)
    return None if form is None or targets.get(target) is None else form(targets[target], classes)


def _pair(
    pixels: Image.Image, index: int, task: str, true: Prediction | None, predicted: Prediction, model: Predictor
) -> list[EmbeddedImage]:
    """The drawn truth and the drawn prediction of one image."""
    labels = model.labels[task]
    drawn = [] if true is None else [embedded(pixels, true, labels, None, f"{task}, image {index}: true labels")]
    caption = f"{task}, image {index}: predicted"
    return [*drawn, embedded(pixels, predicted, labels, MIN_SCORE, caption)]


def embedded(
    pixels: Image.Image, prediction: Prediction, labels: Sequence[str], min_score: float | None, caption: str
) -> EmbeddedImage:
    """An image with its labels or predictions drawn, at a size that can be read."""
    factor = max(1, round(SIDE / max(pixels.size)))
    large = pixels.resize((pixels.width * factor, pixels.height * factor), Image.Resampling.NEAREST)
    image = draw_task(large, enlarged(prediction, factor), labels, min_score)
    content = describe(prediction, labels, min_score)
    return EmbeddedImage(url=data_url(image), alt=f"{caption}: {content}", caption=f"{caption}. {content}")


def enlarged(prediction: Prediction, factor: int) -> Prediction:
    """The prediction for an image that is larger by a whole factor."""
    if isinstance(prediction, ScoredBoxes):
        return ScoredBoxes(prediction.xyxy * factor, prediction.scores, prediction.labels)
    if isinstance(prediction, ClassMap):
        return ClassMap(_repeated(prediction.ids, factor))
    if isinstance(prediction, ProbabilityMap):
        return ProbabilityMap(_repeated(prediction.probabilities, factor))
    if isinstance(prediction, DepthMap):
        return DepthMap(_repeated(prediction.metres, factor))
    if isinstance(prediction, NormalMap):
        return NormalMap(_repeated(prediction.vectors, factor))
    return prediction


def _repeated(values: Any, factor: int) -> Any:
    """[..., H, W] -> [..., H * factor, W * factor]."""
    return np.repeat(np.repeat(values, factor, axis=-2), factor, axis=-1)


def describe(prediction: Prediction, labels: Sequence[str], min_score: float | None) -> str:
    """What is drawn, in words."""
    if isinstance(prediction, ClassScores):
        best = int(prediction.probabilities.argmax())
        share = "" if min_score is None else f" {prediction.probabilities[best]:.2f}"
        return f"{_name(best, labels)}{share}"
    if isinstance(prediction, ScoredBoxes):
        boxes = prediction.above(min_score or 0.0)
        names = sorted({_name(int(label), labels) for label in boxes.labels})
        above = "" if min_score is None else f" above {min_score:g}"
        return f"{len(boxes.labels)} boxes{above}{': ' if names else ''}{', '.join(names)}"
    if isinstance(prediction, ClassMap):
        present = [int(number) for number in np.unique(prediction.ids) if number != 255]
        return f"pixels of {', '.join(_name(number, labels) for number in present)}"
    if isinstance(prediction, DepthMap):
        metres = prediction.metres[np.isfinite(prediction.metres)]
        return f"{metres.min():.2f} to {metres.max():.2f} m, near is bright" if metres.size else "no depth"
    return "directions as colours" if isinstance(prediction, NormalMap) else "probabilities, high is bright"


def _name(number: int, labels: Sequence[str]) -> str:
    return labels[number] if number < len(labels) else str(number)


def data_url(image: Image.Image) -> str:
    """The image inside of a page."""
    small = image.copy()
    small.thumbnail((2 * SIDE, 2 * SIDE))
    content = io.BytesIO()
    rgb(small).save(content, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
