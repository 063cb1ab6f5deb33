"""The shared head, losses and thresholds of the tasks that predict every pixel.

Head: all four paths are projected to one width, added up from coarse to fine as in feature pyramid networks (arXiv
1612.03144), and mixed once by a depthwise-separable convolution at a quarter of the image's resolution. The raw
outputs stay at that resolution. The loss and the deployed network both upsample them, so the head computes nothing at
full resolution and the loss is that of the deployed outputs.

Heights and widths of images must be multiples of 32, or the paths cannot be added.

Shape legend: N images, C outputs per pixel, H x W pixels of the image.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fbnetv5.blocks.convolutions import PointwiseConv2d
from fbnetv5.blocks.specs import Hardswish, conv_norm, initialise
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.divergence import binary_divergence
from fbnetv5.tasks.task import Task

PATHS = (4, 8, 16, 32)
"""Strides of the features that the head reads."""
WIDTH = 64
"""Channels in which the paths are added and mixed."""
MAX_UPSAMPLED = 2**23
"""Maximum number of values of a task's upsampled maps in memory at a time, unless a single image has more."""
THRESHOLDS = torch.linspace(0.05, 0.95, 19)
"""Minimum probabilities of a positive pixel; a metric uses the best threshold."""


class PixelHead(nn.Module):
    """Features of strides 4, 8, 16, 32 -> [N, C, H/4, W/4]."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_norm(width, WIDTH, act=False) for width in channels)
        self.act = Hardswish(inplace=True)
        self.depthwise = conv_norm(WIDTH, WIDTH, kernel=3, groups=WIDTH, act=True)
        self.pointwise = conv_norm(WIDTH, WIDTH, act=True)
        self.classify = PointwiseConv2d(WIDTH, outputs)
        initialise(self)
        nn.init.normal_(self.classify.weight, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        finer_last = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)][::-1]
        total = finer_last[0]
        for x in finer_last[1:]:
            total = x + functional.interpolate(total, scale_factor=2.0, mode="nearest")
        outputs: Tensor = self.classify(self.pointwise(self.depthwise(self.act(total))))
        return outputs


class ScalarTask(Task):
    """A task that predicts one number for every pixel."""

    paths = PATHS

    def build_head(self, channels: Sequence[int]) -> PixelHead:
        return PixelHead(channels, outputs=1)


class BinaryTask(ScalarTask):
    """A task that separates pixels of one class from all others.

    Raw: logits [N, 1, H/4, W/4]; deployable: probabilities [N, 1, H, W].
    """

    output_names = ("probability",)

    def distillation_losses(self, raw: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """KL divergence in nats, the mean over the pixels of the raw outputs: -> [N].

        Pixels are not weighted: the teacher's probabilities contain the weights of the loss that it was trained with.
        """
        return binary_divergence(raw, teacher, temperature).mean((1, 2, 3))

    def deploy(self, raw: Tensor) -> tuple[Tensor, ...]:
        return (upsample(raw).sigmoid(),)


def upsample(raw: Tensor) -> Tensor:
    """[N, C, H/4, W/4] -> [N, C, H, W]."""
    return functional.interpolate(raw, scale_factor=4.0, mode="bilinear", align_corners=False)


def parts(raw: Tensor) -> list[slice]:
    """The rows of raw outputs [N, C, H/4, W/4] in as few parts as ``MAX_UPSAMPLED`` allows."""
    size = max(1, MAX_UPSAMPLED // (16 * raw[0].numel()))
    return [slice(start, start + size) for start in range(0, len(raw), size)]


def losses_in_parts(losses: Callable[[Tensor, Tensor], Tensor], raw: Tensor, truth: Tensor) -> Tensor:
    """[N]: the losses of raw outputs, computed for ``parts`` of them one after the other.

    With 150 classes, the upsampled logits of a batch would take gigabytes, several times. The gradient of a part is
    computed together with its losses, so that its upsampled maps can be freed before the next part. Only first
    derivatives of the result are correct.

    Args:
        losses: of raw outputs and labels.
        raw: [N, C, H/4, W/4], float32.
        truth: the labels, [N, H, W].
    """
    of_parts = parts(raw)
    if len(of_parts) == 1:
        return losses(raw, truth)
    if not (torch.is_grad_enabled() and raw.requires_grad):
        return torch.cat([losses(raw[rows], truth[rows]) for rows in of_parts])
    values, gradient = raw.new_empty(len(raw)), torch.empty_like(raw)
    for rows in of_parts:
        part = raw.detach()[rows].requires_grad_()
        of_part = losses(part, truth[rows])
        values[rows] = of_part.detach()
        (gradient[rows],) = torch.autograd.grad(of_part.sum(), part)
    with_gradient: Tensor = _WithGradient.apply(raw, values, gradient)
    return with_gradient


class _WithGradient(torch.autograd.Function):
    """Losses [N] whose gradients by the raw outputs [N, C, H/4, W/4] are known."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0][:, None, None, None], None, None


def binary_losses(logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross entropy in nats, the mean over each image's pixels that are not IGNORE: -> [N].

    Args:
        logits: [N, H, W].
        truth: uint8 [N, H, W]: 0, 1 or IGNORE.
        weights: [N, H, W] of the pixels; the mean is weighted by them.
    """
    valid = (truth != IGNORE).float()
    weights = valid if weights is None else weights * valid
    pixels = functional.binary_cross_entropy_with_logits(logits, (truth == 1).float(), reduction="none")
    return (pixels * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1e-9)
