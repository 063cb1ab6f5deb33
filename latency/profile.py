"""Times blocks and whole networks on a device by one protocol, and keeps the results in a table.

Each graph is exported alone, at batch 1 with a fixed size and seeded random weights, and runs in a session of its own
on normal random pictures (zeros and denormal numbers take other times). All sessions stay open, so that the rounds
can visit them in turns. What a block costs inside a network, with its input fresh in the cache and operators fused
across its border, is not what it costs alone; ``latency/correction.py`` makes up for that from the networks.

Every visit is kept as soon as it is made (``latency/unfinished.py``), so an interrupted run goes on where it was.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from export.runners import OrtRunner
from latency.correction import MeasuredNetwork, check_count, correct
from latency.devices import Device
from latency.protocol import Measurement, Progress, Timing, measure_interleaved
from latency.table import NULL_KEY, LatencyTable
from latency.unfinished import Unfinished, only_run

BATCH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A block or network to time."""

    key: str
    """Names everything that changes its time, the resolution too."""
    build: Callable[[], nn.Module]
    input_shapes: tuple[tuple[int, int, int], ...]
    """(C, H, W) of every input; the batch is prepended."""
    output_names: tuple[str, ...] = ("output",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Graph):
    """A whole network to time."""

    blocks: Mapping[str, int]
    """How often each block key occurs in it."""
    macs: int
    """Its multiply-adds."""


NULL = Graph(key=NULL_KEY, build=nn.Identity, input_shapes=((1, 1, 1),))
"""Does nothing, so that its time is what any call costs."""

