import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from fbnetv5.data import colours
from fbnetv5.data.colours import change_colours

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(60, 190, (3, 3, 8, 12), dtype=np.uint8))
EDGE = torch.tensor([100, 150], dtype=torch.uint8).repeat_interleave(4).expand(400, 3, 8, 8).contiguous()
"""Images that are grey, and half again as bright on the right."""


def changed(images: Tensor, seed: int = 0) -> Tensor:
    return change_colours(images, np.random.default_rng(seed))


def test_images_change_by_the_seed_and_each_in_its_own_way() -> None:
    same = IMAGES[:1].repeat(3, 1, 1, 1)
    assert torch.equal(changed(same), changed(same))
    assert not torch.equal(changed(same), changed(same, seed=1))
    assert len({tuple(image.flatten().tolist()) for image in changed(same)}) == 3
    assert (changed(same).dtype, changed(same).shape) == (torch.uint8, same.shape)


def test_without_a_change_images_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRIGHTNESS", "CONTRAST", "SATURATION"):
        monkeypatch.setattr(colours, name, (1.0, 1.0))
    monkeypatch.setattr(colours, "HUE", (0.0, 0.0))
    for name in ("BLURRED", "GREY"):
        monkeypatch.setattr(colours, name, 0.0)
    assert (changed(IMAGES).int() - IMAGES.int()).abs().max() <= 1  # hue is computed in fractions


def test_the_hue_turns_by_up_to_a_quarter_in_both_directions() -> None:
    red = torch.tensor([180, 60, 60], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(400, 1, 4, 4)
    pixels = (changed(red)[:, :, 0, 0] / 255).tolist()
    hues = [hue for hue, saturation, _ in (colorsys.rgb_to_hsv(*pixel) for pixel in pixels) if saturation > 0.2]
    turns = np.array([hue if hue < 0.5 else hue - 1 for hue in hues])
    assert -0.27 < turns.min() < -0.22
    assert 0.22 < turns.max() < 0.27


def test_a_tenth_of_the_images_lose_their_colours() -> None:
    red = torch.tensor([180, 60, 60], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(400, 1, 4, 4)
    result = changed(red)
    grey = int((result.amax((1, 2, 3)) - result.amin((1, 2, 3)) <= 1).sum())
    assert 20 < grey < 65  # 40, with a standard deviation of 6


def test_grey_images_stay_grey_and_vary_in_brightness_around_their_own() -> None:
    result = changed(torch.full((400, 3, 4, 4), 100, dtype=torch.uint8))
    assert (result.amax(1).int() - result.amin(1).int()).max() <= 1
    means = result.float().mean((1, 2, 3))
    assert abs(float(means.mean()) - 100) < 5
    assert 24 < float(means.std()) < 34  # uniform in 50 to 150: 29


def test_three_of_ten_images_are_blurred() -> None:
    blurred = [len(image[0, 4].unique()) > 2 for image in changed(EDGE)]
    assert 85 < sum(blurred) < 155  # 120, with a standard deviation of 9
