"""Describes search spaces: ``fbnetv5.api.space``, which ``fbnetv5 space`` calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.files import AnyPath
from fbnetv5.costs.cost_files import write_template
from fbnetv5.costs.ranges import CostRange, cost_range
from fbnetv5.costs.tables import Counter
from fbnetv5.data.resolution import Resolution, parse_resolution
from fbnetv5.data.splits import targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.runs.options import Size, path_of
from fbnetv5.spaces.presets import DEFAULT, four_path_space
from fbnetv5.spaces.space import Space
from fbnetv5.tasks import make_tasks, task_names
from fbnetv5.tasks.task import ClassNames


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceDescription:
    """A search space: its variables, its size, and the multiply-adds of each task's networks."""

    space: Space
    resolution: tuple[int, int]
    """(height, width) in pixels, for which multiply-adds are counted."""
    ranges: tuple[CostRange, ...]
    """Per task: minimum, mean of random networks, and maximum, in multiply-adds."""
    costs_to_fill_in: tuple[str, ...] = ()
    """Keys of the cost template that have no value yet."""

    @property
    def log2_architectures(self) -> float:
        """Logarithm to base 2 of the number of architectures."""
        return float(np.log2(np.array(self.space.choice_counts, dtype=np.float64)).sum())

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 space --json``."""
        variables = [{"name": variable.name, "choices": list(variable.choices)} for variable in self.space.variables]
        return {
            "space": self.space.to_json(),
            "resolution": list(self.resolution),
            "log2_architectures": self.log2_architectures,
            "variables": variables,
            "macs": {
                costs.task: {"min": int(costs.min_cost), "expected": costs.expected, "max": int(costs.max_cost)}
                for costs in self.ranges
            },
        }


def space(
    *,
    space: str = DEFAULT,
    variant: str = "a",
    stages: int = 4,
    blocks_per_path: int = 2,
    resolution: Size = "224x224",
    tasks: str | Sequence[str] | None = None,
    data: AnyPath | None = None,
    cost_template: AnyPath | None = None,
) -> SpaceDescription:
    """Describe the space that ``search`` chooses from: its variables, its size and its costs per task.

    Examples:
        >>> (costs,) = api.space(tasks="cls", resolution=64).ranges
        >>> smallest, largest = costs.min_cost, costs.max_cost  # multiply-adds

    Args:
        space: "default"; "strict", where only blocks of later stages may be skipped; or "wide", where each block also
            has a kernel, an expansion and squeeze-excite to choose, and each path a width.
        variant: FBNetV3 of stage 0 of the space: "a", "c", "f", "ac" or "a-lite".
        stages: number of stages after stage 0.
        blocks_per_path: number of blocks per path in each later stage.
        resolution: height and width in pixels of the deployed network's images, multiples of 32.
        tasks: names of the tasks; None for cls, det and seg.
        data: folder of images, whose classes size the heads; None for the demo scenes.
        cost_template: cost file to write, for the ``costs`` of ``search``, with a key for every block and head; a file
            that exists gets the keys that it lacks.

    Raises:
        UserError: an option is wrong, or the folder is unfit.
    """
    chosen = four_path_space(space, variant=variant, stages=stages, blocks_per_path=blocks_per_path)
    classes = class_names(targets_of(path_of(data)))
    description = show_space(chosen, classes, task_names(tasks), size := parse_resolution(resolution))
    if cost_template is None:
        return description
    made = make_tasks(task_names(tasks), classes)
    return replace(
        description, costs_to_fill_in=tuple(write_template(Path(cost_template), chosen, made.values(), size))
    )


def show_space(space: Space, classes: ClassNames, tasks: Sequence[str], resolution: Resolution) -> SpaceDescription:
    """Describe a search space on a data set with these classes."""
    counter = Counter(resolution)
    made = make_tasks(tuple(tasks), classes)
    ranges = tuple(cost_range(name, counter.table(space, task, "macs")) for name, task in made.items())
    return SpaceDescription(space=space, resolution=resolution, ranges=ranges)
