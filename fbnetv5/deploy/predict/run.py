"""Predicts on all images of a source and writes drawings, maps and one JSON file.

DIR/IMAGE           the drawn image, at the image's path below the source
DIR/TASK/IMAGE.png  a class map, or probabilities times 255, depth in millimetres (16 bit), normals
DIR/predictions.json   classes and boxes; boxes as COCO's annotations with a score
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export.errors import UserError
from export.runners import Array
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.deploy.predict.drawing import beside, draw
from fbnetv5.deploy.predict.json_file import PredictionsFile
from fbnetv5.deploy.predict.models import Predictor
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, Prediction
from fbnetv5.deploy.predict.sources import Frame

SCHEMA = 1
FILE = "predictions.json"
TOP = 5
"""Classes of an image in the JSON file."""
FORMATS = {
    ".jpg": ("JPEG", 65500),
    ".jpeg": ("JPEG", 65500),
    ".webp": ("WEBP", 16383),
    ".bmp": ("BMP", None),
    ".tif": ("TIFF", None),
    ".tiff": ("TIFF", None),
}
"""By suffix of a drawn image: its format, and the largest side that this format can have. Others are PNG."""
DECIMALS = 3
"""Of a pixel, in the coordinates of boxes."""

Truth = Callable[[Frame], tuple[Mapping[str, Prediction], Mapping[str, Sequence[str]]]]
"""An image -> its true labels as predictions, and the names of their classes, both by task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """What was predicted, and the time that it took."""

    folder: Path
    """The folder with ``predictions.json``, drawn images and maps."""
    images: int
    """Number of images that the network ran on."""
    left_out: Mapping[str, str]
    """By name of an image that cannot be read: the reason."""
    boxes: int | None
    """Number of boxes whose score is at least ``min_score``; None for a network that finds no boxes."""
    min_score: float
    """Minimum score of a box that is drawn."""
    highest_score: float | None
    """Of all boxes; None if there are none."""
    seconds: Mapping[str, float]
    """By stage ("read", "network", "write"): total time in seconds."""

    @property
    def file(self) -> Path:
        """The JSON file with classes and boxes."""
        return self.folder / FILE

    @property
    def images_per_s(self) -> dict[str, float]:
        """By stage, images per second."""
        return {stage: round(self.images / max(seconds, 1e-9), 1) for stage, seconds in self.seconds.items()}

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 predict --json``."""
        return {
            "folder": str(self.folder),
            "images": self.images,
            "left_out": len(self.left_out),
            "boxes": self.boxes,
            "min_score": self.min_score,
            "highest_score": None if self.highest_score is None else round(self.highest_score, 6),
            "images_per_s": self.images_per_s,
        }


def predict_frames(
    model: Predictor,
    frames: Iterator[Frame],
    folder: Path,
    *,
    drawn: bool = True,
    min_score: float = 0.3,
    truth: Truth | None = None,
    report: Callable[[Frame], None],
) -> PredictResult:
    """Predict on all frames and write the results into ``folder``.

    Args:
        model: the network.
        frames: the images.
        folder: of the results; files of earlier results with the same names are replaced.
        drawn: whether drawn images are written.
        min_score: of the boxes that are drawn; all are in the JSON file.
        truth: true labels to draw beside the predictions.
        report: called with every frame.

    Raises:
        UserError: no image can be read, or a file cannot be written.
    """
    images, left_out, file = 0, dict[str, str](), PredictionsFile(folder / FILE)
    boxes: int | None = None
    highest_score: float | None = None
    seconds = {"read": 0.0, "network": 0.0, "write": 0.0}
    for frame in _timed(frames, seconds):
        report(frame)
        if frame.image is None:
            left_out[frame.name] = frame.reason
            continue
        target, begin = _target(folder, frame), time.perf_counter()
        predictions = model(frame.image)
        ran = time.perf_counter()
        images += 1
        if (own := _boxes_of(predictions)) is not None:
            boxes = (boxes or 0) + len(own.above(min_score).scores)
            if len(own.scores):
                highest_score = max(highest_score or 0.0, float(own.scores[0]))
        annotations = _annotations(images, file.boxes, predictions)
        file.add(_image_row(images, frame, predictions, model), annotations)
        _write_maps(folder, frame.name, predictions)
        if drawn:
            drawing = draw(frame.image, predictions, model.labels, min_score=min_score)
            if truth is not None:
                true, names = truth(frame)
                if true:
                    drawing = beside([drawing, draw(frame.image, true, names, min_score=None)])
            _save(drawing, target)
        seconds["network"] += ran - begin
        seconds["write"] += time.perf_counter() - ran
    if not images:
        raise UserError(f"no image can be read: {next(iter(left_out.values()), 'the source has none')}")
    file.finish(_document(model, left_out))
    return PredictResult(
        folder=folder,
        images=images,
        left_out=left_out,
        boxes=boxes,
        min_score=min_score,
        highest_score=highest_score,
        seconds=seconds,
    )


def _timed(frames: Iterator[Frame], seconds: dict[str, float]) -> Iterator[Frame]:
    """The frames; the time to read them is added to ``seconds``."""
    while True:
        begin = time.perf_counter()
        frame = next(frames, None)
        seconds["read"] += time.perf_counter() - begin
        if frame is None:
            return
        yield frame


def _image_row(number: int, frame: Frame, predictions: Mapping[str, Prediction], model: Predictor) -> dict[str, Any]:
    assert frame.image is not None
    row: dict[str, Any] = {
        "id": number,
        "file_name": as_text(frame.name),
        "width": frame.image.width,
        "height": frame.image.height,
    }
    for task, prediction in predictions.items():
        if isinstance(prediction, ClassScores):
            best = np.argsort(-prediction.probabilities, kind="stable")[:TOP].tolist()
            row[task] = [
                {"class": model.labels[task][index], "probability": round(float(prediction.probabilities[index]), 4)}
                for index in best
            ]
        elif not isinstance(prediction, ScoredBoxes):
            row[task] = as_text(map_name(task, frame.name))
    return row


def _boxes_of(predictions: Mapping[str, Prediction]) -> ScoredBoxes[Array] | None:
    """The boxes of an image; None from a network without a task of boxes."""
    return next((each for each in predictions.values() if isinstance(each, ScoredBoxes)), None)


def _annotations(image: int, first: int, predictions: Mapping[str, Prediction]) -> Iterator[dict[str, Any]]:
    """COCO's annotations of an image; category ids are class ids from 1 on."""
    boxes = _boxes_of(predictions)
    if boxes is None:
        return
    rows = zip(boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.labels.tolist(), strict=True)
    for number, ((x0, y0, x1, y1), score, label) in enumerate(rows, start=first + 1):
        bbox = [round(value, DECIMALS) for value in (x0, y0, x1 - x0, y1 - y0)]
        yield {
            "id": number,
            "image_id": image,
            "category_id": label + 1,
            "bbox": bbox,
            "area": round(bbox[2] * bbox[3], DECIMALS),
            "iscrowd": 0,
            "score": round(score, 6),
        }


