"""``fbnetv5 label``: labels images with pretrained networks, for all tasks of a search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import interruptible, print_json, print_line, print_log, progress_bar, stage_lines
from fbnetv5.cli.options import Json
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from fbnetv5.api import LabelPreview, LabelSummary

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
    from fbnetv5 import api

    teachers, rules = _pairs(teacher or [], "--teacher"), _pairs(derive or [], "--derive")
    if preview is not None and (shards or ray is not None):
        raise UserError("--preview labels a few images in this process into one page: leave out --shards and --ray")
    if preview is not None:
        shown = api.preview_labels(
            images,
            preview_page(output),
            preview,
            teachers=teachers,
            derive=rules,
            threshold=threshold,
            soft_labels=soft_labels,
            config=config,
            ignore_labels=ignore_labels,
            download=download,
            device=device,
            log=print_log,
        )
        print_preview(shown, as_json=json)
        return
    with progress_bar() as bar, interruptible("repeat the same command"):
        summary = api.label(
            images,
            output,
            teachers=teachers,
            derive=rules,
            threshold=threshold,
            soft_labels=soft_labels,
            config=config,
            ignore_labels=ignore_labels,
            shards=shards,
            download=download,
            device=device,
            ray=ray,
            gpus_per_teacher=gpus_per_teacher,
            log=print_log,
            progress=stage_lines(bar),
        )
    if json:
        print_json(summary.to_json())
    else:
        print_line(summary_text(summary))
    finish_with_report(output, print_log)


def preview_page(output: Path) -> Path:
    """The page of a preview, beside the output."""
    named = output.resolve() if output.name in ("", "..") else output
    return named.with_name(f"{named.name}-preview.html")


def print_preview(preview: "LabelPreview", *, as_json: bool) -> None:
    """Print the name of the page."""
    if as_json:
        print_json(preview.to_json())
    else:
        print_line(f"{preview.page}: labels of {preview.images} images; nothing else was written")


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


def summary_text(summary: "LabelSummary") -> str:
    """The content of a new data set, in one line."""
    tasks = ", ".join(f"{task} {sum(counts.values())}" for task, counts in summary.labelled.items())
    tasks += f", soft labels {summary.soft_labels}" if summary.soft_labels else ""
    left_out = f"; {summary.left_out} unreadable left out (left-out.jsonl)" if summary.left_out else ""
    return f"{summary.folder}: {summary.images} images, labelled {tasks}{left_out}"
