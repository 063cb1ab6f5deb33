"""The graphs that ``fbnetv5 profile`` measures: each distinct block and head of a space, and networks of all tasks."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import UserError
from export.files import atomic_write_text
from fbnetv5.architecture import load_architecture
from fbnetv5.blocks.specs import Block
from fbnetv5.costs.tables import CostTable, DeployedHead, block_key, block_shapes, head_key, head_shapes
from fbnetv5.costs.tables import Counter as CostCounter
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.networks.backbone import task_network
from fbnetv5.runs.folder import file_name, networks_of
from fbnetv5.spaces.space import SKIP, Choices, Space
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.task import ClassNames, Task
from latency.html_report import render
from latency.plots import BlockFacts
from latency.profile import Graph, Network, ProfileResult
from latency.table import LatencyTable

DRAWS = 256
"""Number of random architectures; the one nearest to a random budget is used."""


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
    """List every distinct block of the space and the head of every task; keys are those of the table."""
    resolution = check_resolution(scope.resolution)
    graphs: dict[str, Graph] = {}
    for node in scope.space.nodes:
        for block in node.candidates:
            graph = _block_graph(block, node.stride, resolution)
            graphs.setdefault(graph.key, graph)
    for task in scope.built_tasks:
        graph = _head_graph(task, scope.space, resolution)
        graphs[graph.key] = graph
    return list(graphs.values())


def block_facts(scope: Scope) -> list[BlockFacts]:
    """List strides, stages and multiply-adds of every block and head of ``graphs_of``, for the HTML report."""
    counter = CostCounter(scope.resolution)
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
        channels = scope.space.channels(task.paths)
        key, macs = head_key(task, channels, scope.resolution), counter.head(task, channels).macs
        facts[key] = BlockFacts(key=key, strides=task.paths, stages=(), macs=macs)
    return list(facts.values())


def write_report(path: Path, table: LatencyTable, scope: Scope) -> Path:
    """Write the HTML report of the table beside its file ``path``; returns the path of the report."""
    report = path.with_suffix(".html")
    atomic_write_text(report, render(table, block_facts(scope)))
    return report


def networks_to_fit(scope: Scope, count: int) -> list[Network]:
    """Draw the networks on which a table is corrected: always the same, so that a profile can be resumed."""
    return _networks(scope, count, np.random.default_rng(0))


def fresh_networks(scope: Scope, count: int, excluded: Sequence[Network] = ()) -> list[Network]:
    """Draw new random networks to verify a table with, without the excluded ones.

    Raises:
        UserError: ``count`` is below two.
    """
    if count < 2:
        raise UserError(f"a table is compared with at least 2 networks, not {count}")
    return _networks(scope, count, np.random.default_rng(), {network.key for network in excluded})


def found_networks(run: Path) -> list[Network]:
    """Load the networks that a search found, in their deployed form.

    Raises:
        UserError: the run has fewer than two networks or one for several tasks, or one of its files is damaged.
    """
    architectures = [load_architecture(run / f"{file_name(run, tasks)}.json") for tasks in networks_of(run)]
    if len(architectures) < 2:
        raise UserError(f"a table is compared with at least 2 networks, and {run} has {len(architectures)}")
    networks = []
    for architecture in architectures:
        task, resolution = architecture.make_task(), architecture.resolution
        table = CostCounter(resolution).table(architecture.space, task, "macs")
        networks.append(_network(task, table, architecture.choices_array, resolution))
    return networks


def _networks(scope: Scope, count: int, rng: np.random.Generator, excluded: Collection[str] = ()) -> list[Network]:
    """Draw distinct networks in their deployed form, the tasks in turn, near random budgets from min to max cost.

    Raises:
        UserError: the space has fewer networks.
    """
    tasks, resolution = scope.built_tasks, scope.resolution
    counter = CostCounter(resolution)
    tables = [counter.table(scope.space, task, "macs") for task in tasks]
    networks: dict[str, Network] = {}
    for draw in range(20 * count):
        if len(networks) == count:
            break
        task, table = tasks[draw % len(tasks)], tables[draw % len(tasks)]
        network = _network(task, table, _near_random_budget(table, rng), resolution)
        if network.key not in excluded:
            networks.setdefault(network.key, network)
    if len(networks) == count:
        return list(networks.values())
    raise UserError(f"this space has fewer than {count} different networks to measure; ask for fewer with --networks")


def _near_random_budget(table: CostTable, rng: np.random.Generator) -> Choices:
    """Choose from ``DRAWS`` architectures, nearly empty to nearly full, the one nearest to a uniform budget: [S]."""
    budget = rng.uniform(table.min_cost, table.max_cost)
    counts = np.array(table.space.choice_counts)
    kept = rng.random((DRAWS, len(counts))) < rng.random((DRAWS, 1))
    drawn = np.where(kept, rng.integers(1, counts, size=(DRAWS, len(counts))), SKIP)
    nearest: Choices = drawn[np.abs(table(drawn) - budget).argmin()]
    return nearest


def _network(task: Task, table: CostTable, choices: Choices, resolution: Resolution) -> Network:
    space = table.space
    steps = space.graph(choices, {task.name: task.paths}).steps
    head = head_key(task, space.channels(task.paths), resolution)
    blocks = [*(block_key(step.block, step.stride, resolution) for step in steps), head]
    connections = [(step.name, step.inputs) for step in steps]
    return Network(
        key=f"{task.name}@{resolution[0]}x{resolution[1]}_{_digest([*blocks, connections])}",
        build=lambda: task_network(task, space, choices),
        input_shapes=((3, *resolution),),
        output_names=task.output_names,
        task=task.name,
        blocks=dict(Counter(blocks)),
        macs=int(table.cost_of(choices)),
    )


def _digest(parts: Iterable[object]) -> str:
    """A hash of the parts as 12 hexadecimal digits; 48 bits are enough for some hundred networks."""
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:12]


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


def _block_graph(block: Block, stride: int, resolution: Resolution) -> Graph:
    return Graph(
        key=block_key(block, stride, resolution),
        build=block.build,
        input_shapes=block_shapes(block, stride, resolution),
        output_names=("output",),
    )


def _head_graph(task: Task, space: Space, resolution: Resolution) -> Graph:
    channels = space.channels(task.paths)
    return Graph(
        key=head_key(task, channels, resolution),
        build=lambda: DeployedHead(task, channels),
        input_shapes=head_shapes(task, channels, resolution),
        output_names=task.output_names,
    )
