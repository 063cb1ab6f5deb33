import pytest

from export.faulty_block import find_culprit
from export.precision import to_half, to_int8
from export.precision_pipeline import values_of_blocks
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
    found = find_culprit(content, reference, values_of_blocks(lower, content, inputs), precision)
    assert found is not None
    assert found.block == block
    assert found.sqnr_db < 25
    assert found.given_db > found.sqnr_db + 10
    assert str(found).startswith(f"the block at fault is {block}: what it gives is ")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nobody_is_blamed_for_rounding(precision: str) -> None:
    net, inputs = Tiny(), images()
    content = exported(net)
    lower = {"fp32": content, "fp16": to_half(content), "int8": to_int8(content, [inputs])}[precision]
    reference = TorchRunner(net, ["images"], ["logits"]).blocks(inputs)
    assert find_culprit(content, reference, values_of_blocks(lower, content, inputs), precision) is None


def test_a_block_that_gives_no_number_is_the_one() -> None:
    content, inputs = exported(Tiny()), images()
    values = values_of_blocks(content, content, inputs)
    bad = {**values, "backbone/last": values["backbone/last"] * float("nan")}
    found = find_culprit(content, values, bad, "fp32")
    assert found is not None
    assert found.block == "backbone/last"
