"""FBNetV3-A to -G as data (arXiv 2006.02049): the networks whose first layers are a space's stage 0.

A network is a stem and seven groups of inverted residuals, cut into four partitions by the stride they end at: 4, 8, 16
and 32. Some published networks pad one strided depthwise convolution unusually, which shrinks the late maps. The maps
of a supernet must halve exactly, so ``with_ordinary_padding`` returns a network without that padding.

Not included: training recipes and weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.blocks.specs import Activation, InvertedResidual, PooledHead, Stem, round_width

STRIDES = (4, 8, 16, 32)
"""Strides at which the four partitions end, which are the strides of a space's four paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Blocks of one width: a first block that may change the shape, and ``repeats`` blocks that keep it."""

    kernel: int
    channels: int
    expansion: int
    stride: int = 1
    squeeze: bool = False
    padding: int | None = None
    """Padding of the first depthwise convolution if it is not kernel // 2."""
    repeats: int = 0
    repeat_kernel: int = 0
    repeat_expansion: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FBNetV3:
    """One network of the family."""

    resolution: int
    """Height and width of the image that its published figures are for."""
    stem_channels: int
    groups: tuple[Group, ...]
    """Stages 1, 2, 3, 4a, 4b, 5 and the last block(s), in order."""
    activation: Activation = "hswish"

    @property
    def has_squeeze_excite(self) -> bool:
        """Whether any block has it."""
        return any(group.squeeze for group in self.groups)

    def with_ordinary_padding(self) -> "FBNetV3":
        """The same network with every depthwise convolution padded by kernel // 2."""
        return replace(self, groups=tuple(replace(group, padding=None) for group in self.groups))

    def light(self) -> "FBNetV3":
        """The same network with ReLU6 and without squeeze-excite, as EfficientNet-Lite differs from EfficientNet."""
        groups = tuple(replace(group, squeeze=False) for group in self.groups)
        return replace(self, groups=groups, activation="relu6")

    def partitions(self) -> tuple[tuple[Stem | InvertedResidual, ...], ...]:
        """The blocks in order, cut after the last blocks of stride 4, 8, 16 and 32."""
        stem = Stem(out_channels=self.stem_channels, activation=self.activation)
        blocks: list[Stem | InvertedResidual] = [stem]
        ends: list[int] = []
        width, stride = self.stem_channels, 2
        for group in self.groups:
            if group.stride == 2 and stride in STRIDES:
                ends.append(len(blocks))
            stride *= group.stride
            blocks += group_blocks(group, in_channels=width, activation=self.activation)
            width = group.channels
        return tuple(tuple(blocks[a:b]) for a, b in zip([0, *ends], [*ends, len(blocks)], strict=True))


def scaled(config: FBNetV3, width: float) -> FBNetV3:
    """The network with all widths multiplied by ``width`` and rounded to multiples of 8."""
    groups = tuple(replace(group, channels=round_width(group.channels * width)) for group in config.groups)
    return replace(config, stem_channels=round_width(config.stem_channels * width), groups=groups)


def with_repeats(config: FBNetV3, repeats: Sequence[int]) -> FBNetV3:
    """The network with other numbers of repeats, one per group."""
    groups = zip(config.groups, repeats, strict=True)
    return replace(config, groups=tuple(replace(group, repeats=number) for group, number in groups))


def group_blocks(group: Group, *, in_channels: int, activation: Activation = "hswish") -> list[InvertedResidual]:
    """The inverted residuals of a group, first to last."""
    first = InvertedResidual(
        kernel=group.kernel,
        in_channels=in_channels,
        out_channels=group.channels,
        expansion=group.expansion,
        stride=group.stride,
        squeeze=group.squeeze,
        padding=group.padding,
        activation=activation,
    )
    repeat = InvertedResidual(
        kernel=group.repeat_kernel,
        in_channels=group.channels,
        out_channels=group.channels,
        expansion=group.repeat_expansion,
        squeeze=group.squeeze,
        activation=activation,
    )
    return [first] + [repeat] * group.repeats


def _first(kernel: int, channels: int, repeats: int) -> Group:
    return Group(
        kernel=kernel, channels=channels, expansion=1, repeats=repeats, repeat_kernel=kernel, repeat_expansion=1
    )


def _group(
    first: tuple[int, int, int],
    repeat: tuple[int, int, int],
    *,
    stride: int = 2,
    se: bool = True,
    pad: int | None = None,
) -> Group:
    """A group from ``first`` = (kernel, channels, expansion) and ``repeat`` = (repeats, kernel, expansion)."""
    kernel, channels, expansion = first
    repeats, repeat_kernel, repeat_expansion = repeat
    return Group(
        kernel=kernel,
        channels=channels,
        expansion=expansion,
        stride=stride,
        squeeze=se,
        padding=pad,
        repeats=repeats,
        repeat_kernel=repeat_kernel,
        repeat_expansion=repeat_expansion,
    )


