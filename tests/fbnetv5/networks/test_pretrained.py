from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from torch import Tensor, nn

from export.errors import UnavailableError, UserError
from fbnetv5.architecture import make_architecture
from fbnetv5.data.preprocess import MEAN, STD
from fbnetv5.data.scenes import CLASSES
from fbnetv5.networks.pretrained import PUBLISHED, TIMM, VERSION, encoder_weights, load_blocks, stage_zero_weights
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.encoders import ENCODERS
from fbnetv5.spaces.four_path import FourPaths, FourPathSpace
from fbnetv5.spaces.variants import widen_choices
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks
from tests.fbnetv5.networks.peers import live_model

FEATURES: dict[tuple[str, str], tuple[str, ...]] = {
    ("torchvision", "mobilenetv2"): ("features.3", "features.6", "features.13", "features.17"),
    ("torchvision", "resnet50"): ("layer1", "layer2", "layer3", "layer4"),
    (TIMM, "mobilenetv2"): ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    (TIMM, "efficientnet-lite0"): ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    (TIMM, "resnet50"): ("layer1", "layer2", "layer3", "layer4"),
    **{(TIMM, f"fbnetv3-{letter}"): ("blocks.1", "blocks.2", "blocks.4", "blocks.5") for letter in "abdg"},
}
"""(library, encoder) -> the layers of its model whose outputs are the features of strides 4, 8, 16 and 32."""


def peer_of(library: str, encoder: str, **options: Any) -> nn.Module:
    return live_model(library, PUBLISHED[library][encoder], **options)


def peer_features(model: nn.Module, layers: tuple[str, ...], images: Tensor) -> list[Tensor]:
    outputs: list[Tensor] = []
    for layer in layers:
        model.get_submodule(layer).register_forward_hook(lambda *call: outputs.append(call[-1].clone()))
    model.double()(images)
    return outputs


def own_features(encoder: str, source: str, images: Tensor) -> list[Tensor]:
    """Features of a branched network of two tasks in float64, whose encoder starts from ``source``."""
    space = BranchingSpace(encoder=encoder, copies=2)
    choices = {"cls": [1] * len(space.layers), "seg": [0] * len(space.layers)}
    network = make_architecture(space, choices, CLASSES, (64, 64), provenance={}).build().eval()
    names = [node.name for node in space.nodes]
    load_blocks(network, dict(zip(names, encoder_weights(encoder, source), strict=True)))
    features = network.double().backbone(images)
    assert torch.equal(features["cls"][0], features["seg"][-1])
    return list(features["seg"])


@torch.no_grad()
@pytest.mark.parametrize(("library", "encoder"), FEATURES)
def test_features_equal_those_of_the_library(tmp_path: Path, library: str, encoder: str) -> None:
    model, images = peer_of(library, encoder), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    save_tensors(tmp_path / "peer.safetensors", model.state_dict())
    ours = own_features(encoder, str(tmp_path / "peer.safetensors"), images)
    for own, peer in zip(ours, peer_features(model, FEATURES[library, encoder], images), strict=True):
        assert own.shape == peer.shape
        assert float((own - peer).abs().max()) <= 1e-5 * float(peer.max() - peer.min())


PLAIN = FourPathSpace(stages=1, blocks_per_path=1)


@torch.no_grad()
@pytest.mark.parametrize("space", [PLAIN, PLAIN.changed(strict=True), WideSpace(stages=1, blocks_per_path=1)], ids=str)
def test_stage_zero_of_a_supernet_returns_what_timm_returns(tmp_path: Path, space: FourPaths) -> None:
    model, images = peer_of(TIMM, "fbnetv3-a"), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    save_tensors(tmp_path / "peer.safetensors", model.state_dict())
    supernet = Supernet(space, make_tasks(("seg",), CLASSES)).eval()
    random = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.load_blocks(stage_zero_weights(space, str(tmp_path / "peer.safetensors")))
    plain = space if isinstance(space, FourPathSpace) else PLAIN
    choices = np.array([variable.name.startswith("s0_") for variable in plain.variables], dtype=np.int64)
    choices = widen_choices(choices, plain, space)
    for name, tensor in supernet.state_dict().items():
        assert name.startswith("blocks.s0_") or torch.equal(tensor, random[name])
    ours, theirs = supernet.double().trunk(images, choices)["seg"], FEATURES[TIMM, "fbnetv3-a"]
    for own, peer in zip(ours, peer_features(model, theirs, images), strict=True):
        assert float((own - peer).abs().max()) <= 1e-5 * float(peer.max() - peer.min())


