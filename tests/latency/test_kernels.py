from collections.abc import Callable

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from export.errors import VerificationError
from export.graph import to_onnx_bytes
from fbnetv5.costs.counting import count
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.profile import Scope, graphs_of
from fbnetv5.spaces.four_path import FourPathSpace
from latency.kernels import Kernel, kernels_of
from latency.profile import Graph, onnx_of

IMAGE = (1, 8, 6, 6)
SIZE = 8 * 6 * 6


class Does(nn.Module):
    """A function of the image, with layers of its own if it needs weights."""

    def __init__(self, does: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.does = does
        self.layers = nn.ModuleList(layers)

    def forward(self, *images: Tensor) -> Tensor:
        return self.does(*images, *self.layers)


def kernels(module: nn.Module, *shapes: tuple[int, ...], dynamic: bool = False) -> list[Kernel]:
    examples = tuple(torch.randn(shape) for shape in shapes or [IMAGE])
    names = [f"input{index}" for index in range(len(examples))]
    return kernels_of(
        to_onnx_bytes(module, examples, input_names=names, output_names=["output"], dynamic_batch=dynamic)
    )


def graph(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, ...]], output: tuple[int, ...], *weights: onnx.TensorProto
) -> bytes:
    """An ONNX graph that the exporter would not write."""
    read = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    written = helper.make_tensor_value_info("output", TensorProto.FLOAT, output)
    made = helper.make_graph(nodes, "made", read, [written], list(weights))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


def conv(groups: int = 1, out: int = 8, kernel: int = 1) -> nn.Conv2d:
    return nn.Conv2d(8, out, kernel, padding=kernel // 2, groups=groups, bias=False)


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "weights", "outputs"),
    [
        (nn.Conv2d(3, 4, 3, padding=1, bias=False), (1, 3, 8, 8), 4 * 8 * 8 * 27, 4 * 27, 4 * 8 * 8),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (1, 3, 8, 8), 4 * 4 * 4 * 27, 4 * 27 + 4, 4 * 4 * 4),
        (conv(groups=8, kernel=5), IMAGE, SIZE * 25, 8 * 25, SIZE),
        (conv(groups=2, out=4), IMAGE, 4 * 36 * 4, 4 * 4, 4 * 36),
        (nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False), IMAGE, SIZE * 6 * 4, 8 * 6 * 4, 6 * 12 * 12),
        (nn.ConvTranspose2d(8, 6, 3, groups=2, bias=False), IMAGE, SIZE * 3 * 9, 8 * 3 * 9, 6 * 8 * 8),
        (nn.Linear(8, 5), (1, 8), 40, 45, 5),
        (nn.Linear(8, 5, bias=False), (1, 7, 8), 7 * 40, 40, 7 * 5),
    ],
)
def test_a_product_counts_its_multiply_adds_and_each_tensor_once(
    layer: nn.Module, shape: tuple[int, ...], macs: int, weights: int, outputs: int
) -> None:
    inputs = int(torch.Size(shape).numel())
    assert kernels(layer, shape) == [Kernel(macs=macs, elements=inputs + weights + outputs)]


def test_a_product_of_two_inputs_reads_both() -> None:
    product = Does(lambda a, b: a @ b)
    assert kernels(product, (1, 4, 8), (1, 8, 3)) == [Kernel(macs=4 * 3 * 8, elements=32 + 24 + 12)]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Hardswish(), nn.Sigmoid(), nn.SiLU(), nn.ReLU6()])
def test_an_activation_adds_no_kernel_and_almost_no_elements(activation: nn.Module) -> None:
    (convolution,) = kernels(conv())
    (fused,) = kernels(nn.Sequential(conv(), activation))
    assert fused.macs == convolution.macs
    assert 0 <= fused.elements - convolution.elements <= 2  # the bounds of a clip, if it has any


