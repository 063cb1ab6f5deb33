"""The callbacks by which long work reports what it does, and the callback that ignores it all."""

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the steps done and the total number of steps. Stages may be nested: TensorRT's
builder reports the parts of a stage before the stage itself ends."""
Log = Callable[[str], None]
"""Called with a line for the user, such as how a data set was read."""


def silent(*_: Any) -> None:
    """Ignore a report; the default of every callback."""


def outermost_stage(report: Progress) -> Progress:
    """A callback that passes on the progress of the first reported stage, and not of the stages nested in it."""
    first: str | None = None

    def report_first(stage: str, done: int, total: int) -> None:
        nonlocal first
        first = first or stage
        if stage == first:
            report(stage, done, total)

    return report_first
