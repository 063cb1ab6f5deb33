from pathlib import Path

import numpy as np
import pytest

from fbnetv5.architecture import Architecture, load_architecture, make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.report.networks import network_figure
from fbnetv5.deploy.show import show_architecture
from fbnetv5.spaces.four_path import FourPathSpace

SPACE = FourPathSpace(stages=2, blocks_per_path=1)


def found(*tasks: str) -> Architecture:
    """A network in which a random half of the blocks is live."""
    rng = np.random.default_rng(1)
    choices = {task: rng.integers(0, 2, len(SPACE.variables)).tolist() for task in tasks}
    return make_architecture(SPACE, choices, CLASSES, (64, 64), provenance={})


@pytest.mark.parametrize("tasks", [("seg",), ("cls", "det")])
def test_live_blocks_are_marks_with_their_share_of_the_cost(tasks: tuple[str, ...]) -> None:
    architecture = found(*tasks)
    shown = show_architecture(architecture).to_json()
    figure = network_figure("n", architecture)
    (blocks,) = [trace for trace in figure.plot.data if trace.name == "block"]
    shares = {row["name"]: 100 * row["macs"] / shown["macs"] for row in shown["blocks"]}
    assert list(blocks.marker.color) == pytest.approx([shares[step.name] for step in architecture.graph.steps])
    assert len(set(zip(blocks.x, blocks.y, strict=True))) == len(blocks.x)  # no mark hides another
    (heads,) = [trace for trace in figure.plot.data if trace.name == "head"]
    assert len(heads.x) == len(tasks)
    assert figure.table is not None
    assert len(figure.table.rows) == len(shown["blocks"])


def test_skipped_blocks_are_dots_and_wider_blocks_larger() -> None:
    architecture = found("seg")
    traces = {trace.name: trace for trace in network_figure("n", architecture).plot.data}
    live = {step.node for step in architecture.graph.steps}
    assert len(traces["skipped"].x) == len([node for node in SPACE.nodes if node.name not in live])
    widths = [step.block.out_channels for step in architecture.graph.steps]
    sizes = list(traces["block"].marker.size)
    assert np.argsort(widths, kind="stable").tolist() == np.argsort(sizes, kind="stable").tolist()


def test_tasks_run_side_by_side_through_shared_layers_and_part_where_the_tree_does(branched: Path) -> None:
    architecture = load_architecture(branched)
    figure = network_figure("branched", architecture)
    lines = {trace.name: trace for trace in figure.plot.data if trace.name in ("cls", "det", "seg")}
    ends = {task: [y for y in trace.y if y is not None][-1] for task, trace in lines.items()}
    assert len(set(ends.values())) == 3
    at_the_stem = [trace.y[0] for trace in lines.values()]
    assert max(at_the_stem) - min(at_the_stem) == pytest.approx(2 * 0.09)
    assert "layers 2 to" in figure.caption
    (blocks,) = [trace for trace in figure.plot.data if trace.name == "block"]
    assert len(blocks.x) == len(architecture.graph.steps)