def _document(model: Predictor, left_out: Mapping[str, str]) -> dict[str, Any]:
    """The document without its two long lists."""
    document: dict[str, Any] = {"schema": SCHEMA, "kind": "predictions", "images": None}
    if "det" in model.tasks:
        names = enumerate(model.labels["det"], start=1)
        document["categories"] = [{"id": number, "name": name} for number, name in names]
        document["annotations"] = None
    document["classes"] = {task: list(names) for task, names in model.labels.items()}
    document["left_out"] = [
        {"file_name": as_text(name), "reason": as_text(reason)} for name, reason in left_out.items()
    ]
    return document


def as_text(name: str) -> str:
    """A name with escapes for bytes that are not UTF-8, which JSON cannot have."""
    return name.encode(errors="backslashreplace").decode()


def map_name(task: str, name: str) -> str:
    """The file of an image's map, relative to the results."""
    return f"{task}/{name}.png"


def _write_maps(folder: Path, name: str, predictions: Mapping[str, Prediction]) -> None:
    for task, prediction in predictions.items():
        pixels = map_pixels(prediction)
        if pixels is not None:
            _save(Image.fromarray(pixels), folder / map_name(task, name))


def map_pixels(prediction: Prediction) -> Array | None:
    """The values of a map's PNG file; None if the prediction is no map."""
    if isinstance(prediction, ClassMap):
        return prediction.ids
    if isinstance(prediction, ProbabilityMap):
        probabilities: Array = prediction.probabilities
        return (probabilities.clip(0, 1) * 255).round().astype(np.uint8)
    if isinstance(prediction, DepthMap):
        return (prediction.metres * 1000).round().clip(0, 65535).astype(np.uint16)
    if isinstance(prediction, NormalMap):
        return ((prediction.vectors + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
    return None


def _target(folder: Path, frame: Frame) -> Path:
    """Where a drawn image is written.

    Raises:
        UserError: this would replace the image itself, or lie outside of the folder.
    """
    path = folder / frame.name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{frame.name} lies outside of the data set: name the folder that has its images as the source")
    if frame.file is not None and path.exists() and path.samefile(frame.file):
        raise UserError(f"{path} is an image of the source: name another folder with -o")
    return path


def _save(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its name, or as PNG with ".png" added if it is too large for the format."""
    kind, largest = FORMATS.get(path.suffix.lower(), ("PNG", None))
    if largest is not None and max(image.size) > largest:
        path, kind = path.with_name(f"{path.name}.png"), "PNG"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format=kind)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}. Name another folder with -o"
        ) from None
