"""The check on hand-made bad graphs: with NVIDIA's parser and builder if they are installed, and without them."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from export.errors import UnavailableError, UserError
from export.progress import Progress
from export.subprocesses import run_in_subprocess
from export.trt import check as module
from export.trt import trial
from export.trt.check import CheckResult, check
from tests.tensorrt_marks import with_tensorrt

IMAGES = ("batch", 3, 8, 8)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str] = IMAGES,
    *,
    kind: int = TensorProto.FLOAT,
    **weights: Any,
) -> onnx.ModelProto:
    """A graph from "x" to "y" with ``weights`` by name; the shape of y is unknown."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def node(operator: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=name, **attributes)


WEIGHT = np.ones((4, 3, 3, 3), np.float32)
SCALE = np.float32(0.1)
CONV = node("Conv", "x w", "y", "conv")


def quantised(zero: Any) -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", "x s z", "q", "quant"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w", "y"),
    ]
    return model(nodes, w=WEIGHT, s=SCALE, z=zero)


def quantised_bias() -> onnx.ModelProto:
    nodes = [node("DequantizeLinear", "b s", "f", "bias"), node("Conv", "x w f", "y")]
    return model(nodes, w=WEIGHT, s=SCALE, b=np.ones(4, np.int32))


def topk(k: int) -> onnx.ModelProto:
    nodes = [node("TopK", "x k", "y i", "best", axis=1)]
    return model(nodes, ["batch", 9000], k=np.array([k], np.int64))


def nms() -> onnx.ModelProto:
    nodes = [
        node("Transpose", "x", "s", perm=[0, 2, 1]),
        node("NonMaxSuppression", "x s n", "i", "nms"),
        node("Cast", "i", "y", to=1),
    ]
    return model(nodes, [1, 4, 4], n=np.array([3], np.int64))


def sort() -> onnx.ModelProto:
    """``torch.sort`` as TorchScript's exporter writes it."""
    nodes = [node("Shape", "x", "s"), node("Gather", "s at", "k"), node("TopK", "x k", "y i", "sort", axis=1)]
    return model(nodes, [1, 5000], at=np.array([1]))


def reshaped_k() -> onnx.ModelProto:
    nodes = [node("Reshape", "k one", "k1"), node("TopK", "x k1", "y i", "best", axis=1)]
    return model(nodes, [1, 9000], k=np.array(5000), one=np.array([1]))


def branch(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)])


