"""Weights of a block or head as slices of those of a larger one at the same position.

A convolution of fewer channels has the leading channels of a wider one, and a smaller kernel is the centre of a larger
one (once-for-all, arXiv 1908.09791; slimmable networks, arXiv 1812.08928). Batch-norm statistics are sliced like
weights. A layer that the smaller one lacks, such as squeeze-excite, is left out.

Not included: once-for-all's matrices that transform the centre of a kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def sliced(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Views of the named tensors in smaller shapes: leading channels, and the centre of kernels."""
    return {name: _view(tensors[name], shape) for name, shape in shapes.items()}


def _view(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a tensor [out, in, height, width], or of a vector, that has ``shape``."""
    for axis, (whole, part) in enumerate(zip(tensor.shape, shape, strict=True)):
        if part != whole:
            tensor = tensor.narrow(axis, (whole - part) // 2 if axis >= 2 else 0, part)
    return tensor


class SlicedModule:
    """Runs a module with slices of the weights of a larger one, which gets the gradients and the statistics."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        with torch.device("meta"):  # neither memory nor random numbers: every call brings the tensors
            self.module = build()
        self.shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(self.module).items()}

    def state(self, whole: nn.Module) -> dict[str, Tensor]:
        """The module's state dict, as views of the tensors of ``whole``."""
        tensors = sliced(_tensors(whole), self.shapes)
        return {name: tensors[name] for name in self.module.state_dict()}

    def bound(self, whole: nn.Module) -> Callable[..., Any]:
        """The module as a function of its inputs, in the mode of ``whole``: training or evaluation."""
        if self.module.training != whole.training:
            self.module.train(whole.training)
        tensors = sliced(_tensors(whole), self.shapes)
        return lambda *inputs: functional_call(self.module, tensors, inputs)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those included that a state dict leaves out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
