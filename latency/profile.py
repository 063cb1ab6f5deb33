"""Times blocks and whole networks on a device by one protocol, and writes the results to a table.

Each graph is exported alone, at batch 1 with a fixed size and seeded random weights, and runs in a session of its own
on normal random inputs (zeros and denormal numbers take other times). All sessions stay open, or hundreds of them where
there are more (``latency/measure.py``), so that the repetitions interleave them, and the reference workload, a graph of
similar convolutions, is timed between any two graphs. A block inside a network has its input fresh in the cache and
operators fused across its boundary, so its cost there differs from its standalone time, although its weights are as
cold as they are there.
``latency/correction.py`` corrects this with whole networks.

Every repetition is written to disk at once (``latency/journal.py``), so an interrupted run can be resumed.
"""

import hashlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from latency.journal import Journal, exclusive_lock
from latency.measure import Workload, measure_graphs, with_prefix
from latency.protocol import Measurement, Timing, host_timed, repeat_interleaved, summarised
from latency.table import NULL_KEY, LatencyTable

BATCH = 1
MAX_REMEASURED = 12
"""Maximum number of graphs of the table that are measured again beside new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A block or network to time."""

    key: str
    """A key that names everything that changes the time, the resolution too."""
    build: Callable[[], nn.Module]
    input_shapes: tuple[tuple[int, int, int], ...]
    """(C, H, W) of every input; the batch is prepended."""
    output_names: tuple[str, ...] = ("output",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Graph):
    """A whole network to time."""

    task: str
    """The name of its task; plots group the networks by it."""
    blocks: Mapping[str, int]
    """How often the network has each block, by block key."""
    macs: int
    """Multiply-adds."""


NULL = Graph(key=NULL_KEY, build=nn.Identity, input_shapes=((1, 1, 1),))
"""An empty graph; its time is the overhead of every call."""


def _reference_network() -> nn.Module:
    """Inverted residuals at falling resolution: most activations at the beginning, most weights at the end.

    Both matter. Where other work on the machine fills the cache, graphs slow down that fetch weights from memory, while
    arithmetic is as fast as ever; a reference workload with few weights would not show this slowdown.
    """

    def block(channels: int, stride: int = 1) -> list[nn.Module]:
        width = 6 * channels
        depthwise = nn.Conv2d(width, width, 5, stride, padding=2, groups=width)
        project = nn.Conv2d(width, channels * stride, 1)
        return [nn.Conv2d(channels, width, 1), nn.Hardswish(), depthwise, nn.Hardswish(), project]

    stages = [layer for channels in (16, 32, 64, 128) for layer in (*block(channels), *block(channels, stride=2))]
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Hardswish(), *stages, *block(256), *block(256))


REFERENCE_WORKLOAD = Graph(key="reference", build=_reference_network, input_shapes=((3, 112, 112),))
"""Independent of space and resolution, so that all tables of a device share it."""

AnyGraph = TypeVar("AnyGraph", bound=Graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a profile would measure, and the table it would extend."""

    table: LatencyTable
    blocks: dict[str, Graph]
    """The blocks that are missing in the table, by key."""
    networks: dict[str, Network]
    """The networks that are missing in the table, by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileResult:
    """A table, and which of its measurements are new."""

    table: LatencyTable
    measured: tuple[str, ...]
    """The keys of the blocks and networks measured in this run."""


def plan(
    graphs: Sequence[Graph],
    networks: Sequence[Network] = (),
    *,
    path: Path,
    backend: Backend,
    timing: Timing,
) -> Plan:
    """Find the graphs that are missing in the table at ``path``; arguments and errors as in ``profile``."""
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
) -> ProfileResult:
    """Time every block, then every network, that is missing in the table at ``path``; correct the blocks; write it.

    Args:
        graphs: blocks; a block given twice is measured once.
        networks: whole networks of these blocks; without networks the table has only standalone times.
        path: a table of the same device and protocol is extended; without one a new table is written.
        backend: where to run.
        timing: the protocol.
        progress: called in the stages "blocks: open", "blocks: measure", "networks: open" and so on.

    Raises:
        UserError: the table there is damaged, or of another device, machine or protocol, or another run is measuring
            it; or one key names two shapes; or the networks are too few for a correction.
        VerificationError: a block or network cannot be exported.
    """
    plan(graphs, networks, path=path, backend=backend, timing=timing)  # raises before a file is made
    with exclusive_lock(path):
        missing = plan(graphs, networks, path=path, backend=backend, timing=timing)
        table = missing.table
        journal = Journal(path, {"fingerprint": table.fingerprint, "timing": asdict(timing)})
        if missing.blocks:
            remeasured = pick_remeasured(graphs, table.entries)
            block_progress = with_prefix(progress, "blocks")
            new = _measure_beside(table.entries, missing.blocks, remeasured, backend, timing, block_progress, journal)
            table = table.changed(entries={**table.entries, **new}).corrected()
            table.save(path)
            journal.drop(partial(_is_of, missing.blocks))
        if missing.networks:
            networks_then = {key: network.measurement for key, network in table.networks.items()}
            earlier = {**missing.table.entries, **networks_then}  # without the blocks of this run
            remeasured = pick_remeasured(networks, earlier) or pick_remeasured(graphs, earlier)
            network_progress = with_prefix(progress, "networks")
            new = _measure_beside(earlier, missing.networks, remeasured, backend, timing, network_progress, journal)
            table = table.changed(networks={**table.networks, **_measured_networks(missing.networks, new)})
        if missing.blocks or missing.networks:
            table = _finished(table, backend)
            table.save(path)
        if missing.networks:
            journal.drop(partial(_is_of, missing.networks))
    return ProfileResult(table=table, measured=(*missing.blocks, *missing.networks))


