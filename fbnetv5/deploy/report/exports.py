"""The exported folders inside of a run folder: latency, the metric at every precision stage, and parity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.manifest import Manifest
from latency.page.content import Item, Table, Text


def export_items(exports: Mapping[Path, Manifest]) -> list[Item]:
    """Tables of all exported networks; a sentence if there are none."""
    if not exports:
        return [
            Text(paragraphs=["No exported network lies in the run folder. fbnetv5 export makes them."], style="soft")
        ]
    return [_networks(exports), _stages(exports), _parity(exports)]


def _networks(exports: Mapping[Path, Manifest]) -> Table:
    rows = []
    for folder, manifest in exports.items():
        for task, document in manifest.architecture.items():
            cost = document.get("cost", {})
            predicted = cost.get("latency_ms") or {}
            rows.append(
                [
                    task,
                    folder.name,
                    manifest.precision,
                    f"{cost.get('macs', 0) / 1e6:.1f}",
                    _ms(predicted.get("value")),
                    predicted.get("table", "-"),
                    *(_ms(manifest.latency_ms.get(runtime)) for runtime in ("onnxruntime", "engine")),
                    manifest.machine or "-",
                ]
            )
    head = ["task", "folder", "precision", "multiply-adds, M", "predicted latency, ms", "by table"]
    head += ["measured, ONNX Runtime, ms", "measured, engine, ms", "measured on"]
    return Table(head=head, rows=rows, caption="Median latency at the deploy resolution, batch 1")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _stages(exports: Mapping[Path, Manifest]) -> Table:
    rows = []
    for manifest in exports.values():
        for task, metric in manifest.metrics.items():
            size = "x".join(map(str, metric.get("resolution", [])))
            stages = metric.get("stages", {})
            rows.append(
                [
                    task,
                    f"{metric.get('name', '')} at {size}",
                    ", ".join(f"{stage} {_score(value)}" for stage, value in stages.items()),
                    _score(metric.get("drop")),
                    "-" if metric.get("max_drop") is None else _score(metric["max_drop"]),
                ]
            )
    head = ["task", "metric", "at each precision stage", "drop from torch", "allowed drop"]
    return Table(head=head, rows=rows, caption="Metric on the test images")


def _score(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _parity(exports: Mapping[Path, Manifest]) -> Table:
    rows = [
        [
            f"{folder.name}: {row['output']}",
            str(row["stage"]),
            str(row["images"]),
            f"{row['error']:.2g}",
            "-" if row.get("sqnr_db") is None else f"{row['sqnr_db']:.1f}",
            "yes" if row.get("gated") else "no",
        ]
        for folder, manifest in exports.items()
        for row in manifest.parity
    ]
    head = ["output", "stage", "images", "max relative error", "SQNR, dB", "gated"]
    return Table(head=head, rows=rows, caption="Comparison of every precision stage with its reference")
