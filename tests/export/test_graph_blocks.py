import pytest
import torch
from torch import Tensor, nn

from export.errors import UserError
from export.graph_blocks import before_selection, block_outputs, block_sources, with_outputs
from export.runners import OrtRunner, TorchRunner
from tests.export.tiny import BLOCKS, Tiny, exported, images


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x * 2)
        return result


@pytest.mark.parametrize("module", [Tiny(), Wrapped(Tiny())], ids=["plain", "wrapped"])
def test_blocks_of_a_graph_are_those_of_the_module(module: nn.Module) -> None:
    content, inputs = exported(module), images()
    tensors = block_outputs(content)
    assert set(tensors) - {"backbone", "head"} == set(BLOCKS)
    found = OrtRunner(with_outputs(content, tensors.values()))(inputs)
    reference = TorchRunner(module, ["images"], ["logits"]).blocks(inputs)
    assert set(reference) == set(BLOCKS)
    for block, values in reference.items():
        torch.testing.assert_close(torch.from_numpy(found[tensors[block]]), torch.from_numpy(values))


def test_a_block_knows_what_it_reads_from() -> None:
    sources = block_sources(exported(Tiny()))
    assert sources["backbone/middle"] == {"backbone/stem"}
    assert sources["backbone"] == {"backbone/stem", "backbone/middle"}  # the sum is no module of its own
    assert sources["head/mix"] == {"backbone/last"}


def test_before_a_selection_is_what_it_chooses_from() -> None:
    assert before_selection(exported(Tiny())) == ("logits",)
    content = exported(Tiny(best=True), ["values", "places"])
    (name,) = before_selection(content)
    scores = OrtRunner(with_outputs(content, [name]))(images())
    assert scores[name].shape == (4, 10)
    assert scores[name].sum(1) == pytest.approx(1)
    assert (scores[name].max(1) == scores["values"][:, 0]).all()


def test_a_tensor_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="has no tensor 'nowhere'"):
        with_outputs(exported(Tiny()), ["nowhere"])
