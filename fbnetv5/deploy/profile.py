"""What ``fbnetv5 profile`` measures, each distinct block and head of a space; and its HTML report and document."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from export.files import atomic_write_text
from fbnetv5.costs.graphs import block_graph, head_graph
from fbnetv5.costs.tables import Counter, block_key, head_key
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.spaces.space import Space
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.task import ClassNames, Task
from latency.html_report import render
from latency.plots import BlockFacts
from latency.profile import Graph, ProfileResult
from latency.table import LatencyTable


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The space, tasks, classes and resolution of a table."""

    space: Space
    tasks: tuple[str, ...]
    classes: ClassNames
    resolution: Resolution
    """The deploy resolution."""

    @cached_property
    def built_tasks(self) -> tuple[Task, ...]:
        """The tasks, made for these classes."""
        return tuple(make_tasks(self.tasks, self.classes).values())


def graphs_of(scope: Scope) -> list[Graph]:
    """List every distinct block of the space and every head of every task; keys are those of the table."""
    resolution = check_resolution(scope.resolution)
    graphs: dict[str, Graph] = {}
    for node in scope.space.nodes:
        for block in node.candidates:
            graph = block_graph(block, node.stride, resolution)
            graphs.setdefault(graph.key, graph)
    for task in scope.built_tasks:
        for channels in scope.space.possible_widths(task.paths):
            graph = head_graph(task, channels, resolution)
            graphs[graph.key] = graph
    return list(graphs.values())


def block_facts(scope: Scope) -> list[BlockFacts]:
    """List strides, stages and multiply-adds of every block and head of ``graphs_of``, for the HTML report."""
    counter = Counter(scope.resolution)
    facts: dict[str, BlockFacts] = {}
    stages: dict[str, set[int]] = {}
    for node in scope.space.nodes:
        for block in node.candidates:
            key = block_key(block, node.stride, scope.resolution)
            stages.setdefault(key, set()).add(node.stage)
            facts[key] = BlockFacts(
                key=key,
                strides=(node.stride,),  # one stride per key, because the key contains the resolution
                stages=tuple(sorted(stages[key])),
                macs=counter.block(block, node.stride).macs,
            )
    for task in scope.built_tasks:
        for channels in scope.space.possible_widths(task.paths):
            key, macs = head_key(task, channels, scope.resolution), counter.head(task, channels).macs
            facts[key] = BlockFacts(key=key, strides=task.paths, stages=(), macs=macs)
    return list(facts.values())


def write_report(path: Path, table: LatencyTable, scope: Scope) -> Path:
    """Write the HTML report of the table beside its file ``path``; returns the path of the report."""
    report = path.with_suffix(".html")
    atomic_write_text(report, render(table, block_facts(scope)))
    return report


def document(result: ProfileResult, keys: Sequence[str]) -> dict[str, Any]:
    """The ``--json`` document of the measured blocks with these keys."""
    table = result.table
    return {
        "device": table.device,
        "threads": table.threads,
        "measured": len(result.measured),
        "overhead_ms": table.overhead_ms,
        "unstable": table.unstable,
        "kind": table.values_kind,
        "latency_ms": table.values_ms(keys),
        "latency_ms_p50": {key: table.entries[key].latency_ms_median for key in keys},
        "held_out": None if table.correction is None else table.correction.held_out.to_json(),
    }
