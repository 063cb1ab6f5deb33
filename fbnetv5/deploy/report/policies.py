"""What a search decided, and when: the policies of every variable, and the routing of a branched network.

Shape legend: S variables, C choices of a variable, R records of the history, L layers.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency.page.content import Figure, Table
from latency.page.plots import axis, colour_bar, heatmap, make_plot, plain

Entries = Sequence[Mapping[str, Any]]
Rows = Sequence[Sequence[float]]
"""[S, C]: the probabilities of the choices of every variable."""


def policy_figures(
    entries: Entries,
    field: str,
    names: Sequence[str],
    choices: Sequence[Sequence[str]],
    chosen: Mapping[str, Sequence[int]],
) -> list[Figure]:
    """A heat map per task: variables over steps, coloured by the probability of the choice of the found network.

    Args:
        entries: of the history.
        field: that has the probabilities, "policies" or "routing".
        names: of the variables [S].
        choices: names of the choices of each variable [S].
        chosen: by task, the choices [S] of its network; the most likely ones for a task that has none yet.
    """
    records = [entry for entry in entries if entry.get(field)]
    if not records:
        return []
    tasks = list(records[-1][field])
    return [_heat_map(task, records, field, names, choices, chosen.get(task)) for task in tasks]


def _heat_map(
    task: str,
    records: Entries,
    field: str,
    names: Sequence[str],
    choices: Sequence[Sequence[str]],
    chosen: Sequence[int] | None,
) -> Figure:
    steps = [str(record["step"]) for record in records]
    policies: list[Rows] = [record[field][task] for record in records]
    picked = likely(policies[-1]) if chosen is None else list(chosen)
    values = [[policy[row][choice] for policy in policies] for row, choice in enumerate(picked)]
    trace = heatmap(
        values,
        x=steps,
        y=[plain(name) for name in names],
        zmin=0,
        zmax=1,
        hovertemplate="%{y} at step %{x}: %{z:.3f}<extra></extra>",
        colorbar=colour_bar("p"),
    )
    which = "most likely at the end" if chosen is None else "of the network found"
    plot = make_plot(
        [trace],
        x=axis("step", type="category", showgrid=False, nticks=6, tickangle=0),
        y=axis("", autorange="reversed", showgrid=False, tickfont={"size": 9, "color": "var(--soft)"}),
        height=70 + max(160, 9 * len(names)),
        legend=False,
    )
    return Figure(
        title=f"{task}: {'routing' if field == 'routing' else 'policy'}",
        caption=f"Probability of the choice {which}, for each variable from top to bottom.",
        plot=plot,
        table=_table(names, choices, picked, policies[-1], steps[-1]),
    )


def likely(policy: Rows) -> list[int]:
    """The most likely choice of every variable [S]."""
    return [int(np.argmax(row)) for row in policy]


def _table(
    names: Sequence[str], choices: Sequence[Sequence[str]], picked: Sequence[int], policy: Rows, step: str
) -> Table:
    rows = [
        [
            name,
            of_variable[choice],
            f"{row[choice]:.3f}",
            ", ".join(
                f"{other} {share:.3f}"
                for other, share in zip(of_variable, row, strict=True)
                if other != of_variable[choice]
            ),
        ]
        for name, of_variable, choice, row in zip(names, choices, picked, policy, strict=True)
    ]
    return Table(head=["variable", "choice", f"probability at step {step}", "others"], rows=rows)


def sharing_figure(entries: Entries, layers: Sequence[str]) -> Figure | None:
    """A heat map of the last routing: for every pair of tasks, the probability that both share a layer and all before.

    Two tasks share a layer only if they share all layers before it (BMTAS, arXiv 2008.10292, section 3).
    """
    records = [entry["routing"] for entry in entries if entry.get("routing")]
    if not records:
        return None
    routing = {task: np.array(rows) for task, rows in records[-1].items()}
    shared = {f"{a} and {b}": shared_layers(routing[a], routing[b]).tolist() for a, b in combinations(routing, 2)}
    trace = heatmap(
        list(shared.values()),
        x=[plain(name) for name in layers],
        y=[plain(pair) for pair in shared],
        zmin=0,
        zmax=1,
        hovertemplate="%{y} share %{x}: %{z:.3f}<extra></extra>",
        colorbar=colour_bar("p"),
    )
    plot = make_plot(
        [trace],
        x=axis("layer", type="category", showgrid=False, nticks=8, tickangle=0),
        y=axis("", autorange="reversed", showgrid=False),
        height=110 + 26 * len(shared),
        legend=False,
    )
    rows = [[name, *(f"{shared[pair][number]:.3f}" for pair in shared)] for number, name in enumerate(layers)]
    return Figure(
        title="Which tasks share layers",
        caption="Probability by the last routing that both tasks share a layer, and with it all layers before it.",
        plot=plot,
        table=Table(head=["layer", *shared], rows=rows),
        wide=True,
    )


def shared_layers(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """[L]: the probability that two tasks with routings [L, C] have the same copy in a layer and all layers before."""
    together: NDArray[np.float64] = np.cumprod((first * second).sum(axis=1))
    return together
