"""Models of torchvision and timm with random weights."""

from typing import Any

import timm
import torch
import torchvision
from torch import nn


def live_model(library: str, name: str, **options: Any) -> nn.Module:
    """The library's model in evaluation mode, with batch norms as after a training: none is the identity."""
    torch.manual_seed(0)
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    model: nn.Module = create(name, **options).eval()
    for child in model.modules():
        if isinstance(child, nn.BatchNorm2d):
            for tensor in (child.weight.data, child.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
            for tensor in (child.bias.data, child.running_mean):
                assert tensor is not None
                tensor.uniform_(-0.5, 0.5)
    return model
