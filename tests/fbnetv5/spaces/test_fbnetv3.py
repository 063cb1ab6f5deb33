from dataclasses import replace
from itertools import chain, pairwise

import pytest
import timm
import torch
from torch import nn

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual, Stem
from fbnetv5.costs.counting import Count, count
from fbnetv5.spaces.fbnetv3 import FBNETV3, STRIDES, VARIANTS, FBNetV3, FBNetV3Network, fbnetv3, with_repeats

PUBLISHED = {
    "a": (356_598_280, 8_542_224),
    "b": (461_550_136, 8_542_224),
    "c": (556_969_904, 9_907_136),
    "d": (644_420_352, 10_237_552),
    "e": (762_046_336, 10_699_464),
    "f": (1_181_644_520, 13_803_072),
    "g": (2_129_656_384, 16_513_648),
}
ORDINARY_MFLOPS = {
    "a": "408.740",
    "b": "521.592",
    "c": "635.550",
    "d": "644.420",
    "e": "860.882",
    "f": "1272.842",
    "g": "2129.656",
}
WIDTHS = {"a": (24, 40, 120, 224), "c": (24, 48, 120, 216), "f": (32, 56, 144, 272)}
SINGLE_LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)


def count_network(config: FBNetV3) -> Count:
    return count(lambda: FBNetV3Network(config), [(3, config.resolution, config.resolution)])


def liven(module: nn.Module) -> None:
    """Give every batch norm statistics and weights under which no layer is trivial."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 1.5)


def copy_by_order(source: nn.Module, target: nn.Module) -> None:
    """Copy layer by layer; a 1x1 convolution fits a linear layer, and a bias that the source lacks becomes zero."""
    pairs = [[layer for layer in net.modules() if isinstance(layer, SINGLE_LAYERS)] for net in (source, target)]
    for ours, theirs in zip(pairs[1], pairs[0], strict=True):
        tensors = theirs.state_dict()
        for name, value in ours.state_dict().items():
            value.copy_(tensors[name].view_as(value) if name in tensors else torch.zeros_like(value))


@pytest.mark.parametrize("letter", FBNETV3)
def test_published_figures_to_the_last_digit(letter: str) -> None:
    count = count_network(FBNETV3[letter])
    assert (count.macs, count.params) == PUBLISHED[letter]


@pytest.mark.parametrize("letter", FBNETV3)
def test_figures_with_ordinary_padding(letter: str) -> None:
    count = count_network(FBNETV3[letter].with_ordinary_padding())
    assert f"{count.macs / 1e6:.3f}" == ORDINARY_MFLOPS[letter]
    assert count.params == PUBLISHED[letter][1]


@pytest.mark.parametrize(("net", "peer"), [("a", "fbnetv3_b"), ("d", "fbnetv3_d"), ("g", "fbnetv3_g")])
def test_every_layer_is_as_in_timm(net: str, peer: str) -> None:
    with torch.device("meta"):
        nets = timm.create_model(peer, pretrained=False), FBNetV3Network(FBNETV3[net].with_ordinary_padding())
    shapes = [
        [
            (layer.weight.flatten(1).shape, getattr(layer, "groups", 1), getattr(layer, "stride", (1, 1)))
            for layer in network.modules()
            if isinstance(layer, (nn.Conv2d, nn.Linear))
        ]
        for network in nets
    ]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_variant_a_returns_what_timm_returns() -> None:
    torch.manual_seed(0)
    peer = timm.create_model("fbnetv3_b", pretrained=False).eval().double()
    liven(peer)
    network = FBNetV3Network(FBNETV3["a"].with_ordinary_padding()).eval().double()
    copy_by_order(peer, network)
    for side in (224, 256):
        images = torch.randn(2, 3, side, side, dtype=torch.float64)
        expected, outputs = peer(images), network(images)
        spread = float(expected.max() - expected.min())
        assert spread > 1e-3
        assert float((expected[0] - expected[1]).abs().max()) > 1e-2 * spread
        assert float((outputs - expected).abs().max()) <= 1e-4 * spread


@pytest.mark.parametrize("letter", FBNETV3)
def test_partitions_end_where_the_four_paths_begin(letter: str) -> None:
    partitions = FBNETV3[letter].partitions()
    stride = 1
    for end, partition in zip(STRIDES, partitions, strict=True):
        for block in partition:
            stride *= block.stride
        assert stride == end
    if letter in WIDTHS:
        assert tuple(partition[-1].out_channels for partition in partitions) == WIDTHS[letter]


@pytest.mark.parametrize("letter", FBNETV3)
def test_each_block_reads_the_width_of_the_block_before(letter: str) -> None:
    blocks = [block for partition in FBNETV3[letter].partitions() for block in partition]
    assert isinstance(blocks[0], Stem)
    for before, block in pairwise(blocks):
        assert isinstance(block, InvertedResidual)
        assert block.in_channels == before.out_channels


def test_published_padding_shrinks_the_last_map_of_a() -> None:
    network = FBNetV3Network(FBNETV3["a"]).eval()
    assert network.blocks(torch.zeros(1, 3, 224, 224)).shape == (1, 224, 6, 6)


@pytest.mark.parametrize("name", ["fbnetv3-c", "FBNetV3-C", "c"])
def test_a_network_is_found_by_name(name: str) -> None:
    assert fbnetv3(name) is FBNETV3["c"]


@pytest.mark.parametrize("name", ["fbnetv3-h", "", "fbnetv3", "resnet50"])
def test_the_error_for_an_unknown_name_lists_the_names(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown network .*; there are: fbnetv3-a, .*, fbnetv3-g"):
        fbnetv3(name)


def test_variants_are_published_networks_with_ordinary_padding_but_for_ac_and_a_lite() -> None:
    for letter in ("a", "c", "f"):
        assert VARIANTS[letter].network == FBNETV3[letter].with_ordinary_padding()
    narrow, whole = VARIANTS["ac"].network, VARIANTS["a"].network
    assert [group.channels for group in narrow.groups] == [16, 16, 32, 48, 80, 120, 144]  # 10, 16, 26, 47, 78, 120, 146
    assert narrow.partitions()[3][1].kernel == whole.partitions()[3][1].kernel
    assert [len(blocks) for blocks in narrow.partitions()] == [len(blocks) for blocks in whole.partitions()]


def test_a_lite_has_the_shapes_of_a_without_squeeze_excite_and_hard_swish() -> None:
    light, whole = (VARIANTS[name].network for name in ("a-lite", "a"))
    for own, other in zip(chain(*light.partitions()), chain(*whole.partitions()), strict=True):
        expected = replace(other, activation="relu6")
        assert own == (expected if isinstance(expected, Stem) else replace(expected, squeeze=False))
    modules = list(FBNetV3Network(light).blocks.modules())
    assert any(isinstance(module, nn.ReLU6) for module in modules)
    assert not any(isinstance(module, nn.Hardswish | nn.Hardsigmoid) for module in modules)


def test_a_network_has_other_repeats() -> None:
    e, f = FBNETV3["e"], FBNETV3["f"]
    longer = with_repeats(e, [group.repeats for group in f.groups])
    assert [len(blocks) for blocks in longer.partitions()] == [len(blocks) for blocks in f.partitions()]
    assert [group.channels for group in longer.groups] == [group.channels for group in e.groups]
