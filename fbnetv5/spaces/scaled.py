"""The four paths of a scaled network: other widths, and other numbers of blocks than those of the space it is from.

A network of the default or the strict space is described by how many blocks it runs in each of its sequences (the
groups of stage 0, and the blocks of one path in one later stage) and by its fusion edges. All blocks of a sequence that
keep the shape are equal, so their number alone matters. Scaling changes these numbers and the factor of all widths; the
edges stay.

No search chooses from this space: it contains one network and those with fewer blocks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from export.document import JsonTuple
from fbnetv5.spaces.fbnetv3 import STRIDES, VARIANTS, FBNetV3, with_repeats
from fbnetv5.spaces.four_path import Count, SkippablePaths
from fbnetv5.spaces.graph import Graph
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.variants import group_nodes

MIN_WIDTH, MAX_WIDTH = 0.05, 16.0
MAX_BLOCKS = 16
"""Of a sequence."""


class ScaledSpace(SkippablePaths):
    """The four paths with all widths times a factor, and with a number of repeats for each group of stage 0."""

    kind: Literal["scaled"] = "scaled"
    width: Annotated[float, Field(ge=MIN_WIDTH, le=MAX_WIDTH)] = 1.0
    """Factor of the variant's widths."""
    repeats: Annotated[JsonTuple[Count], Field(min_length=7, max_length=7)] = (1, 3, 4, 4, 5, 5, 0)
    """Blocks after the first one in each group of stage 0; the default is that of variant a."""

    @property
    def label(self) -> str:
        return f"variant {self.variant} of width {self.width:.3g}"

    @property
    def encoder(self) -> FBNetV3:
        of_variant = VARIANTS[self.variant]
        network = replace(of_variant, width=of_variant.width * self.width).network
        return with_repeats(network, self.repeats)


def sequences(space: SkippablePaths) -> list[list[str]]:
    """The names of the nodes of each sequence of blocks: those of the groups of stage 0, then those of later stages."""
    later = [
        [f"s{stage}_p{path}_{number}" for number in range(space.blocks_per_path)]
        for stage in range(1, space.stages + 1)
        for path in STRIDES
    ]
    return group_nodes(space.encoder) + later


def block_counts(space: SkippablePaths, graph: Graph) -> list[int]:
    """By sequence, the number of blocks that a network runs."""
    live = {step.node for step in graph.steps}
    return [sum(name in live for name in names) for names in sequences(space)]


def scale_counts(counts: Sequence[int], total: int) -> list[int]:
    """Numbers of blocks in proportion to ``counts`` whose sum is ``total``, rounded by largest remainder.

    A sequence with blocks keeps at least one and gets at most ``MAX_BLOCKS``, so the sum may differ. This rule gives
    FBNetV3-F's numbers of blocks from those of E.
    """
    shares = [total * count / sum(counts) for count in counts]
    scaled = [max(min(count, 1), math.floor(share)) for count, share in zip(counts, shares, strict=True)]
    order = sorted(range(len(counts)), key=lambda number: scaled[number] - shares[number])
    for number in order[: max(0, total - sum(scaled))]:
        scaled[number] += 1
    return [min(number, MAX_BLOCKS) for number in scaled]


def scaled_space(space: SkippablePaths, counts: Sequence[int], width: float) -> ScaledSpace:
    """The smallest space with these numbers of blocks, and with ``width`` times the widths of a space.

    Raises:
        UserError: a number of blocks or the width is out of range.
    """
    groups = len(space.encoder.groups)
    return ScaledSpace(
        variant=space.variant,
        stages=space.stages,
        blocks_per_path=max(counts[groups:], default=0),
        width=width * width_of(space),
        repeats=tuple(max(0, count - 1) for count in counts[:groups]),
    )


def width_of(space: SkippablePaths) -> float:
    """The factor of the widths of the space's variant."""
    return space.width if isinstance(space, ScaledSpace) else 1.0


def choices_of(space: ScaledSpace, counts: Sequence[int], graph: Graph) -> Choices:
    """[S]: the network with these numbers of blocks, and with the fusion edges of a network of another space."""
    live = {step.node for step in graph.steps}
    numbers: Mapping[str, bool] = {
        name: number < count
        for names, count in zip(sequences(space), counts, strict=True)
        for number, name in enumerate(names)
    }
    return np.array([numbers.get(each.name, each.name in live) for each in space.variables], dtype=np.int64)
