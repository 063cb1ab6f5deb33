"""What ``fbnetv5 validate`` does: an exported folder is checked on this machine, and timed. It needs no torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from export.calibration import Progress
from export.engine import Engine
from export.errors import UserError
from export.runners import Array, OrtRunner
from export.validate import ONNX, Validation, validate
from latency.gpu import open_gpu_backend
from latency.protocol import Measurement, Sampler, Timing, host_timed, measure_interleaved


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
    if validation.holds("onnx"):
        say("timing the ONNX file")
        times["onnxruntime, 1 thread"] = _timed(host_timed(OrtRunner(folder / ONNX).bound(first)))
    if validation.manifest.engine is not None and validation.holds("engine"):
        say("timing the engine")
        try:
            times["engine"] = time_engine(folder, validation.manifest.engine, first)
        except UserError as error:  # what was found stands without its time
            say(f"the engine was not timed: {error}")
    latency_ms = {name: {"median": one.latency_ms_median, "p90": one.latency_ms_p90} for name, one in times.items()}
    return validation, {**validation.to_json(), "latency_ms": latency_ms}


def time_engine(folder: Path, engine: Engine, inputs: Mapping[str, Array]) -> Measurement:
    """The time of a built engine on this machine's GPU.

    Raises:
        NotHere: the GPU, TensorRT, or what gives GPU memory is missing.
        CheckFailed: the GPU refuses the engine.
    """
    with open_gpu_backend("gpu", engine.precision, runtime=engine.runtime) as backend:
        return _timed(backend.open_plan((folder / engine.file).read_bytes(), inputs))


def _timed(sampler: Sampler) -> Measurement:
    return measure_interleaved({"it": [sampler]}, Timing())["it"]
