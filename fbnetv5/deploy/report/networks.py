"""The networks that a run found, as diagrams: live blocks on their paths, and for trees the layers where tasks part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv5.architecture import Architecture
from fbnetv5.deploy.report.looks import line, look
from fbnetv5.deploy.show import show_architecture
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.graph import Node, Step
from latency.page.content import Figure, Table
from latency.page.plots import GRID, INK, PAPER, SCALE, SOFT, axis, colour, colour_bar, make_plot, plain, scatter

LANE = 0.09
"""Distance between the lines of two tasks that share a block, in rows of the diagram."""
MIN_SIZE, MAX_SIZE = 8, 16
"""Pixels of the marks of the narrowest and the widest block."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a diagram has its marks."""

    steps: Mapping[str, Point]
    """By name of a step of the graph."""
    skipped: Mapping[str, Point]
    """By name of a node that does not run."""
    heads: Mapping[str, Point]
    """By task."""
    rows: Mapping[float, str]
    """Labels of the vertical axis."""
    columns: str
    """Title of the horizontal axis."""


def network_figure(name: str, architecture: Architecture) -> Figure:
    """The diagram of one network, with a table of its blocks."""
    shown = show_architecture(architecture).to_json()
    branching = isinstance(architecture.space, BranchingSpace)
    layout = _tree_layout(architecture) if branching else _path_layout(architecture)
    tasks = list(architecture.choices)
    traces = [_lines(architecture, layout, task, tasks) for task in tasks]
    traces += [_skipped(layout)] if layout.skipped else []
    traces += [_blocks(architecture, layout, shown), _heads(architecture, layout, shown)]
    rows = len(layout.rows)
    plot = make_plot(
        traces,
        x=axis(layout.columns, showgrid=False, zeroline=False, showticklabels=branching),
        y=axis(
            "" if branching else "path",
            tickvals=list(layout.rows),
            ticktext=[plain(text) for text in layout.rows.values()],
            zeroline=False,
            range=[min(layout.rows) - 0.7, max(layout.rows) + 0.7],
        ),
        height=120 + 46 * max(rows, 2),
        legend=len(tasks) > 1,
    )
    return Figure(
        title=f"Network {name}: {shown['macs'] / 1e6:.1f}M multiply-adds, {shown['params'] / 1e6:.2f}M parameters",
        caption=_caption(architecture, shown),
        plot=plot,
        table=blocks_table(shown),
        wide=True,
    )


def blocks_table(shown: Mapping[str, Any]) -> Table:
    """The blocks of a network in running order; ``shown`` is the document of ``show_architecture``."""
    rows = [
        [
            row["name"],
            row["block"],
            "x".join(map(str, row["output"] or [])) or "-",
            f"{row['macs'] / 1e6:.3f}",
            f"{row['macs'] / shown['macs']:.1%}",
            f"{row['params'] / 1e6:.4f}",
        ]
        for row in shown["blocks"]
    ]
    return Table(head=["position", "block", "output", "multiply-adds, M", "share", "parameters, M"], rows=rows)


def _caption(architecture: Architecture, shown: Mapping[str, Any]) -> str:
    how = "A mark is a live block: a larger one has a wider output, and its colour is its share of the multiply-adds."
    if shown["tree"]:
        return f"{how} Tasks that share a block run through it side by side. {'; '.join(shown['tree'])}."
    live = shown["skippable"]
    count = (
        f" {live['live']} of {live['all']} blocks that may be skipped are live; dots are skipped."
        if live["all"]
        else ""
    )
    return f"{how}{count} Diamonds are heads. In {architecture.space.label}."


def _path_layout(architecture: Architecture) -> Layout:
    """Stage 0 from left to right, then the paths of every later stage below each other."""
    places = _places(architecture.space.nodes)
    graph, tasks = architecture.graph, list(architecture.choices)
    live = {step.node for step in graph.steps}
    skipped = {node.name: places[node.name] for node in architecture.space.nodes if node.name not in live}
    steps = {
        step.name: (places[step.node][0], places[step.node][1] + _offset(step.tasks, tasks, 0.28))
        for step in graph.steps
    }
    last = max(x for x, _ in places.values())
    heads = {
        task: (
            last + 2.0,
            float(np.mean([steps[name][1] for name in graph.features[task]])) + _offset([task], tasks, 0.5),
        )
        for task in tasks
    }
    strides = sorted({node.stride for node in architecture.space.nodes})
    rows = {-float(row): f"1/{stride}" for row, stride in enumerate(strides)}
    return Layout(steps=steps, skipped=skipped, heads=heads, rows=rows, columns="blocks in running order")


def _places(nodes: Sequence[Node]) -> dict[str, Point]:
    """By node: its column, and its row by stride."""
    strides = sorted({node.stride for node in nodes})
    places: dict[str, Point] = {}
    start, used = 0, dict[int, int]()
    stage = nodes[0].stage
    for number, node in enumerate(nodes):
        if node.stage != stage:
            start, stage, used = 1 + int(max(x for x, _ in places.values())), node.stage, {}
        column = number if node.stage == nodes[0].stage else start + 1 + used.get(node.stride, 0)
        used[node.stride] = used.get(node.stride, 0) + 1
        places[node.name] = (float(column), -float(strides.index(node.stride)))
    return places


