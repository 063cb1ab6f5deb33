"""``fbnetv5 predict``: runs a network on images or a video, draws its predictions and writes them as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import print_json, print_line, print_log
from fbnetv5.cli.options import SIZE, Json

if TYPE_CHECKING:
    from fbnetv5.api import PredictResult

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
    from fbnetv5 import api

    result = api.predict(
        model,
        source,
        output,
        weights=weights,
        runtime=runtime,
        size=size,
        min_score=min_score,
        truth=truth,
        draw=drawn,
        threads=threads,
        log=print_log,
    )
    if json:
        print_json(result.to_json())
    else:
        print_line(summary_text(result))


def summary_text(result: "PredictResult") -> str:
    """The result in one line."""
    rates = ", ".join(f"{stage} {rate:g}" for stage, rate in result.images_per_s.items())
    left_out = f", {len(result.left_out)} left out" if result.left_out else ""
    boxes = ""
    if result.boxes is not None:
        highest = "" if result.highest_score is None else f" (highest {result.highest_score:.3g})"
        boxes = f", {result.boxes} boxes from a score of {result.min_score:g} on{highest}"
    return f"{result.file}: {result.images} images{left_out}{boxes}; images/s: {rates}"
