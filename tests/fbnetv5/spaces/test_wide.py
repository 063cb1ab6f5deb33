import json
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fbnetv5.costs.tables import Counter
from fbnetv5.networks.backbone import task_network
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces import read_space
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks

SPACE = WideSpace(stages=1, blocks_per_path=1)
TASKS = make_tasks(("cls",), {"label": ("a", "b", "c")})
SIZE = (32, 32)


def drawn(seed: int) -> Choices:
    return np.random.default_rng(seed).integers(np.array(SPACE.choice_counts))


def parameter_bytes(supernet: Supernet) -> int:
    return sum(weight.numel() * weight.element_size() for weight in supernet.blocks.parameters())


@cache
def lively() -> Supernet:
    torch.manual_seed(0)
    supernet = Supernet(SPACE, TASKS)
    for norm in supernet.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    return supernet.eval()


def test_a_block_has_a_variable_per_decision() -> None:
    choices = {variable.name: variable.choices for variable in SPACE.variables}
    assert choices["s1_p8_0"] == ("skip", "keep")
    assert choices["s1_p8_0.kernel"] == ("3", "5", "7")
    assert choices["s1_p8_0.expansion"] == ("2", "3", "4")
    assert choices["s1_p8_0.squeeze"] == ("off", "on")
    assert "s1_p4_0.squeeze" not in choices
    assert "s1_p8_from_p4.kernel" not in choices


@pytest.mark.parametrize("variant", ["a", "c", "f"])
def test_every_block_of_the_default_space_is_a_candidate(variant: str) -> None:
    wide = {node.name: node for node in WideSpace(variant=variant).nodes}  # type: ignore[arg-type]
    for node in FourPathSpace(variant=variant).nodes:  # type: ignore[arg-type]
        assert node.candidates[0] in wide[node.name].candidates
        assert node.skippable == wide[node.name].skippable


def test_a_wide_space_is_read_as_it_was_written() -> None:
    assert read_space(json.loads(json.dumps(SPACE.to_json()))) == SPACE


@pytest.mark.parametrize("variant", ["a", "c", "f"])
def test_the_supernet_is_at_most_half_larger_than_that_of_the_default_space(variant: str) -> None:
    with torch.device("meta"):
        wide = Supernet(WideSpace(variant=variant), TASKS)  # type: ignore[arg-type]
        default = Supernet(FourPathSpace(variant=variant), TASKS)  # type: ignore[arg-type]
    assert parameter_bytes(default) < parameter_bytes(wide) <= 1.5 * parameter_bytes(default)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_multiply_adds_of_a_member_equal_torchs_count(seed: int) -> None:
    choices = drawn(seed)
    with torch.device("meta"), FlopCounterMode(display=False) as flops, torch.no_grad():
        network = task_network(TASKS["cls"], SPACE, choices).eval()
        network(torch.zeros(1, 3, *SIZE))
    counter = Counter(SIZE)
    cost = counter.table(SPACE, TASKS["cls"], "macs").cost_of(choices)
    pooled = counter.graph(network.backbone.graph, TASKS).macs_pool
    assert flops.get_total_flops() == 2 * (cost - pooled)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
@torch.no_grad()
def test_a_member_with_sliced_weights_returns_the_supernets_outputs(seed: int) -> None:
    supernet, choices = lively(), drawn(seed)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    expected = supernet(images, choices)["cls"]
    torch.testing.assert_close(supernet.derive("cls", choices).raw(images)["cls"], expected, rtol=1e-4, atol=1e-4)
