"""Teachers of the library transformers: classifiers, detectors, semantic segmentation and depth.

The library itself prepares the images. The library is the extra ``teachers`` of this package.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.errors import UnavailableError, UserError
from export.manifest import file_sha256
from fbnetv5.labeling.teachers.decoders import Decoding, Name
from fbnetv5.labeling.teachers.named import NamedTeacher, distinct
from fbnetv5.labeling.teachers.preparation import Preparation
from fbnetv5.labeling.teachers.teacher import Network, Teacher

CLASSES = {
    "cls": "AutoModelForImageClassification",
    "det": "AutoModelForObjectDetection",
    "seg": "AutoModelForSemanticSegmentation",
    "depth": "AutoModelForDepthEstimation",
}
"""By task: the class of its networks."""
DECODERS: dict[str, Name] = {"cls": "logits", "det": "ssd", "seg": "pixel_logits", "depth": "depth"}
METRIC_DEPTH = ("depth_pro", "glpn", "zoedepth")
"""Types of networks whose depth is always in metres; others say so in their configuration."""
WHOLE_IMAGE = ("do_center_crop", "do_pad")
"""Steps of an image preparer after which the outputs would not cover exactly the image."""


def open_named(task: str, named: NamedTeacher) -> Teacher:
    """A network of transformers, by the name of its repository or by a folder.

    Raises:
        UserError: the network is of another task, or its depth is relative.
        UnavailableError: the library or the weights are not on this machine.
    """
    if task not in CLASSES:
        raise UserError(f"transformers has no teachers of {task}, only of {', '.join(CLASSES)}")
    if named.weights is not None:
        raise UserError(f"{named.text}@{named.weights}: name a folder as transformers:FOLDER, with its config.json")
    library = _library()
    with _load_errors(named):
        options = {"local_files_only": not named.download}
        preparer = library.AutoImageProcessor.from_pretrained(named.name, **options)
        network = getattr(library, CLASSES[task]).from_pretrained(named.name, **options)
    if task == "depth":
        _check_metric(named, network.config)
    classes = () if task == "depth" else _classes(task, named, network.config)
    network = network.to(named.device).eval().requires_grad_(False)
    return Teacher(
        name=named.text,
        task=task,
        classes=classes,
        preparation=Preparation.unchanged(),
        network=_network(task, network, preparer, named.device),
        decoding=Decoding(name=DECODERS[task], classes=len(classes)),
        provenance={"family": "transformers", **_identity(named, network.config)},
    )


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise UnavailableError(
            "the library transformers is not installed: pip install 'fbnetv5[teachers]', or use another teacher"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


@contextmanager
def _load_errors(named: NamedTeacher) -> Iterator[None]:
    """A context in which errors of loading become one line.

    Raises:
        UnavailableError: the files are not on this machine.
        UserError: the network is of another task.
    """
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        way = (
            "name a folder that contains it" if named.download else "add --download, or name a folder that contains it"
        )
        raise UnavailableError(f"{named.text} is not on this machine ({reason}): {way}") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{named.text} is no network of this task ({reason})") from None


def _check_metric(named: NamedTeacher, config: Any) -> None:
    if config.model_type not in METRIC_DEPTH and getattr(config, "depth_estimation_type", None) != "metric":
        raise UserError(f"{named.text} returns relative depth, and labels are metres: name a network of metric depth")


def _classes(task: str, named: NamedTeacher, config: Any) -> tuple[str, ...]:
    names = named.class_names or tuple(config.id2label[class_id] for class_id in range(config.num_labels))
    return distinct(["" if task == "det" and name == "N/A" else name for name in names])


def _identity(named: NamedTeacher, config: Any) -> dict[str, str]:
    """The revision of a repository, or the checksum of the weights in a folder."""
    files = sorted(path for path in Path(named.name).glob("*.safetensors")) if Path(named.name).is_dir() else []
    if files:
        return {"sha256": " ".join(map(file_sha256, files))}
    return {"revision": str(getattr(config, "_commit_hash", None))}


def _network(task: str, network: Any, preparer: Any, device: torch.device) -> Network:
    whole = {} if task in ("cls", "det") else {name: False for name in WHOLE_IMAGE if getattr(preparer, name, False)}

    def run(images: Tensor) -> Any:
        pixels = list(images.round().to(torch.uint8).cpu())
        return network(**preparer(images=pixels, return_tensors="pt", **whole).to(device))

    def detect(images: Tensor) -> tuple[Tensor, ...]:
        """Of one image: boxes [1, K, 4] in its pixels, scores and labels [1, K]."""
        sizes = [tuple(images.shape[-2:])]
        (result,) = preparer.post_process_object_detection(run(images), threshold=0.0, target_sizes=sizes)
        return result["boxes"][None], result["scores"][None], result["labels"][None]

    readers: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
        "cls": lambda images: (run(images).logits,),
        "seg": lambda images: (run(images).logits,),
        "depth": lambda images: (run(images).predicted_depth,),
        "det": detect,
    }
    return readers[task]
