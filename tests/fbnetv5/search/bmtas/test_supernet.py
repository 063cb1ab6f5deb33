from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from fbnetv5.blocks.specs import BottleneckModule, InvertedResidualModule
from fbnetv5.networks.pretrained import encoder_weights
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.search.bmtas.prepare import Prepared
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.spaces.branching import BranchingSpace
from tests.fbnetv5.networks.peers import live_model

TREE = [[0] * 28, [0] * 10 + [1] * 18, [0] * 10 + [1] * 8 + [2] * 10]
"""A tree of three tasks over the 29 layers of the encoder, less the last."""


@pytest.fixture
def supernet(prepared: Prepared) -> BranchedSupernet:
    torch.manual_seed(0)
    supernet = BranchedSupernet(prepared.space, prepared.tasks)
    with torch.no_grad():
        for parameter in supernet.layers.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01 * parameter.requires_grad)
    return supernet.eval()


def routing() -> list[list[int]]:
    return [[*row, row[-1]] for row in TREE]


def flat(raw: object) -> list[torch.Tensor]:
    return [raw] if isinstance(raw, torch.Tensor) else list(raw)  # type: ignore[call-overload]


def test_the_soft_routing_of_certain_copies_equals_the_hard_routing(supernet: BranchedSupernet) -> None:
    images = torch.randn(2, 3, 32, 32)
    weights = functional.one_hot(torch.tensor(routing()).T, 3).float()
    with torch.no_grad():
        soft, hard = supernet.soft(images, weights), supernet.hard(images, routing())
    for name in supernet.tasks:
        for one, other in zip(flat(soft[name]), flat(hard[name]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_layers_run_once_per_group_or_once_per_copy_and_task(supernet: BranchedSupernet) -> None:
    images = torch.randn(2, 3, 32, 32)
    supernet.hard(images, routing())
    assert supernet.layer_runs == 10 + 2 * 8 + 3 * 11
    supernet.layer_runs = 0
    supernet.soft(images, torch.full((29, 3, 3), 1 / 3))
    assert supernet.layer_runs == 29 * 9


def test_copies_start_equal_and_their_last_norm_stays_the_identity(prepared: Prepared) -> None:
    supernet = BranchedSupernet(prepared.space, prepared.tasks)
    for copies in supernet.layers:
        states = [copy.state_dict() for copy in copies.children()]
        assert all(torch.equal(states[0][name], state[name]) for state in states[1:] for name in state)
        for copy in copies.children():
            *_, last = (child for child in copy.modules() if isinstance(child, nn.BatchNorm2d))
            assert not last.weight.requires_grad
            assert bool((last.weight == 1).all())


@pytest.mark.parametrize("encoder", ["fbnetv3-a", "mobilenetv2", "efficientnet-lite0", "resnet50"])
def test_only_the_last_norm_of_a_layers_main_branch_is_fixed(encoder: str, prepared: Prepared) -> None:
    space = BranchingSpace(encoder=encoder, width=0.25, copies=3)
    supernet = BranchedSupernet(space, prepared.tasks)
    for layer in supernet.layers.modules():
        if isinstance(layer, InvertedResidualModule | BottleneckModule):
            frozen = {name for name, parameter in layer.named_parameters() if not parameter.requires_grad}
            assert frozen == {"project.1.weight", "project.1.bias"}
    assert bool(supernet.soft(torch.randn(2, 3, 64, 64), torch.full((len(space.layers), 3, 3), 1 / 3)))


def test_all_copies_start_from_published_weights_with_a_fixed_last_scale(tmp_path: Path, prepared: Prepared) -> None:
    model, file = live_model("torchvision", "mobilenet_v2"), tmp_path / "model.safetensors"
    save_tensors(file, model.state_dict())
    supernet = BranchedSupernet(BranchingSpace(encoder="mobilenetv2", copies=3), prepared.tasks)
    supernet.load_encoder(encoder_weights("mobilenetv2", str(file)))
    theirs = model.state_dict()
    for copy in range(3):
        own = supernet.layers.get_submodule(f"16.{copy}.project").state_dict()
        assert torch.equal(own["0.weight"], theirs["features.17.conv.2.weight"])
        assert torch.equal(own["1.running_var"], theirs["features.17.conv.3.running_var"])
        assert torch.equal(own["1.weight"], theirs["features.17.conv.3.weight"])
        assert not supernet.layers.get_submodule(f"16.{copy}.project.1").weight.requires_grad