def measure_networks(
    networks: Sequence[Network], *, backend: Backend, timing: Timing, progress: Progress | None = None
) -> dict[str, MeasuredNetwork]:
    """Time whole networks without writing a table; returns the measured networks by key."""
    by_key = distinct(networks)
    return _measured_networks(by_key, _measure(by_key, backend, timing, with_prefix(progress, "networks")))


def relative_speed(earlier: Mapping[str, Measurement], now: Mapping[str, Measurement]) -> float:
    """The speed of the machine relative to an earlier measurement: 1.05 is 5 % faster; 1 if nothing is in both.

    Two processes differ by some per cent throughout, even a minute apart: by their place in memory, and by other work
    on the machine. So new graphs are measured together with some graphs of the table: networks, or blocks if the table
    has none of the networks.
    """
    both = earlier.keys() & now.keys()
    return median(earlier[key].latency_ms_median / now[key].latency_ms_median for key in both) if both else 1.0


def measure_network(
    model: Path | bytes, input_shape: tuple[int, int, int, int], *, timing: Timing, threads: int = 1
) -> Measurement:
    """Time a whole network by the protocol of the blocks: an ONNX file or its content, with one input [N, C, H, W]."""
    runner = OrtRunner(model, threads=threads)
    if len(runner.inputs) != 1:
        raise UserError(f"this needs a network with one input, not {[spec.name for spec in runner.inputs]}")
    generator = np.random.default_rng(0)
    if runner.inputs[0].dtype == "uint8":
        images: Array = generator.integers(256, size=input_shape, dtype=np.uint8)
    else:
        images = generator.standard_normal(input_shape, dtype=np.float32)
    sampler = host_timed(runner.bound({runner.inputs[0].name: images}))
    return summarised(repeat_interleaved({"network": [sampler]}, timing))["network"]


def _existing(path: Path, backend: Backend, timing: Timing) -> LatencyTable | None:
    """The table at ``path``, None without one; raises UserError if the backend and protocol cannot extend it."""
    if not path.exists():
        return None
    table = LatencyTable.load(path, device=backend.device)
    settings = (table.runtime, table.precision, table.batch, table.threads, table.timing)
    if settings != (backend.runtime, backend.precision, BATCH, backend.threads, timing):
        raise UserError(
            f"latency table {path} was measured through {table.runtime} with threads={table.threads}, "
            f"{table.precision}, batch {table.batch} and {table.timing}; {backend.runtime}, "
            f"threads={backend.threads}, {backend.precision} and {timing} do not compare with it. "
            "Name another with --luts"
        )
    return table


def _finished(table: LatencyTable, backend: Backend) -> LatencyTable:
    """The table corrected on all its networks, with the state of the device during the run."""
    conditions = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **backend.conditions()}
    return table.changed(conditions=(*table.conditions, conditions)).corrected()


def pick_remeasured(graphs: Sequence[AnyGraph], earlier: Mapping[str, Measurement]) -> dict[str, AnyGraph]:
    """Choose up to ``MAX_REMEASURED`` graphs of the table, from min to max time, to measure again beside new graphs."""
    ordered = sorted(
        (graph for graph in distinct(graphs).values() if graph.key in earlier),
        key=lambda graph: earlier[graph.key].latency_ms_median,
    )
    count = min(MAX_REMEASURED, len(ordered))
    chosen = [ordered[round(place * (len(ordered) - 1) / max(1, count - 1))] for place in range(count)]
    return {graph.key: graph for graph in chosen}


