import pytest

from export.faulty_block import find_faulty_block
from export.precision import to_half, to_int8
from export.precision_pipeline import block_values
from export.runners import TorchRunner
from tests.export.tiny import BLOCKS, Tiny, exported, images, sabotaged


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_block_with_scaled_weights_is_named(block: str, precision: str) -> None:
    net, inputs = Tiny(), images()
    content = exported(net)
    reference = TorchRunner(net, ["images"], ["logits"]).blocks(inputs)
    bad = sabotaged(content, block)
    lower = {"fp32": bad, "fp16": to_half(bad), "int8": to_int8(bad, [inputs])}[precision]
    faulty_block = find_faulty_block(content, reference, block_values(lower, content, inputs), precision)
    assert faulty_block is not None
    assert faulty_block.block == block
    assert faulty_block.sqnr_db < 25
    assert faulty_block.input_sqnr_db > faulty_block.sqnr_db + 10
    assert str(faulty_block).startswith(f"the faulty block is {block}: SQNR of its output ")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rounding_makes_no_block_faulty(precision: str) -> None:
    net, inputs = Tiny(), images()
    content = exported(net)
    lower = {"fp32": content, "fp16": to_half(content), "int8": to_int8(content, [inputs])}[precision]
    reference = TorchRunner(net, ["images"], ["logits"]).blocks(inputs)
    assert find_faulty_block(content, reference, block_values(lower, content, inputs), precision) is None


def test_a_block_with_nan_is_faulty() -> None:
    content, inputs = exported(Tiny()), images()
    values = block_values(content, content, inputs)
    bad = {**values, "backbone/last": values["backbone/last"] * float("nan")}
    faulty_block = find_faulty_block(content, values, bad, "fp32")
    assert faulty_block is not None
    assert faulty_block.block == "backbone/last"
