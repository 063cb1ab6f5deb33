"""An exported folder as a value: what was written, what was measured of it, and the document that says so."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.engine import Engine
from export.ladder import Compared
from export.validate import ONNX
from fbnetv5.data.resolution import Resolution
from fbnetv5.deploy.export_model import Deliverable


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported folder and what was measured of it."""

    run: Path
    """The run folder it is from."""
    folder: Path
    deliverable: Deliverable
    precision: str
    compared: tuple[Compared, ...]
    """Rung by rung."""
    metrics: dict[str, dict[str, float]]
    """By rung, from torch down, then by task."""
    metric_size: Resolution
    """Of the test images."""
    max_drop: float | None
    kept_float: tuple[str, ...]
    """Patterns of names of nodes that int8 left alone."""
    latency_ms_p50: float
    """Of the ONNX file at the deploy resolution, batch 1, one thread of this processor."""
    engine: Engine | None = None
    engine_latency_ms_p50: float | None = None
    """Of the engine at the deploy resolution, batch 1, on this machine's GPU."""

    @property
    def drops(self) -> dict[str, float]:
        """By task, by how much the shipped network's metric is worse than torch's."""
        shipped, tasks = self.metrics[self.precision], self.deliverable.tasks
        return {name: tasks[name].metric.drop(first, shipped[name]) for name, first in self.metrics["torch"].items()}


def document(exported: Exported) -> dict[str, Any]:
    """The ``--json`` form of one export; of several tasks in one file, what is each task's own is by task."""
    given = exported.deliverable
    own = {task: _task_document(exported, task) for task in given.tasks}
    return {
        "task": ",".join(given.tasks),
        "folder": str(exported.folder),
        "onnx": str(exported.folder / ONNX),
        **_engine_document(exported),
        **(next(iter(own.values())) if given.sharing is None else {"tasks": own, "sharing": asdict(given.sharing)}),
        "parity": [entry for one in exported.compared for entry in one.to_json()],
    }


def _task_document(exported: Exported, task: str) -> dict[str, Any]:
    architecture = exported.deliverable.architectures[task]
    predicted = architecture.cost.latency_ms
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
    """A task's metric at every precision, as the manifest and ``--json`` have it."""
    rungs = {rung: found[task] for rung, found in exported.metrics.items()}
    return {
        **asdict(exported.deliverable.tasks[task].metric),
        "torch": rungs["torch"],
        "onnxruntime": rungs[exported.precision],
        "rungs": rungs,
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
        "precision": {**precision, "layers": engine.layers, "audited": engine.audited},
        "shapes": [asdict(one) for one in engine.shapes],
        "warnings": list(engine.warnings),
    }