def _measure_beside(
    earlier: Mapping[str, Measurement],
    graphs: Mapping[str, Graph],
    remeasured: Mapping[str, Graph],
    backend: Backend,
    timing: Timing,
    progress: Progress | None,
    journal: Journal,
) -> dict[str, Measurement]:
    """Measure ``graphs`` and scale them to the speed of the machine during the earlier measurements."""
    named = dict(zip(_names(graphs, remeasured), [*graphs.values(), *remeasured.values()], strict=True))
    measurements = _measure(named, backend, timing, progress, journal)
    again = list(measurements.values())[len(graphs) :]
    speed = relative_speed(earlier, dict(zip(remeasured, again, strict=True)))
    return {key: measurements[key].at_speed(speed) for key in graphs}


def _names(graphs: Mapping[str, Graph], remeasured: Mapping[str, Graph]) -> list[str]:
    """The names in the journal: the keys of new graphs; those of re-measured ones with what they were measured beside.

    A re-measured graph tells the speed of the machine in one run, so no other run may use its repetitions.
    """
    return [*graphs, *(f"{key}{_beside(graphs)}" for key in remeasured)]


def _is_of(graphs: Mapping[str, Graph], name: str) -> bool:
    """Whether a name in the journal is of one of these graphs, or of one that any process measured beside them."""
    return name in graphs or name.endswith(_beside(graphs))


def _beside(graphs: Mapping[str, Graph]) -> str:
    keys = "\n".join(sorted(graphs))
    return f" beside {hashlib.sha256(keys.encode()).hexdigest()[:12]}"


def _measure(
    graphs: Mapping[str, Graph],
    backend: Backend,
    timing: Timing,
    progress: Progress | None,
    journal: Journal | None = None,
) -> dict[str, Measurement]:
    return measure_graphs(
        {key: partial(workload_of, graph, backend) for key, graph in graphs.items()},
        partial(workload_of, REFERENCE_WORKLOAD, backend),
        backend,
        timing,
        progress=progress,
        journal=journal,
    )


def _measured_networks(
    networks: Mapping[str, Network], measurements: Mapping[str, Measurement]
) -> dict[str, MeasuredNetwork]:
    return {
        key: MeasuredNetwork(
            task=network.task, blocks=dict(network.blocks), macs=network.macs, measurement=measurements[key]
        )
        for key, network in networks.items()
    }


def distinct(graphs: Sequence[AnyGraph]) -> dict[str, AnyGraph]:
    """The graphs by key, in their order; raises UserError if one key names two shapes, which would mix their times."""
    distinct: dict[str, AnyGraph] = {}
    for graph in graphs:
        first = distinct.setdefault(graph.key, graph)
        if first.input_shapes != graph.input_shapes:
            raise UserError(f"block key {graph.key!r} names two shapes: {first.input_shapes} and {graph.input_shapes}")
    return distinct


def workload_of(graph: Graph, backend: Backend) -> Workload:
    """The graph in the form that the backend opens.

    Raises:
        UserError: the precision is unknown.
        VerificationError: the graph cannot be exported.
    """
    cold = not isinstance(graph, Network)
    if backend.graph_form == "torch":
        module, examples = module_of(graph)
        size = sum(tensor.nbytes for tensor in module.state_dict().values())
        return Workload(content=module, inputs=_named(examples), size=size, cold_weights=cold)
    content, inputs = onnx_at(graph, backend.precision)
    return Workload(content=content, inputs=inputs, size=len(content), cold_weights=cold)


def onnx_at(graph: Graph, precision: str) -> tuple[bytes, dict[str, Array]]:
    """Export a graph to ONNX at a precision; returns its content, and float32 inputs for it.

    Raises:
        UserError: the precision is unknown.
        VerificationError: the graph cannot be exported.
    """
    content, inputs = onnx_of(graph)
    return at_precision(content, precision, inputs), inputs


def onnx_of(graph: Graph) -> tuple[bytes, dict[str, Array]]:
    """Export a graph to ONNX at float32 and a fixed shape; returns its content and inputs, the same in every call.

    Raises:
        VerificationError: the graph cannot be exported.
    """
    module, examples = module_of(graph)
    inputs = _named(examples)
    content = to_onnx_bytes(
        module, examples, input_names=[*inputs], output_names=graph.output_names, dynamic_batch=False
    )
    return content, inputs


def module_of(graph: Graph) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Build the module of a graph and inputs [1, C, H, W] for it, random and the same in every call."""
    seed = zlib.crc32(graph.key.encode())
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = graph.build()
        return module, tuple(torch.randn(BATCH, *shape) for shape in graph.input_shapes)


def _named(examples: Sequence[torch.Tensor]) -> dict[str, Array]:
    return {f"input{index}": tensor.numpy() for index, tensor in enumerate(examples)}
