"""Opens graphs on a backend and times them beside the reference workload: on this machine, or on a bundle's device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from export.progress import Progress
from latency.backend import Backend
from latency.journal import Journal
from latency.protocol import Measurement, Repetition, Sampler, Timing, repeat_interleaved, summarised

if TYPE_CHECKING:
    from export.runners import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A graph in the form that a backend opens, with inputs."""

    content: Any
    """The content of an ONNX file, or a torch module."""
    inputs: "dict[str, Array]"
    size: int
    """Bytes of its weights, roughly."""
    cold_weights: bool
    """True for blocks, False for whole networks. Inside a network a block finds its weights outside the cache, because
    those of all other blocks were used in between; run alone in a row it would find them in the cache. Several copies
    of a block therefore run in turn. A whole network runs in a row, as in deployment."""


GraphSource = Callable[[], Workload]
"""A function that returns a graph and inputs for it, the same in every call."""

COLD_BYTES = 64_000_000
"""Bytes of weights that the copies of a block have together where possible: more than a cache holds."""
MAX_COPIES = 16
MAX_OPEN = 256
"""Number of graphs that are open at once. ONNX Runtime needs some 1.5 MB for each copy of a block on a CPU, and each
block has up to 32 copies in both orders: about 13 GB. The space of NARS has 1338 blocks, all others have fewer."""


def measure_graphs(
    sources: Mapping[str, GraphSource],
    reference: GraphSource,
    backend: Backend,
    timing: Timing,
    *,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> dict[str, Measurement]:
    """Time all graphs by the protocol, up to ``MAX_OPEN`` of them open at once; returns measurements by name.

    Each graph is opened twice, the second time in the opposite order, and the repetitions alternate between the two.
    The graphs opened first get memory that earlier work left fragmented, and were measured up to 5 % slower than the
    graphs opened last.

    More graphs are measured in parts, whose repetitions do not interleave. One reference workload relates the parts to
    each other, and every part has graphs from the whole list, so that no stage of a network has a part of its own.

    Args:
        sources: the graphs by name.
        reference: the reference workload.
        backend: runs the graphs.
        timing: the protocol.
        progress: called in the stages "open", "measure" and "measure again", or "part 1 of 2: open" and so on.
        journal: the repetitions of an interrupted run; new ones are added to it.

    Raises:
        UserError: the backend refuses a graph.
        VerificationError: a graph cannot be exported, or no engine can be built of it.
    """
    names, count = list(sources), -(-len(sources) // MAX_OPEN)
    open_reference = cache(partial(_open, backend, reference))
    repetitions: dict[str, Sequence[Repetition]] = {}
    for part in range(count):
        shown = progress if count == 1 else with_prefix(progress, f"part {part + 1} of {count}")
        repetitions |= repeat_interleaved(
            _open_twice({name: sources[name] for name in names[part::count]}, backend, shown),
            timing,
            shown,
            reference=open_reference(),
            earlier=None if journal is None else journal.repetitions,
            on_repetition=None if journal is None else journal.add,
        )
    measurements = summarised(repetitions)
    return {name: measurements[name] for name in names}


def _open_twice(
    sources: Mapping[str, GraphSource], backend: Backend, progress: Progress | None
) -> dict[str, list[Sampler]]:
    """The samplers of each graph, opened in their order and in the opposite order."""
    if backend.graph_form == "onnx":
        # An ONNX file is exported once for both times it is opened; a module opened twice would share its weights.
        sources = {name: cache(source) for name, source in sources.items()}
    samplers: dict[str, list[Sampler]] = {name: [] for name in sources}
    for done, name in enumerate([*sources, *reversed([*sources])], 1):
        samplers[name].append(_open(backend, sources[name]))
        if progress is not None:
            progress("open", done, 2 * len(sources))
    return samplers


def _open(backend: Backend, source: GraphSource) -> Sampler:
    workload = source()
    copies = min(MAX_COPIES, -(-COLD_BYTES // max(1, workload.size))) if workload.cold_weights else 1
    return backend.open(workload.content, workload.inputs, copies=copies)


def with_prefix(progress: Progress | None, prefix: str) -> Progress | None:
    """Wrap ``progress`` so that the stage "open" is reported as "PREFIX: open"."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{prefix}: {stage}", done, total)
