"""Images fit the input as libraries resize and pad them, and boxes and maps come back to where they were."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from export.errors import UserError
from export.placement import FITS, PADDING, Fit, Placement, place
from fbnetv5.data.fit import default_fit, fit_image, map_to_original, parse_fit

SIDES = st.integers(1, 2000)
INPUTS = st.sampled_from([(32, 32), (64, 96), (224, 224), (320, 640)])
FIT = st.sampled_from(FITS)


def photo(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def array(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


# image, input -> size of the resized image, rows above it, columns left of it.
LETTERBOXES = {
    "wide": ((100, 200), (64, 64), (32, 64), 16, 0),
    "tall": ((333, 111), (64, 96), (64, 21), 0, 37),
    "small": ((5, 10), (224, 224), (112, 224), 56, 0),
    "a column": ((300, 1), (64, 64), (64, 1), 0, 31),
}


@pytest.mark.parametrize(("image", "size", "inner", "top", "left"), LETTERBOXES.values(), ids=LETTERBOXES)
def test_a_letterboxed_image_is_resized_and_padded_with_grey(
    image: tuple[int, int], size: tuple[int, int], inner: tuple[int, int], top: int, left: int
) -> None:
    fitted, placement = fit_image(photo(*image), size, "letterbox")
    assert placement == Placement(image, inner, top, left, size)
    theirs = torch.full((3, *size), PADDING, dtype=torch.uint8)
    resized = array(photo(*image).resize((inner[1], inner[0]), Image.Resampling.BILINEAR))
    theirs[:, top : top + inner[0], left : left + inner[1]] = resized
    assert torch.equal(fitted, theirs)
    antialiased = transforms.resize(array(photo(*image)), list(inner), antialias=True)
    assert (antialiased.int() - resized.int()).abs().max() <= 1


@pytest.mark.parametrize(("image", "size"), [((40, 40), (64, 64)), ((100, 200), (32, 64)), ((64, 96), (64, 96))])
def test_an_image_of_the_aspect_of_the_input_has_the_bytes_of_stretching(
    image: tuple[int, int], size: tuple[int, int]
) -> None:
    (letterboxed, placement), (stretched, _) = (fit_image(photo(*image), size, fit) for fit in FITS[::-1])
    assert placement.fills
    assert torch.equal(letterboxed, stretched)
    assert torch.equal(stretched, array(photo(*image).resize(size[::-1], Image.Resampling.BILINEAR)))


@given(SIDES, SIDES, INPUTS, FIT, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_come_back_from_the_input(
    height: int, width: int, size: tuple[int, int], fit: Fit, shares: list[float]
) -> None:
    placement = place((height, width), size, fit)
    (x0, x1), (y0, y1) = sorted(shares[:2]), sorted(shares[2:])
    box = torch.tensor([[x0 * width, y0 * height, x1 * width, y1 * height]])
    placed = placement.boxes_to_input(box)
    end = [placement.left + placement.inner[1], placement.top + placement.inner[0]]
    assert bool((placed[:, :2] >= torch.tensor([placement.left, placement.top])).all())
    assert bool((placed[:, 2:] <= torch.tensor(end) + 1e-3).all())
    tolerance = 1e-4 * max(height, width)
    for clip in (True, False):
        torch.testing.assert_close(placement.boxes_to_original(placed, clip=clip), box, atol=tolerance, rtol=0)


@given(SIDES, SIDES, INPUTS, FIT)
def test_a_placement_fills_one_axis_and_is_its_row(height: int, width: int, size: tuple[int, int], fit: Fit) -> None:
    placement = place((height, width), size, fit)
    left, right, above, below = placement.margins
    assert (left + placement.inner[1] + right, above + placement.inner[0] + below) == size[::-1]
    assert min(placement.margins) >= 0
    assert left == right == 0 or above == below == 0
    assert max(right - left, below - above) <= 1
    assert Placement.of_row(placement.row, size) == placement


def test_boxes_outside_of_the_image_are_cut_unless_told_otherwise() -> None:
    placement = place((100, 200), (64, 64), "letterbox")
    box = torch.tensor([[-8.0, 0.0, 80.0, 64.0]])
    assert placement.boxes_to_original(box).tolist() == [[0.0, 0.0, 200.0, 100.0]]
    assert placement.boxes_to_original(box, clip=False).tolist() == [[-25.0, -50.0, 250.0, 150.0]]


@pytest.mark.parametrize("fit", FITS)
def test_a_map_comes_back_without_the_padding(fit: Fit) -> None:
    placement = place((40, 100), (64, 64), fit)
    values = torch.full((64, 64), 9.0)
    rows = slice(placement.top, placement.top + placement.inner[0])
    values[rows] = torch.arange(64.0) // 32
    whole = map_to_original(values, placement, "nearest-exact")
    assert torch.equal(whole, (torch.arange(100.0) // 50).expand(40, 100))


def test_a_map_of_another_resolution_covers_the_input() -> None:
    placement = place((64, 128), (64, 64), "letterbox")
    quarter = torch.arange(16.0)[:, None].expand(16, 16)
    column = map_to_original(quarter, placement)[:, 0]
    centres = (torch.arange(64.0) + 0.5) / 2 + 16  # rows of the input
    torch.testing.assert_close(column, centres / 4 - 0.5, atol=0.2, rtol=0)


def test_an_unknown_fit_is_refused() -> None:
    assert [parse_fit(fit) for fit in FITS] == ["stretch", "letterbox"]
    with pytest.raises(UserError, match="unknown fit 'crop'; there are: stretch, letterbox"):
        parse_fit("crop")


def test_boxes_of_a_folder_are_letterboxed_by_default() -> None:
    assert default_fit(["label", "boxes"], is_folder=True) == "letterbox"
    assert default_fit(["boxes"], is_folder=False) == default_fit(["label", "mask"], is_folder=True) == "stretch"
