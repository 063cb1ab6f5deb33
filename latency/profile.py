"""Times blocks and whole networks on a device by one protocol, and keeps the results in a table.

Each graph is exported alone, at batch 1 with a fixed size and seeded random weights, and runs in a session of its own
on normal random inputs (zeros and denormal numbers take other times). All sessions stay open, so that the rounds can
visit them in turns, and a yardstick, a graph of convolutions like theirs, is timed beside every visit. What a block
costs inside a network, with its input fresh in the cache and operators fused across its border, is not what it costs
alone, though its weights are kept as cold as they are there (``latency/measure.py``); ``latency/correction.py`` makes
up for that from the networks.

Every visit is kept as soon as it is made (``latency/unfinished.py``), so an interrupted run goes on where it was.
"""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from export.precision import at_precision
from export.progress import Progress
from export.runners import Array, OrtRunner
from latency.backend import Backend
from latency.correction import MeasuredNetwork, check_count
from latency.measure import measure_graphs, named
from latency.protocol import Measurement, Timing, measure_interleaved, timed_here
from latency.table import NULL_KEY, LatencyTable
from latency.unfinished import Unfinished, only_run

BATCH = 1
ANCHORS = 12
"""At most so many known graphs are measured again beside new ones."""


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


def _yardstick() -> nn.Module:
    """Inverted residuals at falling resolution: most activations at the beginning, most weights at the end.

    Both matter. A machine whose neighbours crowd its cache slows down where weights have to come from afar, which a
    yardstick of few weights would not notice, and its arithmetic may be as fast as ever.
    """

    def block(channels: int, stride: int = 1) -> list[nn.Module]:
        width = 6 * channels
        spread = nn.Conv2d(width, width, 5, stride, padding=2, groups=width)
        narrow = nn.Conv2d(width, channels * stride, 1)
        return [nn.Conv2d(channels, width, 1), nn.Hardswish(), spread, nn.Hardswish(), narrow]

    stages = [layer for channels in (16, 32, 64, 128) for layer in (*block(channels), *block(channels, stride=2))]
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Hardswish(), *stages, *block(256), *block(256))


YARDSTICK = Graph(key="yardstick", build=_yardstick, input_shapes=((3, 112, 112),))
"""The same whatever the space and resolution, so that all tables of a device have it in common."""

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
    backend: Backend,
    timing: Timing,
) -> Plan:
    """What the table at ``path`` lacks of these; see ``profile``, whose arguments and errors these are."""
    table = _existing(path, backend, timing) or LatencyTable(
        device=backend.device,
        precision=backend.precision,
        batch=BATCH,
        threads=backend.threads,
        fingerprint=backend.fingerprint(),
        timing=timing,
        entries={},
    )
    if networks:
        check_count(len(table.networks.keys() | {network.key for network in networks}))
    return Plan(
        table=table,
        blocks={key: graph for key, graph in distinct([NULL, *graphs]).items() if key not in table.entries},
        networks={key: network for key, network in distinct(networks).items() if key not in table.networks},
    )


def profile(
    graphs: Sequence[Graph],
    networks: Sequence[Network] = (),
    *,
    path: Path,
    backend: Backend,
    timing: Timing,
    progress: Progress | None = None,
) -> Profiled:
    """Time every block, then every network, that the table at ``path`` lacks; correct the blocks; write the table.

    Args:
        graphs: blocks; one given twice is measured once.
        networks: of these blocks; without any the table keeps the blocks' times alone.
        path: a table of the same device and protocol is extended; without one a new table is written.
        backend: where to run.
        timing: the protocol.
        progress: told of the stages "blocks: open", "blocks: measure", "networks: open" and so on.

    Raises:
        UserError: the table there is damaged, or of another device, machine or protocol, or another run is measuring
            it; or one key names two shapes; or the networks are too few for a correction.
        VerificationError: a block or network cannot be exported.
    """
    plan(graphs, networks, path=path, backend=backend, timing=timing)  # refuses before a file is made
    with only_run(path):
        lacking = plan(graphs, networks, path=path, backend=backend, timing=timing)
        table = lacking.table
        unfinished = Unfinished(path, {"fingerprint": table.fingerprint, "timing": asdict(timing)})
        if lacking.blocks:
            told = named(progress, "blocks")
            anchors = anchors_of(graphs, table.entries)
            new = _measure_like(table.entries, lacking.blocks, anchors, backend, timing, told, unfinished)
            table = replace(table, entries={**table.entries, **new})
            table.save(path)
        if lacking.networks:
            told = named(progress, "networks")
            known = {key: network.measured for key, network in table.networks.items()}
            anchors = anchors_of(networks, known)
            new = _measure_like(known, lacking.networks, anchors, backend, timing, told, unfinished)
            table = replace(table, networks={**table.networks, **_measured_networks(lacking.networks, new)})
        if lacking.blocks or lacking.networks:
            table = _finished(table, backend)
            table.save(path)
        unfinished.remove()
    return Profiled(table=table, measured=(*lacking.blocks, *lacking.networks))


def measure_networks(
    networks: Sequence[Network], *, backend: Backend, timing: Timing, progress: Progress | None = None
) -> dict[str, MeasuredNetwork]:
    """Time whole networks without keeping them in a table; by key."""
    by_key = distinct(networks)
    return _measured_networks(by_key, _measure(by_key, backend, timing, named(progress, "networks")))


