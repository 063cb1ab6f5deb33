"""Teachers of the library timm (github.com/huggingface/pytorch-image-models): classifiers."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config

from export.errors import UserError
from export.manifest import file_sha256
from fbnetv5.labeling.teachers.decoders import Decoding
from fbnetv5.labeling.teachers.named import NamedTeacher, OneOutput, distinct
from fbnetv5.labeling.teachers.preparation import Preparation
from fbnetv5.labeling.teachers.teacher import Teacher
from fbnetv5.labeling.teachers.weights import hub_file, load_weights, url_file

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Of the weights in a repository of timm's networks, in timm's order of preference."""


def open_named(task: str, named: NamedTeacher) -> Teacher:
    """A classifier of timm, prepared as it was evaluated.

    Raises:
        UserError: there is no such network, the task is another, or its classes have no names.
        UnavailableError: its weights are not on this machine.
    """
    if task != "cls":
        raise UserError(f"{named.text} is a classifier, and no teacher of {task}: timm's networks label cls")
    if not timm.is_model(named.name):
        similar = ", ".join(get_close_matches(named.name, timm.list_models(), n=5)) or "none"
        raise UserError(f"timm has no network {named.name!r}; similar names: {similar}")
    options = {} if named.class_names is None else {"num_classes": len(named.class_names)}
    network: Any = timm.create_model(named.name, pretrained=False, **options)
    file = named.weights or _published(named, network)
    load_weights(network, file)
    classes = named.class_names or _class_names(named, network)
    data = resolve_model_data_config(network)
    return Teacher(
        name=named.text,
        task=task,
        classes=classes,
        preparation=Preparation(
            size=(data["input_size"][1], data["input_size"][2]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            fit="stretch" if data["crop_mode"] == "squash" else "crop",
            crop_share=data["crop_pct"],
            interpolation="bicubic" if data["interpolation"] == "bicubic" else "bilinear",
        ),
        network=OneOutput(network, named.device),
        decoding=Decoding(name="logits", classes=len(classes)),
        provenance={"family": "timm", "sha256": file_sha256(file)},
    )


def _published(named: NamedTeacher, network: Any) -> Path:
    """The file of the published weights.

    Raises:
        UserError: there are none.
        UnavailableError: they are not on this machine.
    """
    config = network.pretrained_cfg
    if config.get("hf_hub_id"):
        return hub_file(config["hf_hub_id"], HUB_FILES, name=named.text, download=named.download)
    if config.get("url"):
        return url_file(config["url"], name=named.text, download=named.download)
    raise UserError(f"timm has no weights of {named.name}: name a file of weights as {named.text}@FILE")


def _class_names(named: NamedTeacher, network: Any) -> tuple[str, ...]:
    """The descriptions of an ImageNet subset's classes.

    Raises:
        UserError: the network has other classes.
    """
    subset = infer_imagenet_subset(network)
    if subset is None:
        raise UserError(f"the classes of {named.text} have no names in timm: list them in --config, class_names of cls")
    return distinct(ImageNetInfo(subset).label_descriptions())
