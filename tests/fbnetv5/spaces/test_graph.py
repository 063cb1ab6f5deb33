"""Graphs of several tasks: who shares what."""

import numpy as np
import pytest

from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import Graph, Step, merge
from fbnetv5.spaces.space import Choices

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
PATHS = {"cls": (32,), "det": (8, 16, 32), "seg": (4, 8, 16, 32)}


def kept(*, first: int) -> Choices:
    """Every variable from ``first`` on keeps its block."""
    return (np.arange(len(SPACE.variables)) >= first).astype(np.int64)


def graphs(**first: int) -> dict[str, Graph]:
    return {task: SPACE.graph(kept(first=start), {task: PATHS[task]}) for task, start in first.items()}


def always(step: Step, task: str, other: str) -> bool:
    return True


def test_one_architecture_for_all_tasks_is_the_graph_of_all_tasks() -> None:
    separate = graphs(cls=3, det=3, seg=3)
    merged, together = merge(separate, always), SPACE.graph(kept(first=3), PATHS)
    assert {step.name.partition("_of_")[0] for step in merged.steps} == {step.name for step in together.steps}
    assert {step.node: step.tasks for step in merged.steps} == {step.node: step.tasks for step in together.steps}
    for task, graph in separate.items():
        assert {step.name for step in graph.steps} == {step.name for step in together.steps if task in step.tasks}
        assert merged.channels(task) == together.channels(task) == SPACE.channels(PATHS[task])


def test_tasks_share_steps_up_to_the_first_difference() -> None:
    merged = merge(graphs(cls=3, det=3, seg=1), always)
    part = SPACE.nodes.index(SPACE.skippable[1])  # stage 0 is a chain, so everything after reads the difference
    alike = {node.name for node in SPACE.nodes[:part] if not node.variables}
    assert {step.name for step in merged.steps if len(step.tasks) == 3} == alike
    assert {step.tasks for step in merged.steps if step.name not in alike} == {("cls", "det"), ("det",), ("seg",)}
    for step in merged.steps:
        assert step.name == (step.node if step.name in alike else f"{step.node}_of_{'_'.join(step.tasks)}")
    assert merged.shared == tuple(step for step in merged.steps if len(step.tasks) > 1)


def test_steps_run_after_what_they_read() -> None:
    merged = merge(graphs(cls=3, det=0, seg=1), always)
    done: set[str] = set()
    for step in merged.steps:
        assert done.issuperset(step.inputs)
        done.add(step.name)
    assert len(done) == len(merged.steps)
    assert done.issuperset(name for names in merged.features.values() for name in names)


@pytest.mark.parametrize("stem", ["s0_p4_0", "s0_p8_0"])
def test_steps_after_a_block_of_other_weights_are_not_shared(stem: str) -> None:
    merged = merge(graphs(cls=3, det=3), lambda step, task, other: step.node != stem)
    shared = {step.node for step in merged.shared}
    index = {node.name: column for column, node in enumerate(SPACE.nodes)}
    assert all(index[name] < index[stem] for name in shared)
    assert bool(shared) is (stem != SPACE.nodes[0].name)
