"""Exports networks of a run from options: ``fbnetv5.api.export``, which ``fbnetv5 export`` calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from export.errors import UnavailableError, UserError
from export.files import AnyPath
from export.progress import Log, Progress, outermost_stage, silent
from export.trt.engine import check_options
from export.trt.options import EngineOptions, options_from_json
from fbnetv5.data.fit import parse_fit
from fbnetv5.deploy.engine import add_engine
from fbnetv5.deploy.export import export_tasks
from fbnetv5.deploy.export_options import ExportOptions
from fbnetv5.deploy.exported import Exported
from fbnetv5.runs.folder import networks_of
from fbnetv5.runs.options import Fields, path_of, without_link
from fbnetv5.tasks import task_names


class IncompleteExportError(UserError):
    """Networks of a run, or their engines, could not be exported; the other files are written."""

    exported: tuple[Exported, ...]
    """The written folders; some may lack an engine."""

    def __init__(self, exported: tuple[Exported, ...], failures: Sequence[UserError]) -> None:
        """Set the message of the error, and its exit code, the lowest of the failures: 1 if a check failed.

        Args:
            exported: the written folders.
            failures: why the other files are not written.
        """
        super().__init__("; ".join(dict.fromkeys(map(str, failures))))
        self.exported = exported
        self.exit_code = min((failure.exit_code for failure in failures), default=UserError.exit_code)


def export(
    run: AnyPath = "runs/latest",
    tasks: str | Sequence[str] | None = None,
    *,
    output: AnyPath | None = None,
    precision: str = "fp32",
    max_drop: float | None = None,
    keep_float: Sequence[str] = (),
    head: str | None = None,
    pixels: bool = False,
    fit: str | None = None,
    fixed_size: bool = False,
    exporter: str = "torchscript",
    engine: bool = False,
    engine_options: Fields | EngineOptions | None = None,
    log: Log = silent,
    progress: Progress = silent,
) -> tuple[Exported, ...]:
    """Export networks of a run as ONNX files and engines, each verified against the torch network before it is written.

    A network that cannot be exported does not keep the others from it.

    Examples:
        >>> (exported,) = api.export("runs/latest", "det", precision="int8", max_drop=0.01)
        >>> drop, latency_ms = exported.drops["det"], exported.latency_ms_p50

    Args:
        run: run folder of a search or training.
        tasks: a task, or several to export as one joint network; None for every network of the run in its own file.
        output: folder to write to, each network in a subfolder; None for ``export`` in the run folder.
        precision: "fp32", "fp16" or "int8"; every higher precision is verified on the way.
        max_drop: maximum by which a task's metric may be worse than in torch, in the unit of the metric.
        keep_float: name patterns of ONNX nodes that int8 leaves in float, such as "/head/*".
        head: form of a detector's outputs: "topk", "decode" or "nms"; needs ``tasks``. None is topk.
        pixels: make the input uint8 RGB images; the network then contains the normalisation.
        fit: "stretch" or "letterbox"; None for that of the run.
        fixed_size: accept images of the deploy resolution only.
        exporter: PyTorch's ONNX exporter, "torchscript" (faster) or "dynamo".
        engine: build a TensorRT engine too; building needs no GPU.
        engine_options: of the engine's build, such as {"workspace_mb": 1024}, or a JSON file with them.
        log: called with a line at each step.
        progress: called with (stage, done, total) while int8 is calibrated and engines are built.

    Returns:
        The written folders with parity, metrics by precision and latencies in milliseconds.

    Raises:
        UserError: the run has no such network, its files are damaged, or the options do not fit it.
        VerificationError: a stage differs from its reference by more than its precision explains, or a metric drops by
            more than allowed; nothing is written.
        IncompleteExportError: as these, for some or all of several networks; or the ONNX files are written, but no
            engine could be built here.
    """
    if head is not None and tasks is None:
        raise UserError("--head needs the task of a detector: add --task det")
    if engine and head == "nms":
        raise UserError(
            "--head nms is for ONNX Runtime only: TensorRT cannot build an engine of it. Leave out --engine"
        )
    if engine_options is not None and not engine:
        raise UserError("--engine-config sets options of the engine's build; it needs --engine")
    options = ExportOptions(
        precision=cast("Any", precision),
        exporter=cast("Any", exporter),
        head=head,
        from_pixels=pixels,
        fixed_size=fixed_size,
        max_drop=max_drop,
        fit=None if fit is None else parse_fit(fit),
        keep_float=tuple(keep_float),
    )
    building = _engine_options(engine_options) if engine else None
    if building is not None:
        check_options(building)
    folder = without_link(run)
    networks = [task_names(tasks)] if tasks is not None else networks_of(folder)
    return _export_all(folder, networks, path_of(output) or folder / "export", options, building, log, progress)


def _export_all(
    run: Path,
    networks: Sequence[Sequence[str]],
    output: Path,
    options: ExportOptions,
    building: EngineOptions | None,
    log: Log,
    progress: Progress,
) -> tuple[Exported, ...]:
    """Export every network, of these tasks each, even if another fails; see ``export``."""
    results, failures = list[Exported](), list[UserError]()
    for names in networks:
        try:
            results.append(export_tasks(run, names, output / "+".join(names), options, log, progress))
            if building is not None:
                results[-1] = add_engine(results[-1], building, log, outermost_stage(progress))
        except UserError as error:
            failures.append(error)
            if isinstance(error, UnavailableError):
                building = None  # nor could the engines of the other networks be built
    if not results and len(failures) == 1:
        raise failures[0]
    if failures:
        raise IncompleteExportError(tuple(results), failures)
    return tuple(results)


def _engine_options(options: Fields | EngineOptions | None) -> EngineOptions:
    if isinstance(options, Mapping):
        return options_from_json(options)
    if isinstance(options, EngineOptions):
        return options
    return EngineOptions() if options is None else EngineOptions.load(Path(options))
