"""Validates an exported folder on this machine and times its network, without torch: ``fbnetv5.api.validate``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import AnyPath
from export.progress import Log, Progress, outermost_stage, silent
from export.runners import Array, OrtRunner
from export.trt.engine import Engine
from export.validate import ONNX, Validation
from export.validate import validate as validate_files
from latency.protocol import Measurement, Sampler, Timing, host_timed, repeat_interleaved, summarised
from latency.runtimes.tensorrt import open_tensorrt


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateResult:
    """Whether an exported folder computes on this machine what was exported, and how fast."""

    folder: Path
    validation: Validation
    """The findings of all checks."""
    latencies: Mapping[str, Measurement]
    """By "onnxruntime, 1 thread" and "engine": what was timed here, in milliseconds; only what passed its check."""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return self.validation.passed

    @property
    def failure(self) -> str | None:
        """The first failed check with its detail; None if none failed."""
        failed = (finding for finding in self.validation.findings if finding.passed is False)
        return next((f"{self.folder}: {finding.check}: {finding.detail}" for finding in failed), None)

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 validate --json``."""
        latency_ms = {
            name: {"median": latency.latency_ms_median, "p90": latency.latency_ms_p90}
            for name, latency in self.latencies.items()
        }
        return {"folder": str(self.folder), **self.validation.to_json(), "latency_ms": latency_ms}


def validate(folder: AnyPath, *, log: Log = silent, progress: Progress = silent) -> ValidateResult:
    """Validate an exported folder on this machine and time its network; it needs no torch.

    The files are compared with their checksums, and the outputs of the ONNX file and of the engine with the outputs
    stored by the export. A failed check is a finding and no error.

    Examples:
        >>> result = api.validate("shipped/det")
        >>> if result.passed:
        ...     latency_ms = result.latencies["onnxruntime, 1 thread"].latency_ms_median

    Args:
        folder: written by ``export``.
        log: called with a line at each step.
        progress: called with (stage, done, total) while an engine is built again for this machine.

    Raises:
        UserError: the folder is incomplete or cannot be read.
    """
    path = Path(folder)
    validation = validate_files(path, log, outermost_stage(progress))
    latencies: dict[str, Measurement] = {}
    first = {name: array[:1] for name, array in validation.reference.inputs.items()}
    if validation.passed_check("onnx"):
        log("timing the ONNX file")
        latencies["onnxruntime, 1 thread"] = _timed(host_timed(OrtRunner(path / ONNX).bound(first)))
    if validation.manifest.engine is not None and validation.passed_check("engine"):
        log("timing the engine")
        try:
            latencies["engine"] = time_engine(path, validation.manifest.engine, first)
        except UserError as error:  # the findings do not depend on the latency
            log(f"the engine was not timed: {error}")
    return ValidateResult(folder=path, validation=validation, latencies=latencies)


def time_engine(folder: Path, engine: Engine, inputs: Mapping[str, Array]) -> Measurement:
    """Measure the latency of a built engine on this machine's GPU.

    Raises:
        UnavailableError: the GPU, TensorRT, or a package that allocates GPU memory is missing.
        VerificationError: the GPU refuses the engine.
    """
    with open_tensorrt("gpu", engine.precision, runtime=engine.runtime, options=engine.build_options) as backend:
        return _timed(backend.open_plan((folder / engine.file).read_bytes(), inputs))


def _timed(sampler: Sampler) -> Measurement:
    return summarised(repeat_interleaved({"network": [sampler]}, Timing()))["network"]
