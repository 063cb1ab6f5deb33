import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from latency.checksum import write_checksummed
from latency.devices import GPUS, Gpu
from latency.estimate import EstimatedTable, estimate, estimate_ms, estimated_path, open_table
from latency.profile import Graph

GPU = Gpu(
    name="orin",
    model="Orin",
    compute_capability=(8, 7),
    peak_tflops={"fp32": 1.0, "fp16": 4.0},
    bandwidth_gb_s=100.0,
    source="NVIDIA brief",
    url="https://example.org/brief",
)
"""10**9 operations and 10**8 bytes a ms in fp32."""
SLOW_MEMORY = replace(GPU, bandwidth_gb_s=1.0)
WITHOUT_FLOOR = replace(GPU, kernel_floor_us=0.0)
FLOOR_MS = 0.001081
REFUSAL = r"is not a table of .* delete it and estimate again"


def onnx_bytes(module: nn.Module, *shape: int) -> bytes:
    return to_onnx_bytes(module, (torch.randn(shape),), input_names=["x"], output_names=["output"], dynamic_batch=False)


WIDE = onnx_bytes(nn.Conv2d(64, 32, 3, padding=1, bias=False), 1, 64, 16, 16)
MACS = 32 * 16 * 16 * 64 * 9
ELEMENTS = 64 * 16 * 16 + 32 * 64 * 9 + 32 * 16 * 16


def test_a_convolution_bound_by_arithmetic_takes_its_operations_at_the_peak() -> None:
    estimated = estimate_ms(WIDE, GPU, "fp32")
    assert estimated.latency_ms == pytest.approx(2 * MACS / 1e9)
    assert (estimated.macs, estimated.bytes, estimated.bound) == (MACS, 4 * ELEMENTS, "compute")


def test_a_convolution_bound_by_memory_takes_its_tensors_at_the_bandwidth() -> None:
    estimated = estimate_ms(WIDE, SLOW_MEMORY, "fp32")
    assert estimated.latency_ms == pytest.approx(4 * ELEMENTS / 1e6)
    assert (estimated.macs, estimated.bytes, estimated.bound) == (MACS, 4 * ELEMENTS, "memory")


def test_a_smaller_precision_computes_faster_and_transfers_less() -> None:
    half, half_slow = estimate_ms(WIDE, GPU, "fp16"), estimate_ms(WIDE, SLOW_MEMORY, "fp16")
    assert half.latency_ms == pytest.approx(2 * MACS / 4e9)
    assert half_slow.latency_ms == pytest.approx(2 * ELEMENTS / 1e6)


def test_kernels_add_up_each_with_its_own_bound() -> None:
    module = nn.Sequential(nn.Conv2d(64, 32, 3, padding=1, bias=False), nn.MaxPool2d(2))
    pooled = 4 * (32 * 16 * 16 + 32 * 8 * 8)
    content = onnx_bytes(module, 1, 64, 16, 16)
    total = estimate_ms(content, WITHOUT_FLOOR, "fp32")
    assert total.latency_ms == pytest.approx(2 * MACS / 1e9 + pooled / 1e8)
    assert (total.bytes, total.kernels, total.bound) == (4 * ELEMENTS + pooled, 2, "compute")
    assert pooled / 1e8 < FLOOR_MS < 2 * MACS / 1e9
    assert estimate_ms(content, GPU, "fp32").latency_ms == pytest.approx(2 * MACS / 1e9 + FLOOR_MS)


@pytest.mark.parametrize("floor_us", [1.081, 5.0])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_tiny_kernels_cost_exactly_one_floor_each(count: int, floor_us: float) -> None:
    content = onnx_bytes(nn.Sequential(*(nn.MaxPool2d(3, 1, 1) for _ in range(count))), 1, 2, 4, 4)
    estimated = estimate_ms(content, replace(GPU, kernel_floor_us=floor_us), "fp32")
    assert estimated.latency_ms == count * (floor_us / 1000)
    assert (estimated.kernels, estimated.bound) == (count, "launch")


def test_a_large_convolution_is_unchanged_by_the_floor() -> None:
    assert estimate_ms(WIDE, GPU, "fp32") == estimate_ms(WIDE, WITHOUT_FLOOR, "fp32")


@pytest.mark.parametrize(("pools", "bound"), [(1, "compute"), (3, "launch")])
def test_the_bound_is_where_the_largest_part_of_the_time_goes(pools: int, bound: str) -> None:
    """The convolution computes for 9.4 us; each pool takes the floor of 5 us."""
    module = nn.Sequential(nn.Conv2d(64, 32, 3, padding=1, bias=False), *(nn.MaxPool2d(3, 1, 1) for _ in range(pools)))
    estimated = estimate_ms(onnx_bytes(module, 1, 64, 16, 16), replace(GPU, kernel_floor_us=5.0), "fp32")
    assert estimated.latency_ms == pytest.approx(2 * MACS / 1e9 + pools * 0.005)
    assert estimated.bound == bound


