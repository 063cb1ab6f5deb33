"""The figures of the kernel floor, on graphs of known numbers of kernels."""

from dataclasses import replace

import pytest
from torch import nn

from benchmarks.kernel_floor import summarize
from latency.devices import GPUS
from latency.profile import Graph, onnx_of


def pools(count: int) -> bytes:
    def build() -> nn.Module:
        return nn.Sequential(*(nn.MaxPool2d(3, 1, 1) for _ in range(count)))

    return onnx_of(Graph(key=f"{count}", build=build, input_shapes=((2, 4, 4),)))[0]


def test_a_block_that_runs_twice_in_a_network_counts_twice() -> None:
    figures = summarize(
        ["1", "3"], ["1", "1", "3"], {"1": pools(1), "3": pools(3)}, replace(GPUS["t4"], kernel_floor_us=2)
    )
    assert (figures["block_ms_min"], figures["block_ms_max"]) == (0.002, 0.006)
    assert figures["network_ms"] == pytest.approx(0.010)
    assert (figures["network_kernels"], figures["blocks_bound_by_launch"]) == (5, 2)
