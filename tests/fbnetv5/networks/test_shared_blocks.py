"""Passes that share blocks have the outputs of passes that do not, and run fewer blocks."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbnetv5.networks.shared_blocks import SharedBlocks, by_first_choices, nodes_of_few_variables
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks

SPACES = [FourPathSpace(stages=1, blocks_per_path=1), WideSpace(stages=1, blocks_per_path=1)]
CLASSES = {"label": ("a", "b", "c"), "mask": ("w", "x", "y", "z")}


def make_supernet(space: Space) -> Supernet:
    """With batch norms that differ in all their statistics, so that a wrong block shows."""
    torch.manual_seed(0)
    supernet = Supernet(space, make_tasks(("cls", "seg"), CLASSES)).train()
    for norm in supernet.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return supernet


@pytest.mark.parametrize("space", SPACES, ids=["four-path", "wide"])
@torch.no_grad()
def test_shared_passes_have_the_same_outputs_and_run_no_block_near_the_images_twice_in_turn(space: Space) -> None:
    supernet, rng = make_supernet(space), np.random.default_rng(0)
    architectures = np.stack([space.random(rng.random(len(space.variables)) < 0.5, rng) for _ in range(8)])
    images = torch.randn(2, 3, 32, 32)
    calls: Counter[str] = Counter()
    for node, candidates in supernet.blocks.items():
        candidates.get_submodule("0").register_forward_hook(lambda *_, node=node: calls.update([node]))
    shared = SharedBlocks(space, supernet.module_of)
    outputs = {int(k): supernet(images, architectures[k], None, shared) for k in by_first_choices(architectures)}
    shared_calls = Counter(calls)
    calls.clear()
    for k, output in outputs.items():
        for task, expected in supernet(images, architectures[k]).items():
            assert isinstance(expected, Tensor)
            torch.testing.assert_close(output[task], expected, rtol=0, atol=0)
    if isinstance(space, FourPathSpace):
        names = [node.name for node in space.nodes[:4]]  # the stem, two that may be skipped, and one that may not
        first = [architectures[:, node.variables[0]] for node in space.nodes[1:3]]
        combinations = len(set(zip(*map(np.ndarray.tolist, first), strict=True)))
        assert [shared_calls[names[0]], shared_calls[names[3]]] == [1, combinations]
        assert calls[names[3]] == 8
        assert all(shared_calls[node] == calls[node] for node in calls.keys() - nodes_of_few_variables(space))


def test_the_nodes_that_passes_share_depend_on_few_variables() -> None:
    space = FourPathSpace()
    assert nodes_of_few_variables(space) == {f"s0_p4_{number}" for number in range(7)} | {"s0_p8_0"}


def test_architectures_with_the_same_first_choices_follow_one_another() -> None:
    architectures = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert by_first_choices(architectures).tolist() == [3, 1, 2, 0]
