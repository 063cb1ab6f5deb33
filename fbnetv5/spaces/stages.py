"""FBNetV3's own search space: a chain of stages whose kernel sizes, expansions, widths and depths are variables.

A stage is a first block, which changes the shape, and repeats, which keep it. The first block has a kernel size and an
expansion of its own; the repeats share theirs; the width and the depth belong to the whole stage. The ranges are those
of FBNetV3 (arXiv 2006.02049, table 1 of the appendix), with two differences. Widths are multiples of 8, as the networks
are built, so widths that round to the same number are one choice. The last two stages reach 240 channels, because
the published D and E do. FBNetV3-B, C, D and E are members, with ordinary padding; A is B at another resolution. F and
G are not: the paper scales them up from E.

Any task's head reads the last features of each stride. Their widths differ from network to network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from export.errors import UserError
from fbnetv5.blocks.specs import Block, InvertedResidual, Stem, round_width
from fbnetv5.spaces.fbnetv3 import FBNetV3
from fbnetv5.spaces.graph import SKIPPED, Node, Variable
from fbnetv5.spaces.space import Choices, Space

STEM = "stem"
STEM_WIDTHS = range(16, 25, 2)
KERNELS = (3, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRange:
    """The choices of a stage."""

    name: str
    widths: range
    depths: range
    stride: int
    """Of the first block."""
    squeeze: bool
    expansions: tuple[int, ...] = (4, 5, 6, 7)
    """Of the first block."""
    repeat_expansions: tuple[int, ...] = (2, 3, 4, 5)


STAGES = (
    StageRange(
        name="1",
        widths=range(16, 25, 2),
        depths=range(1, 5),
        stride=1,
        squeeze=False,
        expansions=(1,),
        repeat_expansions=(1,),
    ),
    StageRange(name="2", widths=range(20, 33, 4), depths=range(4, 8), stride=2, squeeze=False),
    StageRange(name="3", widths=range(24, 49, 4), depths=range(4, 8), stride=2, squeeze=True),
    StageRange(name="4a", widths=range(56, 85, 4), depths=range(4, 9), stride=2, squeeze=False),
    StageRange(name="4b", widths=range(96, 145, 4), depths=range(6, 11), stride=1, squeeze=True),
    StageRange(name="5", widths=range(180, 241, 4), depths=range(5, 10), stride=2, squeeze=True),
    StageRange(name="last", widths=range(180, 241, 4), depths=range(1, 2), stride=1, squeeze=True, expansions=(6,)),
)


class StageSpace(Space):
    """FBNetV3's search space, at full or reduced width."""

    title: ClassVar[str] = "space"
    kind: Literal["stages"] = "stages"
    width: Annotated[float, Field(ge=0.25, le=2.0)] = 1.0
    """Factor of all widths."""

    @property
    def label(self) -> str:
        return "FBNetV3's stages" if self.width == 1.0 else f"FBNetV3's stages of width {self.width:g}"

    @cached_property
    def settings(self) -> Mapping[str, tuple[int, ...]]:
        """Name of a setting, such as "3.width" -> its possible values, ascending."""
        settings = {"stem.width": self._widths(STEM_WIDTHS)}
        for stage in STAGES:
            settings |= {
                f"{stage.name}.kernel": KERNELS,
                f"{stage.name}.expansion": stage.expansions,
                f"{stage.name}.width": self._widths(stage.widths),
                f"{stage.name}.depth": tuple(stage.depths),
            }
            if len(stage.depths) > 1:
                settings |= {
                    f"{stage.name}.repeat_kernel": KERNELS,
                    f"{stage.name}.repeat_expansion": stage.repeat_expansions,
                }
        return settings

    def _widths(self, widths: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted({round_width(width * self.width) for width in widths}))

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """A variable per setting that has several values."""
        return tuple(
            Variable(name=name, choices=tuple(map(str, values)))
            for name, values in self.settings.items()
            if len(values) > 1
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        nodes = [self._node(STEM, 2, ("stem.width",), lambda width: Stem(out_channels=width))]
        before, stride = "stem.width", 2
        for stage in STAGES:
            stride *= stage.stride
            nodes += self._stage(stage, before, stride)
            before = f"{stage.name}.width"
        inputs = [(), *((node.name,) for node in nodes)]
        return tuple(replace(node, inputs=names) for node, names in zip(nodes, inputs, strict=False))

    def _stage(self, stage: StageRange, before: str, stride: int) -> Iterator[Node]:
        """The nodes of a stage that reads features of the width ``before``; their inputs are not set yet."""
        name = stage.name
        first = (before, f"{name}.kernel", f"{name}.expansion", f"{name}.width")
        yield self._node(f"{name}_0", stride, first, partial(_first_block, stage))
        repeats = (f"{name}.depth", f"{name}.repeat_kernel", f"{name}.repeat_expansion", f"{name}.width")
        for number in range(1, max(stage.depths)):
            yield self._node(f"{name}_{number}", stride, repeats, partial(_repeat, stage, number))

    def _node(self, name: str, stride: int, settings: tuple[str, ...], make: Callable[..., Block | None]) -> Node:
        """A node whose block ``make`` returns for a value of each setting; None skips the node."""
        blocks = [make(*values) for values in product(*(self.settings[setting] for setting in settings))]
        candidates = tuple(dict.fromkeys(block for block in blocks if block is not None))
        index: dict[Block | None, int] = {block: number for number, block in enumerate(candidates)}
        positions = {variable.name: number for number, variable in enumerate(self.variables)}
        return Node(
            name=name,
            inputs=(),
            candidates=candidates,
            stride=stride,
            stage=0,
            variables=tuple(positions[setting] for setting in settings if setting in positions),
            table=tuple(index.get(block, SKIPPED) for block in blocks),
        )

    @cached_property
    def ends(self) -> Mapping[int, str]:
        return {node.stride: node.name for node in self.nodes}  # the last node of each stride

    def choices_of(self, network: FBNetV3) -> Choices:
        """The choices [S] of a network of the family, whose padding is not compared.

        Raises:
            UserError: the network is not in the space; the message has the first setting that differs.
        """
        values = self._values_of(network)
        for name, value in values.items():
            if value not in self.settings[name]:
                allowed = ", ".join(map(str, self.settings[name]))
                raise UserError(f"the network is not in the space of {self.label}: {name} is {value}, not {allowed}")
        return np.array([self.settings[variable.name].index(values[variable.name]) for variable in self.variables])

    def _values_of(self, network: FBNetV3) -> dict[str, int]:
        """The value of every setting; a stage without repeats gets the kernel and expansion that such a stage has."""
        values = {"stem.width": network.stem_channels}
        for stage, group in zip(STAGES, network.groups, strict=True):
            values |= {
                f"{stage.name}.kernel": group.kernel,
                f"{stage.name}.expansion": group.expansion,
                f"{stage.name}.width": group.channels,
                f"{stage.name}.depth": 1 + group.repeats,
            }
            if len(stage.depths) > 1:
                values |= {
                    f"{stage.name}.repeat_kernel": group.repeat_kernel,
                    f"{stage.name}.repeat_expansion": group.repeat_expansion,
                }
        return values


def _first_block(stage: StageRange, in_channels: int, kernel: int, expansion: int, width: int) -> Block:
    return InvertedResidual(
        kernel=kernel,
        in_channels=in_channels,
        out_channels=width,
        expansion=expansion,
        stride=stage.stride,
        squeeze=stage.squeeze,
    )


def _repeat(stage: StageRange, number: int, depth: int, kernel: int, expansion: int, width: int) -> Block | None:
    """Block ``number`` of a stage; None if the stage has fewer blocks."""
    if number >= depth:
        return None
    return InvertedResidual(
        kernel=kernel, in_channels=width, out_channels=width, expansion=expansion, squeeze=stage.squeeze
    )
