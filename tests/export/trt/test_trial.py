"""The choice of shapes and the node of a message; ``test_check.py`` tests the rest with NVIDIA's library."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from export.errors import UserError
from export.subprocesses import run_in_subprocess
from export.trt.bindings import find_variant
from export.trt.trial import choose_shapes, identify, refused_node
from tests.tensorrt_marks import with_tensorrt


@dataclass
class FakeTensor:
    name: str
    shape: Sequence[int] = ()
    is_shape_tensor: bool = False
    dtype: Any = None


@dataclass
class FakeLayer:
    """A layer of one output."""

    name: str
    metadata: str
    type: Any = None
    num_inputs: int = 0
    num_outputs: int = 1

    def get_input(self, index: int) -> FakeTensor | None:
        raise IndexError(index)

    def get_output(self, index: int) -> FakeTensor:
        return FakeTensor(f"{self.name}_output")


CHOSEN = {
    "images": ((-1, 3, -1, -1), [1, 3, 224, 224]),
    "a batch": ((-1, 3, 32, 32), [1, 3, 32, 32]),
    "tokens": ((-1, -1), [1, 1]),
}


@pytest.mark.parametrize(("axes", "lengths"), CHOSEN.values(), ids=CHOSEN)
def test_dynamic_axes_get_a_chosen_length(axes: tuple[int, ...], lengths: list[int]) -> None:
    assert choose_shapes([FakeTensor("x", axes)], {}) == {"shapes": {"x": lengths}, "chosen": ["x"], "unset": {}}


def test_a_fixed_shape_is_not_listed() -> None:
    assert choose_shapes([FakeTensor("x", (1, 3))], {})["shapes"] == {}


def test_inputs_that_set_sizes_need_values() -> None:
    inputs = [FakeTensor("size", (4,), is_shape_tensor=True), FakeTensor("n", (), is_shape_tensor=True)]
    assert choose_shapes(inputs, {"n": [-3]}) == {"shapes": {"n": [-3]}, "chosen": [], "unset": {"size": 4}}
    with pytest.raises(UserError, match="it needs its 4 values, not"):
        choose_shapes(inputs, {"size": [1, 2]})


OTHER = SimpleNamespace(name="TOPK")
LAYERS = [
    FakeLayer("conv", "[ONNX Layer: conv]", OTHER),
    FakeLayer("conv.1", "[ONNX Layer: conv.1 | then (then_branch) | head (If)]", OTHER),
    FakeLayer("helper", "", OTHER),
    FakeLayer("y_AttentionOutput", "[ONNX Layer: y]", SimpleNamespace(name="ATTENTION_OUTPUT")),
]
MESSAGES = {
    "ITopKLayer conv: K is too large": ["conv"],
    "ITopKLayer conv.1: K is too large": ["conv.1", "then (then_branch)", "head (If)"],
    "Tensor conv_output has datatype FP8": ["conv"],
    "Attention operation was not supported": ["y"],
    "the helper failed": [],
    "convolutions failed": [],
}


@pytest.mark.parametrize(("message", "names"), MESSAGES.items(), ids=MESSAGES)
def test_a_message_is_about_the_node_that_it_names(message: str, names: list[str]) -> None:
    assert refused_node(LAYERS, message) == names


@with_tensorrt
def test_the_installed_variant_is_named() -> None:
    variant = find_variant()
    assert run_in_subprocess(identify, timeout_s=60) == {"name": variant.name, "version": variant.version}
