import pytest
import torch
from torch import Tensor, nn

from export.errors import UserError
from export.graph_blocks import add_outputs, block_outputs, block_sources, blocks_before, tensors_before_selection
from export.runners import OrtRunner, TorchRunner
from tests.export.tiny import BLOCKS, Tiny, TwoHeads, exported, images


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x * 2)
        return result


@pytest.mark.parametrize("module", [Tiny(), Wrapped(Tiny())], ids=["plain", "wrapped"])
def test_a_graph_has_the_blocks_of_the_module(module: nn.Module) -> None:
    content, inputs = exported(module), images()
    tensors = block_outputs(content)
    assert set(tensors) - {"backbone", "head"} == set(BLOCKS)
    outputs = OrtRunner(add_outputs(content, tensors.values()))(inputs)
    reference = TorchRunner(module, ["images"], ["logits"]).blocks(inputs)
    assert set(reference) == set(BLOCKS)
    for block, values in reference.items():
        torch.testing.assert_close(torch.from_numpy(outputs[tensors[block]]), torch.from_numpy(values))


def test_the_sources_of_a_block() -> None:
    sources = block_sources(exported(Tiny()))
    assert sources["backbone/middle"] == {"backbone/stem"}
    assert sources["backbone"] == {"backbone/stem", "backbone/middle"}  # the sum belongs to no block
    assert sources["head/mix"] == {"backbone/last"}


def test_the_blocks_before_an_output_are_those_of_its_head_and_the_backbone() -> None:
    content = exported(TwoHeads(), ["one", "other"])
    for output in ("one", "other"):
        before = blocks_before(content, output)
        assert before & {*BLOCKS} == {"backbone/stem", "backbone/middle", "backbone/last"}
        assert {block.partition("/")[0] for block in before} == {"backbone", output}


def test_the_tensor_before_a_selection() -> None:
    assert tensors_before_selection(exported(Tiny())) == ("logits",)
    content = exported(Tiny(best=True), ["values", "places"])
    (name,) = tensors_before_selection(content)
    scores = OrtRunner(add_outputs(content, [name]))(images())
    assert scores[name].shape == (4, 10)
    assert scores[name].sum(1) == pytest.approx(1)
    assert (scores[name].max(1) == scores["values"][:, 0]).all()


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(UserError, match="has no tensor 'nowhere'"):
        add_outputs(exported(Tiny()), ["nowhere"])
