from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.policies import likely, policy_figures, shared_layers, sharing_figure


def test_cells_are_the_probabilities_of_the_history_for_the_choices_of_the_network(search_run: Path) -> None:
    files = open_run(search_run)
    names = [variable.name for variable in files.variables]
    choices = [variable.choices for variable in files.variables]
    chosen = {"cls": [0] * len(names), "det": [1] * len(names)}
    figures = policy_figures(files.history, "policies", names, choices, chosen)
    for task, figure, picked in zip(("cls", "det", "seg"), figures, (0, 1, 1), strict=True):
        (trace,) = figure.plot.data
        assert list(trace.y) == names
        assert list(trace.x) == ["10", "20", "30", "40"]
        expected = [[entry["policies"][task][row][picked] for entry in files.history] for row in range(len(names))]
        assert np.array(trace.z).tolist() == expected
        assert figure.table is not None
        assert figure.table.rows[0][:2] == [names[0], choices[0][picked]]


def test_entries_without_probabilities_are_left_out() -> None:
    history: list[dict[str, Any]] = [
        {"step": 1, "policies": None},
        {"step": 2, "policies": {"cls": [[0.25, 0.75]]}},
        {"step": 3},
    ]
    (figure,) = policy_figures(history, "policies", ["v"], [("skip", "run")], {})
    assert list(figure.plot.data[0].x) == ["2"]
    assert policy_figures(history[:1], "policies", ["v"], [("skip", "run")], {}) == []
    assert likely([[0.1, 0.9], [0.6, 0.4]]) == [1, 0]


def test_the_probability_of_sharing_is_that_of_all_pairs_of_paths() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.dirichlet([1, 1, 1], size=2) for _ in range(2))
    paths = list(product(range(3), repeat=2))
    enumerated = sum(
        first[0, a] * first[1, b] * second[0, c] * second[1, d]
        for (a, b), (c, d) in product(paths, paths)
        if a == c and b == d
    )
    assert shared_layers(first, second)[1] == pytest.approx(enumerated)
    history: list[dict[str, Any]] = [
        {"step": 1, "routing": {"cls": first.tolist(), "det": second.tolist()}},
        {"step": 2, "routing": None},
    ]
    figure = sharing_figure(history, ["layer0", "layer1"])
    assert figure is not None
    assert np.array(figure.plot.data[0].z).tolist() == [shared_layers(first, second).tolist()]
    assert sharing_figure(history[1:], []) is None
