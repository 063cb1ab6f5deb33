"""How a run went: its losses, expected costs, multipliers, scores and other series over its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fbnetv5.deploy.report.looks import axis_label, line, marker, metric_of, scaled
from latency.page.content import Figure
from latency.page.plots import INK, SOFT, axis, make_plot, scatter, series_table

MANY_TIMES = 4.0
"""A factor between the lowest and the highest value."""
Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A field of the history with a value per task, or one for all tasks."""

    field: str
    title: str
    caption: str
    label: str
    """Of the vertical axis, with the unit."""
    x: str = "step"
    """Of the horizontal axis."""
    log: bool = False
    """Whether the axis is logarithmic where the values differ by more than ``MANY_TIMES``."""


LOSSES = Series(
    field="losses",
    title="Losses",
    caption="Moving averages of the training losses. Each task has its own loss: compare a curve with itself only.",
    label="loss",
    log=True,
)
TRAINING_LOSSES = Series(
    field="losses",
    title="Losses",
    caption="Mean loss of the last step. Each task has its own loss: compare a curve with itself only.",
    label="loss",
    log=True,
)
SEARCH = (
    Series(
        field="multiplier",
        title="Multipliers",
        caption="The price of the cost for each policy: above 0 where the budget holds the policy back.",
        label="multiplier",
    ),
    Series(
        field="entropy",
        title="Entropy of the policies",
        caption="Mean over all variables. It falls as a policy becomes certain.",
        label="entropy, nats",
    ),
    Series(
        field="effective_samples",
        title="Effective samples",
        caption="Kish's effective sample size of a step that trains policies: the higher, the less noise.",
        label="samples",
    ),
)
BRANCH = (
    Series(
        field="multiplier",
        title="Multiplier",
        caption="Weight of the expected cost in the objective of the routing.",
        label="multiplier",
    ),
    Series(
        field="entropy",
        title="Entropy of the routing",
        caption="Mean over tasks and layers. It falls as the routing becomes certain.",
        label="entropy, nats",
    ),
    Series(
        field="temperature",
        title="Temperature",
        caption="Of the Gumbel-softmax; it falls linearly.",
        label="temperature",
    ),
)


def by_step(entries: Entries, field: str) -> dict[str, dict[int, float]]:
    """By task: step -> value. A field without tasks has the name ""."""
    columns: dict[str, dict[int, float]] = {}
    for entry in entries:
        value = entry.get(field)
        values = value if isinstance(value, Mapping) else {} if value is None else {"": value}
        for task, number in values.items():
            columns.setdefault(task, {})[entry["step"]] = float(number)
    return columns


def series_figure(entries: Entries, series: Series) -> Figure | None:
    """The curve of every task; None if the history has no such values."""
    columns = by_step(entries, series.field)
    if not columns:
        return None
    traces = [
        scatter(list(values), list(values.values()), name=task, **_curve(task, len(values)))
        for task, values in columns.items()
    ]
    numbers = [number for values in columns.values() for number in values.values()]
    log = series.log and min(numbers) > 0 and max(numbers) > MANY_TIMES * min(numbers)
    return _figure(series.title, series.caption, series.label, traces, columns, x=series.x, log=log)


def cost_figure(entries: Entries, limits: Mapping[str, float], unit: str) -> Figure | None:
    """The expected cost of each task's policy, or of the tree, beside the budgets of one unit.

    Args:
        entries: of the history.
        limits: the budgets, by the name of their costs in the history.
        unit: of the costs, such as "macs".
    """
    columns = {name: values for name, values in by_step(entries, "expected_cost").items() if name in limits}
    if not columns:
        return None
    costs = {task: {step: scaled(cost, unit) for step, cost in values.items()} for task, values in columns.items()}
    traces = [
        scatter(list(values), list(values.values()), name=task or "expected", **_curve(task, len(values)))
        for task, values in costs.items()
    ]
    steps = [step for values in columns.values() for step in values]
    ends = [min(steps), max(steps)]
    for limit in sorted(set(limits.values())):
        style = {"color": SOFT, "width": 1.5, "dash": "dot"}
        traces.append(scatter(ends, [scaled(limit, unit)] * 2, name="budget", mode="lines", line=style))
    caption = "Expected over the architectures that the policies draw, heads included."
    return _figure("Expected cost", caption, axis_label(unit), traces, costs)


def score_figure(entries: Entries, task: str) -> Figure | None:
    """A task's metric on held-out images at every evaluation of a training, with the best."""
    scores = by_step(entries, "scores").get(task, {})
    if not scores:
        return None
    best = entries[-1].get("best_step")
    traces = [scatter(list(scores), list(scores.values()), name=task, **_curve(task, len(scores)))]
    if best in scores:
        ring = {"symbol": "circle-open", "size": 15, "color": INK, "line": {"width": 1.6}}
        traces.append(scatter([best], [scores[best]], name="best weights", mode="markers", marker=ring))
    caption = "Of the moving average of the weights, on images that were held out of the training."
    label = metric_of(task).label
    return _figure(f"{task}: {label}", caption, label, traces, {f"{task} {label}": scores})


def learning_rate_figure(entries: Entries) -> Figure | None:
    """The learning rate of a training."""
    series = Series(
        field="lr", title="Learning rate", caption="Of the optimizer, at every entry.", label="learning rate"
    )
    return series_figure(entries, series)


def _curve(name: str, points: int) -> dict[str, Any]:
    """The look of a curve, which is that of its task; a few points are marked."""
    task = name.partition("/")[0]
    return {
        "mode": "lines+markers" if points < 25 else "lines",
        "line": line(task) if task else {"color": INK, "width": 2},
        "marker": marker(task, size=6) if task else {"color": INK, "size": 6},
        "hovertemplate": "%{y:.4g}",
    }


def _figure(
    title: str,
    caption: str,
    label: str,
    traces: Sequence[Any],
    columns: Mapping[str, Mapping[int, float]],
    *,
    x: str = "step",
    log: bool = False,
) -> Figure:
    named = {name or label: values for name, values in columns.items()}
    plot = make_plot(
        traces,
        x=axis(x, rangemode="tozero"),
        y=axis(f"{label} (logarithmic)", type="log", dtick="D2") if log else axis(label, tickformat="~g"),
        legend=len(traces) > 1,
        hovermode="x unified",
    )
    return Figure(title=title, caption=caption, plot=plot, table=series_table(x, named))
