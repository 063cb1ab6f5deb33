"""The four paths with wider choices: every skippable block also has a kernel, an expansion and squeeze-excite.

A node has a variable per decision, and a table from their choices to its block. The first choice of each variable is
the one of the lowest cost. All blocks of a node share the weights of the largest by slicing (``blocks/slicing.py``), as
in once-for-all (arXiv 1908.09791) and BigNAS (arXiv 2003.11142), so the number of weights grows with the largest block
and not with the number of blocks.

Expansions lie around that of the block in the narrower space. A block of expansion 1 has no convolution that expands,
which cannot be sliced, so its expansion is fixed. Squeeze-excite is a choice from stride 8 on, as FBNetV3 and
MobileNetV3 use it, unless the variant has none. Blocks that change the shape, and fusion edges, have no wider choices;
widths of paths have none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Literal

from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.spaces.four_path import FourPaths, keeps_shape
from fbnetv5.spaces.graph import SKIPPED, Node, Variable

KERNELS = (3, 5, 7)
MIN_EXPANSION = 2
"""The smallest expansion of a block whose expansion is a variable."""
MIN_SQUEEZE_STRIDE = 8
"""The finest stride at which squeeze-excite is a choice; on finer maps it is slow."""
SWITCH = ("off", "on")
"""Choices of squeeze-excite."""


class WideSpace(FourPaths):
    """The four paths whose blocks also have a kernel, an expansion and squeeze-excite to choose."""

    kind: Literal["wide"] = "wide"

    @property
    def label(self) -> str:
        return f"variant {self.variant}, wide"

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(
            Variable(name=name, choices=choices)
            for node in self._positions
            if keeps_shape(node)
            for name, choices in self._decisions(node).items()
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        numbers = iter(range(len(self.variables)))
        return tuple(self._widened(node, numbers) if keeps_shape(node) else node for node in self._positions)

    def _widened(self, node: Node, numbers: Iterator[int]) -> Node:
        """The node with its variables, whose numbers are the next ones, and all its blocks."""
        variables = tuple(next(numbers) for _ in self._decisions(node))
        (block,) = node.candidates
        if not isinstance(block, InvertedResidual):
            return replace(node, variables=variables, table=(SKIPPED, 0))
        blocks = tuple(
            replace(block, kernel=kernel, expansion=expansion, squeeze=squeeze)
            for kernel, expansion, squeeze in product(KERNELS, _expansions(block), self._squeezes(node, block))
        )
        table = (*(SKIPPED for _ in blocks), *range(len(blocks)))
        return replace(node, candidates=blocks, variables=variables, table=table, whole=blocks[-1])

    def _decisions(self, node: Node) -> Mapping[str, tuple[str, ...]]:
        """Name of each variable of a node that may be skipped -> its choices."""
        (block,) = node.candidates
        if not isinstance(block, InvertedResidual):
            return {node.name: ("skip", block.key)}
        choices = {
            "kernel": KERNELS,
            "expansion": _expansions(block),
            "squeeze": tuple(SWITCH[squeeze] for squeeze in self._squeezes(node, block)),
        }
        wider = {f"{node.name}.{name}": tuple(map(str, values)) for name, values in choices.items() if len(values) > 1}
        return {node.name: ("skip", "keep"), **wider}

    def _squeezes(self, node: Node, block: InvertedResidual) -> tuple[bool, ...]:
        if self.encoder.has_squeeze_excite and node.stride >= MIN_SQUEEZE_STRIDE:
            return False, True
        return (block.squeeze,)


def _expansions(block: InvertedResidual) -> tuple[int, ...]:
    """From two below the block's own expansion to one above it."""
    if block.expansion < MIN_EXPANSION:
        return (block.expansion,)
    return tuple(range(max(MIN_EXPANSION, block.expansion - 2), block.expansion + 2))
