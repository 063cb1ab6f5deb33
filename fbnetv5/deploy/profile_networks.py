"""The whole networks that ``fbnetv5 profile`` measures: random networks of a space, and the networks of a run.

In a branching space a network is a tree that serves all tasks and has the outputs of all; in any other space it serves
one task. In the table, the task of a tree is the names of all its tasks, such as "cls+det".
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from export.errors import UserError
from export.files import read_json
from fbnetv5.architecture import Architecture, load_architecture, shared_graph
from fbnetv5.costs.tables import CostTable, block_key, head_key
from fbnetv5.costs.tables import Counter as CostCounter
from fbnetv5.deploy.profile import Scope
from fbnetv5.networks.backbone import Network as BuiltNetwork
from fbnetv5.runs.folder import file_name, networks_of
from fbnetv5.search.bmtas.prepare import tree_costs
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.space import Choices
from latency.correction import MIN_NETWORKS
from latency.profile import Network
from latency.table import LatencyTable

DRAWS = 256
"""Number of random architectures; the one nearest to a random budget is used."""
TREES = 16
"""The same number for trees, whose costs are spread more evenly."""

TaskChoices = Mapping[str, Choices]
"""Task -> its choices [S], of every task that a network serves."""


def networks_to_fit(scope: Scope, count: int, *, or_all: bool = False) -> list[Network]:
    """Draw the networks on which a table is corrected: always the same, so that a profile can be resumed.

    Args:
        scope: of the table.
        count: number of networks.
        or_all: draw all networks of a space that has fewer, if they are enough for a correction.

    Raises:
        UserError: the space has fewer networks, or with ``or_all`` fewer than a correction needs.
    """
    networks = _networks(scope, count, np.random.default_rng(0))
    if not or_all:
        return _exactly(count, networks)
    if len(networks) < MIN_NETWORKS:
        raise UserError(
            f"a correction needs at least {MIN_NETWORKS} measured networks, and this space has {len(networks)}; "
            "leave the correction out with --networks 0"
        )
    return networks


def fresh_networks(scope: Scope, count: int, excluded: Sequence[Network] = ()) -> list[Network]:
    """Draw new random networks to verify a table with, without the excluded ones.

    Raises:
        UserError: ``count`` is below two, or the space has fewer networks.
    """
    if count < 2:
        raise UserError(f"a table is compared with at least 2 networks, not {count}")
    keys = {network.key for network in excluded}
    return _exactly(count, _networks(scope, count, np.random.default_rng(), keys))


def networks_of_table(scope: Scope, table: LatencyTable) -> list[Network]:
    """The networks to fit of this scope that the table has, to measure them again."""
    drawn = _networks(scope, len(table.networks), np.random.default_rng(0))
    return [network for network in drawn if network.key in table.networks]


def found_networks(run: Path) -> tuple[Scope, list[Network]]:
    """Load the networks that a run found, in their deployed form; and the scope of a table that has their blocks.

    Of a branched network there are also the other trees of ``pareto.json``, and the trees in which all tasks share
    every layer and in which they share none.

    Raises:
        UserError: the run has fewer than two networks, or one of its files is damaged.
    """
    records = [load_architecture(run / f"{file_name(run, tasks)}.json") for tasks in networks_of(run)]
    first = records[0]
    scope = Scope(
        space=first.space,
        tasks=tuple(dict.fromkeys(task for architecture in records for task in architecture.choices)),
        classes=first.classes,
        resolution=first.resolution,
    )
    choices = [(architecture, _arrays(architecture.choices)) for architecture in records]
    if isinstance(first.space, BranchingSpace):
        choices += [(first, tree) for tree in _other_trees(run, first)]
    counters = {architecture.resolution: CostCounter(architecture.resolution) for architecture in records}
    networks = [_network(_scope_of(record), each, counters[record.resolution]) for record, each in choices]
    distinct = {network.key: network for network in networks}
    if len(distinct) < 2:
        raise UserError(f"a table is compared with at least 2 networks, and {run} has {len(distinct)}")
    return scope, list(distinct.values())


def _scope_of(record: Architecture) -> Scope:
    return Scope(space=record.space, tasks=tuple(record.choices), classes=record.classes, resolution=record.resolution)


def _arrays(choices: Mapping[str, Sequence[int]]) -> TaskChoices:
    return {task: np.array(of_task, dtype=np.int64) for task, of_task in choices.items()}


def _other_trees(run: Path, record: Architecture) -> list[TaskChoices]:
    """The trees of the run's ``pareto.json``, where it has one, and the two extreme trees.

    Raises:
        UserError: ``pareto.json`` is damaged or of other tasks.
    """
    layers, path = len(record.space.variables), run / "pareto.json"
    extremes = [{task: (number * apart,) * layers for number, task in enumerate(record.choices)} for apart in (0, 1)]
    points = read_json(path, what="trees", schema=(1,)).get("points") if path.exists() else []
    try:
        trees = [*extremes, *(point["choices"] for point in points or ())]
        return [_arrays(record.changed(choices=tree).choices) for tree in trees]
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _networks(scope: Scope, count: int, rng: np.random.Generator, excluded: Collection[str] = ()) -> list[Network]:
    """Draw up to ``count`` distinct networks in their deployed form, near random budgets from min to max cost."""
    counter = CostCounter(scope.resolution)
    draw = _trees if isinstance(scope.space, BranchingSpace) else _in_turn
    networks: dict[str, Network] = {}
    for choices in islice(draw(scope, counter, rng), 20 * count):
        if len(networks) == count:
            break
        network = _network(scope, choices, counter)
        if network.key not in excluded:
            networks.setdefault(network.key, network)
    return list(networks.values())


def _exactly(count: int, networks: list[Network]) -> list[Network]:
    """The networks; raises UserError if there are fewer than ``count``."""
    if len(networks) < count:
        raise UserError(
            f"this space has fewer than {count} different networks to measure, about {len(networks)}; ask for fewer "
            "with --networks"
        )
    return networks


def _in_turn(scope: Scope, counter: CostCounter, rng: np.random.Generator) -> Iterator[TaskChoices]:
    """Endless random networks of one task each, the tasks in turn."""
    tables = {task.name: counter.table(scope.space, task, "macs") for task in scope.built_tasks}
    while True:
        for name, table in tables.items():
            yield {name: _near_random_budget(table, rng)}


def _near_random_budget(table: CostTable, rng: np.random.Generator) -> Choices:
    """Choose from ``DRAWS`` architectures, nearly empty to nearly full, the one nearest to a uniform budget: [S]."""
    budget = rng.uniform(table.min_cost, table.max_cost)
    counts = np.array(table.space.choice_counts)
    first = rng.random((DRAWS, len(counts))) >= rng.random((DRAWS, 1))  # the choices of the lowest cost
    drawn = np.where(first, 0, rng.integers(1, counts, size=first.shape))
    nearest: Choices = drawn[np.abs(table(drawn) - budget).argmin()]
    return nearest


def _trees(scope: Scope, counter: CostCounter, rng: np.random.Generator) -> Iterator[TaskChoices]:
    """Endless random trees of all tasks, each the nearest of ``TREES`` to a uniform budget."""
    space, tasks = scope.space, {task.name: task for task in scope.built_tasks}
    assert isinstance(space, BranchingSpace)
    tables = {name: counter.table(space, task, "macs") for name, task in tasks.items()}
    costs = tree_costs(space, tasks, tables)
    while True:
        budget = rng.uniform(costs.all_shared, costs.all_separate)
        trees = [random_tree(len(tasks), len(space.layers), rng) for _ in range(TREES)]
        nearest = min(trees, key=lambda tree: abs(costs.of([tuple(groups) for groups in tree.T.tolist()]) - budget))
        yield dict(zip(tasks, nearest, strict=True))


def random_tree(tasks: int, layers: int, rng: np.random.Generator) -> Choices:
    """A random tree, [T, L]: by task and layer the first task of its group.

    The tasks part in T - 1 splits of a group into two, each before a uniformly drawn layer, or after the last.
    """
    groups = np.zeros((tasks, layers), dtype=np.int64)
    for layer in np.sort(rng.integers(layers + 1, size=tasks - 1)):
        if layer == layers:
            break
        of_tasks = groups[:, layer]
        whole = [group for group in np.unique(of_tasks) if (of_tasks == group).sum() > 1]
        members = np.flatnonzero(of_tasks == rng.choice(whole))
        parting = rng.permutation(members[1:])[: rng.integers(1, len(members))]
        groups[parting, layer:] = parting.min()
    return groups


def _network(scope: Scope, choices: TaskChoices, counter: CostCounter) -> Network:
    """A network of the tasks in ``choices`` in its deployed form."""
    tasks = {task.name: task for task in scope.built_tasks if task.name in choices}
    graph, resolution = shared_graph(scope.space, tasks, choices), scope.resolution
    heads = [head_key(task, graph.channels(name), resolution) for name, task in tasks.items()]
    blocks = [*(block_key(step.block, step.stride, resolution) for step in graph.steps), *heads]
    connections = [(step.name, step.inputs) for step in graph.steps]
    name = "+".join(tasks)
    prefixes = [""] if len(tasks) == 1 else [f"{task}_" for task in tasks]
    return Network(
        key=f"{name}@{resolution[0]}x{resolution[1]}_{_digest([*blocks, connections])}",
        build=lambda: BuiltNetwork(tasks, graph),
        input_shapes=((3, *resolution),),
        output_names=tuple(
            f"{prefix}{output}"
            for prefix, task in zip(prefixes, tasks.values(), strict=True)
            for output in task.output_names
        ),
        task=name,
        blocks=dict(Counter(blocks)),
        macs=counter.graph(graph, tasks).macs,
    )


def _digest(parts: Iterable[object]) -> str:
    """A hash of the parts as 12 hexadecimal digits; 48 bits are enough for some hundred networks."""
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:12]
