"""``fbnetv5 validate``: validates an exported folder on this machine and times its network. It needs no torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.progress import Progress
from export.runners import Array, OrtRunner
from export.trt.engine import Engine
from export.validate import ONNX, Validation, validate
from latency.protocol import Measurement, Sampler, Timing, host_timed, measure_interleaved
from latency.runtimes.tensorrt import open_tensorrt


def validate_folder(
    folder: Path, say: Callable[[str], None], progress: Progress | None = None
) -> tuple[Validation, dict[str, Any]]:
    """Validate an exported folder; return the validation and the ``--json`` document, with the latencies measured here.

    Raises:
        UserError: the folder is incomplete or cannot be read.
    """
    validation = validate(folder, say, progress)
    latencies: dict[str, Measurement] = {}
    first = {name: array[:1] for name, array in validation.reference.inputs.items()}
    if validation.passed_check("onnx"):
        say("timing the ONNX file")
        latencies["onnxruntime, 1 thread"] = _timed(host_timed(OrtRunner(folder / ONNX).bound(first)))
    if validation.manifest.engine is not None and validation.passed_check("engine"):
        say("timing the engine")
        try:
            latencies["engine"] = time_engine(folder, validation.manifest.engine, first)
        except UserError as error:  # the findings do not depend on the latency
            say(f"the engine was not timed: {error}")
    latency_ms = {
        name: {"median": latency.latency_ms_median, "p90": latency.latency_ms_p90}
        for name, latency in latencies.items()
    }
    return validation, {**validation.to_json(), "latency_ms": latency_ms}


def time_engine(folder: Path, engine: Engine, inputs: Mapping[str, Array]) -> Measurement:
    """Measure the latency of a built engine on this machine's GPU.

    Raises:
        UnavailableError: the GPU, TensorRT, or a package that allocates GPU memory is missing.
        VerificationError: the GPU refuses the engine.
    """
    with open_tensorrt("gpu", engine.precision, runtime=engine.runtime) as backend:
        return _timed(backend.open_plan((folder / engine.file).read_bytes(), inputs))


def _timed(sampler: Sampler) -> Measurement:
    return measure_interleaved({"network": [sampler]}, Timing())["network"]
