"""BMTAS's space: one encoder whose layers exist in several copies, so that tasks can share layers or branch.

The encoder is a sequence of blocks: a stem, which all tasks share, and layers with one copy per task. An architecture
has one choice of copy per layer for every task. Two tasks share a layer if they chose the same copy in it and in every
layer before (arXiv 2008.10292, section 3); once apart, they stay apart. A head reads the features of its own branch.

Encoders are the FBNetV3 family with ordinary padding, at full or reduced width. Branches that merge again, and branches
inside heads, are not part of the space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual, Stem, round_width
from fbnetv5.spaces.fbnetv3 import FBNetV3, fbnetv3
from fbnetv5.spaces.graph import Node, Variable
from fbnetv5.spaces.space import Space

STEM = "stem"
MAX_COPIES = 8
"""Maximum number of tasks: the best tree compares 167 894 pairs of partitions of 8 tasks, and 1.6 million of 9."""


def _known(name: str) -> str:
    fbnetv3(name)
    return name.lower()


class BranchingSpace(Space):
    """An encoder and the number of copies of each of its layers."""

    title: ClassVar[str] = "space"
    kind: Literal["branching"] = "branching"
    encoder: Annotated[str, AfterValidator(_known)] = "fbnetv3-a"
    """Name of the encoder, "fbnetv3-a" to "fbnetv3-g"."""
    width: Annotated[float, Field(ge=0.25, le=2.0)] = 1.0
    """Factor of all widths."""
    copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] = 3
    """Copies of each layer; the number of tasks."""

    @property
    def label(self) -> str:
        width = "" if self.width == 1.0 else f" of width {self.width:g}"
        return f"{self.encoder}{width} with branches for {self.copies} tasks"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        nodes: list[Node] = []
        stride, number = 1, 0
        for block in self._blocks:
            stride *= block.stride
            layer = isinstance(block, InvertedResidual)
            nodes.append(
                Node(
                    name=f"layer{number}" if layer else STEM,
                    inputs=(nodes[-1].name,) if nodes else (),
                    candidates=(block,) * (self.copies if layer else 1),
                    stride=stride,
                    stage=0,
                    variables=(number,) if layer else (),
                    table=tuple(range(self.copies)) if layer else (0,),
                )
            )
            number += layer
        return tuple(nodes)

    @cached_property
    def layers(self) -> tuple[Node, ...]:
        """The nodes with copies, in order."""
        return self.nodes[1:]

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        copies = tuple(f"copy {number}" for number in range(self.copies))
        return tuple(Variable(name=node.name, choices=copies) for node in self.layers)

    @cached_property
    def ends(self) -> Mapping[int, str]:
        return {node.stride: node.name for node in self.nodes}  # the last node of each stride

    def check_tasks(self, choices: Mapping[str, Sequence[int]]) -> None:
        """Check that the groups only refine.

        Raises:
            UserError: tasks share a layer after they parted, or there are too many tasks.
        """
        tasks = list(choices)
        if len(tasks) > self.copies:
            raise UserError(f"{len(tasks)} tasks do not fit a space with {self.copies} copies of each layer")
        apart: set[tuple[str, str]] = set()
        for layer, node in enumerate(self.layers):
            for pair in combinations(tasks, 2):
                if choices[pair[0]][layer] != choices[pair[1]][layer]:
                    apart.add(pair)
                elif pair in apart:
                    raise UserError(f"{node.name}: {pair[0]} and {pair[1]} share it after they parted")

    @property
    def _blocks(self) -> tuple[Stem | InvertedResidual, ...]:
        config = scaled(fbnetv3(self.encoder).with_ordinary_padding(), self.width)
        return tuple(block for partition in config.partitions() for block in partition)


def scaled(config: FBNetV3, width: float) -> FBNetV3:
    """The network with all widths multiplied by ``width`` and rounded to multiples of 8."""
    groups = tuple(replace(group, channels=round_width(group.channels * width)) for group in config.groups)
    return replace(config, stem_channels=round_width(config.stem_channels * width), groups=groups)
