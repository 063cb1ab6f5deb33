"""Teachers of the library torchvision: classifiers, detectors and semantic segmentation.

Detectors and segmentation prepare images themselves, each at its own size.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from export.errors import UserError
from export.manifest import file_sha256
from fbnetv5.labeling.teachers.decoders import Decoding, Name
from fbnetv5.labeling.teachers.named import NamedTeacher, OneOutput, distinct
from fbnetv5.labeling.teachers.preparation import Preparation
from fbnetv5.labeling.teachers.teacher import Network, Teacher
from fbnetv5.labeling.teachers.weights import load_weights, read_weights, url_file

MODULES = {"cls": models, "det": models.detection, "seg": models.segmentation}
"""By task: the module of its networks."""
DECODERS: dict[str, Name] = {"cls": "logits", "det": "ssd", "seg": "pixel_logits"}
NOT_CLASSES = ("__background__", "N/A", "no person")
"""Entries of a detector's categories that are no classes."""
AUXILIARY = "aux_classifier."
"""Prefix of the weights of a head that only training uses."""


def open_named(task: str, named: NamedTeacher) -> Teacher:
    """A network of torchvision.

    Raises:
        UserError: there is no such network for the task.
        UnavailableError: its weights are not on this machine.
    """
    if task not in MODULES:
        raise UserError(f"torchvision has no teachers of {task}, only of {', '.join(MODULES)}")
    available = models.list_models(module=MODULES[task])
    if named.name not in available:
        raise UserError(f"torchvision has no network {named.name!r} for {task}; it has: {', '.join(available)}")
    published = models.get_model_weights(named.name).DEFAULT
    file = named.weights or url_file(published.url, name=named.text, download=named.download)
    classes = _classes(task, named, published)
    network = _build(task, named, file, len(classes))
    load_weights(network, file)
    return Teacher(
        name=named.text,
        task=task,
        classes=classes,
        preparation=_preparation(published) if task == "cls" else Preparation.unchanged(),
        network=_network(task, network, named.device, published),
        decoding=Decoding(name=DECODERS[task], classes=len(classes)),
        provenance={"family": "torchvision", "sha256": file_sha256(file)},
    )


def _classes(task: str, named: NamedTeacher, published: Any) -> tuple[str, ...]:
    """Names by class id; the first id of a detector is the background, "" here, and the user does not name it."""
    if named.class_names is not None:
        return ("", *named.class_names) if task == "det" else named.class_names
    names = published.meta["categories"]
    if task == "det":
        names = ["" if name in NOT_CLASSES else name for name in names]
    return distinct([name.strip("_") for name in names])


def _build(task: str, named: NamedTeacher, file: Path, classes: int) -> nn.Module:
    """The network with random weights."""
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if task != "cls":
        options["weights_backbone"] = None
    if task == "seg" and not named.name.startswith("lraspp"):
        options["aux_loss"] = any(name.startswith(AUXILIARY) for name in read_weights(file))
    network: nn.Module = models.get_model(named.name, **options)
    return network


def _preparation(published: Any) -> Preparation:
    steps = published.transforms()
    crop, side = steps.crop_size[0], steps.resize_size[0]
    return Preparation(
        size=(crop, crop),
        mean=tuple(steps.mean),
        std=tuple(steps.std),
        fit="crop",
        crop_share=crop / side,
        interpolation="bicubic" if steps.interpolation.value == "bicubic" else "bilinear",
    )


def _network(task: str, network: nn.Module, device: torch.device, published: Any) -> Network:
    if task == "cls":
        return OneOutput(network, device)
    network = network.to(device).eval().requires_grad_(False)
    prepare = published.transforms()

    def detect(images: Tensor) -> tuple[Tensor, ...]:
        """Of one image, 0 to 255: boxes [1, K, 4] in its pixels, scores and labels [1, K]."""
        (result,) = network([images[0].to(device) / 255])
        return result["boxes"][None], result["scores"][None], result["labels"][None]

    def segment(images: Tensor) -> tuple[Tensor]:
        return (network(prepare(images.to(device, torch.uint8)))["out"],)

    return detect if task == "det" else segment
