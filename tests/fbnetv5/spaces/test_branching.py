import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.spaces import read_space
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.encoders import ENCODERS
from fbnetv5.spaces.fbnetv3 import FBNETV3, fbnetv3

PATHS = {"cls": (32,), "seg": (4, 8, 16, 32)}


@pytest.mark.parametrize("letter", FBNETV3)
def test_an_encoder_has_the_blocks_of_its_network(letter: str) -> None:
    space = BranchingSpace(encoder=f"fbnetv3-{letter}", copies=2)
    partitions = fbnetv3(letter).with_ordinary_padding().partitions()
    assert [node.candidates[0] for node in space.nodes] == [block for partition in partitions for block in partition]
    assert {len(node.candidates) for node in space.layers} == {2}
    assert len(space.nodes[0].candidates) == 1


@pytest.mark.parametrize("encoder", ["fbnetv3-a", "mobilenetv2", "efficientnet-lite0", "resnet50"])
def test_features_end_at_the_last_layer_of_each_stride(encoder: str) -> None:
    space = BranchingSpace(encoder=encoder, copies=2)
    strides = {node.name: node.stride for node in space.nodes}
    names = list(strides)
    for stride, end in space.ends.items():
        assert strides[end] == stride
        after = names.index(end) + 1
        assert after == len(names) or strides[names[after]] == 2 * stride


def test_the_graph_of_a_task_runs_its_copies() -> None:
    space = BranchingSpace(copies=2)
    choices = np.zeros(len(space.layers), dtype=np.int64)
    choices[5:] = 1
    graph = space.graph(choices, {"seg": PATHS["seg"]})
    assert [step.candidate for step in graph.steps] == [0, *choices.tolist()]


@pytest.mark.parametrize(
    ("encoder", "layers", "channels"),
    [("mobilenetv2", 17, (24, 32, 96, 320)), ("resnet50", 16, (256, 512, 1024, 2048))],
)
def test_the_papers_encoders_have_their_layers_and_widths(encoder: str, layers: int, channels: tuple[int, ...]) -> None:
    space = BranchingSpace(encoder=encoder)
    assert len(space.layers) == layers
    assert space.channels(PATHS["seg"]) == channels
    assert [node.name for node in space.nodes] == ["stem", *[f"layer{number}" for number in range(layers)]]


def test_groups_that_meet_again_are_refused() -> None:
    space = BranchingSpace(copies=3)
    apart = {"cls": [0, 0, 0], "seg": [0, 1, 1], "det": [0, 1, 2]}
    filled = {task: [*start, *[start[-1]] * (len(space.layers) - len(start))] for task, start in apart.items()}
    space.check_tasks(filled)
    filled["det"][3] = 1
    with pytest.raises(UserError, match="layer3: seg and det share it after they parted"):
        space.check_tasks(filled)


def test_more_tasks_than_copies_are_refused() -> None:
    space = BranchingSpace(copies=2)
    with pytest.raises(UserError, match="3 tasks do not fit a space with 2 copies"):
        space.check_tasks(dict.fromkeys("abc", [0] * len(space.layers)))


def test_an_unknown_encoder_is_refused_and_a_known_one_is_read_from_its_document() -> None:
    with pytest.raises(UserError, match=f"unknown encoder 'resnet9000'; there are: {', '.join(ENCODERS)}"):
        BranchingSpace(encoder="resnet9000")
    space = BranchingSpace(encoder="fbnetv3-c", width=0.5, copies=4)
    assert read_space(space.to_json()) == space
