"""The network of a prediction: an exported folder, which needs no torch, or an architecture file with its weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from export.errors import UnavailableError, UserError
from export.files import AnyPath
from export.manifest import NAME as MANIFEST
from export.manifest import Preprocessing, read_manifest
from export.placement import fit_image
from export.runners import Array, OrtRunner, Runner
from export.trt.engine import NAME as ENGINE
from export.validate import ONNX
from fbnetv5.data.image_files import DEEP_MODES, rgb, upright
from fbnetv5.data.resolution import parse_resolution
from fbnetv5.deploy.predict.predictions import Prediction, decode
from fbnetv5.deploy.predict.sources import read_file

RUNTIMES = ("onnxruntime", "cuda", "tensorrt", "engine", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A network that is ready to predict: call it with an image.

    Examples:
        >>> predictor = api.load("shipped/det")
        >>> boxes = predictor("street.jpg")["det"].above(0.5)
        >>> boxes.xyxy, boxes.scores, [predictor.labels["det"][label] for label in boxes.labels]
    """

    labels: Mapping[str, tuple[str, ...]]
    """By task: class names by index."""
    outputs: Mapping[str, tuple[str, ...]]
    """By task: names of its outputs."""
    preprocessing: Preprocessing
    input: str
    """Name of the input."""
    runner: Runner
    runtime: str
    """What runs it, for messages."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.outputs)

    def __call__(self, image: AnyPath | Image.Image | Array) -> dict[str, Prediction]:
        """By task, the prediction for an image, in its own pixels.

        Args:
            image: a file, a Pillow image, or uint8 [H, W, 3] in RGB. Files and Pillow images are turned upright by
                their EXIF orientation first.

        Raises:
            UserError: the file cannot be read, the array has another shape or type, or the file or the Pillow image
                has more than 8 bits a channel.
        """
        pixels, place = fit_image(as_image(image), self.preprocessing.resize, self.preprocessing.fit)
        outputs = self.runner({self.input: prepare(pixels, self.preprocessing)})
        return {task: decode(task, [outputs[name] for name in names], place) for task, names in self.outputs.items()}


def as_image(image: AnyPath | Image.Image | Array) -> Image.Image:
    """An upright RGB image from a file, a Pillow image, or uint8 [H, W, 3].

    Raises:
        UserError: the file cannot be read, the array has another shape or type, or the file or the Pillow image has
            more than 8 bits a channel.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            shape = "x".join(map(str, image.shape))
            raise UserError(f"an image as an array is uint8 [H, W, 3] in RGB, not {image.dtype} {shape}")
        return Image.fromarray(np.ascontiguousarray(image))
    if isinstance(image, Image.Image):
        if image.mode[0] in DEEP_MODES:
            raise UserError(f"the Pillow image has more than 8 bits a channel (mode {image.mode}). Convert it to 8")
        return rgb(upright(image))
    frame = read_file(Path(image), str(image))
    if frame.image is None:
        raise UserError(frame.reason)
    return frame.image


def prepare(pixels: Array, steps: Preprocessing) -> Array:
    """uint8 [h, w, 3] in RGB -> the network's input [1, 3, h, w], float32, or uint8 if the network prepares it."""
    planes = pixels[None, :, :, :: -1 if steps.order == "BGR" else 1].transpose(0, 3, 1, 2)
    if steps.scale == 1.0 and not any(steps.mean):
        return np.ascontiguousarray(planes)
    mean, std = (
        np.array(values, dtype=np.float32).reshape(1, -1, 1, 1) / steps.scale for values in (steps.mean, steps.std)
    )
    return np.ascontiguousarray((planes.astype(np.float32) - mean) / std)


