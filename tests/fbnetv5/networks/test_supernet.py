from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.classification import Classification
from tests.fbnetv5.spaces.test_space import EVERYTHING, StageSpace

SPACE = FourPathSpace(stages=2, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
NAMES = ("cls", "det", "seg")


def drawn(seed: int) -> Choices:
    rng = np.random.default_rng(seed)
    return (rng.random(len(SPACE.variables)) < rng.uniform(0.2, 0.8)).astype(np.int64)


def lively(*names: str) -> Supernet:
    """A supernet in eval mode whose every block changes what passes it."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE, make_tasks(names, CLASSES))
    for norm in supernet.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    return supernet.eval()


def tensors(output: object) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)  # type: ignore[call-overload]


def assert_near(outputs: object, expected: object) -> None:
    """Equal to 1e-5 of the expected values' range."""
    for ours, theirs in zip(tensors(outputs), tensors(expected), strict=True):
        spread = float(theirs.max() - theirs.min())
        assert spread > 0
        assert float((ours - theirs).abs().max()) <= 1e-5 * spread


@pytest.mark.parametrize("names", [("cls",), ("det",), ("cls", "det"), NAMES], ids="+".join)
@torch.no_grad()
def test_one_pass_runs_each_live_block_once(names: tuple[str, ...]) -> None:
    supernet = lively(*names)
    calls: Counter[str] = Counter()
    for node, candidates in supernet.blocks.items():
        candidates.get_submodule("0").register_forward_hook(lambda *_, node=node: calls.update([node]))
    for seed in range(4):
        calls.clear()
        supernet(torch.randn(1, 3, 32, 32), drawn(seed))
        live = [SPACE.live(drawn(seed)[None], task.paths)[0] for task in supernet.tasks.values()]
        runs = np.logical_or.reduce(live)
        assert calls == {node.name: 1 for node, run in zip(SPACE.nodes, runs, strict=True) if run}


@pytest.mark.parametrize("names", [("seg",), ("cls", "seg"), NAMES], ids="+".join)
@torch.no_grad()
def test_the_trunk_passes_once_whatever_the_number_of_tasks(names: tuple[str, ...]) -> None:
    supernet = lively(*names)
    for passes in (1, 2, 3):
        outputs = supernet(torch.randn(1, 3, 32, 32), drawn(passes))
        assert supernet.trunk_passes == passes
        assert tuple(outputs) == names


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_a_block_is_live_exactly_if_features_depend_on_it(seed: int) -> None:
    supernet, choices = lively("cls").double(), drawn(seed)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = supernet(images, choices)["cls"]
    felt = []
    for node in SPACE.nodes:
        norms = [child for child in supernet.blocks[node.name].modules() if isinstance(child, nn.BatchNorm2d)]
        for norm in norms:
            norm.bias.add_(0.5)
        felt.append(not torch.equal(supernet(images, choices)["cls"], before))
        for norm in norms:
            norm.bias.sub_(0.5)
    live = SPACE.live(choices[None], (32,))[0]
    assert felt == live.tolist()
    assert 0 < live.sum() < len(live)


@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_derived_networks_return_the_supernets_outputs(seed: int) -> None:
    supernet, choices = lively(*NAMES), drawn(seed)
    recalibrate(supernet, [torch.randn(4, 3, 64, 64) for _ in range(2)], lambda x: supernet(x, choices))
    images = torch.randn(2, 3, 64, 64)
    raw = supernet(images, choices)
    for name, task in supernet.tasks.items():
        network = supernet.derive(name, choices)
        assert not network.training
        assert_near(network.raw(images)[network.task.name], raw[name])
        assert_near(network(images)[0], task.deploy(raw[name])[0])


def test_a_derived_network_has_live_blocks_alone() -> None:
    network = lively(*NAMES).derive("cls", drawn(3))
    live = SPACE.live(drawn(3)[None], (32,))[0]
    names = {node.name for node, runs in zip(SPACE.nodes, live, strict=True) if runs}
    keys = list(network.state_dict())
    assert {key.split(".")[2] for key in keys if key.startswith("backbone.")} == names
    assert {key.split(".")[0] for key in keys} == {"backbone", "heads"}


@torch.no_grad()
def test_derived_weights_are_copies() -> None:
    supernet = lively(*NAMES)
    images = torch.randn(1, 3, 32, 32)
    before = supernet(images, SPACE.full())["det"]
    network = supernet.derive("det", SPACE.full())
    for value in [*network.parameters(), *network.buffers()]:
        value.zero_()
    for now, then in zip(supernet(images, SPACE.full())["det"], before, strict=True):
        assert torch.equal(now, then)


def test_a_derived_network_keeps_the_mode() -> None:
    supernet = lively("cls")
    assert supernet.train().derive("cls", drawn(0)).training
    assert not supernet.eval().derive("cls", drawn(0)).training


@torch.no_grad()
def test_a_fresh_supernet_is_the_same_function_whatever_is_skipped() -> None:
    supernet = Supernet(SPACE, make_tasks(("cls",), CLASSES)).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(supernet(images, SPACE.full())["cls"], supernet(images, SPACE.empty())["cls"])


def test_gradients_reach_live_blocks_and_the_heads_alone() -> None:
    supernet = lively(*NAMES)
    outputs = supernet(torch.randn(2, 3, 64, 64), SPACE.empty())
    squares = [tensor.square().sum() for output in outputs.values() for tensor in tensors(output)]
    torch.autograd.backward(squares)
    for node in SPACE.nodes:
        reached = all(weight.grad is not None for weight in supernet.blocks[node.name].parameters())
        assert reached is (not node.variables)
    assert all(weight.grad is not None for weight in supernet.heads.parameters())


class FineClassification(Classification):
    """Classification on the only path of ``StageSpace``."""

    paths = (2,)


def stage_supernet() -> Supernet:
    """A supernet of one stage of 18 blocks of six structures, and a stem."""
    torch.manual_seed(0)
    supernet = Supernet(StageSpace(), {"cls": FineClassification(CLASSES)})
    for norm in supernet.blocks.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return supernet


def squares_gradient(supernet: Supernet, images: Tensor, choices: Choices) -> tuple[Tensor, list[Tensor | None]]:
    """The trunk's features, and the gradient of the sum of their squares for every weight of the blocks."""
    (features,) = supernet.trunk(images, choices)["cls"]
    weights = list(supernet.blocks.parameters())
    return features.detach(), list(torch.autograd.grad(features.square().sum(), weights, allow_unused=True))


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_features_and_gradients() -> None:
    plain, compiled = stage_supernet(), stage_supernet()
    compiled.compile_blocks()
    images, choices = torch.randn(2, 3, 64, 64), np.array([0, 2, 0])
    expected, expected_gradients = squares_gradient(plain, images, choices)
    features, gradients = squares_gradient(compiled, images, choices)
    assert_near(features, expected)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert (ours is None) is (theirs is None)
        if ours is not None and theirs is not None:
            assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())
    for name, value in plain.state_dict().items():  # running statistics too
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_blocks_of_one_structure_share_their_code_and_passes_without_gradients_use_none() -> None:
    counters, config = torch._dynamo.utils.counters, torch._dynamo.config
    torch._dynamo.reset()
    supernet, limit = stage_supernet(), 8
    supernet.compile_blocks()
    counters.clear()
    # torch's own default; an export in the same process can leave another limit behind.
    with config.patch(recompile_limit=limit), torch.compiler.set_stance(force_backend="eager"):
        for choices in EVERYTHING:
            with torch.no_grad():
                supernet.trunk(torch.randn(2, 3, 8, 8), choices)
        assert counters["stats"]["unique_graphs"] == 0
        for images in (2, 2, 3):
            for choices in EVERYTHING:
                supernet.trunk(torch.randn(images, 3, 8, 8), choices)
        structures = {block.key for node in supernet.space.nodes for block in node.candidates}
        assert counters["stats"]["unique_graphs"] == 2 * len(structures) > limit == config.recompile_limit


def test_compiled_blocks_keep_names_and_derived_networks_are_plain() -> None:
    plain, compiled = stage_supernet(), stage_supernet()
    compiled.compile_blocks()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    compiled.load_state_dict(plain.state_dict())
    network = compiled.derive("cls", compiled.space.full())
    assert all(module._compiled_call_impl is None for module in network.modules())
    assert sum(module._compiled_call_impl is not None for module in compiled.modules()) == 1 + 2 * 6 + 2 * 3


def test_a_copy_has_the_same_weights_and_statistics_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet = lively("cls").train()
    supernet.compile_blocks()
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: pytest.fail(f"another thread is {stance} now"))
    before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    copied = supernet.copy()
    with torch.no_grad():
        copied(torch.randn(2, 3, 64, 64), SPACE.full())
    assert all(own is other for own, other in zip(supernet.parameters(), copied.parameters(), strict=True))
    assert all(torch.equal(buffer, before[name]) for name, buffer in supernet.named_buffers())
    assert any(not torch.equal(buffer, before[name]) for name, buffer in copied.named_buffers())