def test_published_weights_were_trained_on_images_normalised_alike() -> None:
    for encoder in PUBLISHED["torchvision"].values():
        transforms = torchvision.models.get_model_weights(encoder)[VERSION].transforms()
        assert (tuple(transforms.mean), tuple(transforms.std)) == (MEAN, STD)
    for encoder in PUBLISHED[TIMM].values():
        config = timm.get_pretrained_cfg(encoder)
        assert (config.mean, config.std) == (MEAN, STD)


def test_torchvisions_weights_are_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = peer_of("torchvision", "mobilenetv2")
    file = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    weights = encoder_weights("mobilenetv2", "torchvision")
    assert torch.equal(weights[0]["0.weight"], model.state_dict()["features.0.0.weight"])
    assert torch.equal(weights[-1]["project.1.running_var"], model.state_dict()["features.17.conv.3.running_var"])
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UnavailableError, match="torchvision could not load the weights of mobilenet_v2"):
        encoder_weights("mobilenetv2", "torchvision")


def test_a_failed_download_says_what_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(UnavailableError, match=rf"connect this machine, or copy torch's cache \({tmp_path}/hub\)"):
        encoder_weights("resnet50", "torchvision")


def test_a_failed_download_of_timm_names_the_folder_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match=rf"or copy timm's cache \({tmp_path}\) from one that is connected"):
        encoder_weights("resnet50", "timm")


@pytest.mark.parametrize(
    ("encoder", "source", "width", "message"),
    [
        ("resnet50", "torchvision", 0.5, "published weights are for width 1, not 0.5. Use --init scratch"),
        ("fbnetv3-c", "timm", 1.0, "timm has no weights that fit fbnetv3-c, only fbnetv3-a, fbnetv3-b, fbnetv3-d"),
        ("fbnetv3-a", "torchvision", 1.0, "torchvision has no weights that fit fbnetv3-a, only mobilenetv2, resnet50"),
        ("resnet50", "imagenet", 1.0, "imagenet does not exist. Name a file, or one of: scratch, torchvision, timm$"),
        ("fbnetv3-a", "imagenet", 1.0, "Name a file, or one of: scratch, timm$"),
        ("fbnetv3-c", "imagenet", 1.0, "Name a file, or one of: scratch$"),
    ],
)
def test_weights_that_do_not_exist_are_refused(encoder: str, source: str, width: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        encoder_weights(encoder, source, width=width)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet50", "does not have the tensors of torchvision's resnet50 or timm's resnet50. Use --init scratch"),
        ("fbnetv3-c", "cannot be used: no library has fbnetv3-c"),
        ("mobilenetv2", r"0\.0\.weight has shape \[24, 3, 3, 3\], \[32, 3, 3, 3\] is needed"),
    ],
)
def test_a_file_of_another_model_is_refused(tmp_path: Path, encoder: str, message: str) -> None:
    file = tmp_path / "narrow.safetensors"
    save_tensors(file, peer_of("torchvision", "mobilenetv2", width_mult=0.75).state_dict())
    with pytest.raises(UserError, match=message):
        encoder_weights(encoder, str(file))


def test_every_published_model_is_of_an_encoder_and_is_compared() -> None:
    pairs = {(library, encoder) for library, encoders in PUBLISHED.items() for encoder in encoders}
    assert pairs == FEATURES.keys()
    assert {encoder for _, encoder in pairs} <= ENCODERS.keys()
