"""The encoders of branched networks by name, as sequences of blocks.

These are FBNetV3-A to -G, MobileNetV2, EfficientNet-Lite0 and ResNet-50.

The first block is the stem. MobileNetV2 (arXiv 1801.04381, table 2) and ResNet-50 (arXiv 1512.03385, table 1) are the
encoders of BMTAS (arXiv 2008.10292); their blocks compute what torchvision's models compute. MobileNetV2 ends with its
17th inverted residual, at a width of 320: the 1x1 convolution to 1280 channels belongs to its classifier. So does that
of EfficientNet-Lite0, which is EfficientNet-B0 (arXiv 1905.11946, table 1) with ReLU6 and without squeeze-excite, for
hardware on which these are slow; its blocks compute what timm's model computes. FBNetV3 has ordinary padding, so that
the maps halve exactly.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from export.errors import UserError
from fbnetv5.blocks.specs import Block, Bottleneck, InvertedResidual, Stem, round_width
from fbnetv5.spaces.fbnetv3 import FBNETV3, scaled

MOBILENETV2_GROUPS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (3, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
)
"""(kernel, expansion, channels, blocks, stride of the first)."""
EFFICIENTNET_LITE0_GROUPS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
"""The same of EfficientNet-Lite0."""
RESNET50_GROUPS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""(channels of the 3x3 convolutions, blocks, stride of the first); a block's output has four times the channels."""


def fbnetv3_blocks(letter: str, width: float) -> tuple[Block, ...]:
    """The blocks of an FBNetV3 with ordinary padding."""
    partitions = scaled(FBNETV3[letter].with_ordinary_padding(), width).partitions()
    return tuple(block for partition in partitions for block in partition)


def mobilenetv2_blocks(width: float) -> tuple[Block, ...]:
    """The blocks of MobileNetV2; widths are rounded as in torchvision."""
    stem = Stem(out_channels=round_width(32 * width, min_share=0.9), activation="relu6")
    return stem, *_relu6_blocks(MOBILENETV2_GROUPS, stem.out_channels, width)


def efficientnet_lite0_blocks(width: float) -> tuple[Block, ...]:
    """The blocks of EfficientNet-Lite0; as in the family's larger networks, the stem keeps its width."""
    stem = Stem(out_channels=32, activation="relu6")
    return stem, *_relu6_blocks(EFFICIENTNET_LITE0_GROUPS, stem.out_channels, width)


def _relu6_blocks(groups: Iterable[tuple[int, int, int, int, int]], channels: int, width: float) -> Iterator[Block]:
    """The inverted residuals of the groups after a stem of so many channels."""
    for kernel, expansion, of_group, repeats, first_stride in groups:
        out_channels = round_width(of_group * width, min_share=0.9)
        for number in range(repeats):
            yield InvertedResidual(
                kernel=kernel,
                in_channels=channels,
                out_channels=out_channels,
                expansion=expansion,
                stride=1 if number else first_stride,
                activation="relu6",
            )
            channels = out_channels


def resnet50_blocks(width: float) -> tuple[Block, ...]:
    """The blocks of ResNet-50; ``width`` scales the stem and the 3x3 convolutions, outputs have four times as much."""
    channels = round_width(64 * width)
    blocks: list[Block] = [Stem(out_channels=channels, kernel=7, activation="relu", pool=True)]
    for of_group, repeats, first_stride in RESNET50_GROUPS:
        for number in range(repeats):
            stride = 1 if number else first_stride
            block = Bottleneck(in_channels=channels, mid_channels=round_width(of_group * width), stride=stride)
            blocks.append(block)
            channels = block.out_channels
    return tuple(blocks)


ENCODERS: dict[str, Callable[[float], tuple[Block, ...]]] = {
    **{f"fbnetv3-{letter}": partial(fbnetv3_blocks, letter) for letter in FBNETV3},
    "mobilenetv2": mobilenetv2_blocks,
    "efficientnet-lite0": efficientnet_lite0_blocks,
    "resnet50": resnet50_blocks,
}
"""Name -> a function that makes the blocks for a factor of all widths."""


def encoder_name(name: str) -> str:
    """The name in the form of ``ENCODERS``; the letter of an FBNetV3 is enough.

    Raises:
        UserError: no encoder has this name.
    """
    lower = name.lower()
    for candidate in (lower, f"fbnetv3-{lower}"):
        if candidate in ENCODERS:
            return candidate
    raise UserError(f"unknown encoder {name!r}; there are: {', '.join(ENCODERS)}")
