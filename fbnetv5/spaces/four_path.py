"""FBNetV5's search space: blocks on four paths, most of which a search may skip.

Stage 0 is an FBNetV3 cut into four partitions, whose ends feed four parallel paths at strides 4, 8, 16 and 32. Every
later stage first fuses neighbouring paths, then runs its blocks on each path (FBNetV5, arXiv 2111.10007, section 3.1).
A later block has the shape of its path's stage-0 repeat; the shape in the paper is not published.

Every block that keeps its input's shape has a variable that keeps or skips it; a skipped block passes its first input
through. A fusion edge is such a block too (target plus resampled source, or the target alone), so skipping, liveness,
cost and execution follow one rule. ``FourPaths`` has the positions, its subclasses add the variables: those of
``SkippablePaths`` only keep or skip; those of ``wide.py`` choose more.
"""

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from export.errors import UserError
from fbnetv5.blocks.specs import Fusion, InvertedResidual
from fbnetv5.spaces.fbnetv3 import STRIDES, VARIANTS, FBNetV3, Group
from fbnetv5.spaces.graph import SKIPPED, Node, Variable
from fbnetv5.spaces.space import Space

Count = Annotated[int, Field(ge=0, le=16)]


class FourPaths(Space, ABC):
    """The positions of blocks on four paths, without variables."""

    title: ClassVar[str] = "space"
    kind: str
    variant: Literal["a", "c", "f", "ac", "a-lite"] = "a"
    """FBNetV3 that forms stage 0, with ordinary padding: A, C or F, A with fewer channels, or A with ReLU6 and without
    squeeze-excite."""
    stages: Count = 4
    """Number of stages after stage 0."""
    blocks_per_path: Count = 2
    """Blocks on each path in each of those stages."""

    @field_validator("variant", mode="before")
    @classmethod
    def _is_a_space(cls, variant: Any) -> Any:
        if variant == "ar":
            raise UserError(
                "FBNetV5's variant AR is variant a at a smaller resolution, which is part of the budget: --variant a "
                "--flops 200M@160x160; fbnetv5 derive --resolutions compares several"
            )
        return variant

    @model_validator(mode="after")
    def _has_choices(self) -> Self:
        if not self.variables:
            raise ValueError("this space has no choices; set stages and blocks per path to at least 1")
        return self

    @property
    def encoder(self) -> FBNetV3:
        """The network of stage 0."""
        return VARIANTS[self.variant].network

    @cached_property
    def ends(self) -> Mapping[int, str]:
        return {stride: _last_of(self._positions, stride) for stride in STRIDES}

    @cached_property
    def _positions(self) -> tuple[Node, ...]:
        """Every node without its variables, inputs before their readers."""
        nodes = list(self._stage_zero())
        for stage in range(1, self.stages + 1):
            nodes += self._later_stage(stage, {stride: _last_of(nodes, stride) for stride in STRIDES})
        return tuple(nodes)

    def _stage_zero(self) -> Iterable[Node]:
        previous: tuple[str, ...] = ()
        stride = 1
        for path, partition in zip(STRIDES, self.encoder.partitions(), strict=True):
            for number, block in enumerate(partition):
                stride *= block.stride
                name = f"s0_p{path}_{number}"
                yield Node(name=name, inputs=previous, candidates=(block,), stride=stride, stage=0)
                previous = (name,)

    def _later_stage(self, stage: int, ends: Mapping[int, str]) -> Iterable[Node]:
        groups = dict(zip(STRIDES, self._last_groups(), strict=True))
        for position, (stride, group) in enumerate(groups.items()):
            main = ends[stride]
            for neighbour in STRIDES[max(0, position - 1) : position + 2]:
                if neighbour == stride:
                    continue
                edge = Fusion(
                    source_channels=groups[neighbour].channels,
                    target_channels=group.channels,
                    up=neighbour > stride,
                )
                name, inputs = f"s{stage}_p{stride}_from_p{neighbour}", (main, ends[neighbour])
                yield Node(name=name, inputs=inputs, candidates=(edge,), stride=stride, stage=stage)
                main = name
            block = InvertedResidual(
                kernel=group.repeat_kernel,
                in_channels=group.channels,
                out_channels=group.channels,
                expansion=group.repeat_expansion,
                squeeze=group.squeeze,
                activation=self.encoder.activation,
            )
            for number in range(self.blocks_per_path):
                name = f"s{stage}_p{stride}_{number}"
                yield Node(name=name, inputs=(main,), candidates=(block,), stride=stride, stage=stage)
                main = name

    def _last_groups(self) -> tuple[Group, Group, Group, Group]:
        """Per path, the width of its end in stage 0 and the shape of the repeats nearest to this end."""
        groups = self.encoder.groups
        last = groups[6]
        deepest = Group(
            kernel=last.kernel,
            channels=last.channels,
            expansion=last.expansion,
            squeeze=last.squeeze,
            repeat_kernel=groups[5].repeat_kernel,
            repeat_expansion=groups[5].repeat_expansion,
        )
        return groups[1], groups[2], groups[4], deepest


class SkippablePaths(FourPaths, ABC):
    """The four paths with a variable per block that may be skipped."""

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        nodes = self._positions
        variables = iter(range(len(nodes)))
        return tuple(
            replace(node, variables=(next(variables),), table=(SKIPPED, *range(len(node.candidates))))
            if self._may_skip(node)
            else node
            for node in nodes
        )

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(
            Variable(name=node.name, choices=("skip", *(block.key for block in node.candidates)))
            for node in self.skippable
        )

    @cached_property
    def skippable(self) -> tuple[Node, ...]:
        """The nodes that may be skipped, in the order of the variables; each variable sets one of them."""
        return tuple(node for node in self.nodes if node.skippable)

    def _may_skip(self, node: Node) -> bool:
        return keeps_shape(node)


class FourPathSpace(SkippablePaths):
    """The space of a search that keeps or skips blocks."""

    kind: Literal["four_path"] = "four_path"
    strict: bool = False
    """Whether only the later stages' blocks may be skipped, as the paper describes, and not also stage-0 repeats and
    fusion edges."""

    @property
    def label(self) -> str:
        return f"variant {self.variant}"

    def _may_skip(self, node: Node) -> bool:
        if not self.strict:
            return keeps_shape(node)
        return keeps_shape(node) and isinstance(node.candidates[0], InvertedResidual) and node.stage > 0


def keeps_shape(node: Node) -> bool:
    """Whether the output of a node has the shape of its first input, so that the node can be left out."""
    block = node.candidates[0]
    return isinstance(block, Fusion) or (isinstance(block, InvertedResidual) and block.keeps_shape)


def _last_of(nodes: Sequence[Node], stride: int) -> str:
    return next(node.name for node in reversed(nodes) if node.stride == stride)
