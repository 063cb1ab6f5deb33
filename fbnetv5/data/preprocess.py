"""From stored images to what networks read; deployed networks expect exactly this."""

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's images scaled to 0..1, per RGB channel; the usual constants."""
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] in RGB -> float32 of the same shape in channels-last memory, scaled, centred and divided.

    The constants are copied without waiting for a GPU's earlier work.
    """
    mean, std = (
        torch.tensor(values).to(images.device, non_blocking=True).view(1, 3, 1, 1) * 255 for values in (MEAN, STD)
    )
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)
