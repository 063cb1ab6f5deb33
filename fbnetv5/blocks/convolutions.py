"""Convolutions that compute the same as torch's own, and train faster where torch's own are slow.

On a CPU, a 1x1 convolution of channels-last tensors is a product of two matrices. As one it takes .4 to .9 of the time
of oneDNN's convolution, whose fixed costs matter on the small maps of a search. Nor has oneDNN a fast weight gradient
for 5x5 depthwise kernels: on maps of 2x2 and 4x4, ``weight_gradient`` takes a thirtieth to a fifth of its time with
products of small matrices (``benchmarks/convolutions.py``).

cuDNN 9.19 has no bfloat16 kernel for depthwise convolutions of small maps: a forward and backward pass
of 736 channels on 2x2 maps took 5.06 ms of an H100 in bfloat16, and .24 ms in float32. Under autocast on a GPU these
maps are therefore computed in float32.

Everything else, export included, uses torch's own convolution.

Shape legend: N images, C channels, H x W pixels of the input, h x w of the output, k the kernel's side.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 ``nn.Conv2d``: [N, in, H, W] -> [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if _is_float32_on_cpu(x) and x.is_contiguous(memory_format=torch.channels_last) and not is_traced():
            y: Tensor = functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return y.permute(0, 3, 1, 2)
        return super().forward(x)


class DepthwiseConv2d(nn.Conv2d):
    """A bias-free ``nn.Conv2d`` with one square filter per channel: [N, C, H, W] -> [N, C, h, w]."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and self._is_small(x)):
            return super().forward(x)
        if x.is_cuda and torch.is_autocast_enabled("cuda"):
            with torch.autocast("cuda", enabled=False):
                return super().forward(x.float())
        if _is_float32_on_cpu(x):
            y: Tensor = _SmallMapConvolution.apply(x, self.weight, self.stride[0], self.padding[0])
            return y
        return super().forward(x)

    def _is_small(self, x: Tensor) -> bool:
        """Whether the output is smaller than the kernel."""
        return max(x.shape[2:]) < self.kernel_size[0] * self.stride[0]


def _is_float32_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def is_traced() -> bool:
    """Whether an export or ``torch.compile`` records the operations."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]


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
    """Gradient of a depthwise convolution's weight, for small maps.

    Per channel, the products of every output pixel with every input pixel, summed over the images, are one matrix
    product; each tap of the kernel is the sum over the pairs of pixels that it connects.

    Args:
        x: the input, [N, C, H, W].
        gradient: of the output, [N, C, h, w].
        kernel: the kernel's side k.
        stride: of the convolution.
        padding: of the convolution, on each side.

    Returns:
        [C, 1, k, k].
    """
    channels = x.shape[1]
    inputs, outputs = (each.permute(1, 2, 3, 0).contiguous().flatten(1, 2) for each in (x, gradient))  # [C, pixels, N]
    products = torch.bmm(outputs, inputs.transpose(1, 2)).flatten(1)  # [C, hw HW]
    taps = _taps((*gradient.shape[2:],), (*x.shape[2:],), kernel, stride, padding)
    return (products @ taps).view(channels, 1, kernel, kernel)


@cache
def _taps(output: tuple[int, int], size: tuple[int, int], kernel: int, stride: int, padding: int) -> Tensor:
    """[h w H W, k k]: 1 where a tap connects an output pixel with an input pixel, 0 elsewhere."""
    rows, columns = (
        torch.arange(whole)[None, :, None] == torch.arange(out)[:, None, None] * stride - padding + torch.arange(kernel)
        for out, whole in zip(output, size, strict=True)
    )  # [h, H, k] and [w, W, k]
    pairs = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    return pairs.float().view(-1, kernel * kernel)