def speed_of(known: Mapping[str, Measurement], now: Mapping[str, Measurement]) -> float:
    """How fast the machine is now beside then, by what was measured both times: 1.05 is 5 % faster; 1 if nothing was.

    Two processes differ by some per cent throughout, even a minute apart: by where in memory they lie, by what the
    neighbours on the machine do. So what is to be compared is measured together with some of what is known.
    """
    both = known.keys() & now.keys()
    return median(known[key].latency_ms_median / now[key].latency_ms_median for key in both) if both else 1.0


def measure_network(
    model: Path | bytes, input_shape: tuple[int, int, int, int], *, timing: Timing, threads: int = 1
) -> Measurement:
    """Time a whole network, an ONNX file or its content, of one input [N, C, H, W] by the protocol of the blocks."""
    runner = OrtRunner(model, threads=threads)
    if len(runner.inputs) != 1:
        raise UserError(f"a network of one input is needed here, not {[spec.name for spec in runner.inputs]}")
    generator = np.random.default_rng(0)
    if runner.inputs[0].dtype == "uint8":
        images: Array = generator.integers(256, size=input_shape, dtype=np.uint8)
    else:
        images = generator.standard_normal(input_shape, dtype=np.float32)
    sampler = timed_here(runner.bound({runner.inputs[0].name: images}))
    return measure_interleaved({"network": [sampler]}, timing)["network"]


def _existing(path: Path, backend: Backend, timing: Timing) -> LatencyTable | None:
    """The table at ``path`` if there is one; raises UserError if it cannot be extended by these."""
    if not path.exists():
        return None
    table = LatencyTable.load(path, device=backend.device)
    there = (table.precision, table.batch, table.threads, table.timing)
    if there != (backend.precision, BATCH, backend.threads, timing):
        raise UserError(
            f"latency table {path} was measured with threads={table.threads}, {table.precision}, batch {table.batch} "
            f"and {table.timing}; threads={backend.threads}, {backend.precision} and {timing} do not compare with it. "
            "Name another with --luts"
        )
    return table


def _finished(table: LatencyTable, backend: Backend) -> LatencyTable:
    """The table corrected on all its networks, with what the device went through meanwhile."""
    conditions = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **backend.conditions()}
    return replace(table, conditions=(*table.conditions, conditions)).corrected()


def anchors_of(graphs: Sequence[AnyGraph], known: Mapping[str, Measurement]) -> dict[str, AnyGraph]:
    """Some of what is known already, from the cheapest to the dearest, to be measured again beside what is not."""
    ordered = sorted(
        (graph for graph in distinct(graphs).values() if graph.key in known),
        key=lambda graph: known[graph.key].latency_ms_median,
    )
    step = max(1, len(ordered) // ANCHORS)
    return {graph.key: graph for graph in ordered[::step][:ANCHORS]}


def _measure_like(
    known: Mapping[str, Measurement],
    graphs: Mapping[str, Graph],
    anchors: Mapping[str, Graph],
    backend: Backend,
    timing: Timing,
    progress: Progress | None,
    unfinished: Unfinished,
) -> dict[str, Measurement]:
    """Measure ``graphs`` as if it had been done together with what is known."""
    measured = _measure({**graphs, **anchors}, backend, timing, progress, unfinished)
    speed = speed_of(known, measured)
    return {key: measured[key].at_speed(speed) for key in graphs}


def _measure(
    graphs: Mapping[str, Graph],
    backend: Backend,
    timing: Timing,
    progress: Progress | None,
    unfinished: Unfinished | None = None,
) -> dict[str, Measurement]:
    return measure_graphs(
        {key: partial(onnx_at, graph, backend.precision) for key, graph in graphs.items()},
        partial(onnx_at, YARDSTICK, backend.precision),
        backend,
        timing,
        parts=not all(isinstance(graph, Network) for graph in graphs.values()),
        progress=progress,
        unfinished=unfinished,
    )


def _measured_networks(
    networks: Mapping[str, Network], measured: Mapping[str, Measurement]
) -> dict[str, MeasuredNetwork]:
    return {
        key: MeasuredNetwork(blocks=network.blocks, macs=network.macs, measured=measured[key])
        for key, network in networks.items()
    }


def distinct(graphs: Sequence[AnyGraph]) -> dict[str, AnyGraph]:
    """By key, in the order given; one key for two shapes would give one of them the other's time."""
    distinct: dict[str, AnyGraph] = {}
    for graph in graphs:
        first = distinct.setdefault(graph.key, graph)
        if first.input_shapes != graph.input_shapes:
            raise UserError(f"block key {graph.key!r} names two shapes: {first.input_shapes} and {graph.input_shapes}")
    return distinct


def onnx_at(graph: Graph, precision: str) -> tuple[bytes, dict[str, Array]]:
    """The graph in ONNX at that precision, and float32 inputs for it.

    Raises:
        UserError: there is no such precision.
        VerificationError: it cannot be exported.
    """
    content, inputs = onnx_of(graph)
    return at_precision(content, precision, inputs), inputs


def onnx_of(graph: Graph) -> tuple[bytes, dict[str, Array]]:
    """The graph in ONNX at float32 and a fixed shape, and inputs for it; the same whenever it is asked for.

    Raises:
        VerificationError: it cannot be exported.
    """
    seed = zlib.crc32(graph.key.encode())
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = graph.build()
        examples = tuple(torch.randn(BATCH, *shape) for shape in graph.input_shapes)
    names = [f"input{index}" for index in range(len(examples))]
    content = to_onnx_bytes(module, examples, input_names=names, output_names=graph.output_names, dynamic_batch=False)
    return content, {name: tensor.numpy() for name, tensor in zip(names, examples, strict=True)}
