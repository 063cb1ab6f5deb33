"""The four paths with wider choices: a kernel, an expansion and squeeze-excite per skippable block, a width per path.

A node has a variable per decision of its own, whether it runs among them, and those of the widths of the paths that it
reads and writes; a table has the block of each combination. The first choice of each variable is the one of the lowest
cost. All blocks of a node share the weights of the largest by slicing (``blocks/slicing.py``), as in once-for-all
(arXiv 1908.09791) and BigNAS (arXiv 2003.11142), so the number of weights grows with the largest block and not with the
number of blocks.

Expansions lie around that of the block in the narrower space. A block of expansion 1 has no convolution that expands,
which cannot be sliced, so its expansion is fixed. Squeeze-excite is a choice from stride 8 on, as FBNetV3 and
MobileNetV3 use it, unless the variant has none. Blocks that change the shape, and fusion edges, have no decisions of
their own.

The width of a path is that of its feature: of everything from the first block of its last group of stage 0 on. It is
the narrower space's or three quarters of it, and never more, because supernets have the weights of the widest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

from fbnetv5.blocks.specs import Fusion, InvertedResidual
from fbnetv5.spaces.fbnetv3 import STRIDES
from fbnetv5.spaces.four_path import FourPaths, keeps_shape
from fbnetv5.spaces.graph import SKIPPED, Node, Variable

KERNELS = (3, 5, 7)
MIN_EXPANSION = 2
"""The smallest expansion of a block whose expansion is a variable."""
MIN_SQUEEZE_STRIDE = 8
"""The finest stride at which squeeze-excite is a choice; on finer maps it is slow."""
NARROW = 0.75
"""Share of a path's channels that its narrower width has, rounded to a multiple of 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a variable sets of a node's block."""

    variable: str
    """Name of the variable."""
    fields: tuple[str, ...]
    """Of the block; each gets the chosen value."""
    values: tuple[int, ...]
    """Per choice, ascending in cost."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the choices."""
        return tuple(("off", "on")[value] if isinstance(value, bool) else str(value) for value in self.values)


class WideSpace(FourPaths):
    """The four paths whose blocks also have a kernel, an expansion, squeeze-excite and a width to choose."""

    kind: Literal["wide"] = "wide"

    @property
    def label(self) -> str:
        return f"variant {self.variant}, wide"

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        choices: dict[str, tuple[str, ...]] = {}
        for node in self._positions:
            if keeps_shape(node):
                choices[node.name] = ("skip", "keep")
            choices |= {setting.variable: setting.choices for setting in self._own_settings(node)}
        for node in self._positions:
            choices |= {setting.variable: setting.choices for setting in self._path_settings(node)}
        return tuple(Variable(name=name, choices=names) for name, names in choices.items())

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        numbers = {variable.name: number for number, variable in enumerate(self.variables)}
        return tuple(self._widened(node, numbers) for node in self._positions)

    def _widened(self, node: Node, numbers: Mapping[str, int]) -> Node:
        """The node with its variables, by their numbers, and all its blocks."""
        settings = [*self._own_settings(node), *self._path_settings(node)]
        (block,) = node.candidates
        blocks = tuple(
            replace(
                block, **{field: value for own, value in zip(settings, values, strict=True) for field in own.fields}
            )  # type: ignore[type-var]
            for values in product(*(setting.values for setting in settings))
        )
        switches, skipping = ([node.name], [SKIPPED] * len(blocks)) if keeps_shape(node) else ([], [])
        return replace(
            node,
            candidates=blocks,
            variables=tuple(numbers[name] for name in [*switches, *(setting.variable for setting in settings)]),
            table=(*skipping, *range(len(blocks))),
            whole=blocks[-1] if settings else None,
        )

    def _own_settings(self, node: Node) -> list[Setting]:
        """What the variables of this node alone set."""
        (block,) = node.candidates
        if not isinstance(block, InvertedResidual) or not block.keeps_shape:
            return []
        squeezes: tuple[bool, ...] = (block.squeeze,)
        if self.encoder.has_squeeze_excite and node.stride >= MIN_SQUEEZE_STRIDE:
            squeezes = (False, True)
        values = {"kernel": KERNELS, "expansion": _expansions(block), "squeeze": squeezes}
        return [
            Setting(variable=f"{node.name}.{field}", fields=(field,), values=of_field)
            for field, of_field in values.items()
            if len(of_field) > 1
        ]

    def _path_settings(self, node: Node) -> list[Setting]:
        """What the widths of the paths set that the node reads or writes."""
        (block,) = node.candidates
        written = self._path_of.get(node.name)
        if isinstance(block, Fusion):
            fields = {"target_channels": written, "source_channels": self._path_of[node.inputs[1]]}
        elif isinstance(block, InvertedResidual):
            fields = {"in_channels": self._path_of.get(node.inputs[0]), "out_channels": written}
        else:
            fields = {}
        return [
            Setting(
                variable=f"p{path}.width",
                fields=tuple(field for field, of_field in fields.items() if of_field == path),
                values=widths,
            )
            for path, widths in self._widths.items()
            if path in fields.values() and len(widths) > 1
        ]

    @cached_property
    def _path_of(self) -> Mapping[str, int]:
        """Name of a node -> the path whose width its output has; nodes before the last groups of stage 0 have none."""
        paths: dict[str, int] = {}
        for path in STRIDES:
            names = [node.name for node in self._positions if node.stride == path]
            changing = [node.name for node in self._positions if node.stride == path and not keeps_shape(node)]
            paths |= dict.fromkeys(names[names.index(changing[-1]) :], path)
        return paths

    @cached_property
    def _widths(self) -> Mapping[int, tuple[int, ...]]:
        """Stride of a path -> its widths, ascending."""
        whole = {node.stride: node.channels for node in self._positions}
        return {path: tuple(sorted({8 * round(NARROW * whole[path] / 8), whole[path]})) for path in STRIDES}


def _expansions(block: InvertedResidual) -> tuple[int, ...]:
    """From two below the block's own expansion to one above it."""
    if block.expansion < MIN_EXPANSION:
        return (block.expansion,)
    return tuple(range(max(MIN_EXPANSION, block.expansion - 2), block.expansion + 2))
