from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.models.efficientnet import _gen_efficientnet_lite
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.errors import UserError
from fbnetv5.costs.counting import count
from fbnetv5.spaces.encoders import ENCODERS, encoder_name
from fbnetv5.spaces.fbnetv3 import fbnetv3, scaled

IMAGE = (3, 224, 224)
LAST = {"DepthwiseSeparableConv": "conv_pw", "InvertedResidual": "conv_pwl"}
"""timm's block -> its last convolution."""


def without_classifier(name: str) -> nn.Module:
    """The encoder of the library's model: without pool and classifier and, of all but ResNet, the last convolution."""
    if name == "efficientnet-lite0":
        peer: nn.Module = timm.create_model("efficientnet_lite0")
        return nn.Sequential(*(peer.get_submodule(part) for part in ("conv_stem", "bn1", "blocks")))
    if name == "mobilenetv2":
        features: nn.Sequential = torchvision.models.mobilenet_v2().features
        return features[:-1]
    return nn.Sequential(*list(torchvision.models.resnet50().children())[:-2])


def counted_flops(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build().eval()(torch.empty(1, *IMAGE))
    return int(counter.get_total_flops())


def counted_macs(name: str) -> int:
    return count(lambda: nn.Sequential(*(block.build() for block in ENCODERS[name](1.0))), [IMAGE]).macs


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet-lite0", "resnet50"])
def test_multiply_adds_equal_those_of_the_library(name: str) -> None:
    assert 2 * counted_macs(name) == counted_flops(lambda: without_classifier(name))


@pytest.mark.parametrize(
    ("name", "classifier", "published"),
    [("mobilenetv2", 49 * 320 * 1280 + 1280 * 1000, 0.301), ("resnet50", 2048 * 1000, 4.089)],
)
def test_multiply_adds_equal_those_of_torchvisions_documentation(name: str, classifier: int, published: float) -> None:
    assert round((counted_macs(name) + classifier) / 1e9, 3) == published


@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, 2.0])
def test_mobilenetv2_has_torchvisions_widths(width: float) -> None:
    with torch.device("meta"):
        peer = torchvision.models.mobilenet_v2(width_mult=width).features
    theirs = [peer[0].out_channels, *(block.out_channels for block in list(peer)[1:-1])]
    assert [block.out_channels for block in ENCODERS["mobilenetv2"](width)] == theirs


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.1, 1.4])
def test_efficientnet_lite0_has_timms_widths(width: float) -> None:
    with torch.device("meta"):
        peer = _gen_efficientnet_lite("efficientnet_lite0", channel_multiplier=width)
    theirs = [
        peer.conv_stem.out_channels,
        *(getattr(block, LAST[type(block).__name__]).out_channels for stage in peer.blocks for block in stage),
    ]
    assert [block.out_channels for block in ENCODERS["efficientnet-lite0"](width)] == theirs


def test_resnet50_at_half_the_width_has_half_the_channels_everywhere() -> None:
    whole, half = ENCODERS["resnet50"](1.0), ENCODERS["resnet50"](0.5)
    assert [2 * block.out_channels for block in half] == [block.out_channels for block in whole]


def test_half_the_width_has_about_a_quarter_of_the_weights() -> None:
    config = fbnetv3("a")
    widths = [group.channels for group in scaled(config, 0.5).groups]
    assert widths == [8, 16, 24, 40, 64, 96, 112]  # round_width of 8, 12, 20, 36, 60, 92, 112
    assert scaled(config, 1.0) == config


@pytest.mark.parametrize(("name", "full"), [("ResNet50", "resnet50"), ("fbnetv3-A", "fbnetv3-a"), ("g", "fbnetv3-g")])
def test_names_may_be_in_capitals_or_a_letter(name: str, full: str) -> None:
    assert encoder_name(name) == full


def test_an_unknown_name_lists_all() -> None:
    with pytest.raises(
        UserError, match=r"unknown encoder 'vgg'; there are: fbnetv3-a, .*, efficientnet-lite0, resnet50$"
    ):
        encoder_name("vgg")
