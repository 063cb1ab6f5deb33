from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fbnetv5.blocks.specs import (
    Block,
    Bottleneck,
    Fusion,
    Hardswish,
    InvertedResidual,
    PooledHead,
    SqueezeExcite,
    Stem,
    initialise,
    last_norm,
    residual_branch,
    round_width,
)

BLOCKS: dict[str, tuple[Block, str]] = {
    "stem": (Stem(out_channels=16), "stem_c16"),
    "plain": (InvertedResidual(kernel=3, in_channels=16, out_channels=16, expansion=1), "ir_k3_c16-16_e1_s1"),
    "strided": (
        InvertedResidual(kernel=5, in_channels=16, out_channels=24, expansion=4, stride=2),
        "ir_k5_c16-24_e4_s2",
    ),
    "squeezed": (
        InvertedResidual(kernel=5, in_channels=40, out_channels=40, expansion=3, squeeze=True),
        "ir_k5_c40-40_e3_s1_se",
    ),
    "unpadded": (
        InvertedResidual(kernel=3, in_channels=24, out_channels=32, expansion=6, stride=2, padding=0),
        "ir_k3_c24-32_e6_s2_pad0",
    ),
    "stem with a pool": (Stem(out_channels=64, kernel=7, activation="relu", pool=True), "stem_c64_k7_relu_pool"),
    "with ReLU6": (
        InvertedResidual(kernel=3, in_channels=24, out_channels=32, expansion=6, stride=2, activation="relu6"),
        "ir_k3_c24-32_e6_s2_relu6",
    ),
    "bottleneck": (Bottleneck(in_channels=64, mid_channels=16), "bottleneck_c64-16-64_s1"),
    "strided bottleneck": (
        Bottleneck(in_channels=64, mid_channels=32, stride=2),
        "bottleneck_c64-32-128_s2",
    ),
    "fuse up": (Fusion(source_channels=40, target_channels=24, up=True), "fuse_up_c40-24"),
    "fuse down": (Fusion(source_channels=24, target_channels=40, up=False), "fuse_down_c24-40"),
}


@pytest.mark.parametrize(
    ("width", "rounded"),
    [(1, 8), (12, 16), (11.9, 16), (18, 24), (20, 24), (42, 40), (42.5, 48), (44, 48), (86, 88), (120, 120)],
)
def test_widths_round_to_eight_and_never_lose_over_five_percent(width: float, rounded: int) -> None:
    assert round_width(width) == rounded


@pytest.mark.parametrize(("min_share", "rounded"), [(0.95, 48), (0.9, 40)])
def test_a_width_may_lose_more_where_its_network_says_so(min_share: float, rounded: int) -> None:
    assert round_width(43, min_share=min_share) == rounded


@given(width=st.integers(1, 4096), divisor=st.sampled_from([1, 2, 4, 8, 16]))
def test_a_rounded_width_is_the_nearest_multiple_or_the_one_above(width: int, divisor: int) -> None:
    rounded = round_width(width, divisor)
    assert rounded % divisor == 0
    assert rounded >= divisor
    assert Fraction(rounded, width) >= Fraction(95, 100)
    assert abs(rounded - width) < divisor


