"""Opens graphs on a backend and times them beside the yardstick: here, or on a device that has only a bundle."""

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING

from latency.backend import Backend
from latency.protocol import Measured, Progress, Sampler, Timing, Yardstick, measure_interleaved
from latency.unfinished import Unfinished

if TYPE_CHECKING:
    from export.runners import Array

Source = Callable[[], "tuple[bytes, dict[str, Array]]"]
"""Gives a graph in ONNX and inputs for it, the same whenever it is asked."""

YARDSTICKS = 4
"""Sessions of the yardstick, timed in turns: where in memory one of them happens to lie makes a per cent."""


def measure_graphs(
    sources: Mapping[str, Source],
    yardstick: Source,
    backend: Backend,
    timing: Timing,
    *,
    usual_ms: float | None = None,
    progress: Progress | None = None,
    unfinished: Unfinished | None = None,
) -> Measured:
    """Time every graph by the protocol, all of them open at once.

    Args:
        sources: the graphs by name.
        yardstick: what is timed beside them.
        backend: where they run.
        timing: the protocol.
        usual_ms: the yardstick's time in the measurement to compare with; None where this is the first.
        progress: told of the stages "open", "measure" and "measure again".
        unfinished: the visits of an interrupted run, which it goes on with and adds to.

    Raises:
        UserError: a graph is refused.
        CheckFailed: a graph cannot be exported, or no engine can be built of it.
    """
    samplers: dict[str, Sampler] = {}
    for name, source in sources.items():
        samplers[name] = backend.open(*source())
        if progress is not None:
            progress("open", len(samplers), len(sources))
    content, inputs = yardstick()
    turns = cycle([backend.open(content, inputs) for _ in range(YARDSTICKS)])
    return measure_interleaved(
        samplers,
        timing,
        progress,
        yardstick=Yardstick(sampler=lambda runs: next(turns)(runs), usual_ms=usual_ms),
        earlier=None if unfinished is None else unfinished.visits,
        keep=None if unfinished is None else unfinished.add,
    )


def named(progress: Progress | None, what: str) -> Progress | None:
    """``progress`` told of stages of ``what``."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{what}: {stage}", done, total)