_A = (
    _first(3, 16, 1),
    _group((5, 24, 4), (3, 5, 2), se=False),
    _group((5, 40, 5), (4, 5, 3)),
    _group((5, 72, 5), (4, 3, 3), se=False, pad=1),
    _group((3, 120, 5), (5, 5, 3), stride=1),
    _group((3, 184, 6), (5, 5, 4), pad=0),
    _group((5, 224, 6), (0, 5, 6), stride=1),
)
_C = (
    _first(3, 16, 1),
    _group((5, 24, 5), (4, 3, 3), se=False),
    _group((5, 48, 5), (4, 5, 2)),
    _group((5, 88, 4), (4, 3, 3), se=False, pad=1),
    _group((3, 120, 4), (5, 5, 3), stride=1),
    _group((5, 216, 5), (5, 5, 5), pad=1),
    _group((5, 216, 6), (0, 5, 6), stride=1),
)
_D = (
    _first(3, 16, 1),
    _group((3, 24, 5), (5, 3, 2), se=False),
    _group((5, 40, 4), (4, 3, 3)),
    _group((3, 72, 5), (4, 3, 3), se=False),
    _group((3, 128, 5), (6, 5, 3), stride=1),
    _group((3, 208, 6), (5, 5, 5)),
    _group((5, 240, 6), (0, 5, 6), stride=1),
)
_E = (
    _first(3, 16, 2),
    _group((5, 24, 4), (4, 5, 2), se=False),
    _group((5, 48, 4), (4, 5, 3)),
    _group((5, 80, 5), (4, 3, 3), se=False, pad=1),
    _group((3, 128, 5), (7, 5, 3), stride=1),
    _group((3, 216, 6), (5, 5, 5)),
    _group((5, 240, 6), (0, 5, 6), stride=1),
)
_F = (
    _first(3, 24, 2),
    _group((5, 32, 4), (4, 5, 2), se=False),
    _group((5, 56, 4), (4, 5, 3)),
    _group((5, 88, 5), (4, 3, 3), se=False),
    _group((3, 144, 5), (8, 5, 3), stride=1),
    _group((3, 248, 6), (6, 5, 5), pad=0),
    _group((5, 272, 6), (0, 5, 6), stride=1),
)
_G = (
    _first(3, 24, 2),
    _group((5, 40, 4), (4, 5, 2), se=False),
    _group((5, 56, 4), (4, 5, 3)),
    _group((5, 104, 5), (4, 3, 3), se=False),
    _group((3, 160, 5), (8, 5, 3), stride=1),
    _group((3, 264, 6), (6, 5, 5)),
    _group((5, 288, 6), (1, 5, 6), stride=1),
)
FBNETV3 = {
    "a": FBNetV3(resolution=224, stem_channels=16, groups=_A),
    "b": FBNetV3(resolution=248, stem_channels=16, groups=_A),
    "c": FBNetV3(resolution=248, stem_channels=16, groups=_C),
    "d": FBNetV3(resolution=248, stem_channels=24, groups=_D),
    "e": FBNetV3(resolution=264, stem_channels=24, groups=_E),
    "f": FBNetV3(resolution=272, stem_channels=24, groups=_F),
    "g": FBNetV3(resolution=320, stem_channels=32, groups=_G),
}
"""The published networks by letter; B is A at another resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The network that stage 0 of FBNetV5's supernet is made of."""

    letter: str
    """Of the published network."""
    width: float = 1.0
    """Factor of all its widths."""
    light: bool = False
    """Whether it has ReLU6 and no squeeze-excite."""

    @property
    def network(self) -> FBNetV3:
        """The network, with ordinary padding."""
        network = scaled(FBNETV3[self.letter].with_ordinary_padding(), self.width)
        return network.light() if self.light else network


AC_WIDTH = 0.65
"""Factor of the widths in variant AC: its largest networks cost half as much as those of A."""
VARIANTS = {
    "a": Variant(letter="a"),
    "c": Variant(letter="c"),
    "f": Variant(letter="f"),
    "ac": Variant(letter="a", width=AC_WIDTH),
    "a-lite": Variant(letter="a", light=True),
}
"""By name. A, C, F and AC are those of FBNetV5 (arXiv 2111.10007). AC shrinks the channels of A; its factor is this
project's choice. The paper's AR, which shrinks the resolution, has the network of A: a budget names its resolution.
A-lite is this project's own."""


def fbnetv3(name: str) -> FBNetV3:
    """The network called "fbnetv3-a" to "fbnetv3-g".

    Raises:
        UserError: no network has this name.
    """
    letter = name.lower().removeprefix("fbnetv3-")
    if letter not in FBNETV3:
        raise UserError(f"unknown network {name!r}; there are: {', '.join(f'fbnetv3-{key}' for key in FBNETV3)}")
    return FBNETV3[letter]


class FBNetV3Network(nn.Module):
    """A classifier of the family in torch: [N, 3, H, W] -> logits [N, classes]."""

    def __init__(self, config: FBNetV3, *, classes: int = 1000) -> None:
        super().__init__()
        blocks = [block for partition in config.partitions() for block in partition]
        self.blocks = nn.Sequential(*(block.build() for block in blocks))
        self.head = PooledHead(blocks[-1].out_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(x))
        return logits
