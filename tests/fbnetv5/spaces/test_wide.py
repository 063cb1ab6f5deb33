import json
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from export.graph import to_onnx_bytes
from export.parity import GATES, compare
from export.runners import OrtRunner, TorchRunner
from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.costs.tables import Counter
from fbnetv5.networks.backbone import recalibrate, task_network
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces import read_space
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks

SPACE = WideSpace(stages=1, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
TASKS = make_tasks(("cls", "det", "seg"), CLASSES)
SIZE = (32, 32)
PATHS = TASKS["cls"].paths
seeds = st.integers(0, 2**32)
names = st.sampled_from(tuple(TASKS))


def drawn(seed: int) -> Choices:
    return np.random.default_rng(seed).integers(np.array(SPACE.choice_counts))


def live(choices: Choices) -> NDArray[np.int64]:
    return SPACE.live_candidates(choices, PATHS)


def tensors(output: object) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)  # type: ignore[call-overload]


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


def test_a_path_has_a_variable_for_its_width() -> None:
    choices = {variable.name: variable.choices for variable in SPACE.variables}
    assert [choices[f"p{path}.width"] for path in (4, 8, 16, 32)] == [
        ("16", "24"),
        ("32", "40"),
        ("88", "120"),
        ("168", "224"),
    ]
    narrow = {variable.name for variable in WideSpace(variant="ac").variables}
    assert "p4.width" not in narrow  # 16 channels, of which three quarters round to 16
    assert "p8.width" in narrow


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_the_blocks_of_a_path_have_its_width(seed: int) -> None:
    choices = drawn(seed)
    chosen = {
        variable.name: int(variable.choices[choice])
        for variable, choice in zip(SPACE.variables, choices, strict=True)
        if variable.name.endswith(".width")
    }
    graph = SPACE.graph(choices, {"seg": (4, 8, 16, 32)})
    assert graph.channels("seg") == tuple(chosen.values())
    assert SPACE.feature_widths(choices[None], (4, 8, 16, 32)).tolist() == [list(chosen.values())]
    for step in graph.steps:
        if step.stage > 0:
            assert step.block.out_channels == chosen[f"p{step.stride}.width"]


@pytest.mark.parametrize("variant", ["a", "c", "f", "ac", "a-lite"])
def test_every_block_of_the_default_space_is_a_candidate(variant: str) -> None:
    wide = {node.name: node for node in WideSpace(variant=variant).nodes}  # type: ignore[arg-type]
    for node in FourPathSpace(variant=variant).nodes:  # type: ignore[arg-type]
        assert node.candidates[0] in wide[node.name].candidates
        assert node.skippable == wide[node.name].skippable


def test_a_variant_without_squeeze_excite_has_none_to_choose() -> None:
    space = WideSpace(variant="a-lite")
    assert not [variable.name for variable in space.variables if variable.name.endswith(".squeeze")]
    blocks = [block for node in space.nodes for block in node.candidates if isinstance(block, InvertedResidual)]
    assert {(block.squeeze, block.activation) for block in blocks} == {(False, "relu6")}
    assert [variable.name for variable in space.variables] == [
        variable.name for variable in WideSpace().variables if not variable.name.endswith(".squeeze")
    ]


def test_a_wide_space_is_read_as_it_was_written() -> None:
    assert read_space(json.loads(json.dumps(SPACE.to_json()))) == SPACE


@pytest.mark.parametrize("variant", ["a", "c", "f", "ac", "a-lite"])
def test_the_supernet_is_at_most_half_larger_than_that_of_the_default_space(variant: str) -> None:
    with torch.device("meta"):
        wide = Supernet(WideSpace(variant=variant), TASKS)  # type: ignore[arg-type]
        default = Supernet(FourPathSpace(variant=variant), TASKS)  # type: ignore[arg-type]
    assert parameter_bytes(default) < parameter_bytes(wide) <= 1.5 * parameter_bytes(default)


