"""Images fit the input, and boxes and maps come back to where they were."""

import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2

from export.placement import Placement
from fbnetv5.data.fit import map_to_original
from fbnetv5.data.preprocess import MEAN, STD, normalise
from fbnetv5.labeling.teachers.preparation import Preparation

# image, fit, crop share -> placement: a 100x200 image in an input of 64x64.
PLACES = {
    "stretch": ((100, 200), "stretch", 1.0, Placement((100, 200), (64, 64), 0, 0, (64, 64))),
    "letterbox": ((100, 200), "letterbox", 1.0, Placement((100, 200), (32, 64), 16, 0, (64, 64))),
    "crop": ((100, 200), "crop", 0.5, Placement((100, 200), (128, 256), -32, -96, (64, 64))),
}


@pytest.mark.parametrize(("image", "fit", "share", "place"), PLACES.values(), ids=PLACES)
def test_the_place_of_an_image(image: tuple[int, int], fit: str, share: float, place: Placement) -> None:
    preparation = Preparation(size=(64, 64), fit=fit, crop_share=share)  # type: ignore[arg-type]
    assert preparation.placement(image) == place
    assert preparation(torch.zeros(1, 3, *image, dtype=torch.uint8)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_rectangle_comes_back_to_its_place(fit: str) -> None:
    preparation = Preparation(size=(128, 128), fit=fit)  # type: ignore[arg-type]
    image = torch.zeros(1, 3, 60, 120, dtype=torch.uint8)
    image[..., 12:36, 30:90] = 255
    inside = preparation(image)[0, 0] > 0.5
    place = preparation.placement((60, 120))
    inside &= torch.zeros(128, 128, dtype=torch.bool).index_fill_(0, torch.arange(place.top, 128 - place.top), True)
    assert ((map_to_original(inside.float(), place) > 0.5) == (image[0, 0] == 255)).float().mean() > 0.99
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
    torch.testing.assert_close(place.boxes_to_original(box), torch.tensor([[30.0, 12.0, 90.0, 36.0]]), atol=1.0, rtol=0)


def test_boxes_are_cut_at_the_borders_of_the_image() -> None:
    place = Preparation(size=(64, 64), fit="letterbox").placement((100, 200))
    box = place.boxes_to_original(torch.tensor([[-8.0, 0.0, 80.0, 64.0]]))
    assert box.tolist() == [[0.0, 0.0, 200.0, 100.0]]


def test_the_values_are_those_of_the_libraries() -> None:
    image = torch.randint(256, (1, 3, 90, 140), dtype=torch.uint8)
    crop = Preparation(size=(64, 64), mean=MEAN, std=STD, fit="crop", crop_share=64 / 80)
    evaluation = v2.Compose(
        [
            v2.Resize(80, antialias=True),
            v2.CenterCrop(64),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    torch.testing.assert_close(crop(image), evaluation(image), atol=1e-4, rtol=0)
    same = Preparation(size=(90, 140), mean=MEAN, std=STD)
    torch.testing.assert_close(same(image), normalise(image), atol=1e-5, rtol=1e-5)


def test_channels_and_axes_are_ordered() -> None:
    image = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1).expand(-1, -1, 4, 4)
    values = Preparation(size=(4, 4), scale=1.0, bgr=True, channels_last=True)(image)
    assert values.shape == (1, 4, 4, 3)
    assert values[0, 0, 0].tolist() == [3.0, 2.0, 1.0]


def test_a_squashed_image_loses_its_margins_as_in_timm() -> None:
    own = Preparation(size=(90, 120), fit="stretch", crop_share=0.9, interpolation="bicubic")
    peer = create_transform(
        (3, 90, 120), crop_pct=0.9, crop_mode="squash", interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1)
    )
    pixels = (torch.rand(3, 30, 50).repeat_interleave(8, 1).repeat_interleave(8, 2) * 255).to(torch.uint8)
    expected = peer(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    torch.testing.assert_close(own(pixels[None])[0], expected, atol=0.02, rtol=0)
