"""Counts multiply-adds and parameters of a torch module under the convention of the FBNet papers.

One multiply-add counts once. Convolutions and linear layers count, and adaptive pools by their input elements; batch
norm, activations, additions and biases count 0. Parameters are the weights of convolutions and linear layers. This
convention reproduces the published figures of FBNetV3 (arXiv 2006.02049) to the last digit. Counting runs on torch's
meta device, without arithmetic or memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

COUNTED = (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d)
"""The layers that are counted; batch norm has parameters and counts 0."""
KEEPING_SHAPE = {
    functional.batch_norm,
    functional.relu,
    functional.relu6,
    functional.hardswish,
    functional.hardsigmoid,
}
"""Functions that count 0 and keep the shape. They take most of the time on the meta device, so they are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Multiply-adds and parameters of a module for one image."""

    macs_conv: int = 0
    """Multiply-adds of convolutions and linear layers."""
    macs_pool: int = 0
    """Input elements of adaptive pools."""
    params: int = 0

    @property
    def macs(self) -> int:
        return self.macs_conv + self.macs_pool

    def __add__(self, other: "Count") -> "Count":
        return Count(
            macs_conv=self.macs_conv + other.macs_conv,
            macs_pool=self.macs_pool + other.macs_pool,
            params=self.params + other.params,
        )


def layer_count(layer: nn.Module, inputs: Tensor, output: Tensor) -> Count:
    """The count of one layer that ran on one image; zero for a layer that is not in ``COUNTED``."""
    if isinstance(layer, nn.Conv2d):
        per_output = layer.weight[0].numel()
        return Count(macs_conv=output.numel() * per_output, params=layer.weight.numel())
    if isinstance(layer, nn.Linear):
        return Count(macs_conv=output.numel() * layer.in_features, params=layer.weight.numel())
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return Count(macs_pool=inputs.numel())
    return Count()


class _WithoutNeutral(TorchFunctionMode):
    """Runs everything but the functions of ``KEEPING_SHAPE``, which return their input."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if function in KEEPING_SHAPE else function(*args, **(kwargs or {}))


def count(build: Callable[[], nn.Module], shapes: Sequence[tuple[int, int, int]]) -> Count:
    """Count multiply-adds and parameters of the module that ``build`` makes, for one image.

    Args:
        build: makes the module; called with torch's default device set to meta.
        shapes: (C, H, W) of every input; the module takes them as separate arguments.

    Raises:
        TypeError: a layer has parameters and no counting rule.
    """
    total = Count()

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += layer_count(layer, inputs[0], output)

    with torch.device("meta"):
        module = build().eval()
        for layer in module.modules():
            if isinstance(layer, COUNTED):
                layer.register_forward_hook(add)
            elif not isinstance(layer, nn.BatchNorm2d) and any(True for _ in layer.parameters(recurse=False)):
                raise TypeError(
                    f"no rule counts {type(layer).__name__}; its cost would be 0. Add a rule to layer_count"
                )
    inputs = [torch.empty(1, *shape, device="meta") for shape in shapes]
    with torch.no_grad(), _WithoutNeutral():
        module(*inputs)
    return total