AnyGraph = TypeVar("AnyGraph", bound=Graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a profile would measure, and the table that it would extend."""

    table: LatencyTable
    blocks: dict[str, Graph]
    """By key; those that the table lacks."""
    networks: dict[str, Network]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A table, and what of it is new."""

    table: LatencyTable
    measured: tuple[str, ...]
    """The keys measured now, the networks' too; the others were in the table already."""


def plan(
    graphs: Sequence[Graph],
    networks: Sequence[Network] = (),
    *,
    path: Path,
    device: Device,
    timing: Timing,
    threads: int = 1,
) -> Plan:
    """What the table at ``path`` lacks of these; see ``profile``, whose arguments and errors these are."""
    table = _existing(path, device=device, timing=timing, threads=threads) or LatencyTable(
        device=device.name,
        batch=BATCH,
        threads=threads,
        fingerprint=device.fingerprint(threads=threads),
        timing=timing,
        entries={},
    )
    if networks:
        check_count(len(table.networks.keys() | {network.key for network in networks}))
    return Plan(
        table=table,
        blocks={key: graph for key, graph in _distinct([NULL, *graphs]).items() if key not in table.entries},
        networks={key: network for key, network in _distinct(networks).items() if key not in table.networks},
    )


def profile(
    graphs: Sequence[Graph],
    networks: Sequence[Network] = (),
    *,
    path: Path,
    device: Device,
    timing: Timing,
    threads: int = 1,
    progress: Progress | None = None,
) -> Profiled:
    """Time every block, then every network, that the table at ``path`` lacks; correct the blocks; write the table.

    Args:
        graphs: blocks; one given twice is measured once.
        networks: of these blocks; without any the table keeps the blocks' times alone.
        path: a table of the same device and protocol is extended; without one a new table is written.
        device: where to run.
        timing: the protocol.
        threads: processor threads one operator may use.
        progress: told of the stages "blocks: export", "blocks: measure", "networks: export" and so on.

    Raises:
        UserError: the table there is damaged, or of another device, machine or protocol, or another run is measuring
            it; or one key names two shapes; or the networks are too few for a correction.
        CheckFailed: a block or network cannot be exported.
    """
    plan(graphs, networks, path=path, device=device, timing=timing, threads=threads)  # refuses before a file is made
    with only_run(path):
        lacking = plan(graphs, networks, path=path, device=device, timing=timing, threads=threads)
        table = lacking.table
        made_with = {"device": device.name, "fingerprint": table.fingerprint, "timing": asdict(timing)}
        unfinished = Unfinished(path, made_with)
        if lacking.blocks:
            new = _measure(lacking.blocks, timing, threads, _named(progress, "blocks"), unfinished)
            table = replace(table, entries={**table.entries, **new})
            table = _save(table, path)
        if lacking.networks:
            new = _measure(lacking.networks, timing, threads, _named(progress, "networks"), unfinished)
            table = replace(table, networks={**table.networks, **_measured_networks(lacking.networks, new)})
            table = _save(table, path)
        unfinished.remove()
    return Profiled(table=table, measured=(*lacking.blocks, *lacking.networks))


def measure_networks(
    networks: Sequence[Network], *, timing: Timing, threads: int = 1, progress: Progress | None = None
) -> list[MeasuredNetwork]:
    """Time whole networks without keeping them in a table."""
    by_key = _distinct(networks)
    return list(_measured_networks(by_key, _measure(by_key, timing, threads, _named(progress, "networks"))).values())


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
    if (table.precision, table.batch, table.threads, table.timing) != ("fp32", BATCH, threads, timing):
        raise UserError(
            f"latency table {path} was measured with threads={table.threads}, {table.precision}, batch {table.batch} "
            f"and {table.timing}; threads={threads} and {timing} do not compare with it. Name another with --luts"
        )
    return table


def _save(table: LatencyTable, path: Path) -> LatencyTable:
    """Correct the table on all its networks, write it and return it."""
    if table.networks:
        table = replace(table, correction=correct(table.isolated_ms, list(table.networks.values())))
    table.save(path)
    return table


def _measure(
    graphs: Mapping[str, Graph],
    timing: Timing,
    threads: int,
    progress: Progress | None,
    unfinished: Unfinished | None = None,
) -> dict[str, Measurement]:
    """Open a session for every graph and time them in turns, going on where ``unfinished`` stopped."""
    calls: dict[str, Callable[[], None]] = {}
    for key, graph in graphs.items():
        calls[key] = _ready(graph, threads=threads)
        if progress is not None:
            progress("export", len(calls), len(graphs))
    if unfinished is None:
        return measure_interleaved(calls, timing, progress)
    return measure_interleaved(calls, timing, progress, earlier=unfinished.visits, keep=unfinished.add)


def _measured_networks(
    networks: Mapping[str, Network], measured: Mapping[str, Measurement]
) -> dict[str, MeasuredNetwork]:
    return {
        key: MeasuredNetwork(blocks=network.blocks, macs=network.macs, measured=measured[key])
        for key, network in networks.items()
    }


def _named(progress: Progress | None, what: str) -> Progress | None:
    """``progress`` told of stages of ``what``."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{what}: {stage}", done, total)


def _distinct(graphs: Sequence[AnyGraph]) -> dict[str, AnyGraph]:
    """By key, in the order given; one key for two shapes would give one of them the other's time."""
    distinct: dict[str, AnyGraph] = {}
    for graph in graphs:
        first = distinct.setdefault(graph.key, graph)
        if first.input_shapes != graph.input_shapes:
            raise UserError(f"block key {graph.key!r} names two shapes: {first.input_shapes} and {graph.input_shapes}")
    return distinct


def _ready(graph: Graph, *, threads: int) -> Callable[[], None]:
    """Export the graph and open a session on fixed inputs: a call that runs it once."""
    seed = zlib.crc32(graph.key.encode())
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = graph.build()
        examples = tuple(torch.randn(BATCH, *shape) for shape in graph.input_shapes)
    names = [f"input{index}" for index in range(len(examples))]
    content = to_onnx_bytes(module, examples, input_names=names, output_names=graph.output_names, dynamic_batch=False)
    return OrtRunner(content, threads=threads).bound(
        {name: tensor.numpy() for name, tensor in zip(names, examples, strict=True)}
    )
