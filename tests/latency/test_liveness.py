"""The walk over live tensors, compared with peaks that were counted by hand."""

import pytest
import torch
from torch import Tensor, nn

from export.graph import to_onnx_bytes
from latency.liveness import Liveness, liveness_of

ELEMENTS = 4 * 4
"""Of a channel: images are 4x4."""


class Residual(nn.Module):
    """Expands to 8 channels, activates, projects to 2, and adds the input, which is live until then."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(torch.relu(self.expand(x)))
        return x + y


class TwoInputs(nn.Module):
    """Convolves its second input before it adds the first."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 2, 1)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        y = self.convolution(second)
        return y, torch.relu(y + first)


def of_module(module: nn.Module, *channels: int, outputs: int = 1) -> Liveness:
    names = [f"input{number}" for number in range(len(channels))]
    examples = tuple(torch.zeros(1, count, 4, 4) for count in channels)
    outs = [f"output{number}" for number in range(outputs)]
    return liveness_of(
        to_onnx_bytes(module.eval(), examples, input_names=names, output_names=outs, dynamic_batch=False)
    )


def channels(count: int) -> int:
    """The bytes of float32 maps of so many channels."""
    return count * ELEMENTS * 4


def test_a_residual_keeps_the_input_and_activations_are_not_in_place() -> None:
    assert of_module(Residual(), 2).peak_bytes() == channels(2 + 8 + 8)


def test_a_tensor_is_dead_after_its_last_reader() -> None:
    chain = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1))
    assert of_module(chain, 8).peak_bytes() == channels(8 + 2)
    assert of_module(chain, 8).peak_bytes(["input0"]) == channels(8 + 2 + 4)


def test_every_input_and_output_counts() -> None:
    liveness = of_module(TwoInputs(), 2, 8, outputs=2)
    assert liveness.peak_bytes() == channels(2 + 8 + 2)
    assert liveness.peak_bytes(["input1"]) == channels(8 + 2 + 2 + 2)
    assert liveness.outputs == ("output0", "output1")


@pytest.mark.parametrize("kept", [[], ["input0"]])
def test_weights_and_constants_do_not_count(kept: list[str]) -> None:
    wide = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Upsample(scale_factor=2))
    assert of_module(wide, 2).peak_bytes(kept) == channels(2 + 2 * 4 + (2 if kept else 0))
