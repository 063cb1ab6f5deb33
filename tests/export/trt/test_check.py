"""The check on hand-made bad graphs: with NVIDIA's parser if it is installed, and without it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from export.errors import UnavailableError, UserError, VerificationError
from export.subprocesses import SubprocessFailedError
from export.trt import check as module
from export.trt.check import CheckResult, check, hint_for
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


def bfloat16() -> onnx.ModelProto:
    return model([CONV], kind=TensorProto.BFLOAT16, w=WEIGHT)


def plugin(operator: str, domain: str) -> onnx.ModelProto:
    return model([node("Conv", "x w", "t"), node(operator, "t", "y", "odd", domain=domain)], w=WEIGHT)


# name: (graph, what refuses it, index of the refused node, words of the hint)
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str, int, str]] = {
    "a zero point other than 0": (lambda: quantised(np.int8(3)), "parser", 0, "symmetric"),
    "uint8": (lambda: quantised(np.uint8(128)), "parser", 0, "QInt8"),
    "a quantised bias": (quantised_bias, "parser", 0, "QuantizeBias False"),
    "an integer operator": (
        lambda: model([node("MatMulInteger", "x w", "y")], [4, 4], kind=TensorProto.INT8, w=np.ones((4, 4), np.int8)),
        "parser",
        0,
        "QuantFormat.QDQ",
    ),
    "another domain": (lambda: plugin("Sharpen", "com.acme"), "parser", 1, "standard ONNX operators"),
    "an unknown operator": (lambda: plugin("Sharpen", ""), "parser", 1, "standard ONNX operators"),
    "a TensorRT plugin": (
        lambda: plugin("Unheard_TRT", "TRT"),
        "parser",
        1,
        "a plugin that this TensorRT does not contain",
    ),
    "an operator without importer": (lambda: model([node("Det", "x", "y")]), "parser", 0, "no such operator"),
    "K above 3840": (lambda: topk(5000), "builder", 0, "fewer candidates"),
    "bfloat16 with float weights": (bfloat16, "parser", 0, "fuse_conv_bn_eval"),
    "two float types": (lambda: model([node("Add", "x h", "y")], h=np.ones(8, np.float16)), "parser", 0, "put a Cast"),
    "an input from nowhere": (lambda: model([node("Relu", "nowhere", "y")]), "parser", 0, "not valid ONNX"),
}


def saved(graph: onnx.ModelProto, path: Path) -> Path:
    onnx.save(graph, path)
    return path


@with_tensorrt
@pytest.mark.parametrize(("make", "stage", "at", "words"), REFUSED.values(), ids=REFUSED)
def test_a_bad_node_is_named_with_a_hint(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], stage: str, at: int, words: str
) -> None:
    graph = make()
    result = check(saved(graph, tmp_path / "bad.onnx"))
    (problem,) = result.problems
    assert not result.accepted
    assert (problem.stage, problem.node) == (stage, at)
    assert (problem.operator, problem.name) == (graph.graph.node[at].op_type, graph.graph.node[at].name)
    assert words in (problem.hint or "")


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
    assert result.nodes == len(graph.graph.node)
    assert result.to_json()["runtime"] in ("tensorrt", "tensorrt_rtx")


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


def test_an_operator_that_one_variant_does_not_build_is_refused_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = saved(nms(), tmp_path / "nms.onnx")
    assert [problem.operator for problem in result_of(monkeypatch, path, "tensorrt_rtx").problems] == [
        "NonMaxSuppression"
    ]
    assert result_of(monkeypatch, path, "tensorrt").accepted


def result_of(monkeypatch: pytest.MonkeyPatch, path: Path, runtime: str) -> CheckResult:
    """As if the parser of ``runtime`` had accepted the file."""
    parsed = {"name": runtime, "version": "0", "errors": [], "warnings": []}
    monkeypatch.setattr(module, "run_in_subprocess", lambda *_, **__: parsed)
    return check(path)


@pytest.mark.parametrize("constant", [True, False], ids=["constant node", "initialiser"])
def test_k_may_be_an_initialiser_or_a_constant_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, constant: bool
) -> None:
    graph = topk(5000)
    if constant:
        k = graph.graph.initializer.pop()
        graph.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=k))
    (problem,) = result_of(monkeypatch, saved(graph, tmp_path / "k.onnx"), "tensorrt").problems
    assert problem.node == int(constant)
    assert problem.description == "K is 5000, and at most 3840 is built"


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


def test_a_parser_that_crashes_is_a_failed_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise SubprocessFailedError("was ended by SIGSEGV")

    monkeypatch.setattr(module, "run_in_subprocess", crash)
    with pytest.raises(VerificationError, match=r"failed on .*: it was ended by SIGSEGV"):
        check(saved(model([CONV], w=WEIGHT), tmp_path / "m.onnx"))


def test_without_tensorrt_the_error_says_what_to_install(without_tensorrt: None, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"without its content.*: pip install 'fbnetv5\[rtx\]'"):
        check(saved(model([CONV], w=WEIGHT), tmp_path / "m.onnx"))


# Descriptions of tensorrt-rtx 1.7.1.
KNOWN = {
    "zero point": (
        "QuantizeLinear",
        "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported.",
        "QInt8",
    ),
    "bias": (
        "DequantizeLinear",
        "Invalid Node - b (b: input has type Int32 but must have type FP8, Int8)",
        "QuantizeBias",
    ),
    "operator format": ("QLinearConv", "false", "QuantFormat.QDQ"),
    "plugin": ("EfficientNMS_TRT", 'creator && "Plugin not found, are the plugin name', "TensorRT-RTX contains none"),
    "custom": ("Sharpen", 'creator && "Plugin not found, are the plugin name', "register a plugin"),
    "data-dependent": (
        "NonZero",
        "NonZero plugin creator version 1 was not found in plugin registry.",
        "depends on the data",
    ),
    "text": ("", "Assertion failed: convertDtype(onnxDtype.elem_type(), &trtDtype)", "strings"),
    "unknown": ("Conv", "a cause nobody met yet", None),
}


@pytest.mark.parametrize(("operator", "description", "words"), KNOWN.values(), ids=KNOWN)
def test_known_causes_have_a_hint(operator: str, description: str, words: str | None) -> None:
    hint = hint_for(operator, description)
    assert hint is None if words is None else words in (hint or "")
