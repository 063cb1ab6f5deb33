"""What ``fbnetv5 validate`` does: an exported folder is checked on this machine, and timed. It needs no torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from export.calibration import Progress
from export.errors import UserError
from export.runners import Array, OrtRunner
from export.validate import ONNX, Validation, to_json, validate
from latency.gpu import open_gpu_backend
from latency.protocol import Measurement, Sampler, Timing, measure_interleaved, timed_here


def validate_folder(
    folder: Path, say: Callable[[str], None], progress: Progress | None = None
) -> tuple[Validation, dict[str, Any]]:
    """What became of an exported folder, and its ``--json`` form with times of what runs here.

    Raises:
        UserError: the folder is not whole, or cannot be read.
    """
    validation = validate(folder, say, progress)
    times: dict[str, Measurement] = {}
    first = {name: array[:1] for name, array in validation.reference.inputs.items()}
    if any(finding.what == "onnx" and finding.passed for finding in validation.findings):
        say("timing the ONNX file")
        times["onnxruntime, 1 thread"] = _timed(timed_here(OrtRunner(folder / ONNX).bound(first)))
    if validation.engine_ran:
        say("timing the engine")
        times["engine"] = _timed_engine(folder, validation, first)
    document = to_json(validation)
    document["latency_ms"] = {
        name: {"median": one.latency_ms_median, "p90": one.latency_ms_p90} for name, one in times.items()
    }
    return validation, document


def _timed_engine(folder: Path, validation: Validation, inputs: Mapping[str, Array]) -> Measurement:
    engine = validation.manifest.engine
    if engine is None:
        raise UserError(f"{folder} has no engine")
    return time_engine(folder / engine.file, engine.precision, inputs)


def time_engine(path: Path, precision: str, inputs: Mapping[str, Array]) -> Measurement:
    """The time of a built engine on this machine's GPU.

    Raises:
        NotHere: the GPU, TensorRT, or what gives GPU memory is missing.
        CheckFailed: the GPU refuses the engine.
    """
    with open_gpu_backend("gpu", precision) as backend:
        return _timed(backend.open_plan(path.read_bytes(), inputs))


def _timed(sampler: Sampler) -> Measurement:
    return measure_interleaved({"it": [sampler]}, Timing())["it"]