def test_blocks_alone_may_be_skipped_and_keep_their_other_choices() -> None:
    names = [variable.name for variable in SPACE.variables]
    assert [name for name, skipping in zip(names, SPACE.skipping, strict=True) if skipping] == [
        name for name in names if "." not in name
    ]
    assert SPACE.full().tolist() == SPACE.skipping.astype(int).tolist()
    drawn = SPACE.random(np.zeros((500, len(names)), dtype=np.bool_), np.random.default_rng(0))
    assert not drawn[:, SPACE.skipping].any()
    shares = (drawn[:, names.index("s1_p8_0.kernel"), None] == np.arange(3)).mean(0)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.08)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_a_variable_matters_if_one_of_its_choices_changes_the_network(seed: int) -> None:
    choices = drawn(seed)
    for variable, needed in enumerate(SPACE.needed(choices[None], PATHS)[0]):
        others = np.repeat(choices[None], SPACE.choice_counts[variable], axis=0)
        others[:, variable] = np.arange(len(others))
        assert needed == (live(others) != live(others[:1])).any()


@settings(max_examples=50, deadline=None)
@given(seed=seeds, name=names)
def test_multiply_adds_of_a_member_equal_torchs_count(seed: int, name: str) -> None:
    choices = drawn(seed)
    with torch.device("meta"), FlopCounterMode(display=False) as flops, torch.no_grad():
        network = task_network(TASKS[name], SPACE, choices).eval()
        network(torch.zeros(1, 3, *SIZE))
    counter = Counter(SIZE)
    cost = counter.table(SPACE, TASKS[name], "macs").cost_of(choices)
    counted = counter.graph(network.backbone.graph, {name: TASKS[name]})
    assert cost == counted.macs
    assert flops.get_total_flops() == 2 * counted.macs_conv


@settings(max_examples=50, deadline=None)
@given(seed=seeds, name=names)
@torch.no_grad()
def test_a_member_with_sliced_weights_returns_the_supernets_outputs(seed: int, name: str) -> None:
    supernet, choices = lively(), drawn(seed)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    expected = tensors(supernet(images, choices)[name])
    own = tensors(supernet.derive(name, choices).raw(images)[name])
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_a_narrow_head_trains_the_leading_channels_of_the_widest() -> None:
    torch.manual_seed(0)
    supernet = Supernet(SPACE, TASKS)
    narrow = SPACE.empty()
    supernet(torch.randn(2, 3, *SIZE), narrow)["cls"].sum().backward()
    head = {name: weight.grad for name, weight in supernet.heads["cls"].named_parameters()}
    (gradient,) = (grad for grad in head.values() if grad is not None and grad.shape[1:] == (224, 1, 1))
    assert gradient[: 6 * 168, :168].abs().sum() > 0
    assert gradient.count_nonzero() == gradient[: 6 * 168, :168].count_nonzero()


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 50))])
def test_an_exported_member_computes_what_torch_does(seed: int) -> None:
    network = lively().derive(tuple(TASKS)[seed % len(TASKS)], drawn(seed))
    with torch.no_grad():  # else activations grow from block to block, and rounding errors with them
        recalibrate(network, [torch.randn(16, 3, 96, 96, generator=torch.Generator().manual_seed(seed))], network.raw)
    images = {"image": np.random.default_rng(seed).normal(size=(2, 3, *SIZE)).astype(np.float32)}
    content = to_onnx_bytes(
        network,
        (torch.from_numpy(images["image"]),),
        input_names=["image"],
        output_names=network.task.output_names,
        dynamic_batch=True,
    )
    expected = TorchRunner(network, ["image"], network.task.output_names)(images)
    parities = compare(expected, OrtRunner(content)(images), rank_by=network.task.ranked_by)
    assert [GATES["fp32"].failure_reason(parity) for parity in parities] == [None] * len(parities)