@pytest.mark.parametrize(("block", "key"), BLOCKS.values(), ids=BLOCKS)
def test_a_key_names_the_block(block: Block, key: str) -> None:
    assert block.key == key


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "unpadded"])
def test_a_block_divides_its_first_input_by_its_stride(name: str) -> None:
    block = BLOCKS[name][0]
    inputs = [torch.randn(2, *shape) for shape in block.input_shapes(8, 12)]
    assert inputs[0].shape[2:] == (8, 12)
    output = block.build().eval()(*inputs)
    assert output.shape == (2, block.out_channels, 8 // block.stride, 12 // block.stride)


def test_padding_zero_shrinks_a_strided_map() -> None:
    block = BLOCKS["unpadded"][0]
    assert block.build().eval()(torch.randn(1, 24, 14, 14)).shape == (1, 32, 6, 6)


@pytest.mark.parametrize(
    ("in_channels", "expansion", "mid", "squeezed"), [(40, 3, 120, 16), (24, 5, 120, 8), (184, 4, 736, 48)]
)
def test_the_squeeze_is_a_quarter_of_the_input(in_channels: int, expansion: int, mid: int, squeezed: int) -> None:
    block = InvertedResidual(kernel=3, in_channels=in_channels, out_channels=8, expansion=expansion, squeeze=True)
    assert (block.mid_channels, block.squeeze_channels) == (mid, squeezed)
    gate = block.build().get_submodule("squeeze")
    assert isinstance(gate, SqueezeExcite)
    assert (gate.reduce.out_channels, gate.expand.out_channels) == (squeezed, mid)


def test_only_squeeze_excite_has_convolution_biases() -> None:
    convs = {name: conv for name, conv in BLOCKS["squeezed"][0].build().named_modules() if isinstance(conv, nn.Conv2d)}
    assert {name for name, conv in convs.items() if conv.bias is not None} == {"squeeze.reduce", "squeeze.expand"}


@pytest.mark.parametrize(("name", "expands"), [("plain", False), ("squeezed", True)])
def test_nothing_is_expanded_where_widths_agree(name: str, expands: bool) -> None:
    expand = BLOCKS[name][0].build().get_submodule("expand")
    assert isinstance(expand, nn.Identity) is not expands


@pytest.mark.parametrize("name", ["plain", "squeezed", "fuse up", "fuse down"])
def test_blocks_that_can_be_skipped_start_as_the_identity(name: str) -> None:
    block = BLOCKS[name][0]
    module = block.build()
    initialise(module)
    inputs = [torch.randn(2, *shape) for shape in block.input_shapes(8, 8)]
    assert torch.equal(module(*inputs), inputs[0])


def test_a_bottleneck_starts_as_its_shortcut_and_its_last_norm_is_not_the_shortcuts() -> None:
    x = torch.rand(2, 64, 8, 8)
    plain, strided = (BLOCKS[name][0].build() for name in ("bottleneck", "strided bottleneck"))
    for module in (plain, strided):
        initialise(module)
        assert last_norm(module) is module.get_submodule("project.1")
    assert torch.equal(plain(x), x)
    assert torch.equal(strided(x), strided.get_submodule("shortcut")(x).relu())


def test_a_coarser_source_is_repeated_and_a_finer_one_strided() -> None:
    for name, size in (("fuse up", (4, 6)), ("fuse down", (16, 24))):
        assert BLOCKS[name][0].input_shapes(8, 12)[1][1:] == size
    module = BLOCKS["fuse up"][0].build().eval()
    added = module(torch.zeros(1, 24, 4, 4), torch.randn(1, 40, 2, 2))
    assert torch.equal(added, added[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_the_gate_multiplies_channels() -> None:
    gate = SqueezeExcite(8, 4).eval()
    x = torch.rand(2, 8, 3, 5) + 1
    ratio = gate(x.clone()) / x
    assert torch.allclose(ratio, ratio.mean((2, 3), keepdim=True).expand_as(ratio), atol=1e-6)
    assert ((ratio >= 0) & (ratio <= 1)).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_only_a_block_that_adds_its_input_unchanged_has_a_residual_branch(name: str) -> None:
    spec = BLOCKS[name][0]
    block = spec.build()
    branch = residual_branch(block)
    inputs = [torch.randn(2, *shape) for shape in spec.input_shapes(8, 12)]
    if branch is None:
        assert isinstance(spec, Fusion) or block.eval()(*inputs).shape != inputs[0].shape
        return
    branch.register_forward_hook(lambda module, arguments, output: output * 0)
    output = block.eval()(*inputs)
    torch.testing.assert_close(output, inputs[0].relu() if isinstance(spec, Bottleneck) else inputs[0])


def test_hard_swish_is_in_place_without_gradients() -> None:
    module, x = Hardswish(inplace=True), torch.linspace(-4, 4, 9)
    expected = nn.functional.hardswish(x)
    assert module(x) is not x
    with torch.no_grad():
        assert module(x) is x
    torch.testing.assert_close(x, expected)
    with torch.no_grad():
        assert Hardswish()(x) is not x


def test_the_head_pools_any_size_to_its_classes() -> None:
    head = PooledHead(24, 7).eval()
    x = torch.randn(2, 24, 3, 4)
    assert head(x).shape == (2, 7)
    assert torch.allclose(head(x), head(x.repeat(1, 1, 2, 3)), atol=1e-6)
    assert (head.hidden.in_features, head.hidden.out_features) == (144, 1984)


@pytest.mark.parametrize(("channels", "expanded"), [(320, 1920), (1024, 1984), (2048, 2048)])
def test_the_head_expands_wide_features_less(channels: int, expanded: int) -> None:
    with torch.device("meta"):
        head = PooledHead(channels, 7)
    assert head.hidden.in_features == expanded
    assert isinstance(head.expand, nn.Identity) is (expanded == channels)


def test_initial_weights_keep_the_scale() -> None:
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(64, 128, 3, groups=2), nn.Linear(400, 300)
    initialise(nn.Sequential(conv, linear))
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert float(linear.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert conv.bias is not None
    assert not conv.bias.any()
    assert not linear.bias.any()