def test_a_precision_without_a_peak_is_wrong_usage() -> None:
    with pytest.raises(UserError, match="orin is known in fp32, fp16, not in 'int8'"):
        estimate_ms(WIDE, GPU, "int8")


class Bottleneck(nn.Module):
    """Convolution, activation, convolution, addition: [1, C, S, S] -> the same."""

    def __init__(self, channels: int, groups: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups)
        self.second = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(nn.functional.hardswish(self.first(x)))
        return x + y


@settings(max_examples=30, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4, 8]),
    width=st.integers(1, 6),
    kernel=st.sampled_from([1, 3, 5]),
    side=st.integers(1, 20),
    peak=st.floats(1e-3, 1e3),
    bandwidth=st.floats(1e-2, 1e4),
    floor_us=st.floats(0, 100),
)
def test_a_block_is_never_faster_than_its_arithmetic_its_tensors_or_its_launches(
    groups: int, width: int, kernel: int, side: int, peak: float, bandwidth: float, floor_us: float
) -> None:
    channels = groups * width
    module = Bottleneck(channels, groups, kernel)
    content = onnx_bytes(module, 1, channels, side, side)
    gpu = replace(GPU, peak_tflops={"fp32": peak}, bandwidth_gb_s=bandwidth, kernel_floor_us=floor_us)
    estimated = estimate_ms(content, gpu, "fp32")
    macs = side * side * channels * (width * kernel**2 + channels)
    weights = sum(parameter.numel() for parameter in module.parameters())
    assert (estimated.macs, estimated.kernels) == (macs, 2)
    roofline_ms = estimate_ms(content, replace(gpu, kernel_floor_us=0.0), "fp32").latency_ms
    assert max(roofline_ms, 2 * floor_us / 1e3) <= estimated.latency_ms * (1 + 1e-9)
    assert estimated.latency_ms <= (roofline_ms + 2 * floor_us / 1e3) * (1 + 1e-9)
    assert estimated.latency_ms >= 2 * macs / (peak * 1e9) * (1 - 1e-9)
    assert estimated.latency_ms >= 4 * (weights + 2 * channels * side**2) / (bandwidth * 1e6) * (1 - 1e-9)
    wider = estimate_ms(content, replace(gpu, bandwidth_gb_s=2 * bandwidth), "fp32").latency_ms
    assert estimated.latency_ms / 2 * (1 - 1e-9) <= wider <= estimated.latency_ms


CONV = Graph(key="conv@8", build=lambda: nn.Conv2d(3, 4, 3), input_shapes=((3, 8, 8),))
POOL = Graph(key="pool@8", build=lambda: nn.MaxPool2d(2), input_shapes=((3, 8, 8),))


def test_a_table_is_written_and_extended(tmp_path: Path) -> None:
    path, steps = estimated_path(tmp_path, "orin", "fp16"), []
    first = estimate([CONV, CONV], GPU, "fp16", path, lambda *step: steps.append(step))
    both = estimate([CONV, POOL], GPU, "fp16", path, lambda *step: steps.append(step))
    assert steps == [("blocks: estimate", 1, 1), ("blocks: estimate", 1, 1)]
    assert EstimatedTable.load(path) == both
    assert set(both.entries) == {"conv@8", "pool@8"}
    assert both.entries["conv@8"] == first.entries["conv@8"]
    assert (both.kind, both.peak_tflops, both.bandwidth_gb_s) == ("estimated", 4.0, 100.0)
    assert both.source == "NVIDIA brief: https://example.org/brief"
    assert both.kernel_floor_us == 1.081
    assert both.kernel_floor_source.endswith("https://arxiv.org/abs/2004.05371")


def test_two_estimates_at_once_lose_no_entry_of_each_other(tmp_path: Path) -> None:
    path, refused = tmp_path / "table.json", []

    def second(*_: object) -> None:
        with pytest.raises(UserError, match=f"being written by process {os.getpid()}"):
            estimate([POOL], GPU, "fp16", path)
        refused.append(True)

    estimate([CONV], GPU, "fp16", path, second)
    assert refused == [True]
    assert set(estimate([POOL], GPU, "fp16", path).entries) == {"conv@8", "pool@8"}


def test_the_name_of_an_estimated_table_is_marked(tmp_path: Path) -> None:
    table = estimate([POOL], GPUS["orin"], "fp16", estimated_path(tmp_path, "orin", "fp16"))
    assert table.name == "orin-fp16-b1-estimated"
    assert [path.stem for path in tmp_path.iterdir()] == [table.name]


