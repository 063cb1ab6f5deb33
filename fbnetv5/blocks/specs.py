"""The blocks of networks: frozen specifications, each with a key and a method that builds its torch module.

A specification is data: spaces, cost tables and latency tables use its ``key``, which contains everything that changes
its cost except the resolution. Sources: FBNetV3 (arXiv 2006.02049, table 8 and appendix) for the inverted residual,
which goes back to MobileNetV2 (arXiv 1801.04381), and ResNet (arXiv 1512.03385) for the bottleneck. The fusion edges
follow FBNetV5 (arXiv 2111.10007, section 3.1); their exact form is not published, so it is this project's own.

Shape legend: N images, C channels, H x W pixels of the block's first input.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fbnetv5.blocks.convolutions import DepthwiseConv2d, PointwiseConv2d

Activation = Literal["hswish", "relu", "relu6"]


class Hardswish(nn.Hardswish):
    """``nn.Hardswish`` that is in place only without gradients.

    The gradient needs the input, so torch would copy it first, which costs more than a new output.
    """

    def forward(self, x: Tensor) -> Tensor:
        return functional.hardswish(x, inplace=self.inplace and not torch.is_grad_enabled())


ACTIVATIONS: dict[Activation, type[Hardswish | nn.ReLU | nn.ReLU6]] = {
    "hswish": Hardswish,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
}


class Block(Protocol):
    """The interface of a block for spaces, networks and tables."""

    @property
    def key(self) -> str:
        """A name that contains everything that changes the block's cost except its resolution."""

    @property
    def stride(self) -> int:
        """Height of the first input over height of the output."""

    @property
    def out_channels(self) -> int:
        """Width of the output."""

    def build(self) -> nn.Module:
        """A new torch module, to be called with one tensor per input."""

    def input_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of every input, given H x W of the first."""


def round_width(width: float, divisor: int = 8, *, min_share: float = 0.95) -> int:
    """Round half up to a multiple of ``divisor``, at least ``divisor``; up again if less than ``min_share`` is left.

    FBNetV3 keeps at least 95 % of the width, MobileNetV2 at least 90 %.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < min_share * width else rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """Convolution of stride 2 on the image, batch norm, activation; and max pooling if ``pool``.

    The defaults are the stem of MobileNetV3 (arXiv 1905.02244) and FBNetV3.
    """

    out_channels: int
    kernel: int = 3
    activation: Activation = "hswish"
    pool: bool = False
    """Whether 3x3 max pooling of stride 2 follows, as in ResNet (arXiv 1512.03385, table 1)."""

    @property
    def stride(self) -> int:
        return 4 if self.pool else 2

    @property
    def key(self) -> str:
        kernel = "" if self.kernel == 3 else f"_k{self.kernel}"
        return f"stem_c{self.out_channels}{kernel}{_suffix(self.activation)}{'_pool' if self.pool else ''}"

    def build(self) -> nn.Module:
        stem = conv_norm(3, self.out_channels, kernel=self.kernel, stride=2, act=True, activation=self.activation)
        return stem.append(nn.MaxPool2d(3, 2, padding=1)) if self.pool else stem

    def input_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        return ((3, height, width),)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual:
    """Expand 1x1, depthwise k x k, squeeze-excite, project 1x1; residual if the shape is unchanged (FBNetV3).

    MobileNetV2's block has activation "relu6" and no squeeze-excite.
    """

    kernel: int
    in_channels: int
    out_channels: int
    expansion: int
    stride: int = 1
    squeeze: bool = False
    padding: int | None = None
    """Of the depthwise convolution; None for kernel // 2."""
    activation: Activation = "hswish"

    @property
    def mid_channels(self) -> int:
        return round_width(self.in_channels * self.expansion)

    @property
    def squeeze_channels(self) -> int:
        """A quarter of the block's input width."""
        return round_width(self.mid_channels * 0.25 / self.expansion)

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def key(self) -> str:
        se = "_se" if self.squeeze else ""
        pad = "" if self.padding is None else f"_pad{self.padding}"
        widths = f"{self.in_channels}-{self.out_channels}"
        return f"ir_k{self.kernel}_c{widths}_e{self.expansion}_s{self.stride}{se}{pad}{_suffix(self.activation)}"

    def build(self) -> nn.Module:
        return InvertedResidualModule(self)

    def input_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        return ((self.in_channels, height, width),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """ResNet's bottleneck: 1x1, 3x3 and 1x1 convolutions, a residual, and ReLU (arXiv 1512.03385, figure 5).

    The 3x3 convolution has the stride, as in torchvision's models ("ResNet v1.5"); the paper gives it to the first 1x1.
    Where the shape changes, a 1x1 convolution with batch norm projects the residual's input.
    """

    in_channels: int
    mid_channels: int
    stride: int = 1

    @property
    def out_channels(self) -> int:
        return 4 * self.mid_channels

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def key(self) -> str:
        return f"bottleneck_c{self.in_channels}-{self.mid_channels}-{self.out_channels}_s{self.stride}"

    def build(self) -> nn.Module:
        return BottleneckModule(self)

    def input_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        return ((self.in_channels, height, width),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """Adds the features of the next finer or coarser path to a path's own, resampled by 2; H x W are the path's own."""

    source_channels: int
    target_channels: int
    up: bool
    """True: the source is coarser and is upsampled; False: it is finer and is downsampled."""

    @property
    def stride(self) -> int:
        return 1

    @property
    def out_channels(self) -> int:
        return self.target_channels

    @property
    def key(self) -> str:
        return f"fuse_{'up' if self.up else 'down'}_c{self.source_channels}-{self.target_channels}"

    def build(self) -> nn.Module:
        return FusionModule(self)

    def input_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        source = (height // 2, width // 2) if self.up else (height * 2, width * 2)
        return ((self.target_channels, height, width), (self.source_channels, *source))


def conv_norm(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    act: bool,
    padding: int | None = None,
    activation: Activation = "hswish",
) -> nn.Sequential:
    """Bias-free convolution, batch norm, and activation if ``act``: [N, in, H, W] -> [N, out, H/stride, W/stride]."""
    pad = kernel // 2 if padding is None else padding
    if groups == in_channels == out_channels:
        convolution: nn.Conv2d = DepthwiseConv2d(in_channels, kernel, stride, pad)
    elif kernel == stride == groups == 1 and pad == 0:
        convolution = PointwiseConv2d(in_channels, out_channels, bias=False)
    else:
        convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, pad, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(out_channels)]
    if act:
        layers.append(ACTIVATIONS[activation](inplace=True))
    return nn.Sequential(*layers)


def _suffix(activation: Activation) -> str:
    """The end of a key that names the activation; hard-swish has none, for keys of tables that know nothing else."""
    return "" if activation == "hswish" else f"_{activation}"


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507) with hard-swish and hard-sigmoid (MobileNetV3, arXiv 1905.02244).

    Channel gate: pool, 1x1, hard-swish, 1x1, hard-sigmoid, multiply: [N, C, H, W] -> the same shape.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = PointwiseConv2d(channels, squeezed)
        self.act = Hardswish(inplace=True)
        self.expand = PointwiseConv2d(squeezed, channels)
        self.gate = nn.Hardsigmoid(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


class InvertedResidualModule(nn.Module):
    """[N, in, H, W] -> [N, out, H/stride, W/stride]."""

    def __init__(self, spec: InvertedResidual) -> None:
        super().__init__()
        source, mid, activation = spec.in_channels, spec.mid_channels, spec.activation
        self.expand = nn.Identity() if mid == source else conv_norm(source, mid, act=True, activation=activation)
        self.depthwise = conv_norm(
            mid,
            mid,
            kernel=spec.kernel,
            stride=spec.stride,
            groups=mid,
            act=True,
            padding=spec.padding,
            activation=activation,
        )
        self.squeeze = SqueezeExcite(mid, spec.squeeze_channels) if spec.squeeze else nn.Identity()
        self.project = conv_norm(mid, spec.out_channels, act=False)
        self.residual = spec.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class BottleneckModule(nn.Module):
    """[N, in, H, W] -> [N, out, H/stride, W/stride]."""

    def __init__(self, spec: Bottleneck) -> None:
        super().__init__()
        mid, out = spec.mid_channels, spec.out_channels
        self.reduce = conv_norm(spec.in_channels, mid, act=True, activation="relu")
        self.spatial = conv_norm(mid, mid, kernel=3, stride=spec.stride, act=True, activation="relu")
        self.project = conv_norm(mid, out, act=False)
        self.shortcut = (
            nn.Identity() if spec.keeps_shape else conv_norm(spec.in_channels, out, stride=spec.stride, act=False)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.project(self.spatial(self.reduce(x))) + self.shortcut(x))
        return y


class FusionModule(nn.Module):
    """(target [N, C, H, W], source at half or double that size) -> target's shape."""

    def __init__(self, spec: Fusion) -> None:
        super().__init__()
        self.up = spec.up
        source, target = spec.source_channels, spec.target_channels
        self.resample = (
            nn.Identity() if spec.up else conv_norm(source, source, kernel=3, stride=2, groups=source, act=False)
        )
        self.project = conv_norm(source, target, act=False)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        y: Tensor = self.project(self.resample(source))
        if self.up:
            y = functional.interpolate(y, scale_factor=2.0, mode="nearest")
        return target + y


class PooledHead(nn.Module):
    """FBNetV3's classifier: 1x1 expand by 6, pool, 1x1 to 1984 without norm, linear; [N, C, H, W] -> [N, classes].

    Wide features, such as the 2048 channels of ResNet-50, are expanded to 1984 channels at most, or not at all.
    On the pooled 1x1 map the convolution to 1984 is a linear layer, which trains over four times as fast on a
    CPU. The second pool changes nothing; it is kept because the published multiply-adds count it.
    """

    def __init__(self, channels: int, classes: int, *, hidden: int = 1984) -> None:
        super().__init__()
        wide = min(channels * 6, max(channels, hidden))
        self.expand = nn.Identity() if wide == channels else conv_norm(channels, wide, act=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(wide, hidden)
        self.act = Hardswish(inplace=True)
        self.last_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.hidden(torch.flatten(self.pool(self.expand(x)), 1)))
        logits: Tensor = self.classifier(torch.flatten(self.last_pool(x[:, :, None, None]), 1))
        return logits


def initialise(module: nn.Module) -> None:
    """He-normal (fan out, arXiv 1502.01852) convolutions, LeCun-normal linear layers, zero for a residual's last norm.

    A residual block that starts as the identity (Goyal et al., arXiv 1706.02677, section 5.1) keeps the signal's scale
    the same for every sampled architecture.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            fan_out = child.kernel_size[0] * child.kernel_size[1] * child.out_channels // child.groups
            nn.init.normal_(child.weight, std=(2.0 / fan_out) ** 0.5)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Linear):
            nn.init.normal_(child.weight, std=child.in_features**-0.5)
            nn.init.zeros_(child.bias)
    for child in module.modules():
        if isinstance(child, FusionModule | BottleneckModule) or (
            isinstance(child, InvertedResidualModule) and child.residual
        ):
            nn.init.zeros_(last_norm(child).weight)


def last_norm(block: nn.Module) -> nn.BatchNorm2d:
    """The last batch norm of a block's main branch: that after its convolution ``project``, not that of a shortcut."""
    norm = block.get_submodule("project.1")
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def residual_branch(block: nn.Module) -> nn.Module | None:
    """The last layer of a block's main branch if the block adds its input to it unchanged; None for other blocks."""
    is_residual = (isinstance(block, InvertedResidualModule) and block.residual) or (
        isinstance(block, BottleneckModule) and isinstance(block.shortcut, nn.Identity)
    )
    return block.get_submodule("project") if is_residual else None