def test_a_residual_addition_reads_its_other_operand() -> None:
    (convolution,) = kernels(nn.Sequential(conv(), conv()))[1:]
    _, last = kernels(Does(lambda x, a, b: x + b(a(x)), conv(), conv()))
    assert last == Kernel(macs=convolution.macs, elements=convolution.elements + SIZE)


def test_an_operand_that_the_kernel_reads_already_counts_once() -> None:
    (convolution,) = kernels(conv())
    assert kernels(Does(lambda x, a: x + a(x), conv())) == [convolution]


def test_a_channel_gate_reads_the_image_again_and_writes_a_new_one() -> None:
    gate = Does(lambda x, a, b: x * torch.sigmoid(b(a(x))), nn.AdaptiveAvgPool2d(1), conv())
    pool, multiply = kernels(gate)
    assert pool == Kernel(macs=0, elements=SIZE + 8)
    assert multiply == Kernel(macs=64, elements=8 + 64 + SIZE + SIZE)


def test_a_tensor_of_two_kernels_is_written_once_and_read_by_each() -> None:
    twice = Does(lambda x, a, b, c: torch.cat([b(y := a(x)), c(y)], 1), conv(), conv(), conv())
    ends = [kernel.elements for kernel in kernels(twice)]
    assert ends == [SIZE + 64 + SIZE, SIZE + 64 + SIZE, SIZE + 64 + SIZE, 2 * SIZE + 2 * SIZE]


def test_elementwise_operators_are_fused_but_not_with_other_operators() -> None:
    pool = nn.MaxPool2d(2)
    assert kernels(Does(lambda x: (x * x).exp().sqrt())) == [Kernel(macs=0, elements=2 * SIZE)]
    assert [k.elements for k in kernels(nn.Sequential(pool, nn.ReLU()))] == [SIZE + SIZE // 4, 2 * (SIZE // 4)]


def test_an_addition_never_makes_a_kernel_depend_on_itself() -> None:
    """The pool needs the convolution, so the convolution cannot do what needs the pool."""
    ends = kernels(Does(lambda x, a, p: (y := a(x)) + p(y), conv(), nn.MaxPool2d(3, 1, 1)))
    assert [k.elements for k in ends] == [SIZE + 64 + SIZE, 2 * SIZE, 3 * SIZE]


def test_reshapes_are_free() -> None:
    assert kernels(Does(lambda x: x.flatten(1).reshape(1, 4, -1).unsqueeze(0))) == []
    for end in (lambda x, a: a(x).flatten(1).relu(), lambda x, a: a(x).flatten(1)):
        assert kernels(Does(end, conv())) == kernels(conv())


def test_constants_of_shapes_are_folded() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("CumSum", ["zeros", "axis"], ["sums"]),
        helper.make_node("Add", ["x", "sums"], ["output"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [0])
    assert kernels_of(graph(nodes, {"x": (4, 5)}, (4, 5), axis)) == [Kernel(macs=0, elements=3 * 20)]


def test_a_transposed_first_operand_counts_the_same() -> None:
    gemm = helper.make_node("Gemm", ["a", "b"], ["output"], transA=1)
    assert kernels_of(graph([gemm], {"a": (8, 2), "b": (8, 3)}, (2, 3))) == [Kernel(macs=48, elements=16 + 24 + 6)]


def test_a_graph_without_fixed_shapes_is_refused() -> None:
    with pytest.raises(VerificationError, match="has no fixed shape"):
        kernels(conv(), dynamic=True)


SCOPE = Scope(space=FourPathSpace(variant="a"), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(64, 64))


@pytest.mark.parametrize("graph", graphs_of(SCOPE), ids=lambda graph: graph.key)
def test_multiply_adds_equal_the_cost_tables_except_for_pools(graph: Graph) -> None:
    """The papers count a global pool's inputs as multiply-adds; here a pool costs its memory and no arithmetic."""
    counted = count(graph.build, graph.input_shapes)
    assert (
        sum(kernel.macs for kernel in kernels_of(onnx_of(graph)[0]))
        == counted.macs_conv
        == counted.macs - (counted.macs_pool)
    )
