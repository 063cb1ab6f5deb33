"""The result of an export as a value, and its ``--json`` document."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.errors import VerificationError
from export.precision import Precision
from export.precision_pipeline import Comparison
from export.trt.engine import Engine
from export.validate import ONNX
from fbnetv5.data.resolution import Resolution
from fbnetv5.deploy.export_model import ExportModel
from fbnetv5.tasks.task import Task

ENGINE = "engine"
"""Name of the stage of a TensorRT engine that ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported folder and its measurements."""

    run: Path
    """The run folder that the network is from."""
    folder: Path
    model: ExportModel
    precision: Precision
    comparisons: tuple[Comparison, ...]
    """All comparisons, stage by stage."""
    metrics: dict[str, dict[str, float]]
    """Stage -> task -> metric, beginning with the stage "torch"."""
    metric_size: Resolution
    """Size of the test images."""
    max_drop: float | None
    kept_float: tuple[str, ...]
    """Name patterns of the nodes that int8 left in float."""
    latency_ms_p50: float
    """Latency of the ONNX file at the deploy resolution, batch 1, one thread of this CPU."""
    engine: Engine | None = None
    engine_latency_ms_p50: float | None = None
    """Latency of the engine at the deploy resolution, batch 1, on this machine's GPU."""

    @property
    def drops(self) -> dict[str, float]:
        """By task: by how much the exported network's metric is worse than torch's."""
        exported, tasks = self.metrics[self.precision], self.model.tasks
        return {name: tasks[name].metric.drop(value, exported[name]) for name, value in self.metrics["torch"].items()}

    @property
    def parity_rows(self) -> tuple[dict[str, Any], ...]:
        """One object per stage, kind of images and output, as the manifest and ``--json`` have them."""
        return tuple(row for comparison in self.comparisons for row in comparison.to_json())

    @property
    def max_error(self) -> float:
        """Largest error of all gated comparisons, without outputs in a ranked list."""
        return max(comparison.max_error for comparison in self.comparisons if comparison.gated)

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 export --task TASK --json``; for several tasks in one file, fields are by task."""
        by_task = {task: _task_document(self, task) for task in self.model.tasks}
        sharing = self.model.sharing
        return {
            "task": ",".join(self.model.tasks),
            "folder": str(self.folder),
            "onnx": str(self.folder / ONNX),
            **_engine_document(self),
            **(next(iter(by_task.values())) if sharing is None else {"tasks": by_task, "sharing": asdict(sharing)}),
            "parity": list(self.parity_rows),
        }


def check_drop(
    tasks: Mapping[str, Task], metrics: Mapping[str, Mapping[str, float]], stage: str, max_drop: float | None
) -> None:
    """Raise VerificationError if a metric of a stage is worse than torch's by more than ``max_drop``, or not a number.

    Args:
        tasks: by name.
        metrics: stage -> task -> metric.
        stage: that is checked, such as "fp16" or "engine".
        max_drop: None allows any.
    """
    if max_drop is None:
        return
    for task, value in metrics[stage].items():
        reference = metrics["torch"][task]
        drop = tasks[task].metric.drop(reference, value)
        if not drop <= max_drop:
            metric, left = tasks[task].metric.name, "the engine is removed" if stage == ENGINE else "nothing is written"
            raise VerificationError(
                f"{task}: {metric} goes from {reference:.4f} in torch to {value:.4f} in {stage}, which is {drop:.4f} "
                f"worse, and at most {max_drop:g} was allowed (--max-drop); {left}"
            )


def _task_document(exported: Exported, task: str) -> dict[str, Any]:
    predicted = exported.model.architectures[task].cost.latency_ms
    architecture = exported.model.architectures[task]
    return {
        "macs": architecture.cost.macs,
        "params": architecture.cost.params,
        "latency_ms": {
            "predicted": None if predicted is None else predicted.value,
            "table": None if predicted is None else predicted.table,
            "measured": exported.latency_ms_p50,
            "engine": exported.engine_latency_ms_p50,
        },
        "metric": metric_document(exported, task),
    }


def metric_document(exported: Exported, task: str) -> dict[str, Any]:
    """A task's metric at every stage, as the manifest and ``--json`` have it."""
    stages = {stage: metrics[task] for stage, metrics in exported.metrics.items()}
    return {
        **asdict(exported.model.tasks[task].metric),
        "torch": stages["torch"],
        "onnxruntime": stages[exported.precision],
        "stages": stages,
        "drop": exported.drops[task],
        "max_drop": exported.max_drop,
        "resolution": list(exported.metric_size),
    }


def _engine_document(exported: Exported) -> dict[str, Any]:
    engine = exported.engine
    precision = {"requested": exported.precision, "kept_float": list(exported.kept_float)}
    if engine is None:
        return {"engine": None, "precision": precision}
    return {
        "engine": str(exported.folder / engine.file),
        "runtime": {"name": engine.runtime, "version": engine.version},
        "ran": engine.ran,
        "precision": {**precision, "layers": engine.layers, "layers_source": engine.layers_source},
        "shapes": [shapes.to_json() for shapes in engine.shapes],
        "warnings": list(engine.warnings),
    }
