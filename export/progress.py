"""The one callback type by which long work reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the steps done and the total number of steps. Stages may be nested: TensorRT's
builder reports the parts of a stage before the stage itself ends."""