def test_estimates_from_other_figures_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    estimate([POOL], GPU, "fp16", path)
    others = [(SLOW_MEMORY, "fp16"), (WITHOUT_FLOOR, "fp16"), (GPU, "fp32"), (replace(GPU, name="t4"), "fp16")]
    for gpu, precision in others:
        with pytest.raises(UserError, match=REFUSAL):
            estimate([CONV], gpu, precision, path)


def test_a_missing_block_is_named_with_the_command_that_adds_it(tmp_path: Path) -> None:
    table = estimate([POOL], GPU, "fp16", tmp_path / "table.json")
    assert table.values_ms(["pool@8", "pool@8"]) == {"pool@8": table.entries["pool@8"].latency_ms}
    message = r"2 of 3 blocks .*orin-fp16-b1-estimated, first: a\. .*fbnetv5 profile estimate --device orin"
    with pytest.raises(UserError, match=message):
        table.values_ms(["pool@8", "a", "b", "a"])


def test_every_row_of_the_file_is_marked_as_estimated(tmp_path: Path) -> None:
    estimate([CONV, POOL], GPU, "fp16", tmp_path / "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["entries"]
    assert {key: row["kind"] for key, row in rows.items()} == {"conv@8": "estimated", "pool@8": "estimated"}


OLD_ROW = {"latency_ms": 0.1, "macs": 0, "bytes": 8, "bound": "memory", "kind": "estimated"}
"""A row of schema 1 or 2."""
ROW = OLD_ROW | {"kernels": 1}
FIGURES: dict[str, Any] = {"device": "orin", "precision": "fp16", "peak_tflops": 4.0, "bandwidth_gb_s": 100.0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"kind": "measured"}, "kind: must be 'estimated', not 'measured'"),
        (ROW | {"latency_ms": 0.0}, "latency_ms: must be greater than 0"),
        (ROW | {"latency_ms": None}, "latency_ms: must be a valid number"),
        (ROW | {"macs": -1}, "macs: must be greater than or equal to 0"),
        (ROW | {"bytes": 0}, "bytes: must be greater than or equal to 1"),
        (ROW | {"kernels": 0}, "kernels: must be greater than or equal to 1"),
        (OLD_ROW, "kernels is missing"),
        (ROW | {"bound": "hope"}, "bound: must be 'compute', 'memory' or 'launch'"),
    ],
)
def test_a_row_that_is_not_an_estimate_is_refused_despite_its_checksum(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = tmp_path / "table.json"
    table = EstimatedTable(**FIGURES, source="brief", kernel_floor_us=1.0, kernel_floor_source="paper", entries={})
    for entries, fine in (({"a": ROW}, True), ({"a": row}, False)):
        write_checksummed(path, {**table.to_json(), "entries": entries}, schema=3)
        if fine:
            assert EstimatedTable.load(path).entries["a"].latency_ms == 0.1
    with pytest.raises(UserError, match=f"is damaged: estimated latency table: entries.a.{message}"):
        EstimatedTable.load(path)


def test_a_truncated_or_edited_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    estimate([POOL], GPU, "fp16", path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not valid JSON"):
        EstimatedTable.load(path)
    path.write_text(whole.replace('"bandwidth_gb_s": 100.0', '"bandwidth_gb_s": 200.0'))
    with pytest.raises(UserError, match="edited or damaged"):
        EstimatedTable.load(path)


def test_estimates_are_read_without_heavy_packages() -> None:
    code = "import sys, latency.estimate; print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(("schema", "kind"), [(1, {}), (2, {"kind": "estimated"})])
def test_a_table_without_a_floor_is_read_but_not_extended(tmp_path: Path, schema: int, kind: dict[str, str]) -> None:
    path = tmp_path / "table.json"
    source = "NVIDIA brief: https://example.org/brief"
    content = {**FIGURES, **kind, "batch": 1, "source": source, "entries": {"pool@8": OLD_ROW}}
    write_checksummed(path, content, schema=schema)
    table = open_table(path, other_machine=True)
    assert isinstance(table, EstimatedTable)
    assert (table.kernel_floor_us, table.kernel_floor_source) == (0.0, "none")
    assert table.values_ms(["pool@8"]) == {"pool@8": 0.1}
    assert table.entries["pool@8"].kernels is None
    with pytest.raises(UserError, match=REFUSAL):
        estimate([CONV], GPU, "fp16", path)
    with pytest.raises(UserError, match="is an estimated table; name it with --table"):
        open_table(path, other_machine=False)


@pytest.mark.parametrize(("entries", "message"), [(None, "entries: must be"), ({"a": 1}, "entries.a: must be")])
def test_an_old_table_without_proper_entries_is_damaged(tmp_path: Path, entries: Any, message: str) -> None:
    write_checksummed(tmp_path / "table.json", {**FIGURES, "source": "brief", "entries": entries}, schema=1)
    with pytest.raises(UserError, match=f"is damaged: .*{message}"):
        EstimatedTable.load(tmp_path / "table.json")
