import logging
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from export.errors import UserError
from export.graph import to_onnx_bytes
from export.precision import at_precision, rounded_to_half, to_half
from export.runners import Array, OrtRunner
from fbnetv5.tasks.detection import _suppress_one_image, select
from latency.table import NULL_KEY

Blocks = Mapping[str, tuple[bytes, dict[str, Array]]]
SORTED = {"boxes", "labels"}
"""Outputs sorted by scores, which differ too little between untrained boxes to keep their order."""


def sqnr_db(reference: Array, candidate: Array) -> float:
    """Signal to quantisation noise: 20 dB is a tenth of the amplitude."""
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    noise = float(np.square(a - b).sum())
    return 10 * float(np.log10(np.square(a).sum() / noise)) if noise else float("inf")


def outputs(content: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    runner = OrtRunner(content)
    return runner({spec.name: inputs[spec.name].astype(spec.dtype) for spec in runner.inputs})


def weights(content: bytes) -> Iterator[onnx.TensorProto]:
    """The weights of all convolutions and matrix products, before a DequantizeLinear if there is one."""
    graph = onnx.load_from_string(content).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    producer = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            name = node.input[1]
            yield values[producer[name].input[0] if name in producer else name]


@pytest.mark.parametrize(("precision", "min_db"), [("fp16", 45), ("int8", 25)])
def test_every_block_stays_close_to_float32(blocks: Blocks, precision: str, min_db: float) -> None:
    assert len(blocks) == 24
    for key, (content, inputs) in blocks.items():
        reference, candidate = outputs(content, inputs), outputs(at_precision(content, precision, inputs), inputs)
        for name in reference.keys() - SORTED:
            assert sqnr_db(reference[name], candidate[name]) > min_db, (key, name)


def test_half_precision_passes_its_gate(blocks: Blocks) -> None:
    # Left out: untrained scores, which are nearly equal, and the empty graph of one value, because their range is tiny.
    ranged = {key: block for key, block in blocks.items() if not key.startswith(("head_det", NULL_KEY))}
    assert len(ranged) == 22
    for key, (content, inputs) in ranged.items():
        reference, candidate = outputs(content, inputs), outputs(at_precision(content, "fp16", inputs), inputs)
        for name, expected in reference.items():
            assert np.abs(expected - candidate[name]).max() < 5e-3 * np.ptp(expected), key


def test_half_precision_applies_to_all_tensors(blocks: Blocks) -> None:
    for key, (content, inputs) in blocks.items():
        graph = onnx.load_from_string(at_precision(content, "fp16", inputs)).graph
        onnx.checker.check_graph(graph)  # its nodes are in order
        assert {tensor.data_type for tensor in graph.initializer} <= {TensorProto.FLOAT16}, key
        borders = Counter(value.type.tensor_type.elem_type for value in [*graph.input, *graph.output])
        assert not borders[TensorProto.FLOAT], key
        assert borders[TensorProto.FLOAT16] >= 2, key


class Suppressed(torch.nn.Module):
    """Boxes [1, A, 4] and scores [1, A, C] -> the boxes that remain, [k, 4]."""

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return _suppress_one_image(*select(boxes, scores))[0]


@pytest.mark.parametrize("size", [640, 1280])
def test_half_precision_suppresses_the_boxes_of_each_class_as_float32_does(size: int) -> None:
    rng = np.random.default_rng(0)
    objects = np.repeat(np.concatenate([rng.uniform(0, size, (60, 2)), rng.uniform(30, 120, (60, 2))], 1), 7, axis=0)
    centres, sides = objects[:, :2] + rng.normal(0, 6, (420, 2)), objects[:, 2:]
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1)[None].astype(np.float32)
    scores = rng.uniform(0, 0.01, (1, 420, 80)).astype(np.float32)
    scores[0, np.arange(420), np.repeat(rng.integers(70, 80, 60), 7)] = rng.permutation(np.linspace(0.3, 0.9, 420))
    inputs = {"boxes": boxes, "scores": scores}
    content = to_onnx_bytes(
        Suppressed(), (torch.from_numpy(boxes), torch.from_numpy(scores)), input_names=[*inputs], output_names=["best"]
    )
    expected = OrtRunner(content)(inputs)["best"]
    assert len(expected) < 100
    for half in (to_half(content), rounded_to_half(content)):
        actual = OrtRunner(half)(inputs)["best"]
        # Overlaps near the limit may differ; with offsets in half precision 6 and 35 more boxes remained.
        assert abs(len(actual) - len(expected)) <= 2


def test_int8_weights_are_signed_symmetric_and_scaled_by_channel(blocks: Blocks) -> None:
    content, inputs = blocks["ir_k5_c24-40_e5_s2_se@56x56"]
    int8 = at_precision(content, "int8", inputs)
    int8_weights = list(weights(int8))
    assert len(int8_weights) == len(list(weights(content))) == 5
    assert {tensor.data_type for tensor in int8_weights} == {TensorProto.INT8}
    graph = onnx.load_from_string(int8).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantisers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {values[node.input[2]].dtype for node in quantisers} == {np.dtype(np.int8)}
    assert not any(values[node.input[2]].any() for node in quantisers)
    scales = {node.input[0]: values[node.input[1]].size for node in quantisers}
    assert [scales[tensor.name] for tensor in int8_weights] == [tensor.dims[0] for tensor in int8_weights]


def test_every_blocks_weights_are_int8(blocks: Blocks) -> None:
    for key, (content, inputs) in blocks.items():
        assert {tensor.data_type for tensor in weights(at_precision(content, "int8", inputs))} <= {TensorProto.INT8}, (
            key
        )


def test_float32_is_unchanged_and_unknown_precisions_are_refused(blocks: Blocks) -> None:
    content, inputs = blocks["stem_c16@224x224"]
    assert at_precision(content, "fp32", inputs) == content
    with pytest.raises(UserError, match="no precision 'fp8'; known are fp32, fp16, int8"):
        at_precision(content, "fp8", inputs)


def test_the_converters_print_nothing_and_leave_logging_as_it_was(
    blocks: Blocks, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (list(logging.getLogger().handlers), logging.root.manager.disable)
    content, inputs = blocks["fuse_up_c40-24@56x56"]
    for precision in ("fp16", "int8"):
        at_precision(content, precision, inputs)
    assert capfd.readouterr() == ("", "")
    assert (logging.getLogger().handlers, logging.root.manager.disable) == before
