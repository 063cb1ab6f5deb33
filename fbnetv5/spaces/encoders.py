"""The encoders of branched networks by name: FBNetV3-A to -G, MobileNetV2 and ResNet-50 as sequences of blocks.

The first block is the stem. MobileNetV2 (arXiv 1801.04381, table 2) and ResNet-50 (arXiv 1512.03385, table 1) are the
encoders of BMTAS (arXiv 2008.10292); their blocks compute what torchvision's models compute. MobileNetV2 ends with its
17th inverted residual, at a width of 320: the 1x1 convolution to 1280 channels belongs to its classifier. FBNetV3 has
ordinary padding, so that the maps halve exactly.
"""

from collections.abc import Callable
from functools import partial

from export.errors import UserError
from fbnetv5.blocks.specs import Block, Bottleneck, InvertedResidual, Stem, round_width
from fbnetv5.spaces.fbnetv3 import FBNETV3, scaled

MOBILENETV2_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, blocks, stride of the first)."""
RESNET50_GROUPS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""(channels of the 3x3 convolutions, blocks, stride of the first); a block's output has four times the channels."""


def fbnetv3_blocks(letter: str, width: float) -> tuple[Block, ...]:
    """The blocks of an FBNetV3 with ordinary padding."""
    partitions = scaled(FBNETV3[letter].with_ordinary_padding(), width).partitions()
    return tuple(block for partition in partitions for block in partition)


def mobilenetv2_blocks(width: float) -> tuple[Block, ...]:
    """The blocks of MobileNetV2; widths are rounded as in torchvision."""
    channels = round_width(32 * width, min_share=0.9)
    blocks: list[Block] = [Stem(out_channels=channels, activation="relu6")]
    for expansion, of_group, repeats, first_stride in MOBILENETV2_GROUPS:
        for number in range(repeats):
            block = InvertedResidual(
                kernel=3,
                in_channels=channels,
                out_channels=round_width(of_group * width, min_share=0.9),
                expansion=expansion,
                stride=1 if number else first_stride,
                activation="relu6",
            )
            blocks.append(block)
            channels = block.out_channels
    return tuple(blocks)


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
