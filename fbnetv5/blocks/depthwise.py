"""A depthwise convolution that is fast on feature maps smaller than its kernel.

oneDNN has no vectorised weight gradient for 5x5 depthwise kernels with AVX2: on the 2x2 and 4x4 maps of a 64x64 image
that call took 62 % of a search step. ``weight_gradient`` computes the same sums tap by tap over the pixels where
kernel and map overlap, vectorised over channels: 6 to 86 times as fast there (``benchmarks/depthwise.py``).

cuDNN 9.19 has no bfloat16 kernel for these maps either, and runs every channel by itself: a forward and backward pass
of 736 channels on 2x2 maps took 5.06 ms of an H100 in bfloat16, and .24 ms in float32. Under autocast on a GPU these
maps are therefore computed in float32.

Larger maps, autocast on a CPU and evaluation (so export too) use torch's own convolution.

Shape legend: N images, C channels, H x W pixels of the input, h x w of the output, k the kernel's side.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class DepthwiseConv2d(nn.Conv2d):
    """A bias-free ``nn.Conv2d`` with one square filter per channel: [N, C, H, W] -> [N, C, h, w]."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if not (self.training and torch.is_grad_enabled() and self._is_small(x)):
            return super().forward(x)
        if device == "cuda" and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return super().forward(x.float())
        if device == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled(device):
            y: Tensor = _SmallMapConvolution.apply(x, self.weight, self.stride[0], self.padding[0])
            return y
        return super().forward(x)

    def _is_small(self, x: Tensor) -> bool:
        """Whether the output is smaller than the kernel."""
        return max(x.shape[2:]) < self.kernel_size[0] * self.stride[0]


class _SmallMapConvolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        x_gradient = w_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight,
                None,
                [ctx.stride] * 2,
                [ctx.padding] * 2,
                [1, 1],
                False,
                [0, 0],
                len(weight),
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            w_gradient = weight_gradient(x, gradient, weight.shape[-1], ctx.stride, ctx.padding)
        return x_gradient, w_gradient, None, None


def weight_gradient(x: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Gradient of a depthwise convolution's weight.

    Args:
        x: the input, [N, C, H, W].
        gradient: of the output, [N, C, h, w].
        kernel: the kernel's side k.
        stride: of the convolution.
        padding: of the convolution, on each side.

    Returns:
        [C, 1, k, k].
    """
    pixels, gradients = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    taps = x.new_zeros(kernel, kernel, x.shape[1])
    for row, tops, rows in _overlaps(x.shape[2], gradient.shape[2], kernel, stride, padding):
        for column, lefts, columns in _overlaps(x.shape[3], gradient.shape[3], kernel, stride, padding):
            products = pixels[:, tops, lefts] * gradients[:, rows, columns]
            torch.sum(products, (0, 1, 2), out=taps[row, column])
    return taps.permute(2, 0, 1)[:, None]


def _overlaps(size: int, out: int, kernel: int, stride: int, padding: int) -> Iterator[tuple[int, slice, slice]]:
    """Along one axis, per tap that overlaps the map: (tap, its input pixels, its output pixels)."""
    for tap in range(kernel):
        offset = tap - padding
        first = max(0, -(offset // stride))
        last = min(out - 1, (size - 1 - offset) // stride)
        if first <= last:
            start = first * stride + offset
            yield tap, slice(start, last * stride + offset + 1, stride), slice(first, last + 1)
