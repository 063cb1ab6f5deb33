"""Teachers in ONNX files, which ONNX Runtime executes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.errors import UserError
from export.manifest import NAME as MANIFEST
from export.manifest import file_sha256, read_manifest
from export.runners import OrtRunner
from export.validate import ONNX
from fbnetv5.labeling.teachers.description import TeacherDescription, read_description
from fbnetv5.labeling.teachers.teacher import Teacher


class OnnxNetwork:
    """The network of an ONNX file with one input."""

    def __init__(self, file: Path, *, device: str, outputs: Sequence[str] = ()) -> None:
        """Load the file.

        Args:
            file: its path.
            device: cpu or cuda.
            outputs: names of the outputs to return; () for all.

        Raises:
            UserError: ONNX Runtime refuses the file, or it has no such outputs or several inputs.
            UnavailableError: this ONNX Runtime cannot use the device.
        """
        # ONNX Runtime would use the first GPU in each process of a run.
        has_gpu = device == "cuda" and torch.cuda.is_available()
        options = {"device_id": str(torch.cuda.current_device())} if has_gpu else None
        self._runner = OrtRunner(file, threads=torch.get_num_threads(), provider=device, provider_options=options)
        if len(self._runner.inputs) != 1:
            names = ", ".join(spec.name for spec in self._runner.inputs)
            raise UserError(f"{file} has the inputs {names}: a teacher has one, the images")
        (self.input,) = self._runner.inputs
        available = [spec.name for spec in self._runner.outputs]
        if missing := [name for name in outputs if name not in available]:
            raise UserError(f"{file} has no output {missing[0]!r}; it has: {', '.join(available)}")
        self._outputs = tuple(outputs) or tuple(available)

    @property
    def max_batch(self) -> int | None:
        """Images that it runs on at once; None for any number."""
        batch = self.input.shape[0]
        return batch if isinstance(batch, int) else None

    def check_input(self, shape: tuple[int, ...], file: Path) -> None:
        """Raise UserError if the file's input has another fixed shape; ``shape`` is without the batch axis."""
        expected = self.input.shape[1:]
        fits = len(expected) == len(shape) and all(
            isinstance(axis, str) or axis == side for axis, side in zip(expected, shape, strict=True)
        )
        if not fits:
            raise UserError(
                f"{file} reads images of {_text(expected)}, and its description says {_text(shape)}: correct size and "
                "layout there"
            )

    def __call__(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Prepared images -> the outputs, on the CPU; a fixed batch size is filled up with black images."""
        step = self.max_batch or len(inputs)
        parts = [self._run(inputs[start : start + step], step) for start in range(0, len(inputs), step)]
        return tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    def _run(self, inputs: Tensor, batch: int) -> list[Tensor]:
        dtype = np.dtype(self.input.dtype)
        values = inputs.cpu().numpy()
        if dtype.kind in "iu":
            values = values.round()
        padding = [(0, batch - len(values)), *[(0, 0)] * (values.ndim - 1)]
        outputs = self._runner({self.input.name: np.ascontiguousarray(np.pad(values, padding), dtype=dtype)})
        tensors = [torch.from_numpy(np.ascontiguousarray(outputs[name])) for name in self._outputs]
        return [tensor[: len(values)] for tensor in tensors] if batch > len(values) else tensors


def _text(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))


def open_onnx(task: str, file: Path, *, device: str) -> Teacher:
    """The teacher in an ONNX file with a description beside it.

    Raises:
        UserError: a file is missing or wrong, they do not belong together, or they are of another task.
        UnavailableError: this ONNX Runtime cannot use the device.
    """
    if not file.is_file():
        raise UserError(f"there is no ONNX file {file}")
    description = read_description(file.with_suffix(".json"))
    if description.task != task:
        raise UserError(f"{file} is a teacher of task {description.task}, not of {task}")
    _check_manifest(file, description)
    network = OnnxNetwork(file, device=device, outputs=description.outputs)
    network.check_input(_input_shape(description), file)
    return Teacher(
        name=str(file),
        task=task,
        classes=description.classes,
        preparation=description.preparation,
        network=network,
        decoding=description.decoding,
        max_batch=network.max_batch,
        provenance={
            "family": "onnx",
            "sha256": file_sha256(file),
            "description_sha256": file_sha256(file.with_suffix(".json")),
        },
    )


def _check_manifest(file: Path, description: TeacherDescription) -> None:
    """Raise a ``UserError`` if the description of an exported network has another fit than its manifest."""
    if file.name != ONNX or not (file.parent / MANIFEST).exists():
        return
    fit = read_manifest(file.parent).preprocessing.fit
    if description.fit != fit:
        raise UserError(
            f"{file.with_suffix('.json')} says fit {description.fit!r}, and {file.parent / MANIFEST} says {fit!r}: "
            "correct the fit in the description, or remove it and name the folder"
        )


def _input_shape(description: TeacherDescription) -> tuple[int, ...]:
    return (*description.size, 3) if description.layout == "nhwc" else (3, *description.size)
