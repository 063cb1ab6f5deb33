"""The result of a run in one table: its networks with their costs and metrics, and whether a search saw a signal."""

from collections.abc import Mapping

from fbnetv5.architecture import Architecture
from fbnetv5.deploy.report.files import RunFiles
from fbnetv5.deploy.report.looks import metric_of
from latency.page.content import Item, Table, Text


def result_items(files: RunFiles) -> list[Item]:
    """A table of the networks of the result, and whether a search saw a signal."""
    if not files.architectures:
        return []
    rows = [row for name, network in files.architectures.items() for row in _network_rows(name, network, files)]
    head = ["task", "network", "multiply-adds, M", "parameters, M", "predicted latency", "metric", "value"]
    weak = [name for name, network in files.architectures.items() if not _has_signal(network)]
    sentence = (
        f"The search found no signal for {', '.join(weak)}: the losses of their panels do not show that it can rank "
        "networks. Treat such a network as a random network within the budget, or search longer."
    )
    warning = [Text(paragraphs=[sentence], style="warning")] if weak else []
    return [*warning, Table(head=head, rows=rows, caption="Result")]


def _has_signal(network: Architecture) -> bool:
    panel = network.provenance.get("panel")
    return not isinstance(panel, Mapping) or bool(panel.get("has_signal", True))


def _network_rows(name: str, network: Architecture, files: RunFiles) -> list[list[str]]:
    """A row per task; the costs of a network of several tasks are in its first row."""
    where, scores = (
        "held-out",
        {network.name: network.provenance.get("score"), **network.provenance.get("scores", {})},
    )
    if files.evaluation is not None:
        where = "test"
        scores = {task: of_task["test"]["metric"]["value"] for task, of_task in files.evaluation["tasks"].items()}
    costs = [f"{network.cost.macs / 1e6:.1f}", f"{network.cost.params / 1e6:.2f}", network.latency_text]
    return [
        [
            task,
            f"{name}.json",
            *(costs if number == 0 else [""] * len(costs)),
            f"{where} {metric_of(task).label}",
            number_text(scores.get(task)),
        ]
        for number, task in enumerate(network.choices)
    ]


def number_text(value: float | None) -> str:
    """A metric; "-" where there is none."""
    return "-" if value is None else f"{value:.4f}"
