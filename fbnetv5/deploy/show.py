"""Describes networks block by block: ``fbnetv5.api.show``, which ``fbnetv5 show`` calls."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.files import AnyPath
from fbnetv5.architecture import Architecture, Latency, load_architecture
from fbnetv5.blocks.specs import InvertedResidual, PooledHead, Stem
from fbnetv5.costs.counting import Count, count
from fbnetv5.costs.tables import Counter, block_key, head_key
from fbnetv5.deploy.tree import tree_lines
from fbnetv5.spaces.fbnetv3 import STRIDES, fbnetv3

IMAGENET_CLASSES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDescription:
    """One live block, or the head, of a network."""

    name: str
    """Its place in the network, such as "s1_p8_0"."""
    block: str
    """Key of the block, as latency tables have it."""
    macs: int
    """Multiply-adds."""
    params: int
    output: tuple[int, ...] | None
    """Shape (C, H, W); None for the head of a searched network."""

    def to_json(self) -> dict[str, Any]:
        """A row of the document."""
        return {**asdict(self), "output": None if self.output is None else list(self.output)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedDetails:
    """What only the network of a search has."""

    task: str
    """The task, or the tasks, such as "cls+det"."""
    latency_ms: Latency | None
    """Predicted by a latency table, in milliseconds; None without one."""
    quantities: Mapping[str, float]
    """Costs by cost files, by the unit of their budgets, such as "energy_mJ"."""
    peak_activation_bytes: int | None
    """Peak activation memory, where a search had a limit of it."""
    paths: tuple[int, ...]
    """Strides of the features that a head reads or that a live block of a later stage computes."""
    skippable_all: int
    """Number of skippable blocks of the space."""
    skippable_live: int
    """How many of them the network keeps."""
    provenance: Mapping[str, Any]
    """Origin: version, seed, budget, score."""
    tree: tuple[str, ...]
    """Lines on the layers where the tasks of a branched network part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDescription:
    """A network, block by block, at its deploy resolution."""

    name: str
    resolution: tuple[int, int]
    """(height, width) in pixels."""
    total: Count
    """Multiply-adds and parameters of the whole network, head included."""
    blocks: tuple[BlockDescription, ...]
    """In running order."""
    searched: SearchedDetails | None = None
    """Of an architecture file; None for a published network."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 show --json``."""
        document = {"name": self.name, "resolution": list(self.resolution), **_totals(self.total)}
        if (searched := self.searched) is not None:
            document = {"name": self.name, "task": searched.task, **document} | {
                "latency_ms": None if searched.latency_ms is None else searched.latency_ms.to_json(),
                **({"quantities": dict(searched.quantities)} if searched.quantities else {}),
                **({} if (peak := searched.peak_activation_bytes) is None else {"peak_activation_bytes": peak}),
                "paths": list(searched.paths),
                "skippable": {"all": searched.skippable_all, "live": searched.skippable_live},
                "provenance": dict(searched.provenance),
                "tree": list(searched.tree),
            }
        return document | {"blocks": [block.to_json() for block in self.blocks]}


def show(network: AnyPath) -> NetworkDescription:
    """Describe a network block by block.

    Examples:
        >>> api.show("fbnetv3-a").total.macs
        356598280

    Args:
        network: name of a published network, "fbnetv3-a" to "fbnetv3-g", or path of an architecture file.

    Raises:
        UserError: there is no such network, or the file is refused.
    """
    path = Path(network)
    if path.suffix or path.exists():
        return show_architecture(load_architecture(path))
    return show_fbnetv3(str(network))


def show_fbnetv3(name: str) -> NetworkDescription:
    """Describe a published network with 1000 classes, at the resolution of its published figures."""
    config = fbnetv3(name)
    side = config.resolution
    rows: list[BlockDescription] = []
    total = Count()
    channels, height = 3, side
    for partition, stride in zip(config.partitions(), STRIDES, strict=True):
        for number, block in enumerate(partition):
            block_count = count(block.build, block.input_shapes(height, height))
            height = _output_side(block, height)
            channels = block.out_channels
            rows.append(_row(f"p{stride}_{number}", block.key, block_count, [channels, height, height]))
            total += block_count
    head = count(lambda: PooledHead(channels, IMAGENET_CLASSES), [(channels, height, height)])
    rows.append(_row("head", f"head_cls_c{channels}_n{IMAGENET_CLASSES}", head, [IMAGENET_CLASSES]))
    return NetworkDescription(name=name, resolution=(side, side), total=total + head, blocks=tuple(rows))


def show_architecture(architecture: Architecture) -> NetworkDescription:
    """Describe a searched network at its deploy resolution."""
    space, size, graph, tasks = (
        architecture.space,
        architecture.resolution,
        architecture.graph,
        architecture.make_tasks(),
    )
    counter = Counter(size)
    rows = [
        _row(
            step.name,
            block_key(step.block, step.stride, size),
            counter.block(step.block, step.stride),
            [step.block.out_channels, size[0] // step.stride, size[1] // step.stride],
        )
        for step in graph.steps
    ]
    for name, task in tasks.items():
        channels = graph.channels(name)
        row = "head" if len(tasks) == 1 else f"head_of_{name}"
        rows.append(_row(row, head_key(task, channels, size), counter.head(task, channels), None))
    return NetworkDescription(
        name=f"{architecture.name} in {space.label}",
        resolution=size,
        total=counter.graph(graph, tasks),
        blocks=tuple(rows),
        searched=_searched(architecture),
    )


def _searched(architecture: Architecture) -> SearchedDetails:
    steps = architecture.graph.steps
    skippable = {node.name for node in architecture.space.nodes if node.skippable}
    paths = {path for task in architecture.make_tasks().values() for path in task.paths}
    return SearchedDetails(
        task=architecture.name,
        latency_ms=architecture.cost.latency_ms,
        quantities=architecture.cost.quantities,
        peak_activation_bytes=architecture.cost.peak_activation_bytes,
        paths=tuple(sorted({*paths, *(step.stride for step in steps if step.stage > 0)})),
        skippable_all=len(skippable),
        skippable_live=len({step.node for step in steps} & skippable),
        provenance=dict(architecture.provenance),
        tree=tuple(tree_lines(architecture)),
    )


def _totals(total: Count) -> dict[str, int]:
    return {"macs": total.macs, "params": total.params, "macs_conv": total.macs_conv, "macs_pool": total.macs_pool}


def _row(name: str, key: str, cost: Count, shape: Sequence[int] | None) -> BlockDescription:
    output = None if shape is None else tuple(shape)
    return BlockDescription(name=name, block=key, macs=cost.macs, params=cost.params, output=output)


def _output_side(block: Stem | InvertedResidual, side: int) -> int:
    """Height of a block's output. Some published networks have one strided convolution with unusual padding."""
    kernel = block.kernel if isinstance(block, InvertedResidual) else 3
    padding = block.padding if isinstance(block, InvertedResidual) else None
    return (side + 2 * (kernel // 2 if padding is None else padding) - kernel) // block.stride + 1
