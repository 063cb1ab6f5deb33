"""A search for an architecture and a recipe: its trainings, how well the predictor predicts, and the best pair."""

from collections.abc import Mapping, Sequence
from typing import Any

from fbnetv5.deploy.report.curves import Series, series_figure
from fbnetv5.deploy.report.files import RunFiles
from fbnetv5.deploy.report.fronts import RING
from fbnetv5.deploy.report.looks import axis_label, cost_text, line, marker, metric_of, scaled, unit_text
from fbnetv5.search.nars.trial import TrialResult
from latency.page.content import Figure, Item, Section, Table, side_by_side
from latency.page.plots import axis, make_plot, plain, scatter

QUALITY = (
    Series(
        field="tau",
        title="Rank correlation of the predictor",
        caption="Kendall's tau on trainings that were held out of its fit: 1 ranks all pairs rightly, 0 is chance.",
        label="tau",
        x="trainings",
    ),
    Series(
        field="mean_absolute_error",
        title="Error of the predictor",
        caption="Mean absolute error on trainings that were held out of its fit, in the task's metric.",
        label="mean absolute error",
        x="trainings",
    ),
    Series(
        field="coverage",
        title="Coverage of the 80 % interval",
        caption="Share of held-out trainings inside of the predicted interval; 0.8 would be calibrated.",
        label="share",
        x="trainings",
    ),
    Series(
        field="best",
        title="Best metric so far",
        caption="Of all trainings, at the step where trainings are compared.",
        label="metric",
        x="trainings",
    ),
)


def curves_figure(task: str, trials: Mapping[int, TrialResult], best: int | None) -> Figure | None:
    """The metric of every trial over the steps of its training."""
    trained = {number: result for number, result in trials.items() if result.steps}
    if not trained:
        return None
    label = metric_of(task).label
    traces = [
        scatter(
            result.steps,
            result.scores,
            name=f"trial {number}",
            mode="lines+markers",
            line=line(task, width=3.0 if number == best else 1.0),
            marker=marker(task, size=8 if number == best else 4),
            opacity=1.0 if number == best else 0.45,
            hovertemplate=f"trial {number}, step %{{x}}: %{{y:.4g}}<extra></extra>",
        )
        for number, result in trained.items()
    ]
    rows = [
        [f"{number}", f"{result.last_step}", f"{result.scores[-1]:.4f}", result.failure or "", f"{result.seconds:.0f}"]
        for number, result in trained.items()
    ]
    return Figure(
        title="Trainings",
        caption="Each line is a trial; the bold one is the best. Short ones were stopped early, where the ranking of "
        "trials hardly changes any more.",
        plot=make_plot(traces, x=axis("step", rangemode="tozero"), y=axis(label, tickformat="~g"), legend=False),
        table=Table(head=["trial", "last step", label, "failure", "seconds"], rows=rows),
    )


def trials_figure(pareto: Mapping[str, Any], best: int | None) -> Figure | None:
    """Cost and metric of every trial, with its recipe."""
    rows = [row for row in pareto["trials"] if row["scores"]]
    if not rows:
        return None
    task, unit = pareto["task"], next(iter(rows[0]["cost"]))
    last = max(row["steps"][-1] for row in rows)
    x, y = [scaled(row["cost"][unit], unit) for row in rows], [row["scores"][-1] for row in rows]
    symbols = [marker(task)["symbol"] if row["steps"][-1] == last else f"{marker(task)['symbol']}-open" for row in rows]
    traces = [
        scatter(
            x,
            y,
            mode="markers",
            marker=marker(task, symbol=symbols),
            text=[_trial_text(row) for row in rows],
            hoverinfo="text",
        )
    ]
    chosen = [number for number, row in enumerate(rows) if row["trial"] == best]
    traces.append(
        scatter([x[n] for n in chosen], [y[n] for n in chosen], mode="markers", marker=dict(RING), hoverinfo="skip")
    )
    return Figure(
        title="Cost and metric of the trials",
        caption="Filled marks were trained to the last step, open ones were stopped early. The ring is the best pair.",
        plot=make_plot(traces, x=axis(axis_label(unit)), y=axis(metric_of(task).label, tickformat="~g"), legend=False),
        table=_trials_table(rows, unit),
    )


def _trial_text(row: Mapping[str, Any]) -> str:
    costs = ", ".join(cost_text(cost, unit) for unit, cost in row["cost"].items())
    recipe = "<br>".join(f"{plain(name)}: {plain(str(value))}" for name, value in row["recipe"].items())
    return f"<b>trial {row['trial']}</b>: {row['scores'][-1]:.4f} at step {row['steps'][-1]}<br>{costs}<br>{recipe}"


def _trials_table(rows: Sequence[Mapping[str, Any]], unit: str) -> Table:
    fields = list(rows[0]["recipe"])
    cells = [
        [
            f"{row['trial']}",
            cost_text(row["cost"][unit], unit),
            f"{row['steps'][-1]}",
            f"{row['scores'][-1]:.4f}",
            *(str(row["recipe"].get(name, "")) for name in fields),
        ]
        for row in rows
    ]
    return Table(head=["trial", unit_text(unit), "last step", "metric", *fields], rows=cells)


def quality_figures(entries: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The quality of the predictor after every batch of trainings."""
    figures = [series_figure(entries, series) for series in QUALITY]
    return [figure for figure in figures if figure is not None]


def nars_sections(files: RunFiles) -> list[Section]:
    """The sections of a search for pairs."""
    task, best = files.tasks[0], None
    for network in files.architectures.values():
        best = network.provenance.get("trial")
    of_trials = curves_figure(task, files.trials, best)
    costs = trials_figure(files.pareto, best) if files.pareto else None
    pair = [] if files.pareto is None else _pair(files, best)
    return [
        Section(name="pair", title="Best pair", items=pair),
        Section(name="trials", title="Trials", items=side_by_side([of_trials, costs])),
        Section(name="predictor", title="Predictor", items=side_by_side(quality_figures(files.history))),
    ]


def _pair(files: RunFiles, best: int | None) -> list[Item]:
    assert files.pareto is not None
    recipe: dict[str, Any] = next((row["recipe"] for row in files.pareto["trials"] if row["trial"] == best), {})
    rows = [[name, str(value)] for name, value in recipe.items()]
    caption = f"What the search set in the recipe of trial {best}"
    return [Table(head=["recipe", "value"], rows=rows, caption=caption)] if rows else []
