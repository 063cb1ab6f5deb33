"""Times blocks on a device and keeps the results in a table; times a whole network by the same protocol.

Each block is exported alone, at batch 1 with a fixed size and seeded random weights, and runs in a session of its own
on normal random pictures (zeros and denormal numbers take other times). All sessions stay open, so that the rounds
can visit them in turns. What a block costs inside a network, with its input fresh in the cache and operators fused
across its border, is not this figure; correcting that needs measured networks.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from export.runners import OrtRunner
from latency.devices import Device
from latency.protocol import Measurement, Progress, Timing, measure_interleaved
from latency.table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A block to time."""

    key: str
    """Names everything that changes its time, the resolution too."""
    build: Callable[[], nn.Module]
    input_shapes: tuple[tuple[int, int, int], ...]
    """(C, H, W) of every input; the batch is prepended."""
    output_names: tuple[str, ...] = ("output",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A table, and what of it is new."""

    table: LatencyTable
    measured: tuple[str, ...]
    """The keys measured now; the others were in the table already."""


def profile(
    graphs: Sequence[Graph],
    *,
    path: Path,
    device: Device,
    timing: Timing,
    threads: int = 1,
    progress: Progress | None = None,
) -> Profiled:
    """Time every block that the table at ``path`` lacks, and write the table.

    Args:
        graphs: blocks; one given twice is measured once.
        path: a table of the same device and protocol is extended; without one a new table is written.
        device: where to run.
        timing: the protocol.
        threads: processor threads one operator may use.
        progress: told of the stages "export" and "measure".

    Raises:
        UserError: the table there is damaged, or of another device, machine or protocol; or one key names two shapes.
        CheckFailed: a block cannot be exported.
    """
    table = _existing(path, device=device, timing=timing, threads=threads) or LatencyTable(
        device=device.name,
        threads=threads,
        fingerprint=device.fingerprint(threads=threads),
        timing=timing,
        entries={},
    )
    missing = {key: graph for key, graph in _distinct(graphs).items() if key not in table.entries}
    if not missing:
        return Profiled(table=table, measured=())
    calls: dict[str, Callable[[], None]] = {}
    for key, graph in missing.items():
        calls[key] = _ready(graph, batch=table.batch, threads=threads)
        if progress is not None:
            progress("export", len(calls), len(missing))
    entries = {**table.entries, **measure_interleaved(calls, timing, progress)}
    extended = LatencyTable(
        device=table.device, threads=threads, fingerprint=table.fingerprint, timing=timing, entries=entries
    )
    extended.save(path)
    return Profiled(table=extended, measured=tuple(missing))


def measure_network(
    model: Path | bytes, input_shape: tuple[int, int, int, int], *, timing: Timing, threads: int = 1
) -> Measurement:
    """Time a whole network, an ONNX file or its content, of one input [N, C, H, W] by the protocol of the blocks."""
    runner = OrtRunner(model, threads=threads)
    if len(runner.inputs) != 1:
        raise UserError(f"a network of one input is needed here, not {[spec.name for spec in runner.inputs]}")
    pictures = np.random.default_rng(0).standard_normal(input_shape, dtype=np.float32)
    return measure_interleaved({"network": runner.bound({runner.inputs[0].name: pictures})}, timing)["network"]


def _existing(path: Path, *, device: Device, timing: Timing, threads: int) -> LatencyTable | None:
    """The table at ``path`` if there is one; raises UserError if it cannot be extended by these."""
    if not path.exists():
        return None
    table = LatencyTable.load(path, device=device.name)
    if (table.precision, table.batch, table.threads, table.timing) != ("fp32", 1, threads, timing):
        raise UserError(
            f"latency table {path} was measured with threads={table.threads}, {table.precision}, batch {table.batch} "
            f"and {table.timing}; threads={threads} and {timing} do not compare with it. Name another file"
        )
    return table


def _distinct(graphs: Sequence[Graph]) -> dict[str, Graph]:
    """By key, in the order given; one key for two shapes would give one of them the other's time."""
    distinct: dict[str, Graph] = {}
    for graph in graphs:
        first = distinct.setdefault(graph.key, graph)
        if first.input_shapes != graph.input_shapes:
            raise UserError(f"block key {graph.key!r} names two shapes: {first.input_shapes} and {graph.input_shapes}")
    return distinct


def _ready(graph: Graph, *, batch: int, threads: int) -> Callable[[], None]:
    """Export the block and open a session on fixed inputs: a call that runs it once."""
    seed = zlib.crc32(graph.key.encode())
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = graph.build()
        examples = tuple(torch.randn(batch, *shape) for shape in graph.input_shapes)
    names = [f"input{index}" for index in range(len(examples))]
    content = to_onnx_bytes(module, examples, input_names=names, output_names=graph.output_names, dynamic_batch=False)
    return OrtRunner(content, threads=threads).bound(
        {name: tensor.numpy() for name, tensor in zip(names, examples, strict=True)}
    )
