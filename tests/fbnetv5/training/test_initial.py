from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from export.errors import UnavailableError, UserError
from fbnetv5.architecture import Architecture, load_architecture, make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.runs.checkpoint import load_tensors, save_tensors
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.training.initial import copy_encoder, inherit_blocks, initial_network
from tests.fbnetv5.networks.peers import live_model


@pytest.fixture(scope="module")
def peer() -> nn.Module:
    return live_model("timm", "fbnetv3_b")


@pytest.fixture
def timm_with_weights(peer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``peer`` the pretrained model of timm, which cannot download in a test."""
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: peer if pretrained else None)


def with_choices(networks: Path, task: str, *, filled: bool) -> Architecture:
    """An architecture of which stage 0 is whole or holds nothing that can be skipped; later stages are empty."""
    architecture = load_architecture(networks / f"{task}.json")
    choices = [int(filled and variable.name.startswith("s0_")) for variable in architecture.space.variables]
    return architecture.changed(choices={task: tuple(choices)})


@torch.no_grad()
def test_stage_zero_returns_what_timm_returns(networks: Path, peer: nn.Module, timm_with_weights: None) -> None:
    network = with_choices(networks, "seg", filled=True).build().eval()
    copy_encoder(network, FourPathSpace(variant="a"), "timm")
    images, theirs = torch.randn(2, 3, 96, 96, dtype=torch.float64), []
    for number in (1, 2, 4, 5):
        layer = peer.get_submodule(f"blocks.{number}")
        layer.register_forward_hook(lambda *call: theirs.append(call[-1].clone()))
    peer.double()(images)
    for output, expected in zip(network.double().backbone(images)["seg"], theirs, strict=True):
        assert float((output - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())


def test_live_blocks_get_their_own_weights(networks: Path, timm_with_weights: None) -> None:
    whole = with_choices(networks, "det", filled=True).build()
    lean = with_choices(networks, "det", filled=False).build()
    for network in (whole, lean):
        copy_encoder(network, FourPathSpace(variant="a"), "timm")
    kept = [name for name in lean.backbone.blocks if name.startswith("s0_")]
    assert len(kept) < sum(name.startswith("s0_") for name in whole.backbone.blocks)
    for name in kept:
        for ours, theirs in zip(
            lean.backbone.blocks[name].state_dict().values(),
            whole.backbone.blocks[name].state_dict().values(),
            strict=True,
        ):
            assert torch.equal(ours, theirs)


def test_stage_zero_is_from_timm_and_the_rest_is_random(
    networks: Path, peer: nn.Module, timm_with_weights: None
) -> None:
    file = networks / "det.json"
    architecture = load_architecture(file)
    network = initial_network(architecture, "timm", file=file, seed=0)
    drawn = initial_network(architecture, "scratch", file=file, seed=0)
    stem = network.backbone.blocks["s0_p4_0"].state_dict()["0.weight"]
    assert torch.equal(stem, peer.state_dict()["conv_stem.weight"])
    for ours, theirs in zip(network.heads.state_dict().values(), drawn.heads.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_branched_network_starts_from_the_file_of_its_encoder(tmp_path: Path) -> None:
    model, file = live_model("torchvision", "mobilenet_v2"), tmp_path / "mobilenet.safetensors"
    save_tensors(file, model.state_dict())
    space = BranchingSpace(encoder="mobilenetv2", copies=2)
    choices = {"cls": [0] * len(space.layers), "seg": [0] * 5 + [1] * (len(space.layers) - 5)}
    architecture = make_architecture(space, choices, CLASSES, (64, 64), provenance={})
    blocks = initial_network(architecture, str(file), file=tmp_path / "cls+seg.json", seed=0).backbone.blocks
    last = model.state_dict()["features.17.conv.3.weight"]
    for task in ("cls", "seg"):
        assert torch.equal(blocks[f"layer16_of_{task}"].state_dict()["project.1.weight"], last)


def test_a_failed_download_is_a_one_line_error(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        UnavailableError, match=r"could not load the weights of fbnetv3_b \(OSError: no route to host\)"
    ):
        initial_network(load_architecture(networks / "cls.json"), "timm", file=networks / "cls.json", seed=0)


def test_variants_that_timm_has_no_weights_for_are_refused(networks: Path) -> None:
    network = load_architecture(networks / "det.json").build()
    with pytest.raises(UserError, match="no weights that fit fbnetv3-c, only fbnetv3-a"):
        copy_encoder(network, FourPathSpace(variant="c"), "timm")


def test_published_weights_do_not_fit_narrower_networks(networks: Path) -> None:
    network = load_architecture(networks / "det.json").build()
    with pytest.raises(UserError, match=r"published weights are for width 1, not 0\.65"):
        copy_encoder(network, FourPathSpace(variant="ac"), "timm")


def test_no_published_weights_fit_blocks_without_squeeze_excite(networks: Path) -> None:
    network = load_architecture(networks / "det.json").build()
    with pytest.raises(UserError, match=r"--init timm: no published weights fit variant a-lite\. Use --init scratch"):
        copy_encoder(network, FourPathSpace(variant="a-lite"), "timm")


def test_inherited_weights_and_weights_of_a_file_are_unchanged(networks: Path, tmp_path: Path) -> None:
    file = networks / "seg.json"
    architecture = load_architecture(file)
    drawn = initial_network(architecture, "scratch", file=file, seed=5)
    save_tensors(tmp_path / "own.safetensors", drawn.state_dict())
    for init, expected in (
        ("inherited", load_tensors(networks / "seg.safetensors")),
        (str(tmp_path / "own.safetensors"), drawn.state_dict()),
    ):
        tensors = initial_network(architecture, init, file=file, seed=0).state_dict()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_a_network_of_another_task_gives_its_blocks_alone(networks: Path, tmp_path: Path) -> None:
    file = networks / "det.json"
    source, tensors = load_architecture(file), load_tensors(networks / "det.safetensors")
    depth = make_architecture(source.space, {"depth": source.choices["det"]}, {"depth": ()}, (32, 32), provenance={})
    network = initial_network(depth, "inherited", file=file, seed=3, blocks_only=True)
    drawn = initial_network(depth, "scratch", file=file, seed=3)
    own, random = network.state_dict(), drawn.state_dict()
    for name, tensor in own.items():
        assert torch.equal(tensor, tensors[name] if name in tensors else random[name])
    assert {name for name in own if name not in tensors} == {name for name in own if name.startswith("heads.depth.")}


def test_blocks_of_another_space_are_refused(networks: Path) -> None:
    network = make_architecture(
        FourPathSpace(variant="f", stages=1, blocks_per_path=1),
        {"det": FourPathSpace(variant="f", stages=1, blocks_per_path=1).empty()},
        CLASSES,
        (32, 32),
        provenance={},
    ).build()
    with pytest.raises(UserError, match="holds the weights of another network"):
        inherit_blocks(network, networks / "det.safetensors")


def test_scratch_weights_follow_from_the_seed(networks: Path) -> None:
    file = networks / "det.json"
    architecture = load_architecture(file)
    first, again, other = (
        initial_network(architecture, "scratch", file=file, seed=seed).backbone.state_dict() for seed in (0, 0, 1)
    )
    name = "blocks.s0_p4_0.0.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert float(first[name].std()) == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.1)  # He-normal, fan out


def test_missing_weights_are_named(networks: Path) -> None:
    with pytest.raises(UserError, match=r"--init nowhere\.safetensors: nowhere\.safetensors does not exist"):
        initial_network(
            load_architecture(networks / "cls.json"), "nowhere.safetensors", file=networks / "cls.json", seed=0
        )
