from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual, round_width
from fbnetv5.costs.counting import count
from fbnetv5.networks.backbone import task_network
from fbnetv5.spaces import read_space
from fbnetv5.spaces.fbnetv3 import FBNETV3, fbnetv3
from fbnetv5.spaces.stages import STAGES, StageSpace
from fbnetv5.tasks import make_tasks

SPACE = StageSpace()
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
TASKS = make_tasks(("cls", "det", "seg"), CLASSES)
WHOLE = {"net": (32,)}


@pytest.mark.parametrize("letter", ["b", "c", "d", "e"])
def test_published_networks_are_members_block_by_block(letter: str) -> None:
    network = FBNETV3[letter].with_ordinary_padding()
    graph = SPACE.graph(SPACE.choices_of(network), WHOLE)
    assert [step.block for step in graph.steps] == [block for part in network.partitions() for block in part]


@pytest.mark.parametrize(("letter", "reason"), [("f", r"\w+\.\w+ is \d+, not \d+"), ("g", r"\w+\.\w+ is \d+, not \d+")])
def test_scaled_up_networks_are_refused_with_the_setting_that_differs(letter: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"the network is not in the space of FBNetV3's stages: {reason}"):
        SPACE.choices_of(FBNETV3[letter])


def test_every_variable_has_several_different_choices() -> None:
    assert all(len(set(variable.choices)) == len(variable.choices) > 1 for variable in SPACE.variables)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.sampled_from([0.25, 0.5, 1.0, 1.5]))
def test_a_graph_has_the_blocks_that_its_settings_describe(seed: int, width: float) -> None:
    space = StageSpace(width=width)
    choices = np.random.default_rng(seed).integers(np.array(space.choice_counts))
    names = {
        variable.name: int(variable.choices[choice]) for variable, choice in zip(space.variables, choices, strict=True)
    }
    values = {name: names.get(name, options[0]) for name, options in space.settings.items()}
    blocks = [step.block for step in space.graph(choices, WHOLE).steps]
    before, position = values["stem.width"], 1
    assert blocks[0].out_channels == before
    for stage in STAGES:
        for number in range(values[f"{stage.name}.depth"]):
            role = "" if number == 0 else "repeat_"
            assert blocks[position] == InvertedResidual(
                kernel=values[f"{stage.name}.{role}kernel"],
                in_channels=before,
                out_channels=(before := values[f"{stage.name}.width"]),
                expansion=values[f"{stage.name}.{role}expansion"],
                stride=stage.stride if number == 0 else 1,
                squeeze=stage.squeeze,
            )
            position += 1
    assert position == len(blocks)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_reads_the_last_features_of_its_strides(name: str) -> None:
    space, task = StageSpace(width=0.5), TASKS[name]
    choices = np.random.default_rng(3).integers(np.array(space.choice_counts), size=(20, len(space.choice_counts)))
    widths = space.feature_widths(choices, task.paths)
    for row, architecture in zip(widths, choices, strict=True):
        graph = space.graph(architecture, {name: task.paths})
        assert graph.channels(name) == tuple(row)
        last = {step.stride: step.name for step in graph.steps}
        assert graph.features[name] == tuple(last[path] for path in task.paths)
    assert len(np.unique(widths, axis=0)) > 1
    assert not space.has_fixed_widths


def test_a_network_of_the_space_is_built_and_counted() -> None:
    space = StageSpace(width=0.25)
    for choices in (space.empty(), space.full(), np.array(space.choice_counts) - 1):
        whole = count(partial(task_network, TASKS["seg"], space, choices), [(3, 64, 64)])
        graph = space.graph(choices, {"seg": TASKS["seg"].paths})
        assert whole.macs > 0
        assert len({step.name for step in graph.steps}) == len(graph.steps)


def test_full_skips_no_node_and_empty_skips_all_that_can_be() -> None:
    assert len(SPACE.graph(SPACE.full(), WHOLE).steps) == len(SPACE.nodes)
    depths = sum(stage.depths[0] for stage in STAGES)
    assert len(SPACE.graph(SPACE.empty(), WHOLE).steps) == 1 + depths


def test_widths_scale_and_repeated_ones_are_one_choice() -> None:
    half = StageSpace(width=0.5)
    assert half.settings["3.width"] == tuple(sorted({round_width(width / 2) for width in range(24, 49, 4)}))
    assert half.label == "FBNetV3's stages of width 0.5"
    assert half != SPACE == StageSpace()


def test_the_space_of_a_file_is_the_same_space() -> None:
    half = StageSpace(width=0.5)
    assert read_space(half.to_json()) == half
    with pytest.raises(UserError, match="space: width"):
        StageSpace(width=0.1)


def test_a_width_between_the_choices_is_refused() -> None:
    narrow = replace(fbnetv3("b"), stem_channels=17)
    with pytest.raises(UserError, match=r"stem\.width is 17, not 16, 24"):
        SPACE.choices_of(narrow)
