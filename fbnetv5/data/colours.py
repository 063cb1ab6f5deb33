"""Random changes of the colours of images, as other light and other cameras would make them."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

BRIGHTNESS = CONTRAST = (0.5, 1.5)
SATURATION = (0.4, 1.6)
HUE = (-0.25, 0.25)
"""Ranges of the factors, and of the turn of the hue as a share of the colour circle."""
BLURRED, GREY = 0.3, 0.1
"""Shares of images that are blurred and that lose their colours."""
SIGMA = (0.3, 1.2)
"""Range of the blur's standard deviation in pixels."""


def change_colours(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image with a brightness, contrast, saturation and hue of its own; some slightly blurred, some grey.

    Args:
        images: uint8 [N, 3, H, W], RGB.
        rng: source of randomness.

    Returns:
        uint8 [N, 3, H, W].
    """
    return torch.stack([_changed(image, rng) for image in images])


def _changed(image: Tensor, rng: np.random.Generator) -> Tensor:
    image = functional.adjust_brightness(image, float(rng.uniform(*BRIGHTNESS)))
    image = functional.adjust_contrast(image, float(rng.uniform(*CONTRAST)))
    image = functional.adjust_saturation(image, float(rng.uniform(*SATURATION)))
    image = functional.adjust_hue(image, float(rng.uniform(*HUE)))
    if rng.random() < BLURRED:
        image = functional.gaussian_blur(image, [3, 3], [float(rng.uniform(*SIGMA))])
    return functional.rgb_to_grayscale(image, num_output_channels=3) if rng.random() < GREY else image
