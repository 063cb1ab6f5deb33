import timm.data
import torch
from torchvision.transforms.v2 import functional

from fbnetv5.data.preprocess import MEAN, STD, normalise


def test_images_are_normalised_as_torchvision_normalises_them() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = functional.normalize(images.float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(normalise(images), expected)
    assert normalise(images).is_contiguous(memory_format=torch.channels_last)


def test_the_constants_are_those_of_imagenet() -> None:
    assert (MEAN, STD) == (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
