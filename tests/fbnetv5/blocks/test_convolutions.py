import onnx
import pytest
import torch
from torch import nn

from export.graph import Exporter, to_onnx_bytes
from fbnetv5.blocks.convolutions import DepthwiseConv2d, PointwiseConv2d, weight_gradient

CASES = [(5, 1, 2, 2), (5, 1, 2, 4), (5, 2, 2, 8), (5, 2, 2, 7), (5, 1, 1, 4), (3, 1, 1, 2), (3, 2, 1, 4), (3, 1, 1, 1)]


def reference(x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> list[torch.Tensor]:
    """Output and both gradients of torch's own convolution, in float64."""
    x, weight = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    y = nn.functional.conv2d(x, weight, None, stride, padding, groups=len(weight))
    return [y, *torch.autograd.grad(y.square().sum(), (x, weight))]


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_output_and_gradients_are_those_of_torch(kernel: int, stride: int, padding: int, size: int) -> None:
    torch.manual_seed(0)
    module = DepthwiseConv2d(6, kernel, stride, padding)
    x = torch.randn(3, 6, size, size).to(memory_format=torch.channels_last).requires_grad_()
    y = module(x)
    assert "SmallMap" in type(y.grad_fn).__name__
    found = [y, *torch.autograd.grad(y.square().sum(), (x, module.weight))]
    for ours, theirs in zip(found, reference(x, module.weight, stride, padding), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_maps_that_are_not_square() -> None:
    torch.manual_seed(0)
    module, x = DepthwiseConv2d(4, 5, 1, 2), torch.randn(2, 4, 2, 6)
    expected = reference(x, module.weight, 1, 2)[2]
    gradient = 2 * nn.functional.conv2d(x, module.weight.detach(), padding=2, groups=4)
    torch.testing.assert_close(weight_gradient(x, gradient, 5, 1, 2).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["large", "eval", "autocast", "double"])
def test_elsewhere_the_depthwise_convolution_is_that_of_torch(mode: str) -> None:
    module, x = DepthwiseConv2d(4, 3, 1, 1), torch.randn(2, 4, 32 if mode == "large" else 4, 4, requires_grad=True)
    if mode == "double":
        module, x = module.double(), x.double()
    module.train(mode != "eval")
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        y = module(x)
    assert "SmallMap" not in type(y.grad_fn).__name__


def test_only_what_needs_a_gradient_gets_one() -> None:
    module = DepthwiseConv2d(4, 5, 1, 2)
    module(torch.randn(2, 4, 2, 2)).sum().backward()
    assert module.weight.grad is not None
    module.weight.requires_grad_(False)
    x = torch.randn(2, 4, 2, 2, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 5)])
def test_a_pointwise_convolution_is_a_matrix_product(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    module = PointwiseConv2d(6, 10, bias=bias)
    x = torch.randn(3, 6, *size).to(memory_format=torch.channels_last).requires_grad_()
    y = module(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert "Permute" in type(y.grad_fn).__name__
    exact = nn.Conv2d(6, 10, 1, bias=bias).double()
    exact.load_state_dict(module.state_dict())
    pixels = x.detach().double().requires_grad_()
    reference = exact(pixels)
    results = [y, *torch.autograd.grad(y.square().sum(), (x, *module.parameters()))]
    expected = [reference, *torch.autograd.grad(reference.square().sum(), (pixels, *exact.parameters()))]
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["channels first", "autocast", "double"])
def test_elsewhere_the_pointwise_convolution_is_that_of_torch(mode: str) -> None:
    module, x = PointwiseConv2d(4, 6), torch.randn(2, 4, 8, 8)
    if mode != "channels first":
        x = x.to(memory_format=torch.channels_last)
    if mode == "double":
        module, x = module.double(), x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        assert "Convolution" in type(module(x).grad_fn).__name__


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_an_exported_pointwise_convolution_is_a_convolution(exporter: Exporter) -> None:
    module, x = PointwiseConv2d(4, 6), torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    content = to_onnx_bytes(module, (x,), input_names=["x"], output_names=["y"], exporter=exporter)
    assert [node.op_type for node in onnx.load_from_string(content).graph.node] == ["Conv"]


@pytest.mark.gpu
def test_a_gpu_computes_small_maps_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    module = DepthwiseConv2d(6, 5, 1, 2).to("cuda")
    small, large = (torch.randn(3, 6, size, size, device="cuda", requires_grad=True) for size in (2, 16))
    with torch.autocast("cuda", torch.bfloat16):
        y = module(small.bfloat16())
        assert module(large).dtype == torch.bfloat16
    assert y.dtype == torch.float32
    expected = reference(small.bfloat16(), module.weight, 1, 2)
    torch.testing.assert_close(y.double(), expected[0], rtol=1e-3, atol=1e-3)
