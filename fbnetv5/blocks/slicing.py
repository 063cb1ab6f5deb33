"""Weights of a block as slices of those of a larger block of the same position.

A convolution of fewer channels has the leading channels of a wider one, and a smaller kernel is the centre of a larger
one (once-for-all, arXiv 1908.09791; slimmable networks, arXiv 1812.08928). Batch-norm statistics are sliced like
weights. A layer that the smaller block lacks, such as squeeze-excite, is left out.

Not included: once-for-all's matrices that transform the centre of a kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fbnetv5.blocks.specs import Block


def sliced(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Views of the named tensors in smaller shapes: leading channels, and the centre of kernels."""
    return {name: _view(tensors[name], shape) for name, shape in shapes.items()}


def _view(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a tensor [out, in, height, width], or of a vector, that has ``shape``."""
    for axis, (whole, part) in enumerate(zip(tensor.shape, shape, strict=True)):
        if part != whole:
            tensor = tensor.narrow(axis, (whole - part) // 2 if axis >= 2 else 0, part)
    return tensor


class SlicedBlock:
    """Runs a block with slices of the weights of a larger module, which gets the gradients and the statistics."""

    def __init__(self, block: Block) -> None:
        with torch.device("meta"):  # neither memory nor random numbers: every call brings the tensors
            self.module = block.build()
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}

    def state(self, whole: nn.Module) -> dict[str, Tensor]:
        """The block's state dict, as views of the tensors of ``whole``."""
        return sliced(_tensors(whole), self.shapes)

    def bound(self, whole: nn.Module) -> Callable[..., Any]:
        """The block as a function of its inputs, in the mode of ``whole``: training or evaluation."""
        if self.module.training != whole.training:
            self.module.train(whole.training)
        tensors = self.state(whole)
        return lambda *inputs: functional_call(self.module, tensors, inputs)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