def branches() -> onnx.ModelProto:
    top = branch("then", [node("TopK", "x k", "then_y i", "best", axis=1)])
    zero = branch("else", [node("Slice", "x zero k one", "else_y", "first")])
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m limit", "c"),
        node("If", "c", "y", "choose", then_branch=top, else_branch=zero),
    ]
    weights: dict[str, Any] = {
        "k": np.array([5000]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "limit": np.float32(0),
    }
    return model(nodes, [1, 9000], **weights)


def function() -> onnx.ModelProto:
    graph = model([node("Relu", "x", "z"), node("Best", "z", "y", "call", domain="own")], [1, 9000])
    body = [node("Constant", "", "k", value_ints=[5000]), node("TopK", "a k", "b i", "best", axis=1)]
    graph.functions.append(helper.make_function("own", "Best", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    return graph


def without_outputs() -> onnx.ModelProto:
    graph = model([node("Relu", "x", "y")])
    del graph.graph.output[:]
    return graph


def loop() -> onnx.ModelProto:
    """A Loop without a condition."""
    kinds = {"n": TensorProto.INT64, "c": TensorProto.BOOL, "a": 1, "c1": TensorProto.BOOL, "b": 1}
    values = [helper.make_tensor_value_info(name, kind, [] if kind != 1 else [1, 3]) for name, kind in kinds.items()]
    body = helper.make_graph([node("Identity", "c", "c1"), node("Relu", "a", "b")], "body", values[:3], values[3:])
    loop_node = helper.make_node("Loop", ["n3", "", "x"], ["y"], name="repeat", body=body)
    return model([loop_node], [1, 3], n3=np.array(3))


def at_opset(graph: onnx.ModelProto, version: int) -> onnx.ModelProto:
    next(entry for entry in graph.opset_import if not entry.domain).version = version
    return graph


def with_input(graph: onnx.ModelProto, name: str, kind: int, shape: Sequence[int]) -> onnx.ModelProto:
    graph.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    return graph


def computed_axes() -> onnx.ModelProto:
    return with_input(model([node("ReduceSum", "x axes", "y", "sum")], [2, 3]), "axes", TensorProto.INT64, [1])


def reshape_to_input() -> onnx.ModelProto:
    return with_input(model([node("Reshape", "x size", "y")], [2, 3]), "size", TensorProto.INT64, [2])


def attention(outputs: str, **attributes: Any) -> onnx.ModelProto:
    graph = model([node("Attention", "x k v", outputs, "attend", **attributes)], [2, 3, 4, 8])
    for name in "kv":
        with_input(graph, name, TensorProto.FLOAT, [2, 3, 6, 8])
    graph.ir_version = 11
    return at_opset(graph, 23)


def scatter() -> onnx.ModelProto:
    weights: dict[str, Any] = {"at": np.array([[0]]), "v": np.ones((1, 3), np.float32)}
    return model([node("ScatterND", "x at v", "y", "add", reduction="add")], [2, 3], **weights)


def bfloat16() -> onnx.ModelProto:
    return model([CONV], kind=TensorProto.BFLOAT16, w=WEIGHT)


def plugin(operator: str, domain: str) -> onnx.ModelProto:
    return model([node("Conv", "x w", "t"), node(operator, "t", "y", "odd", domain=domain)], w=WEIGHT)


# name: (graph, what refuses it, position of the refused node, name of the operator, words of the hint)
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str, int | None, str, str]] = {
    "a zero point other than 0": (lambda: quantised(np.int8(3)), "parser", 0, "QuantizeLinear", "symmetric"),
    "uint8": (lambda: quantised(np.uint8(128)), "parser", 0, "QuantizeLinear", "QInt8"),
    "a quantised bias": (quantised_bias, "parser", 0, "DequantizeLinear", "QuantizeBias False"),
    "an integer operator": (
        lambda: model([node("MatMulInteger", "x w", "y")], [4, 4], kind=TensorProto.INT8, w=np.ones((4, 4), np.int8)),
        "parser",
        0,
        "MatMulInteger",
        "QuantFormat.QDQ",
    ),
    "another domain": (lambda: plugin("Sharpen", "com.acme"), "parser", 1, "Sharpen", "standard ONNX operators"),
    "a TensorRT plugin": (
        lambda: plugin("Unheard_TRT", "TRT"),
        "parser",
        1,
        "Unheard_TRT",
        "a plugin that this TensorRT does not contain",
    ),
    "an operator without importer": (lambda: model([node("Det", "x", "y")]), "parser", 0, "Det", "no such operator"),
    "an operator that onnx defines": (
        lambda: model([node("CenterCropPad", "x s", "y")], s=np.array([1, 3, 4, 4])),
        "parser",
        0,
        "CenterCropPad",
        'inline_selected_functions(model, [("", "CenterCropPad")]',
    ),
    "bfloat16 with float weights": (bfloat16, "parser", 0, "Conv", "fuse_conv_bn_eval"),
    "two float types": (
        lambda: model([node("Add", "x h", "y")], h=np.ones(8, np.float16)),
        "parser",
        0,
        "Add",
        "put a Cast",
    ),
    "Celu in half precision": (
        lambda: model([node("Celu", "x", "y")], [2, 3], kind=TensorProto.FLOAT16),
        "parser",
        0,
        "Celu",
        "in float32 only",
    ),
    "an input from nowhere": (lambda: model([node("Relu", "nowhere", "y")]), "parser", 0, "Relu", "reads 'nowhere'"),
    "a uint16 input": (
        lambda: model([node("Cast", "x", "y", to=1)], kind=TensorProto.UINT16),
        "parser",
        None,
        "",
        "input 'x' is uint16, which TensorRT does not have: use int32",
    ),
    "a Loop without a condition": (loop, "parser", 0, "Identity", "Loop 'repeat' has no condition"),
    "axes that are an input": (computed_axes, "parser", 0, "ReduceSum", "its axes, 'axes'"),
    "an old opset": (
        lambda: at_opset(model([node("PRelu", "x s", "y")], [1, 3, 4], s=np.ones(3, np.float32)), 6),
        "parser",
        None,
        "",
        "the graph has opset 6: onnx.version_converter",
    ),
    "outputs of attention": (lambda: attention("y k1 v1"), "parser", 0, "Attention", "leave 'k1', 'v1' out"),
    "softcap": (lambda: attention("y", softcap=2.0), "parser", 0, "Attention", "write attention as MatMul"),
    "attention without a kernel": (lambda: attention("y"), "builder", 0, "Attention", "no kernel exists"),
    "statistics of a LayerNormalization": (
        lambda: model([node("LayerNormalization", "x s", "y mean")], [1, 8], s=np.ones(8, np.float32)),
        "parser",
        0,
        "LayerNormalization",
        "'mean', have no implementation",
    ),
    "a dilated pool": (
        lambda: model([node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])]),
        "parser",
        0,
        "MaxPool",
        "dilated pooling",
    ),
    "a reduction of ScatterND": (scatter, "parser", 0, "ScatterND", "scatter with reduction"),
    "K above 3840": (lambda: topk(5000), "builder", 0, "TopK", "fewer candidates"),
    "K from a shape": (sort, "builder", 2, "TopK", "fewer candidates"),
    "K by Reshape": (reshaped_k, "builder", 1, "TopK", "fewer candidates"),
    "K in a branch": (branches, "builder", 2, "TopK", "fewer candidates"),
    "K in a function": (function, "builder", 1, "TopK", "fewer candidates"),
    "no outputs": (without_outputs, "builder", None, "", "names no outputs"),
    "values that set sizes": (reshape_to_input, "builder", None, "", "--shape size=VALUExVALUE"),
}