def _tree_layout(architecture: Architecture) -> Layout:
    """Layers from left to right; a branch lies in the middle of its tasks' rows."""
    order = sorted(architecture.choices, key=lambda task: _first_groups(architecture, task))
    columns = {node.name: float(number) for number, node in enumerate(architecture.space.nodes)}

    def row(tasks: Sequence[str]) -> float:
        return -float(np.mean([order.index(task) for task in tasks]))

    steps = {step.name: (columns[step.node], row(step.tasks)) for step in architecture.graph.steps}
    heads = {task: (max(columns.values()) + 1.5, row([task])) for task in order}
    return Layout(
        steps=steps, skipped={}, heads=heads, rows={row([task]): task for task in order}, columns="layer of the encoder"
    )


def _first_groups(architecture: Architecture, task: str) -> tuple[int, ...]:
    """A sort key that puts tasks that share more layers closer together: by layer, the first task of the group."""
    choices = architecture.choices
    tasks = list(choices)
    return tuple(
        next(number for number, other in enumerate(tasks) if choices[other][layer] == group)
        for layer, group in enumerate(choices[task])
    )


def _offset(tasks: Sequence[str], order: Sequence[str], distance: float) -> float:
    """How far a block of some of the tasks lies from the middle of its row."""
    middle = (len(order) - 1) / 2
    return distance / max(1, len(order)) * (middle - float(np.mean([order.index(task) for task in tasks])))


def _lines(architecture: Architecture, layout: Layout, task: str, tasks: Sequence[str]) -> Any:
    """What a task's network passes from block to block; lines of several tasks run side by side."""
    graph = architecture.graph
    order = sorted(tasks, key=lambda other: -layout.heads[other][1])
    ends = {
        step.name: _shifted(layout.steps[step.name], LANE * _lane(task, [o for o in order if o in step.tasks]))
        for step in graph.steps
        if task in step.tasks
    }
    pairs = [(ends[name], ends[step.name]) for step in graph.steps if task in step.tasks for name in step.inputs]
    pairs += [(ends[name], layout.heads[task]) for name in graph.features[task]]
    xs = [x for begin, end in pairs for x in (begin[0], end[0], None)]
    ys = [y for begin, end in pairs for y in (begin[1], end[1], None)]
    return scatter(
        xs,
        ys,
        name=task,
        mode="lines",
        line=line(task, width=2.2 if len(tasks) > 1 else 1.4, dash="solid"),
        hoverinfo="skip",
    )


def _lane(task: str, together: Sequence[str]) -> float:
    """The number of a task's line, counted from the middle of the lines that run through a block; upper ones first."""
    return (len(together) - 1) / 2 - together.index(task)


def _shifted(point: Point, distance: float) -> Point:
    return point[0], point[1] + distance


def _skipped(layout: Layout) -> Any:
    points = list(layout.skipped.values())
    return scatter(
        [x for x, _ in points],
        [y for _, y in points],
        name="skipped",
        mode="markers",
        marker={"size": 4, "color": GRID, "line": {"color": SOFT, "width": 0.6}},
        text=[f"{plain(name)}: skipped" for name in layout.skipped],
        hoverinfo="text",
        showlegend=False,
    )


def _blocks(architecture: Architecture, layout: Layout, shown: Mapping[str, Any]) -> Any:
    rows = {row["name"]: row for row in shown["blocks"]}
    steps = [step for step in architecture.graph.steps if step.name in rows]
    shares = [100 * rows[step.name]["macs"] / shown["macs"] for step in steps]
    return scatter(
        [layout.steps[step.name][0] for step in steps],
        [layout.steps[step.name][1] for step in steps],
        name="block",
        mode="markers",
        marker={
            "symbol": "square",
            "size": _sizes([step.block.out_channels for step in steps]),
            "color": shares,
            "colorscale": [list(stop) for stop in SCALE],
            "cmin": 0,
            "line": {"color": INK, "width": 0.7},
            "colorbar": colour_bar("share, %"),
        },
        text=[_block_text(step, rows[step.name], share) for step, share in zip(steps, shares, strict=True)],
        hoverinfo="text",
        showlegend=False,
    )


def _sizes(widths: Sequence[int]) -> list[float]:
    """Pixels of the marks, by the logarithm of the width."""
    logs = np.log(np.array(widths, dtype=np.float64))
    span = max(float(logs.max() - logs.min()), 1e-9)
    sizes: list[float] = (MIN_SIZE + (MAX_SIZE - MIN_SIZE) * (logs - logs.min()) / span).round(1).tolist()
    return sizes


def _block_text(step: Step, row: Mapping[str, Any], share: float) -> str:
    output = "x".join(map(str, row["output"]))
    return (
        f"<b>{plain(step.name)}</b> ({plain(', '.join(step.tasks))})<br>{plain(row['block'])}<br>output {output}<br>"
        f"{row['macs'] / 1e6:.3f}M multiply-adds, {share:.1f} %<br>{row['params'] / 1e6:.4f}M parameters"
    )


def _heads(architecture: Architecture, layout: Layout, shown: Mapping[str, Any]) -> Any:
    tasks = list(architecture.choices)
    rows = {row["name"]: row for row in shown["blocks"]}
    of_task = {task: rows["head" if len(tasks) == 1 else f"head_of_{task}"] for task in tasks}
    return scatter(
        [layout.heads[task][0] for task in tasks],
        [layout.heads[task][1] for task in tasks],
        name="head",
        mode="markers",
        marker={
            "symbol": "diamond",
            "size": 15,
            "color": [colour(look(task)) for task in tasks],
            "line": {"color": PAPER, "width": 1},
        },
        text=[
            f"<b>head of {plain(task)}</b><br>{row['macs'] / 1e6:.3f}M multiply-adds, "
            f"{100 * row['macs'] / shown['macs']:.1f} %<br>{row['params'] / 1e6:.4f}M parameters"
            for task, row in of_task.items()
        ],
        hoverinfo="text",
        showlegend=False,
    )
