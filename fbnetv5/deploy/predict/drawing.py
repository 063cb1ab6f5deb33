"""Draws predictions, or true labels in their place, onto images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export.runners import Array
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes, colour
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, Prediction

OPACITY = 0.55
"""Of a class map over its image."""
TOP = 3
"""Classes of an image that are written on it."""
GAP = 8
"""Pixels between images side by side."""
IGNORED = 255
"""Value of pixels without a class, in true labels."""


def draw(
    image: Image.Image,
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, Sequence[str]],
    *,
    min_score: float | None,
) -> Image.Image:
    """The image with the predictions of all tasks; several tasks are side by side.

    Args:
        image: RGB.
        predictions: by task, in pixels of the image.
        labels: by task, the class names.
        min_score: of the boxes that are drawn; None draws all, without scores, as suits true labels.
    """
    return beside([draw_task(image, each, labels[task], min_score) for task, each in predictions.items()])


def draw_task(
    image: Image.Image, prediction: Prediction, labels: Sequence[str], min_score: float | None
) -> Image.Image:
    """The image with the prediction of one task."""

    def text(label: int, score: float) -> str:
        return labels[label] if min_score is None else f"{labels[label]} {score:.2f}"

    if isinstance(prediction, ScoredBoxes):
        return _draw_boxes(image, prediction.above(min_score or 0.0), text)
    if isinstance(prediction, ClassScores):
        shares = prediction.probabilities
        best = [number for number in np.argsort(-shares)[:TOP].tolist() if shares[number] > 0]
        return _write(image, [text(number, shares[number]) for number in best], [colour(number + 1) for number in best])
    if isinstance(prediction, ClassMap):
        return _draw_classes(image, prediction.ids, labels)
    return _shades(prediction)


def _ink(background: tuple[int, int, int]) -> str:
    """Black, or white on dark colours (luma of ITU-R BT.601)."""
    red, green, blue = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"


def _font(image: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(10, min(image.size) // 32))


def _draw_boxes(image: Image.Image, boxes: ScoredBoxes[Array], name: Callable[[int, float], str]) -> Image.Image:
    drawn = image.copy()
    canvas, font, width = ImageDraw.Draw(drawn), _font(image), max(1, round(min(image.size) / 256))
    for xyxy, score, label in zip(boxes.xyxy[::-1].tolist(), boxes.scores[::-1], boxes.labels[::-1], strict=True):
        tint = colour(int(label) + 1)
        canvas.rectangle(xyxy, outline=tint, width=width)
        text = name(int(label), float(score))
        left, top, right, bottom = canvas.textbbox((xyxy[0], xyxy[1]), text, font=font)
        height = bottom - xyxy[1]
        # Above the box, where it hides nothing of the object, or inside where the image has no room above.
        shift = -height if xyxy[1] >= height else min(0.0, image.height - bottom)
        canvas.rectangle((left, top + shift, right, bottom + shift), fill=tint)
        canvas.text((xyxy[0], xyxy[1] + shift), text, font=font, fill=_ink(tint))
    return drawn


def _draw_classes(image: Image.Image, ids: Array, labels: Sequence[str]) -> Image.Image:
    """Class 0, usually the background, and pixels without a class stay as they are."""
    present = [int(number) for number in np.unique(ids) if number not in (0, IGNORED)]
    pixels = np.asarray(image, dtype=np.float32).copy()
    for number in present:
        inside = ids == number
        pixels[inside] = (1 - OPACITY) * pixels[inside] + OPACITY * np.array(colour(number), dtype=np.float32)
    names = [labels[number] if number < len(labels) else str(number) for number in present]
    return _write(Image.fromarray(pixels.round().astype(np.uint8)), names, [colour(number) for number in present])


def _write(image: Image.Image, lines: Sequence[str], tints: Sequence[tuple[int, int, int]]) -> Image.Image:
    """The image with lines of text in its upper left corner."""
    drawn = image.copy()
    canvas, font, top = ImageDraw.Draw(drawn), _font(image), 0.0
    for line, tint in zip(lines, tints, strict=True):
        box = canvas.textbbox((0, top), line, font=font)
        canvas.rectangle((0, top, box[2] + 2, box[3] + 1), fill=tint)
        canvas.text((1, top), line, font=font, fill=_ink(tint))
        top = box[3] + 1
    return drawn


def _shades(prediction: ProbabilityMap[Array] | DepthMap | NormalMap) -> Image.Image:
    """Probabilities from black to white, depth with near pixels bright, normals as colours."""
    if isinstance(prediction, NormalMap):
        return Image.fromarray(
            ((np.nan_to_num(prediction.vectors, nan=-1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        )
    if isinstance(prediction, DepthMap):
        metres = prediction.metres
        distances = metres[np.isfinite(metres)]
        low, high = (float(distances.min()), float(distances.max())) if distances.size else (0.0, 1.0)
        shares = (high - metres) / max(high - low, 1e-9)
    else:
        shares = prediction.probabilities
    grey = (np.nan_to_num(shares).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def beside(images: Sequence[Image.Image]) -> Image.Image:
    """Images side by side, from the left."""
    if len(images) == 1:
        return images[0]
    width = sum(image.width for image in images) + GAP * (len(images) - 1)
    joined, left = Image.new("RGB", (width, max(image.height for image in images)), "white"), 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + GAP
    return joined
