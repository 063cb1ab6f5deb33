"""The Pareto fronts of a search: the finalists of each task, or the trees of a branched network."""

from collections.abc import Mapping, Sequence
from typing import Any

from fbnetv5.architecture import Architecture
from fbnetv5.deploy.report.looks import axis_label, cost_text, line, marker, metric_of, scaled, unit_text
from latency.page.content import Figure, Table
from latency.page.plots import INK, axis, make_plot, plain, scatter

RING: Mapping[str, Any] = {"symbol": "circle-open", "size": 17, "color": INK, "line": {"width": 1.8}}
"""The mark around the network that was chosen."""


def search_fronts(pareto: Mapping[str, Any], architectures: Mapping[str, Architecture]) -> list[Figure]:
    """Cost and expected loss of each task's finalists that no other beats in both."""
    return [
        _search_front(task, front, architectures.get(task))
        for task, front in pareto["tasks"].items()
        if front["points"]
    ]


def _search_front(task: str, front: Mapping[str, Any], network: Architecture | None) -> Figure:
    unit, points, metric = front["unit"], front["points"], metric_of(task)
    costs = [scaled(point["cost"], unit) for point in points]
    losses = [point.get("expected_loss", point["loss"]) for point in points]
    text = [
        f"{cost_text(point['cost'], unit)}<br>held-out loss {point['loss']:.4f}<br>"
        f"{plain(metric.label)} {point['score']:.4f}"
        for point in points
    ]
    traces = [
        scatter(
            costs,
            losses,
            name=task,
            mode="lines+markers",
            line=line(task, shape="hv", width=1.2),
            marker=marker(task, size=10),
            text=text,
            hoverinfo="text",
        )
    ]
    choices = [] if network is None else list(network.choices[task])
    chosen = [number for number, point in enumerate(points) if point["choices"] == choices]
    if chosen:
        traces.append(_ring([costs[number] for number in chosen], [losses[number] for number in chosen]))
    rows = [
        [
            f"{number + 1}{' (chosen)' if number in chosen else ''}",
            *(cost_text(cost, its) for its, cost in point.get("costs", {unit: point["cost"]}).items()),
            f"{loss:.4f}",
            f"{point['loss']:.4f}",
            f"{point['score']:.4f}",
        ]
        for number, (point, loss) in enumerate(zip(points, losses, strict=True))
    ]
    units = [unit_text(its) for its in points[0].get("costs", {unit: points[0]["cost"]})]
    return Figure(
        title=f"{task}: finalists",
        caption="Networks that no other finalist beats in all costs and expected loss: the loss that the panel's fit "
        "predicts, at the level of the finalists' losses on held-out images. The ring is the network of the result.",
        plot=make_plot(traces, x=axis(axis_label(unit)), y=axis("expected loss", tickformat="~g"), legend=False),
        table=Table(head=["finalist", *units, "expected loss", "held-out loss", metric.label], rows=rows),
    )


def branch_front(pareto: Mapping[str, Any], network: Architecture | None) -> Figure | None:
    """Cost and log-probability of the most likely trees."""
    unit, points = pareto["unit"], pareto["points"]
    if not points:
        return None
    costs, scores = [scaled(point["cost"], unit) for point in points], [point["log_probability"] for point in points]
    trees = ["; ".join(_tree_text(point["choices"])) for point in points]
    text = [
        f"{cost_text(point['cost'], unit)}<br>log-probability {point['log_probability']:.3f}<br>"
        + plain(tree).replace("; ", "<br>")
        for point, tree in zip(points, trees, strict=True)
    ]
    look = {"color": "var(--c0)", "size": 10}
    traces = [
        scatter(
            costs,
            scores,
            mode="lines+markers",
            marker=look,
            line={"color": "var(--c0)", "width": 1.2},
            text=text,
            hoverinfo="text",
        )
    ]
    if network is not None:
        traces.append(_result_line(network, scores, unit))
    rows = [
        [f"{number + 1}", cost_text(point["cost"], unit), f"{point['log_probability']:.3f}", tree]
        for number, (point, tree) in enumerate(zip(points, trees, strict=True))
    ]
    return Figure(
        title="Trees of other budgets",
        caption="The most likely trees of their costs by the trained routing. fbnetv5 derive makes their networks "
        "without another search. The dotted line is the cost of the result.",
        plot=make_plot(traces, x=axis(axis_label(unit)), y=axis("log-probability", tickformat="~g"), legend=False),
        table=Table(head=["tree", unit_text(unit), "log-probability", "where tasks part"], rows=rows),
    )


def _result_line(network: Architecture, scores: Sequence[float], unit: str) -> Any:
    """A line at the cost of the result, whose tree the front need not contain."""
    latency = network.cost.latency_ms
    cost = latency.value if unit != "macs" and latency is not None else network.cost.macs / 1e6
    style = {"color": INK, "width": 1.5, "dash": "dot"}
    return scatter([cost, cost], [min(scores), max(scores)], name="result", mode="lines", line=style, hoverinfo="skip")


def _tree_text(choices: Mapping[str, Sequence[int]]) -> list[str]:
    """Where the tasks part, a line per run of layers with the same groups."""
    by_layer = list(zip(*choices.values(), strict=True))
    starts = [n for n, groups in enumerate(by_layer) if n == 0 or groups != by_layer[n - 1]]
    return [f"from layer {start}: {_groups(list(choices), by_layer[start])}" for start in starts]


def _groups(tasks: Sequence[str], groups: Sequence[int]) -> str:
    members = [[task for task, own in zip(tasks, groups, strict=True) if own == group] for group in sorted(set(groups))]
    return " | ".join("+".join(names) for names in members)


def _ring(x: Sequence[float], y: Sequence[float]) -> Any:
    return scatter(x, y, name="result", mode="markers", marker=dict(RING), hoverinfo="skip")