def load(
    model: AnyPath,
    *,
    weights: AnyPath | None = None,
    runtime: str | None = None,
    size: str | int | Sequence[int] | None = None,
    threads: int = 1,
) -> Predictor:
    """Open a network to predict with; an exported folder needs no torch.

    Examples:
        >>> predictor = api.load("shipped/seg")
        >>> ids = predictor("street.jpg")["seg"].ids  # uint8 [H, W] of the image itself

    Args:
        model: an exported folder, or an architecture file with its weights beside it.
        weights: safetensors file of an architecture; None for the file beside it.
        runtime: "onnxruntime", "cuda" or "tensorrt" (both of ONNX Runtime), "engine", or "torch" for an architecture
            file; None for ONNX Runtime on the CPU, or torch for an architecture file.
        size: height and width in pixels that images are fitted to; None for those of the training, where the network
            accepts them.
        threads: of the CPU.

    Raises:
        UserError: the path is neither, a file is missing or damaged, or the runtime or the size does not suit it.
        UnavailableError: the runtime is not on this machine.
    """
    path, file = Path(model), None if weights is None else Path(weights)
    resized = None if size is None else parse_resolution(size)
    if runtime is not None and runtime not in RUNTIMES:
        raise UserError(f"unknown runtime {runtime!r}; there are: {', '.join(RUNTIMES)}")
    if path.is_dir():
        if weights is not None or runtime == "torch":
            raise UserError(f"{path} is an exported folder, which has its weights and needs no torch: leave both out")
        with needed_packages():
            return _open_exported(path, runtime or "onnxruntime", resized, threads)
    if path.suffix != ".json":
        raise UserError(
            f"{path} is neither a folder with a {MANIFEST}, as fbnetv5 export writes it, nor an architecture"
        )
    if runtime not in (None, "torch"):
        raise UserError(f"{path} is an architecture file, which torch runs: export it to use {runtime}")
    with needed_packages():
        return _open_architecture(path, file, resized, threads)


@contextmanager
def needed_packages() -> Iterator[None]:
    """Say which package is missing: an exported folder needs onnxruntime alone, an architecture file torch.

    Raises:
        UnavailableError: one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"{error.name} is not installed here, which runs this network: pip install {error.name}"
        ) from None


def _open_exported(folder: Path, runtime: str, size: tuple[int, int] | None, threads: int) -> Predictor:
    manifest = read_manifest(folder)
    resized = size or manifest.image_size
    if runtime == "engine" or manifest.has_fixed_size:
        if size not in (None, manifest.preprocessing.resize):
            raise UserError(
                f"{folder} accepts images of {_text(manifest.preprocessing.resize)} alone: leave out --size"
            )
        resized = manifest.preprocessing.resize
    runner: Runner
    if runtime == "engine":
        if manifest.engine is None:
            raise UserError(f"{folder} has no engine: export with --engine, or use another runtime")
        from export.trt.engine_runner import open_engine

        manifest.engine.check_code()
        runner = open_engine(folder / ENGINE, runtime=manifest.engine.runtime)
    else:
        provider = "cpu" if runtime == "onnxruntime" else runtime
        runner = OrtRunner(folder / ONNX, provider=provider, threads=threads)
    return Predictor(
        labels=manifest.labels,
        outputs={task: group.outputs for task, group in manifest.task_outputs.items()},
        preprocessing=manifest.preprocessing.changed(resize=resized),
        input=manifest.inputs[0].name,
        runner=runner,
        runtime=runtime,
    )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _open_architecture(file: Path, weights: Path | None, size: tuple[int, int] | None, threads: int) -> Predictor:
    from export.runners import TorchRunner
    from fbnetv5.architecture import load_architecture
    from fbnetv5.data.preprocess import MEAN, STD
    from fbnetv5.evaluate import trained_fit, trained_size

    architecture = load_architecture(file)
    network = architecture.load(weights or file.with_suffix(".safetensors"))
    outputs = {task.name: tuple(f"{task.name}_{name}" for name in task.output_names) for task in network.tasks.values()}
    names = [name for of_task in outputs.values() for name in of_task]
    steps = Preprocessing(resize=size or trained_size(architecture), mean=MEAN, std=STD, fit=trained_fit(architecture))
    return Predictor(
        labels={name: task.labels for name, task in network.tasks.items()},
        outputs=outputs,
        preprocessing=steps,
        input="images",
        runner=TorchRunner(network, ["images"], names, threads=threads),
        runtime="torch",
    )
