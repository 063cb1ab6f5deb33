"""A published network by its name, as in ``timm:resnet50`` or ``timm:resnet50@weights.safetensors``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTeacher:
    """The network of a library that a user names."""

    library: str
    name: str
    weights: Path | None
    """File of its weights; None for the published ones."""
    class_names: tuple[str, ...] | None
    """Names of its classes; None for those of the library."""
    device: torch.device
    download: bool
    """Whether published weights that are not on this machine are downloaded."""

    @property
    def text(self) -> str:
        """The name as the user wrote it, without the file."""
        return f"{self.library}:{self.name}"


class OneOutput:
    """A network with one output, in eval mode on a device."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network.to(device).eval().requires_grad_(False)
        self._device = device

    def __call__(self, images: Tensor) -> tuple[Tensor]:
        return (self._network(images.to(self._device)),)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, of which repeated ones get their class id: ImageNet has "crane" and "maillot" twice."""
    seen: set[str] = set()
    result: list[str] = []
    for class_id, name in enumerate(names):
        result.append(f"{name} {class_id}" if name in seen else name)
        if name:
            seen.add(name)
    return tuple(result)
