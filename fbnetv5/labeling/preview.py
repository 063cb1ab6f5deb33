"""An HTML page with the labels of a few images, to look at before a long run; one file that loads nothing else."""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from export.files import atomic_write_text
from fbnetv5.data.loading import evenly_spaced
from fbnetv5.data.predictions import colour
from fbnetv5.data.targets import IGNORE, Boxes, SoftLabel, Target
from fbnetv5.labeling.labeller import Labelled, Labeller

MAX_SIDE = 480
"""Pixels of a drawn image."""
OPACITY = 0.55
"""Of a class map over its image."""
MAX_NAMES = 12
"""Classes below an image."""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ margin: 24px; font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; }}
h2 {{ margin: 32px 0 8px; font-size: 16px; overflow-wrap: anywhere; }}
.labels {{ display: flex; flex-wrap: wrap; gap: 16px; }} figure {{ margin: 0; max-width: 480px; }}
img {{ max-width: 100%; display: block; }} figcaption {{ font-size: 13px; }}
i {{ display: inline-block; width: 12px; height: 12px; margin: 0 4px 0 10px; }}
</style></head><body><h1>{title}</h1>
{sections}
</body></html>
"""


def write_preview(path: Path, labeller: Labeller, count: int) -> int:
    """Label evenly spaced images and draw their labels into an HTML page; returns how many images it shows.

    Raises:
        UserError: a teacher fails, or the file cannot be written.
    """
    indices = evenly_spaced(len(labeller.source), count)
    sections = [  # drawn one by one: images and maps of full size would not fit into memory
        _section(labeller.source.names[result.index], result, labeller.targets)
        for result in labeller.label(indices)
        if isinstance(result, Labelled)
    ]
    title = f"Labels of {len(sections)} of {len(labeller.source)} images"
    atomic_write_text(path, _PAGE.format(title=escape(title), sections="\n".join(sections)))
    return len(sections)


def _section(name: str, result: Labelled, targets: Mapping[str, Target]) -> str:
    """The drawn labels of one image."""
    heading = escape(name.encode(errors="backslashreplace").decode())
    figures = [_figure(target, result, targets[target].classes) for target in targets]
    return f'<h2>{heading}</h2><div class="labels">{"".join(figures)}</div>'


def _figure(target: str, result: Labelled, classes: tuple[str, ...]) -> str:
    value = result.labels.get(target)
    image, caption = result.image, ""
    if value is None:
        caption = "not labelled"
    elif target == "label":
        caption = classes[value]
    elif target == "soft_label":
        caption = _probabilities(value, classes)
    elif target == "boxes":
        image, caption = draw_boxes(image, value, classes), f"{len(value.labels)} objects"
    elif value.dtype == torch.uint8:
        image, caption = draw_classes(image, value), _legend(value, classes)
    else:
        image, caption = draw_numbers(value)
    origin = result.origins.get(target, "")
    text = caption if caption.startswith("<i") else escape(caption)
    below = f"<figcaption><b>{target}</b> {origin} {text}</figcaption>"
    return f'<figure><img src="{_data_url(image)}" alt="">{below}</figure>'


def _probabilities(label: SoftLabel, classes: tuple[str, ...]) -> str:
    """The classes of a soft label with their probabilities."""
    pairs = zip(label.class_ids.tolist(), label.probabilities.tolist(), strict=True)
    return ", ".join(f"{classes[class_id]} {probability:.2f}" for class_id, probability in [*pairs][:MAX_NAMES])


def draw_boxes(image: Tensor, boxes: Boxes, classes: tuple[str, ...]) -> Tensor:
    """The image, uint8 [3, H, W], with its boxes and the names of their classes."""
    if not len(boxes.labels):
        return image
    names, colours = [classes[label] for label in boxes.labels], [colour(int(label) + 1) for label in boxes.labels]
    drawn: Tensor = draw_bounding_boxes(image, boxes.xyxy, labels=names, colors=colours, width=2)
    return drawn


def draw_classes(image: Tensor, ids: Tensor) -> Tensor:
    """The image with the colour of each pixel's class over it; class 0 and IGNORE stay as they are."""
    present = [int(class_id) for class_id in np.unique(ids) if class_id not in (0, IGNORE)]
    if not present:
        return image
    masks = torch.stack([ids == class_id for class_id in present])
    drawn: Tensor = draw_segmentation_masks(image, masks, alpha=OPACITY, colors=[colour(number) for number in present])
    return drawn


def draw_numbers(values: Tensor) -> tuple[Tensor, str]:
    """Depth [H, W] in grey, far is dark, or normals [3, H, W] as colours: uint8 [3, H, W]; and the range of depth."""
    if values.ndim == 3:
        return ((values.nan_to_num(-1) + 1) * 127.5).round().to(torch.uint8), ""
    measured = values[~values.isnan()]
    nearest, farthest = float(measured.min()), float(measured.max())
    grey = 255 * (farthest - values) / max(farthest - nearest, 1e-9)
    return grey.nan_to_num(0).to(torch.uint8).expand(3, -1, -1), f"{nearest:.2f} to {farthest:.2f} m"


def _legend(ids: Tensor, classes: tuple[str, ...]) -> str:
    """HTML: the classes that occur, with their colours."""
    present = [int(class_id) for class_id in np.unique(ids) if class_id != IGNORE]
    names = {class_id: classes[class_id] if classes else str(class_id) for class_id in present[:MAX_NAMES]}
    return "".join(
        f'<i style="background: rgb{colour(class_id) if class_id else (255, 255, 255)}"></i>{escape(name)}'
        for class_id, name in names.items()
    )


def _data_url(image: Tensor) -> str:
    """A JPEG inside of HTML, with sides of at most MAX_SIDE."""
    longest = max(image.shape[1:])
    if longest > MAX_SIDE:
        size = [max(1, round(side * MAX_SIDE / longest)) for side in image.shape[1:]]
        image = transforms.resize(image, size, antialias=True)
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(content, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
