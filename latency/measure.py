"""Opens graphs on a backend and times them beside the yardstick: here, or on a device that has only a bundle."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from export.progress import Progress
from latency.backend import Backend
from latency.protocol import Measurement, Sampler, Timing, measure_interleaved
from latency.unfinished import Unfinished

if TYPE_CHECKING:
    from export.runners import Array

Source = Callable[[], "tuple[bytes, dict[str, Array]]"]
"""Gives a graph in ONNX and inputs for it, the same whenever it is asked."""

COLD_BYTES = 64_000_000
"""Of weights that a part of a network is run among."""
MOST_COPIES = 16


def measure_graphs(
    sources: Mapping[str, Source],
    yardstick: Source,
    backend: Backend,
    timing: Timing,
    *,
    parts: bool,
    progress: Progress | None = None,
    unfinished: Unfinished | None = None,
) -> dict[str, Measurement]:
    """Time every graph by the protocol, all of them open at once; by name.

    Each is opened twice, the second time in the opposite order, and the rounds take turns. What is opened first lies in
    memory that others left in pieces, and was found to take up to 5 % longer than what is opened last.

    Args:
        sources: the graphs by name.
        yardstick: what is timed beside them.
        backend: where they run.
        timing: the protocol.
        parts: the graphs are parts of networks. Inside a network a block finds its weights cold, since those of all
            other blocks came in between; run alone on end it would find them in the cache. So several copies of a part
            run in turns. A whole network is run on end, as where it is deployed.
        progress: told of the stages "open", "measure" and "measure again".
        unfinished: the visits of an interrupted run, which it goes on with and adds to.

    Raises:
        UserError: a graph is refused.
        VerificationError: a graph cannot be exported, or no engine can be built of it.
    """
    samplers: dict[str, list[Sampler]] = {name: [] for name in sources}
    for done, name in enumerate([*sources, *reversed([*sources])], 1):
        samplers[name].append(_open(backend, sources[name], cold=parts))
        if progress is not None:
            progress("open", done, 2 * len(sources))
    return measure_interleaved(
        samplers,
        timing,
        progress,
        yardstick=_open(backend, yardstick, cold=True),
        earlier=None if unfinished is None else unfinished.visits,
        keep=None if unfinished is None else unfinished.add,
    )


def _open(backend: Backend, source: Source, *, cold: bool) -> Sampler:
    content, inputs = source()
    copies = min(MOST_COPIES, -(-COLD_BYTES // len(content))) if cold else 1
    return backend.open(content, inputs, copies=copies)


def named(progress: Progress | None, what: str) -> Progress | None:
    """``progress`` told of stages of ``what``."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{what}: {stage}", done, total)
