"""BMTAS's space: one encoder whose layers exist in several copies, so that tasks can share layers or branch.

The encoder is a sequence of blocks: a stem, which all tasks share, and layers with one copy per task. An architecture
has one choice of copy per layer for every task. Two tasks share a layer if they chose the same copy in it and in every
layer before (arXiv 2008.10292, section 3); once apart, they stay apart. A head reads the features of its own branch.

The encoders are those of ``encoders.py``, at full or reduced width. Branches that merge again, and branches inside
heads, are not part of the space.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from export.errors import UserError
from fbnetv5.spaces.encoders import ENCODERS, encoder_name
from fbnetv5.spaces.graph import Node, Variable
from fbnetv5.spaces.space import Space

STEM = "stem"
MAX_COPIES = 8
"""Maximum number of tasks: the best tree compares 167 894 pairs of partitions of 8 tasks, and 1.6 million of 9."""


class BranchingSpace(Space):
    """An encoder and the number of copies of each of its layers."""

    title: ClassVar[str] = "space"
    kind: Literal["branching"] = "branching"
    encoder: Annotated[str, AfterValidator(encoder_name)] = "fbnetv3-a"
    """Name of the encoder: "fbnetv3-a" to "fbnetv3-g", "mobilenetv2", "efficientnet-lite0" or "resnet50"."""
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
        stem, *layers = ENCODERS[self.encoder](self.width)
        stride = stem.stride
        nodes = [Node(name=STEM, inputs=(), candidates=(stem,), stride=stride, stage=0)]
        for number, block in enumerate(layers):
            stride *= block.stride
            nodes.append(
                Node(
                    name=f"layer{number}",
                    inputs=(nodes[-1].name,),
                    candidates=(block,) * self.copies,
                    stride=stride,
                    stage=0,
                    variables=(number,),
                    table=tuple(range(self.copies)),
                )
            )
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
