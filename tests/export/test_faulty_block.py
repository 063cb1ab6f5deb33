import pytest

from export.faulty_block import find_faulty_block
from export.precision import to_half, to_int8
from export.precision_pipeline import block_values
from export.runners import TorchRunner
from tests.export.tiny import BLOCKS, Tiny, TwoHeads, exported, images, sabotaged


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_block_with_scaled_weights_is_named(block: str, precision: str) -> None:
    net, inputs = Tiny(), images()
    content = exported(net)
    reference = TorchRunner(net, ["images"], ["logits"]).blocks(inputs)
    bad = sabotaged(content, block)
    lower = {"fp32": bad, "fp16": to_half(bad), "int8": to_int8(bad, [inputs])}[precision]
    faulty_block = find_faulty_block(
        content, reference, block_values(lower, content, inputs), precision, output="logits"
    )
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
    assert (
        find_faulty_block(content, reference, block_values(lower, content, inputs), precision, output="logits") is None
    )


def test_a_block_with_nan_is_faulty() -> None:
    content, inputs = exported(Tiny()), images()
    values = block_values(content, content, inputs)
    bad = {**values, "backbone/last": values["backbone/last"] * float("nan")}
    faulty_block = find_faulty_block(content, values, bad, "fp32", output="logits")
    assert faulty_block is not None
    assert faulty_block.block == "backbone/last"


def test_the_faulty_block_of_an_output_is_one_that_it_depends_on() -> None:
    content, inputs = exported(TwoHeads(), ["one", "other"]), images()
    values = block_values(content, content, inputs)
    worse = block_values(sabotaged(content, "other/mix", 3.0), content, inputs)
    assert find_faulty_block(content, values, worse, "int8", output="one") is None
    both = block_values(sabotaged(sabotaged(content, "other/mix", 3.0), "one/mix", 1.5), content, inputs)
    for output in ("one", "other"):
        faulty_block = find_faulty_block(content, values, both, "int8", output=output)
        assert faulty_block is not None
        assert faulty_block.block == f"{output}/mix"
