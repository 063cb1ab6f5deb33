"""``fbnetv5 predict``: runs a network on images or a video, draws its predictions and writes them as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UnavailableError, UserError
from fbnetv5.cli.console import print_json, print_line, print_status
from fbnetv5.cli.options import SIZE, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fbnetv5.deploy.predict.run import Summary, Truth
    from fbnetv5.deploy.predict.sources import Frame

ModelFile = Annotated[
    Path, typer.Argument(help="Folder of fbnetv5 export, or an architecture file with its weights beside it.")
]
Source = Annotated[
    str, typer.Argument(help="Image, folder of images, pattern in quotes, list of files (.txt), or video.")
]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="onnxruntime, cuda, tensorrt (both of ONNX Runtime) or engine for an exported folder; torch for an "
        "architecture file.",
        show_default="onnxruntime, or torch",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Safetensors file of an architecture's weights.", show_default="TASK.safetensors beside the file"
    ),
]


def predict(
    model: ModelFile,
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")] = Path("predictions"),
    weights: Weights = None,
    runtime: Runtime = None,
    size: Annotated[
        str | None,
        typer.Option(metavar=SIZE, help="Size that images are fitted to.", show_default="size of the training"),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Minimum score of a box that is drawn.")] = 0.3,
    truth: Annotated[
        bool, typer.Option("--truth", help="SOURCE is a data set: draw its labels beside the predictions.")
    ] = False,
    drawn: Annotated[bool, typer.Option("--draw/--no-draw", help="Write drawn images.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 1,
    json: Json = False,
) -> None:
    """Show what a network predicts on images, a folder or a video.

    Writes drawn images, maps as PNG, and predictions.json with classes and boxes in the images' own pixels. An image
    that cannot be read is reported and left out. An exported folder needs no torch.
    """
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.deploy.predict.models import open_model
    from fbnetv5.deploy.predict.run import FILE
    from fbnetv5.deploy.predict.run import predict as predict_all
    from fbnetv5.deploy.predict.sources import Frame, open_source

    _check_output(output, Path(source))
    frames, labels = None if truth else open_source(source), None
    image_size = None if size is None else parse_resolution(size)
    opened = open_model(model, weights=weights, runtime=runtime, size=image_size, threads=threads)
    if frames is None:
        frames, labels = _open_labelled(Path(source), opened.tasks)

    def report(frame: Frame) -> None:
        if frame.image is None:
            print_status(f"left out: {frame.reason}")

    steps, names = opened.preprocessing, ", ".join(opened.tasks)
    print_status(f"{model}: {names} at {steps.resize[0]}x{steps.resize[1]} ({steps.fit}), {opened.runtime}")
    summary = predict_all(
        opened, frames, output, drawn=drawn, min_score=min_score, truth=labels if drawn else None, report=report
    )
    if json:
        print_json(
            {
                "folder": str(output),
                "images": summary.images,
                "left_out": len(summary.left_out),
                "images_per_s": summary.images_per_s,
            }
        )
    else:
        print_line(summary_text(output / FILE, summary))


def _open_labelled(folder: Path, tasks: tuple[str, ...]) -> "tuple[Iterator[Frame], Truth]":
    """The images of a data set and their true labels; data sets are read with torch."""
    try:
        from fbnetv5.deploy.predict.truth import open_labelled
    except ModuleNotFoundError as error:
        raise UnavailableError(f"--truth needs {error.name}: install fbnetv5 with all its requirements") from None
    return open_labelled(folder, tasks)


def _check_output(output: Path, source: Path) -> None:
    """Raise a ``UserError`` if drawn images would be written among the images, or over them."""
    folder = source if source.is_dir() else source.parent
    if output.resolve() == folder.resolve() or (source.is_dir() and output.resolve().is_relative_to(folder.resolve())):
        raise UserError(f"{output} is in the folder of the images: name another folder with -o")


def summary_text(file: Path, summary: "Summary") -> str:
    """The result in one line."""
    rates = ", ".join(f"{stage} {rate:g}" for stage, rate in summary.images_per_s.items())
    left_out = f", {len(summary.left_out)} left out" if summary.left_out else ""
    return f"{file}: {summary.images} images{left_out}; images/s: {rates}"
