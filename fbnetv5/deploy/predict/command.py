"""Predicts on a source from options: ``fbnetv5.api.predict``, which ``fbnetv5 predict`` calls."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from export.errors import UnavailableError, UserError
from export.files import AnyPath
from export.progress import Log, silent
from fbnetv5.deploy.predict.models import load
from fbnetv5.deploy.predict.run import PredictResult, Truth, predict_frames
from fbnetv5.deploy.predict.sources import Frame, open_source


def predict(
    model: AnyPath,
    source: AnyPath,
    output: AnyPath = "predictions",
    *,
    weights: AnyPath | None = None,
    runtime: str | None = None,
    size: str | int | Sequence[int] | None = None,
    min_score: float = 0.3,
    truth: bool = False,
    draw: bool = True,
    threads: int = 1,
    log: Log = silent,
    report: Callable[[Frame], None] = silent,
) -> PredictResult:
    """Predict on an image, a folder or a video; write drawn images, maps as PNG, and ``predictions.json``.

    An image that cannot be read is left out. An exported folder needs no torch. ``load`` predicts without files.

    Examples:
        >>> result = api.predict("shipped/det", "photos", "found")
        >>> result.file, result.images_per_s["network"]

    Args:
        model: an exported folder, or an architecture file with its weights beside it.
        source: image, folder of images, pattern, list of files (.txt), or video.
        output: folder of the results.
        weights: safetensors file of an architecture; None for the file beside it.
        runtime: as of ``load``.
        size: height and width in pixels that images are fitted to; None for those of the training.
        min_score: minimum score, from 0 to 1, of a box that is drawn; all are in the JSON file.
        truth: the source is a data set, whose labels are drawn beside the predictions; needs torch.
        draw: write drawn images.
        threads: CPU threads of the network.
        log: called with a line on the network, and one for every image that is left out.
        report: called with every image.

    Raises:
        UserError: an option is wrong, no image can be read, or a file cannot be written.
        UnavailableError: the runtime, or a library that reads the source, is not on this machine.
    """
    folder, place = Path(output), Path(source)
    _check_output(folder, place)
    frames, labels = None if truth else open_source(str(source)), None
    opened = load(model, weights=weights, runtime=runtime, size=size, threads=threads)
    if frames is None:
        frames, labels = _open_labelled(place, opened.tasks)

    def report_frame(frame: Frame) -> None:
        report(frame)
        if frame.image is None:
            log(f"left out: {frame.reason}")

    steps, names = opened.preprocessing, ", ".join(opened.tasks)
    log(f"{model}: {names} at {steps.resize[0]}x{steps.resize[1]} ({steps.fit}), {opened.runtime}")
    return predict_frames(
        opened,
        frames,
        folder,
        drawn=draw,
        min_score=min_score,
        truth=labels if draw else None,
        report=report_frame,
    )


def _open_labelled(folder: Path, tasks: tuple[str, ...]) -> tuple[Iterator[Frame], Truth]:
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
