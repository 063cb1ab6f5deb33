import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from export.placement import PADDING, Fit, fit_image, place

SIDES = st.integers(1, 300)


@given(
    height=SIDES,
    width=SIDES,
    size=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    fit=st.sampled_from(["stretch", "letterbox"]),
)
def test_a_box_of_the_whole_image_comes_back(height: int, width: int, size: tuple[int, int], fit: Fit) -> None:
    placement = place((height, width), size, fit)
    inner_height, inner_width = placement.inner
    assert inner_height <= size[0]
    assert inner_width <= size[1]
    corners = np.array([[0, 0, inner_width, inner_height]], dtype=np.float32)
    corners += np.array([placement.left, placement.top] * 2, dtype=np.float32)
    np.testing.assert_allclose(placement.boxes_to_original(corners), [[0, 0, width, height]], rtol=1e-5)
    outside = np.array([[-500, -500, 900, 900]], dtype=np.float32)
    np.testing.assert_allclose(placement.boxes_to_original(outside), [[0, 0, width, height]])


def test_a_letterboxed_image_is_centred_on_grey() -> None:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    pixels, placement = fit_image(image, (32, 32), "letterbox")
    assert placement.inner == (16, 32)
    assert (placement.top, placement.left) == (8, 0)
    assert (pixels[8:24] == [255, 0, 0]).all()
    assert (pixels[:8] == PADDING).all()
    assert (pixels[24:] == PADDING).all()
    stretched, _ = fit_image(image, (32, 32), "stretch")
    assert (stretched == [255, 0, 0]).all()


def test_both_fits_are_the_same_for_an_image_of_the_inputs_aspect() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 60, 3), dtype=np.uint8))
    (first, there), (second, here) = (fit_image(image, (16, 32), fit) for fit in ("stretch", "letterbox"))
    assert there == here
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", [(16, 16)], ids=str)
def test_maps_are_resampled_as_torch_does(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    stretched = place((40, 24), (16, 16), "stretch").map_to_original(values)
    expected = functional.interpolate(torch.from_numpy(values)[None, None], size=(40, 24), mode="bilinear")[0, 0]
    np.testing.assert_allclose(stretched, expected, atol=1e-5)
    assert place((40, 24), (16, 16), "letterbox").map_to_original(values).shape == (40, 24)


def test_only_the_image_comes_back_from_a_letterboxed_map() -> None:
    values = np.zeros((32, 32), dtype=np.float32)
    values[8:24] = 1
    assert (place((20, 40), (32, 32), "letterbox").map_to_original(values) == 1).all()
