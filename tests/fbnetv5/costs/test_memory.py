"""Peak memory by blocks is that of whole exported networks, whose shapes are inferred and whose tensors are walked."""

import math
from functools import cache

import numpy as np
import onnx
import pytest
import torch

from export.graph import to_onnx_bytes
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.memory import MemoryLimit, PeakMemory, memory_limit, peak_memory
from fbnetv5.data.scenes import CLASSES
from fbnetv5.networks.backbone import task_network
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks
from latency.liveness import liveness_of

SIZE = (64, 64)
TASKS = make_tasks(("cls", "det", "seg", "depth"), CLASSES)
STAGES = StageSpace(width=0.25)
SPACES: dict[str, tuple[Space, str]] = {
    "four paths, pixels": (FourPathSpace(stages=2, blocks_per_path=1), "seg"),
    "four paths, variant f": (FourPathSpace(variant="f", stages=1, blocks_per_path=2), "depth"),
    "wide": (WideSpace(stages=1, blocks_per_path=1), "cls"),
    "stages": (STAGES, "cls"),
}


@cache
def memory_of(space: Space, task: str) -> PeakMemory:
    return peak_memory(space, TASKS[task], SIZE)


def random_members(space: Space, count: int) -> Choices:
    counts = np.array(space.choice_counts)
    return np.concatenate([np.random.default_rng(3).integers(counts, size=(count, len(counts))), space.full()[None]])


def exported(space: Space, task: str, choices: Choices) -> bytes:
    network = task_network(TASKS[task], space, choices).eval()
    images, names = torch.zeros(1, 3, *SIZE), TASKS[task].output_names
    return to_onnx_bytes(network, (images,), input_names=["images"], output_names=names, dynamic_batch=False)


def peaks_by_shape_inference(content: bytes) -> dict[str, int]:
    """By block, or "head": the most bytes of tensors that a node reads or writes, or that are read again after it."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), data_prop=True).graph
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    span = {graph.input[0].name: [0, 0]}
    for at, node in enumerate(nodes):
        for name in node.input:
            if name in span:
                span[name][1] = at
        span |= {name: [at, at] for name in node.output}
    for value in graph.output:
        span[value.name][1] = len(nodes)
    peaks: dict[str, int] = {}
    for at, node in enumerate(nodes):
        parts = node.name.split("/")
        block = parts[2] if parts[1] == "backbone" else "head"
        live = sum(4 * math.prod(shapes[name]) for name, (first, last) in span.items() if first <= at <= last)
        peaks[block] = max(peaks.get(block, 0), live)
    return peaks


@pytest.mark.parametrize(("space", "task"), SPACES.values(), ids=SPACES)
def test_peaks_are_those_of_the_exported_network_block_by_block(space: Space, task: str) -> None:
    members, memory = random_members(space, 2), memory_of(space, task)
    for choices, by_node, peak in zip(members, memory.of_nodes(members).tolist(), memory(members), strict=True):
        wanted = peaks_by_shape_inference(exported(space, task, choices))
        assert max(wanted.values()) == peak
        del wanted["head"]
        assert {node.name: bytes for node, bytes in zip(space.nodes, by_node, strict=True) if bytes} == wanted


def test_the_peak_of_a_detector_is_that_of_the_exported_network() -> None:
    """Its head decodes boxes with operators that shape inference does not resolve, so the whole network runs."""
    space = FourPathSpace(stages=1, blocks_per_path=1)
    members = random_members(space, 2)
    wanted = [liveness_of(exported(space, "det", choices)).peak_bytes() for choices in members]
    assert memory_of(space, "det")(members).tolist() == wanted


def test_the_lowest_peak_is_not_above_that_of_any_random_network() -> None:
    memory = memory_of(STAGES, "cls")
    peaks = memory(random_members(STAGES, 3000))
    assert memory(memory.lowest()[None])[0] <= peaks.min() < peaks.max()


def test_the_limit_is_the_budget_in_bytes() -> None:
    budgets = [Budget(limit=4e6, unit="macs", resolution=SIZE), Budget(limit=2e5, unit="bytes", resolution=SIZE)]
    limit = memory_limit(STAGES, TASKS["cls"], budgets)
    assert limit is not None
    members = random_members(STAGES, 5)
    np.testing.assert_allclose(limit.ratio(members), memory_of(STAGES, "cls")(members) / 2e5)
    assert limit.text == "0.2 MB of activations"
    assert "networks of this space have a peak of 0." in limit.range_text
    assert memory_limit(STAGES, TASKS["cls"], budgets[:1]) is None


def test_a_space_whose_networks_have_one_peak_says_so() -> None:
    space = FourPathSpace(stages=1, blocks_per_path=1)
    limit = MemoryLimit(budget=Budget(limit=1e6, unit="bytes"), peak=memory_of(space, "det"))
    assert "--memory does not choose between them" in limit.range_text
