"""Labels images from options: ``fbnetv5.api.label`` and ``preview_labels``, which ``fbnetv5 label`` calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export.errors import UnavailableError, UserError
from export.files import AnyPath
from export.progress import Log, Progress, silent
from fbnetv5.data.layouts import open_folder
from fbnetv5.labeling.assemble import LabelSummary
from fbnetv5.labeling.config import LabelConfig
from fbnetv5.labeling.preview import write_preview
from fbnetv5.labeling.run import ChunkRunner, Labelling, in_this_process, open_labelling, run_labelling
from fbnetv5.labeling.sources import check_folder, layout_of_source
from fbnetv5.runs.options import Fields, fields_of

FIT_SOURCES = {"exported": "as its manifest says", "onnx": "as its description says"}
"""By family of a teacher: where its preparation of images is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPreview:
    """A page with the labels of a few images."""

    page: Path
    """The HTML file, which loads no other file."""
    images: int
    """Number of images on it."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 label --preview --json``."""
        return {"preview": str(self.page), "images": self.images}


def label(
    images: AnyPath,
    output: AnyPath,
    *,
    teachers: Mapping[str, str] | None = None,
    derive: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    soft_labels: int | None = None,
    config: Fields | None = None,
    ignore_labels: bool = False,
    shards: bool = False,
    download: bool = False,
    device: str | None = None,
    ray: str | None = None,
    gpus_per_teacher: float = 0.0,
    log: Log = silent,
    progress: Progress = silent,
) -> LabelSummary:
    """Label images with pretrained networks, for several tasks; an unfinished labelling is continued.

    Existing labels are kept, and gaps are filled.

    Examples:
        >>> summary = api.label("photos", "labelled", teachers={"det": "detector.onnx"}, derive={"cls": "largest-box"})
        >>> summary.images, summary.left_out, summary.labelled["det"]

    Args:
        images: folder of images, or a data set whose labels are kept.
        output: folder of the new data set.
        teachers: by task: ONNX file with its description, exported folder, or "timm:NAME", "torchvision:NAME",
            "transformers:NAME", with weights of your own as "timm:NAME@FILE".
        derive: by task: a rule by which its labels follow from others, such as "largest-box".
        threshold: minimum confidence of a label, from 0 to 1.
        soft_labels: number of the most probable classes of every image whose probabilities by the teacher of cls are
            stored as well; None for none.
        config: further fields of ``LabelConfig``, such as {"batch": 16}, or a file with them.
        ignore_labels: take the images of a data set without their labels.
        shards: write Parquet shards, as ``convert`` does, instead of a folder of images and maps.
        download: download published weights that are not on this machine.
        device: of the networks, "cpu" or "cuda"; None for a GPU if there is one.
        ray: address of a Ray cluster that labels, or "auto" for that of this machine.
        gpus_per_teacher: GPUs of a worker on the Ray cluster; may be a fraction.
        log: called with a line on how the images are read.
        progress: called with (stage, done, total) after every chunk of images.

    Returns:
        Numbers of images and labels; the data set is written.

    Raises:
        UserError: an option is wrong, no image is readable, a teacher does not fit, or the output contains something
            else.
        UnavailableError: a library, weights, the device or the cluster is not available.
    """
    runner: ChunkRunner = in_this_process
    if ray is not None:
        from fbnetv5.labeling.cluster import on_cluster

        runner = on_cluster(ray, gpus_per_teacher, device=device, download=download)
    elif gpus_per_teacher:
        raise UserError("--gpus-per-teacher is for a Ray cluster: add --ray auto")
    settings = _settings(images, teachers, derive, threshold, config, ignore_labels, soft_labels)
    labelling = _open(settings, images, device=device, download=download, log=log)
    return run_labelling(labelling, Path(output), progress, runner, shards=shards)


def preview_labels(
    images: AnyPath,
    page: AnyPath,
    count: int,
    *,
    teachers: Mapping[str, str] | None = None,
    derive: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    soft_labels: int | None = None,
    config: Fields | None = None,
    ignore_labels: bool = False,
    download: bool = False,
    device: str | None = None,
    log: Log = silent,
) -> LabelPreview:
    """Label a few images, evenly spaced in the folder, into one HTML page, before a long run of ``label``.

    Examples:
        >>> api.preview_labels("photos", "preview.html", 12, teachers={"det": "detector.onnx"})

    Args:
        images: folder of images, or a data set whose labels are kept.
        page: HTML file to write.
        count: number of images.
        teachers: as of ``label``, and so are the following options.
        derive: see ``label``.
        threshold: see ``label``.
        soft_labels: see ``label``; they are not drawn, but need the same teacher.
        config: see ``label``.
        ignore_labels: see ``label``.
        download: see ``label``.
        device: see ``label``.
        log: called with a line on how the images are read.

    Raises:
        UserError: an option is wrong, no image is readable, or a teacher does not fit.
        UnavailableError: a library, weights or the device is not available.
    """
    settings = _settings(images, teachers, derive, threshold, config, ignore_labels, soft_labels)
    labeller = _open(settings, images, device=device, download=download, log=log).labeller
    return LabelPreview(page=Path(page), images=write_preview(Path(page), labeller, count))


def _settings(
    images: AnyPath,
    teachers: Mapping[str, str] | None,
    derive: Mapping[str, str] | None,
    threshold: float,
    config: Fields | None,
    ignore_labels: bool,
    soft_labels: int | None,
) -> LabelConfig:
    return LabelConfig.make(
        fields_of(config),
        images=str(Path(images).resolve()),
        teachers=teachers or {},
        derive=dict(derive or {}),
        threshold=threshold,
        ignore_labels=ignore_labels,
        soft_labels=soft_labels,
    )


def _open(settings: LabelConfig, images: AnyPath, *, device: str | None, download: bool, log: Log) -> Labelling:
    """Open the images and teachers; log how the images are read, and how each teacher sees them."""
    _check_device(device)
    _describe_source(Path(images), settings.ignore_labels, log)
    labelling = open_labelling(settings, device=device, download=download)
    if left_out := labelling.labeller.source.maps_left_out:
        log(f"{images}: {left_out} files in folders of label maps beside those of images left out")
    for task, (teacher, _) in labelling.labeller.teachers.items():
        source = FIT_SOURCES.get(teacher.provenance["family"], "as its library evaluates it")
        log(f"teacher of {task}: {teacher.name}, {teacher.preparation.text}, {source}")
    return labelling


def _check_device(device: str | None) -> None:
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device!r} is neither cpu nor cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("--device cuda needs an NVIDIA GPU that torch can use, and there is none: use cpu")


def _describe_source(images: Path, ignore_labels: bool, log: Log) -> None:
    """Log how the images are read."""
    check_folder(images)
    layout = None if ignore_labels else layout_of_source(images)
    if layout is None:
        log(f"{images}: images without labels")
    else:
        kept = f"{images}: read as {layout.name}, whose labels are kept; --ignore-labels takes the images only"
        log("; ".join([kept, *open_folder(images).notes]))