def saved(graph: onnx.ModelProto, path: Path) -> Path:
    onnx.save(graph, path)
    return path


def run_all(paths: list[str]) -> dict[str, Any]:
    """``trial.run`` of each file, in one process because starting NVIDIA's library takes most of the time."""
    return {path: trial.run(path, {}, True, progress=lambda *_: None) for path in paths}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckResult]:
    """The result of every graph in ``REFUSED``."""
    folder = tmp_path_factory.mktemp("refused")
    paths = {
        name: saved(make(), folder / f"{number}.onnx") for number, (name, (make, *_)) in enumerate(REFUSED.items())
    }
    outcomes = run_in_subprocess(run_all, [str(path) for path in paths.values()], timeout_s=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_in_subprocess", lambda _, path, *__, **___: outcomes[path])
        return {name: check(path) for name, path in paths.items()}


@with_tensorrt
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_node_with_a_hint(refusals: dict[str, CheckResult], name: str) -> None:
    result, (_, stage, at, operator, words) = refusals[name], REFUSED[name]
    (problem,) = result.problems
    assert not result.accepted
    assert not result.built
    assert (problem.stage, problem.node, problem.operator) == (stage, at, operator)
    assert words in (problem.hint or "")


@with_tensorrt
@pytest.mark.parametrize("make", [sort, branches, without_outputs, nms], ids=lambda make: make.__name__)
def test_the_builder_refuses_without_a_build(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    (problem,) = check(saved(make(), tmp_path / "bad.onnx"), build=False).problems
    assert problem.stage == "builder"


@with_tensorrt
def test_attention_is_undecided_without_a_build(tmp_path: Path) -> None:
    (problem,) = check(saved(attention("y"), tmp_path / "attention.onnx"), build=False).problems
    assert (problem.operator, problem.name) == ("Attention", "attend")
    assert problem.hint == "check again with --build"


@with_tensorrt
def test_the_nodes_around_a_refused_node_are_named(tmp_path: Path) -> None:
    (problem,) = check(saved(branches(), tmp_path / "if.onnx"), build=False).problems
    assert problem.name == "best"
    assert problem.within == ("choose (If)", "then (then_branch)")


@with_tensorrt
def test_every_bad_node_is_named(tmp_path: Path) -> None:
    nodes = [node("Sharpen", "x", "a"), node("Relu", "a", "b"), node("Blur", "b", "y")]
    result = check(saved(model(nodes), tmp_path / "bad.onnx"))
    assert [(problem.node, problem.operator) for problem in result.problems] == [(0, "Sharpen"), (2, "Blur")]


ACCEPTED: dict[str, Callable[[], onnx.ModelProto]] = {
    "a convolution": lambda: model([CONV], w=WEIGHT),
    "symmetric int8": lambda: quantised(np.int8(0)),
    "K of 3840": lambda: topk(3840),
}


@with_tensorrt
@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_a_good_graph_is_accepted(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    graph = make()
    result = check(saved(graph, tmp_path / "good.onnx"))
    assert result.accepted
    assert result.built
    assert result.nodes == len(graph.graph.node)
    assert result.to_json()["runtime"] in ("tensorrt", "tensorrt_rtx")


@with_tensorrt
def test_dynamic_axes_get_the_named_or_a_chosen_length(tmp_path: Path) -> None:
    path = saved(model([CONV], w=WEIGHT), tmp_path / "dynamic.onnx")
    chosen, named = check(path), check(path, shapes={"x": [5, 3, 8, 8]}, build=False)
    assert (chosen.shapes, chosen.chosen, chosen.built) == ({"x": [1, 3, 8, 8]}, ("x",), True)
    assert (named.shapes, named.chosen, named.built) == ({"x": [5, 3, 8, 8]}, (), False)


@with_tensorrt
def test_the_values_of_an_input_that_sets_sizes_can_be_named(tmp_path: Path) -> None:
    assert check(saved(reshape_to_input(), tmp_path / "m.onnx"), shapes={"size": [3, 2]}, build=False).accepted


@with_tensorrt
def test_a_shape_decides(tmp_path: Path) -> None:
    graph = sort()
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    path = saved(graph, tmp_path / "sort.onnx")
    assert check(path, shapes={"x": [1, 3840]}, build=False).accepted
    assert not check(path, shapes={"x": [1, 3841]}, build=False).accepted


@with_tensorrt
def test_what_is_read_otherwise_than_written_is_a_warning(tmp_path: Path) -> None:
    result = check(saved(quantised(np.uint8(0)), tmp_path / "uint8.onnx"))
    assert result.accepted
    assert any("UINT8" in warning.message and "QInt8" in (warning.hint or "") for warning in result.warnings)


SYMMETRIC = {"QuantizeBias": False, "ActivationSymmetric": True, "WeightSymmetric": True}


@with_tensorrt
@pytest.mark.parametrize(
    ("options", "words"), [({}, "QuantizeBias False"), ({"QuantizeBias": False}, "QInt8"), (SYMMETRIC, None)]
)
def test_the_hints_lead_to_a_quantised_network_that_is_accepted(
    tmp_path: Path, options: dict[str, bool], words: str | None
) -> None:
    graph = model([node("Conv", "x w b", "y", "conv")], w=WEIGHT, b=np.ones(4, np.float32))
    quantize_static(saved(graph, tmp_path / "m.onnx"), tmp_path / "int8.onnx", OneImage(), extra_options=options)
    problems = check(tmp_path / "int8.onnx").problems
    assert bool(problems) == (words is not None)
    assert words is None or words in (problems[0].hint or "")


class OneImage(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._left = [np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)]

    def get_next(self) -> dict[str, Any] | None:
        return {"x": self._left.pop()} if self._left else None


def complete(folder: Path) -> bytes:
    return saved(model([CONV], w=WEIGHT), folder / "complete.onnx").read_bytes()


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "contains no ONNX graph"),
    "cut off": (lambda content: content[: len(content) // 2], "not an ONNX file, or is damaged"),
    "a text": (lambda _: b"no ONNX at all\n", "not an ONNX file"),
    "an image": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_wrong_input(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(damage(complete(tmp_path)))
    with pytest.raises(UserError, match=message) as raised:
        check(path)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(("content", "message"), [(None, "which does not exist"), (b"ab", "is truncated")])
def test_weights_in_another_file_must_exist(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model([CONV], w=WEIGHT), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    (tmp_path / "m.bin").unlink()
    if content is not None:
        (tmp_path / "m.bin").write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        check(path)
    assert raised.value.exit_code == 2


def test_the_weights_of_a_constant_must_exist(tmp_path: Path) -> None:
    graph = model([node("Constant", "", "w", value=numpy_helper.from_array(WEIGHT)), CONV])
    tensor = graph.graph.node[0].attribute[0].t
    onnx.external_data_helper.set_external_data(tensor, "gone.bin", offset=0, length=432)
    tensor.ClearField("raw_data")
    with pytest.raises(UserError, match=r"has its weights in .*gone\.bin, which does not exist"):
        check(saved(graph, tmp_path / "m.onnx"))


def crash_in_parser(path: str, shapes: dict[str, list[int]], build: bool, *, progress: Progress) -> None:
    signal.raise_signal(signal.SIGSEGV)


def crash_in_builder(path: str, shapes: dict[str, list[int]], build: bool, *, progress: Progress) -> None:
    progress(trial.PARSED, 1, 1)
    signal.raise_signal(signal.SIGSEGV)


@with_tensorrt
@pytest.mark.parametrize(("crash", "stage"), [(crash_in_parser, "parser"), (crash_in_builder, "builder")])
def test_a_crash_of_the_library_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crash: Callable[..., None], stage: str
) -> None:
    monkeypatch.setattr(trial, "run", crash)
    result = check(saved(model([CONV], w=WEIGHT), tmp_path / "m.onnx"))
    (problem,) = result.problems
    assert (problem.stage, problem.code) == (stage, "CRASHED")
    assert problem.description == f"TensorRT's {stage} failed: it was ended by SIGSEGV"
    assert result.version


def test_a_library_that_crashes_when_it_is_loaded_is_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        (tmp_path / f"{name}.py").write_text("import signal\nsignal.raise_signal(signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UnavailableError, match="cannot be loaded here: it was ended by SIGSEGV"):
        check(saved(model([CONV], w=WEIGHT), tmp_path / "m.onnx"))


WRONG_SHAPES = {
    "an unknown input": ({"z": [1]}, "the graph has no input 'z'; it has 'x'"),
    "another number of axes": ({"x": [3, 8, 8]}, r"input 'x' accepts \?x3x8x8, not \[3, 8, 8\]"),
    "a fixed axis": ({"x": [1, 4, 8, 8]}, r"accepts \?x3x8x8"),
    "a number that no axis has": ({"x": [10**20, 3, 8, 8]}, "input 'x' has 1000"),
    "an empty axis": ({"x": [0, 3, 8, 8]}, "needs axes of at least 1"),
}


@with_tensorrt
@pytest.mark.parametrize(("shapes", "message"), WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_a_shape_that_does_not_fit_is_wrong_input(tmp_path: Path, shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        check(saved(model([CONV], w=WEIGHT), tmp_path / "m.onnx"), shapes=shapes)
    assert raised.value.exit_code == 2


def test_without_tensorrt_the_error_says_what_to_install(without_tensorrt: None, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"without its content.*: pip install 'fbnetv5\[rtx\]'"):
        check(saved(model([CONV], w=WEIGHT), tmp_path / "m.onnx"))
