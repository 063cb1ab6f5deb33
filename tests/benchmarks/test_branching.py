"""The figures of the branching benchmark from the results of its trials."""

from typing import Any

import pytest

from benchmarks.branching import first_alone, row, summarise, timed_network
from benchmarks.branching_world import TASKS, space_of

METRICS = {"cls": 0.2, "seg": 0.1, "edges": 0.4, "depth": 2.0, "saliency": 0.3}
LOSSES = dict.fromkeys(TASKS, 1.0)


def result(**changes: float) -> dict[str, Any]:
    return {"metrics": METRICS | changes, "losses": LOSSES}


def figures(method: str, seed: int = 0, **changes: float) -> dict[str, Any]:
    single = {task: result() for task in TASKS}
    tree = {"groups": [[0, 0, 0, 0, 0], [0, 0, 0, 0, 4]], "cost": 1e6}
    return row(method, seed, tree, result(**changes), single) | {"latency_ms": 1.0}


def test_the_gain_is_the_mean_over_the_real_tasks_with_the_sign_of_their_metrics() -> None:
    assert figures("soft", cls=0.22)["delta_m"] == pytest.approx(0.1 / 4)
    assert figures("soft", depth=1.0)["delta_m"] == pytest.approx(0.5 / 4)
    assert figures("soft", saliency=0.9)["delta_m"] == 0  # the planted task does not count


def test_the_first_layer_of_a_task_alone() -> None:
    assert first_alone([(0, 0, 0), (0, 0, 2), (0, 1, 2)], 2) == 1
    assert first_alone([(0, 0, 0), (0, 0, 2), (0, 1, 2)], 0) == 2
    assert first_alone([(0, 0, 0)], 0) == 1


def test_methods_are_averaged_and_compared_with_random_trees() -> None:
    rows = [figures("soft", seed, cls=0.24) for seed in range(2)]
    rows += [figures("random 0", seed, cls=0.2 + 0.02 * seed) for seed in range(2)]
    summary = summarise(rows)
    assert summary["methods"]["random"]["trees"] == 2
    assert summarise(rows[::2])["delta_m_less_that_of_random_trees"] == {}
    assert summary["methods"]["random"]["delta_m"] == pytest.approx(0.0125)
    assert summary["delta_m_less_that_of_random_trees"]["soft"]["value"] == pytest.approx(0.0375)


def test_a_timed_network_has_its_multiply_adds() -> None:
    layers = len(space_of(TASKS).layers)
    shared, separate = (timed_network("x", [groups] * layers).macs for groups in ((0,) * 5, tuple(range(5))))
    assert 0 < shared < separate < 5 * shared
