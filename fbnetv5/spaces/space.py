"""What a search can choose: a graph of blocks over four paths, some of whose positions are slots.

Stage 0 is an FBNetV3 cut into four partitions, whose ends feed four parallel paths at strides 4, 8, 16 and 32. Every
later stage first fuses neighbouring paths, then runs its blocks on each path (FBNetV5, arXiv 2111.10007, section 3.1).
A later block has the shape of its path's stage-0 repeat; how the paper shapes it is not published.

Every position is a node with candidate blocks. A node that is a slot may be skipped: its first input then passes
through. A fusion edge is such a node too (target plus resampled source, or the target alone), so skipping, liveness,
cost and execution know one rule. A node is live for a task if one of the task's features depends on it; only live nodes
run.

Shape legend: B architectures, S slots, V nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.blocks.specs import Block, Fusion, InvertedResidual
from fbnetv5.spaces.fbnetv3 import FBNETV3, STRIDES, Group

SKIP = 0
"""The choice that leaves a slot empty; choice k > 0 is a node's k-th candidate."""
VARIANTS = ("a", "c", "f")
"""The FBNetV3 letters that the paper extends to a supernet."""

Choices = NDArray[np.int64]
"""[S] or [B, S]: one choice per slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One position of the supernet."""

    name: str
    inputs: tuple[str, ...]
    """Names of the nodes read; the first passes through if this node is skipped. Empty for the stem."""
    candidates: tuple[Block, ...]
    stride: int
    """Of the node's output, relative to the image."""
    slot: int | None = None
    """Index of the slot, None if the node always runs."""

    @property
    def stage(self) -> int:
        """0 or the number of the later stage, as the name says."""
        return int(self.name.partition("_")[0].removeprefix("s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A live node of one architecture: which block runs, and on whose outputs."""

    name: str
    choice: int
    block: Block
    inputs: tuple[str, ...]
    stride: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The live blocks of one architecture in running order, and where each path's feature comes out."""

    steps: tuple[Step, ...]
    outputs: Mapping[int, str]
    """Stride of a path -> name of the step that gives its feature."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space. Equal parameters give the same slots in the same order."""

    variant: str = "a"
    """Which FBNetV3 stage 0 is: a, c or f, with ordinary padding."""
    stages: int = 4
    """How many stages follow stage 0."""
    blocks_per_path: int = 2
    """Blocks on each path in each of those stages."""
    strict: bool = False
    """Only the later stages' blocks are slots, as the paper describes; else also stage-0 repeats and fusion edges."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UserError(f"unknown variant {self.variant!r}; there are: {', '.join(VARIANTS)}")
        for name in ("stages", "blocks_per_path"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 16:
                raise UserError(f"space: {name} must be a whole number from 0 to 16, not {value!r}")
        if not isinstance(self.strict, bool):
            raise UserError(f"space: strict must be true or false, not {self.strict!r}")
        if not self.slots:
            raise UserError("this space has nothing to choose; give it stages and blocks per path of at least 1")

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """The space a JSON object describes.

        Raises:
            UserError: a field is missing, unknown or out of range.
        """
        expected = set(cls.__dataclass_fields__)
        if not isinstance(document, dict) or set(document) != expected:
            raise UserError(f"a space has the fields {', '.join(sorted(expected))}; this one reads {document!r}")
        return cls(**document)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every position, inputs before their readers."""
        nodes = list(self._stage_zero())
        ends = {stride: _last_of(nodes, stride) for stride in STRIDES}
        for stage in range(1, self.stages + 1):
            nodes += self._later_stage(stage, ends)
            ends = {stride: _last_of(nodes, stride) for stride in STRIDES}
        slots = iter(range(len(nodes)))
        return tuple(
            Node(
                name=node.name,
                inputs=node.inputs,
                candidates=node.candidates,
                stride=node.stride,
                slot=next(slots) if self._is_slot(node) else None,
            )
            for node in nodes
        )

    @cached_property
    def slots(self) -> tuple[Node, ...]:
        """The nodes that may be skipped, by slot index."""
        return tuple(node for node in self.nodes if node.slot is not None)

    @cached_property
    def choice_counts(self) -> tuple[int, ...]:
        """How many choices each slot has, skip included."""
        return tuple(len(node.candidates) + 1 for node in self.slots)

    @cached_property
    def ends(self) -> Mapping[int, str]:
        """Stride -> name of the path's last node."""
        return {stride: _last_of(self.nodes, stride) for stride in STRIDES}

    @cached_property
    def widths(self) -> Mapping[int, int]:
        """Stride -> channels of the path's feature."""
        return {stride: group.channels for stride, group in zip(STRIDES, self._last_groups(), strict=True)}

    def full(self) -> Choices:
        """The architecture that keeps every slot's first candidate."""
        return np.ones(len(self.slots), dtype=np.int64)

    def empty(self) -> Choices:
        """The architecture that skips every slot."""
        return np.zeros(len(self.slots), dtype=np.int64)

    def check(self, choices: Sequence[int]) -> Choices:
        """``choices`` as an array, if they fit.

        Raises:
            UserError: wrong number of choices, or one out of range.
        """
        if len(choices) != len(self.slots):
            raise UserError(f"{len(choices)} choices do not fit a space of {len(self.slots)} slots")
        for node, choice, count in zip(self.slots, choices, self.choice_counts, strict=True):
            if not isinstance(choice, (int, np.integer)) or isinstance(choice, bool) or not 0 <= choice < count:
                raise UserError(f"slot {node.name}: choice must be 0 to {count - 1}, not {choice!r}")
        return np.asarray(choices, dtype=np.int64)

    def live(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.bool_]:
        """Which nodes run.

        Args:
            choices: [B, S].
            paths: strides of the features that are read.

        Returns:
            bool [B, V]: the node is not skipped and some feature of ``paths`` depends on it.
        """
        return self._read_and_live(choices, paths)[1]

    def needed(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.bool_]:
        """Which slots matter: a feature depends on the node, or on what passes through where it is skipped.

        That depends on the choices of other slots only.

        Args:
            choices: [B, S].
            paths: strides of the features that are read.

        Returns:
            bool [B, S].
        """
        read, _ = self._read_and_live(choices, paths)
        return read[:, [column for column, node in enumerate(self.nodes) if node.slot is not None]]

    def _read_and_live(self, choices: Choices, paths: Iterable[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Two bool [B, V]: some feature depends on the node's output; and the node is not skipped besides."""
        index = {node.name: column for column, node in enumerate(self.nodes)}
        read = np.zeros((len(choices), len(self.nodes)), dtype=np.bool_)
        for path in paths:
            read[:, index[self.ends[path]]] = True
        live = np.zeros_like(read)
        for column in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[column]
            kept = True if node.slot is None else choices[:, node.slot] != SKIP
            live[:, column] = read[:, column] & kept
            for position, name in enumerate(node.inputs):
                read[:, index[name]] |= read[:, column] if position == 0 else live[:, column]
        return read, live

    def graph(self, choices: Choices, paths: Iterable[int]) -> Graph:
        """The live blocks of one architecture [S] for the features of ``paths``."""
        paths = tuple(paths)
        live = self.live(choices[None], paths)[0]
        source: dict[str, str] = {}  # node -> the node whose output stands for it once skipped ones are gone
        steps: list[Step] = []
        for node, runs in zip(self.nodes, live, strict=True):
            choice = 1 if node.slot is None else int(choices[node.slot])
            if choice == SKIP:
                source[node.name] = source[node.inputs[0]]
                continue
            source[node.name] = node.name
            if runs:
                inputs = tuple(source[name] for name in node.inputs)
                block = node.candidates[choice - 1]
                steps.append(Step(name=node.name, choice=choice, block=block, inputs=inputs, stride=node.stride))
        return Graph(steps=tuple(steps), outputs={path: source[self.ends[path]] for path in paths})

    def _stage_zero(self) -> Iterable[Node]:
        previous: tuple[str, ...] = ()
        stride = 1
        for path, partition in zip(STRIDES, FBNETV3[self.variant].with_ordinary_padding().partitions(), strict=True):
            for number, block in enumerate(partition):
                stride *= block.stride
                name = f"s0_p{path}_{number}"
                yield Node(name=name, inputs=previous, candidates=(block,), stride=stride)
                previous = (name,)

    def _later_stage(self, stage: int, ends: Mapping[int, str]) -> Iterable[Node]:
        for position, (stride, group) in enumerate(zip(STRIDES, self._last_groups(), strict=True)):
            main = ends[stride]
            for neighbour in STRIDES[max(0, position - 1) : position + 2]:
                if neighbour == stride:
                    continue
                edge = Fusion(
                    source_channels=self.widths[neighbour], target_channels=group.channels, up=neighbour > stride
                )
                name = f"s{stage}_p{stride}_from_p{neighbour}"
                yield Node(name=name, inputs=(main, ends[neighbour]), candidates=(edge,), stride=stride)
                main = name
            block = InvertedResidual(
                kernel=group.repeat_kernel,
                in_channels=group.channels,
                out_channels=group.channels,
                expansion=group.repeat_expansion,
                squeeze=group.squeeze,
            )
            for number in range(self.blocks_per_path):
                name = f"s{stage}_p{stride}_{number}"
                yield Node(name=name, inputs=(main,), candidates=(block,), stride=stride)
                main = name

    def _last_groups(self) -> tuple[Group, Group, Group, Group]:
        """Per path, the width of its end in stage 0 and the shape of the repeats nearest to that end."""
        groups = FBNETV3[self.variant].groups
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

    def _is_slot(self, node: Node) -> bool:
        block = node.candidates[0]
        keeps_shape = isinstance(block, Fusion) or (isinstance(block, InvertedResidual) and block.keeps_shape)
        if not self.strict:
            return keeps_shape
        return keeps_shape and isinstance(block, InvertedResidual) and node.stage > 0


def _last_of(nodes: Sequence[Node], stride: int) -> str:
    return next(node.name for node in reversed(nodes) if node.stride == stride)
