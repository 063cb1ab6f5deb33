"""Describes networks block by block, and search spaces, for ``fbnetv5 show`` and ``fbnetv5 space``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.blocks.specs import InvertedResidual, PooledHead, Stem
from fbnetv5.costs.counting import Count, count
from fbnetv5.costs.ranges import cost_ranges
from fbnetv5.costs.tables import Counter, block_key, head_key
from fbnetv5.data.resolution import Resolution
from fbnetv5.deploy.tree import tree_lines
from fbnetv5.spaces.fbnetv3 import STRIDES, fbnetv3
from fbnetv5.spaces.space import Space
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.task import ClassNames

IMAGENET_CLASSES = 1000


def show(network: str) -> dict[str, Any]:
    """Describe a network.

    Args:
        network: name of a published network, "fbnetv3-a" to "fbnetv3-g", or path of an architecture file.

    Raises:
        UserError: there is no such network, or the file is refused.
    """
    path = Path(network)
    if path.suffix or path.exists():
        return show_architecture(load_architecture(path))
    return show_fbnetv3(network)


def show_fbnetv3(name: str) -> dict[str, Any]:
    """Describe a published network with 1000 classes, at the resolution of its published figures."""
    config = fbnetv3(name)
    side = config.resolution
    rows: list[dict[str, Any]] = []
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
    return {"name": name, "resolution": [side, side], **_totals(total + head), "blocks": rows}


def show_architecture(architecture: Architecture) -> dict[str, Any]:
    """Describe a searched network at its deploy resolution.

    "paths" lists the strides of the features that a head reads or that a live block of a later stage computes; "tree"
    the layers where the tasks of a branched network part.
    """
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
    skippable = {node.name for node in space.nodes if node.skippable}
    paths = {path for task in tasks.values() for path in task.paths}
    return {
        "name": f"{architecture.name} in {space.label}",
        "task": architecture.name,
        "resolution": list(size),
        **_totals(counter.graph(graph, tasks)),
        "latency_ms": None if architecture.cost.latency_ms is None else architecture.cost.latency_ms.to_json(),
        "paths": sorted({*paths, *(step.stride for step in graph.steps if step.stage > 0)}),
        "skippable": {"all": len(skippable), "live": len({step.node for step in graph.steps} & skippable)},
        "provenance": dict(architecture.provenance),
        "tree": tree_lines(architecture),
        "blocks": rows,
    }


def show_space(space: Space, classes: ClassNames, task_names: Sequence[str], resolution: Resolution) -> dict[str, Any]:
    """Describe a search space: its variables, its size, and the multiply-adds of each task's networks."""
    tasks = make_tasks(tuple(task_names), classes)
    counter = Counter(resolution)
    tables = {name: counter.table(space, task, "macs") for name, task in tasks.items()}
    bits = float(np.log2(np.array(space.choice_counts, dtype=np.float64)).sum())
    return {
        "space": space.to_json(),
        "resolution": list(resolution),
        "log2_architectures": bits,
        "variables": [{"name": variable.name, "choices": list(variable.choices)} for variable in space.variables],
        "macs": {
            costs.task: {"min": int(costs.min_cost), "expected": costs.expected, "max": int(costs.max_cost)}
            for costs in cost_ranges(tables)
        },
    }


def _totals(total: Count) -> dict[str, int]:
    return {"macs": total.macs, "params": total.params, "macs_conv": total.macs_conv, "macs_pool": total.macs_pool}


def _row(name: str, key: str, cost: Count, shape: Sequence[int] | None) -> dict[str, Any]:
    return {"name": name, "block": key, "macs": cost.macs, "params": cost.params, "output": shape}


def _output_side(block: Stem | InvertedResidual, side: int) -> int:
    """Height of a block's output. Some published networks have one strided convolution with unusual padding."""
    kernel = block.kernel if isinstance(block, InvertedResidual) else 3
    padding = block.padding if isinstance(block, InvertedResidual) else None
    return (side + 2 * (kernel // 2 if padding is None else padding) - kernel) // block.stride + 1
