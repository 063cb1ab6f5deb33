from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fbnetv5.costs.counting import KEEPING_SHAPE, Count, count, layer_count

LAYERS: dict[str, tuple[nn.Module, tuple[int, int, int], Count]] = {
    "convolution": (
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        (3, 10, 6),
        Count(macs_conv=5 * 3 * 8 * 27, params=8 * 27),
    ),
    "depthwise": (nn.Conv2d(8, 8, 5, padding=2, groups=8), (8, 4, 4), Count(macs_conv=16 * 8 * 25, params=8 * 25)),
    "grouped": (nn.Conv2d(8, 6, 1, groups=2), (8, 2, 3), Count(macs_conv=6 * 6 * 4, params=6 * 4)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2), Count(macs_conv=60, params=60)),
    "pool": (nn.AdaptiveAvgPool2d(1), (7, 3, 4), Count(macs_pool=84)),
    "free layers": (nn.Sequential(nn.BatchNorm2d(4), nn.Hardswish(), nn.AvgPool2d(2)), (4, 2, 2), Count()),
}


class Adder(nn.Module):
    """Two inputs of different shapes, and one convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total: Tensor = self.conv(a).mean() + self.conv(b).mean()
        return total


@pytest.mark.parametrize(("layer", "shape", "expected"), LAYERS.values(), ids=LAYERS)
def test_layers_count_as_the_papers_count(layer: nn.Module, shape: tuple[int, int, int], expected: Count) -> None:
    assert count(lambda: layer.to("meta"), [shape]) == expected


def test_every_input_has_its_own_shape() -> None:
    assert count(Adder, [(2, 4, 4), (2, 3, 1)]).macs_conv == (16 + 3) * 6


def test_counts_add_up() -> None:
    total = Count(macs_conv=3, macs_pool=5, params=7) + Count(macs_conv=10, macs_pool=20, params=30)
    assert total == Count(macs_conv=13, macs_pool=25, params=37)
    assert total.macs == 38


def test_a_free_layer_counts_nothing() -> None:
    x = torch.zeros(1, 4, 2, 2)
    assert layer_count(nn.ReLU(), x, x) == Count()


def test_counting_allocates_nothing() -> None:
    built: list[nn.Module] = []

    def huge() -> nn.Module:
        built.append(nn.Conv2d(100_000, 100_000, 3, padding=1))
        return built[0]

    assert count(huge, [(100_000, 1000, 1000)]).macs == 9 * 10**16
    assert next(built[0].parameters()).is_meta
    assert torch.empty(1).device.type == "cpu"


def test_a_layer_without_a_counting_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="no rule counts ConvTranspose2d"):
        count(lambda: nn.ConvTranspose2d(4, 4, 2), [(4, 8, 8)])


@pytest.mark.parametrize("function", [each for each in KEEPING_SHAPE if each is not functional.batch_norm])
def test_functions_that_counting_leaves_out_keep_the_shape(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.zeros(2, 3, 5, 4)
    assert function(x).shape == functional.batch_norm(x, torch.zeros(3), torch.ones(3)).shape == x.shape
