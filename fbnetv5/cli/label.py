"""``fbnetv5 label``: labels images with pretrained networks, for all tasks of a search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import interruptible, print_json, print_line, print_status, progress_bar, stage_lines
from fbnetv5.cli.options import Json

if TYPE_CHECKING:
    from fbnetv5.labeling.assemble import LabelSummary
    from fbnetv5.labeling.labeller import Labeller
    from fbnetv5.labeling.run import ChunkRunner

Teachers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=NETWORK",
        help="Network that labels a task: an ONNX file with a description (.json) beside it, a "
        "folder of fbnetv5 export, or timm:NAME, torchvision:NAME, transformers:NAME, with weights of your own as "
        "timm:NAME@FILE. Repeat it.",
    ),
]
Derive = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=RULE",
        help="Labels that follow from others: cls=largest-box, cls=central-box, seg=instances, saliency=instances, "
        "edges=instances, saliency=seg, edges=seg. Repeat it.",
    ),
]
SoftLabels = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Store the K most probable classes of every image with their probabilities by the teacher of cls, for "
        "fbnetv5 train --teacher soft-labels.",
        show_default="none",
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder of the new data set; an unfinished one is continued.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON or YAML file with further fields, such as thresholds and class names (schema: "
        "docs/schemas/label.json)."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Label on a Ray cluster: its address, or auto for that of this machine. All nodes must see the images, "
        "the networks' files and the output.",
    ),
]
GpusPerTeacher = Annotated[
    float,
    typer.Option(min=0.0, help="GPUs of a worker on the Ray cluster; it runs all networks. May be a fraction."),
]


def label(
    images: Annotated[Path, typer.Argument(help="Folder of images, or a data set whose labels are kept.")],
    output: Output,
    teacher: Teachers = None,
    derive: Derive = None,
    threshold: Annotated[float, typer.Option(help="Minimum confidence of a label.")] = 0.5,
    soft_labels: SoftLabels = None,
    config: ConfigFile = None,
    ignore_labels: Annotated[
        bool, typer.Option("--ignore-labels", help="Take the images of a data set without their labels.")
    ] = False,
    preview: Annotated[
        int | None, typer.Option(min=1, help="Label this many images only, into one HTML page beside the output.")
    ] = None,
    shards: Annotated[
        bool,
        typer.Option(
            "--shards", help="Write Parquet shards, as fbnetv5 convert does, instead of a folder of images and maps."
        ),
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Download published weights that are not on this machine.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Device of the networks: cpu or cuda.", show_default="a GPU if there is one")
    ] = None,
    ray: Ray = None,
    gpus_per_teacher: GpusPerTeacher = 0.0,
    json: Json = False,
) -> None:
    """Label images with pretrained networks, for several tasks.

    Existing labels are kept, and gaps are filled. Repeat an interrupted command to continue it.
    """
    from fbnetv5.labeling.config import LabelConfig
    from fbnetv5.labeling.run import open_labelling, run_labelling

    runner = _runner(ray, gpus_per_teacher, device=device, download=download)
    settings = LabelConfig.make(
        config,
        images=str(images.resolve()),
        teachers=_pairs(teacher or [], "--teacher"),
        derive=_pairs(derive or [], "--derive"),
        threshold=threshold,
        ignore_labels=ignore_labels,
        soft_labels=soft_labels,
    )
    _check_device(device)
    _print_source(images, ignore_labels)
    labelling = open_labelling(settings, device=device, download=download)
    _print_teachers(labelling.labeller)
    if preview is not None:
        _preview(labelling.labeller, output, preview, as_json=json)
        return
    with progress_bar() as bar, interruptible("repeat the same command"):
        summary = run_labelling(labelling, output, stage_lines(bar), runner, shards=shards)
    if json:
        print_json(summary.to_json())
    else:
        print_line(summary_text(summary))


def _runner(ray: str | None, gpus_per_teacher: float, *, device: str | None, download: bool) -> "ChunkRunner":
    """What labels the images: this process, or a Ray cluster."""
    from fbnetv5.labeling.run import in_this_process

    if ray is None:
        return in_this_process
    from fbnetv5.labeling.cluster import on_cluster

    return on_cluster(ray, gpus_per_teacher, device=device, download=download)


def _preview(labeller: "Labeller", output: Path, count: int, *, as_json: bool) -> None:
    """Write the page beside the output, and print its name."""
    from fbnetv5.labeling.preview import write_preview

    page = output.with_name(f"{output.name}-preview.html")
    images = write_preview(page, labeller, count)
    if as_json:
        print_json({"preview": str(page), "images": images})
    else:
        print_line(f"{page}: labels of {images} images; nothing else was written")


def _pairs(texts: list[str], flag: str) -> dict[str, str]:
    """By task, the values of a repeated option of the form TASK=VALUE.

    Raises:
        UserError: one has another form, or a task is named twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        task, equals, value = text.partition("=")
        if not equals or not task or not value:
            raise UserError(f"{flag} {text!r} is not TASK=VALUE, such as det=detector.onnx")
        if task in pairs:
            raise UserError(f"{flag} names task {task} twice: name it once")
        pairs[task] = value
    return pairs


def _check_device(device: str | None) -> None:
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device!r} is neither cpu nor cuda")
    if device == "cuda":
        import torch

        from export.errors import UnavailableError

        if not torch.cuda.is_available():
            raise UnavailableError("--device cuda needs an NVIDIA GPU that torch can use, and there is none: use cpu")


def _print_source(images: Path, ignore_labels: bool) -> None:
    """Print how the images are read."""
    from fbnetv5.data.layouts import open_folder
    from fbnetv5.labeling.sources import check_folder, layout_of_source

    check_folder(images)
    layout = None if ignore_labels else layout_of_source(images)
    if layout is None:
        print_status(f"{images}: images without labels")
    else:
        kept = f"{images}: read as {layout.name}, whose labels are kept; --ignore-labels takes the images only"
        print_status("; ".join([kept, *open_folder(images).notes]))


FIT_SOURCES = {"exported": "as its manifest says", "onnx": "as its description says"}
"""By family of a teacher: where its preparation of images is from."""


def _print_teachers(labeller: "Labeller") -> None:
    """Print how each teacher sees the images: one that was trained with another fit labels worse."""
    for task, (teacher, _) in labeller.teachers.items():
        source = FIT_SOURCES.get(teacher.provenance["family"], "as its library evaluates it")
        print_status(f"teacher of {task}: {teacher.name}, {teacher.preparation.text}, {source}")


def summary_text(summary: "LabelSummary") -> str:
    """The content of a new data set, in one line."""
    tasks = ", ".join(f"{task} {sum(counts.values())}" for task, counts in summary.labelled.items())
    tasks += f", soft labels {summary.soft_labels}" if summary.soft_labels else ""
    left_out = f"; {summary.left_out} unreadable left out (left-out.jsonl)" if summary.left_out else ""
    return f"{summary.folder}: {summary.images} images, labelled {tasks}{left_out}"
