"""Nodes of the four-path space in different variants, and choices that move to another variant or to a wider space.

Nodes of later stages have the same names in all variants. A node of stage 0 is named by its position on its path, and a
position is another block where an earlier group has more repeats; so blocks of stage 0 correspond by their group of the
FBNetV3 and their number in this group (``fbnetv5/spaces/fbnetv3.py``).
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from export.errors import UserError
from fbnetv5.spaces.fbnetv3 import STRIDES, FBNetV3
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import SKIPPED
from fbnetv5.spaces.space import Choices, Space


def stage_zero(network: FBNetV3) -> list[str]:
    """The names of the four-path space's nodes in stage 0, in the order of the blocks of its network."""
    partitions = network.partitions()
    return list(
        chain.from_iterable(
            [f"s0_p{path}_{number}" for number in range(len(blocks))]
            for path, blocks in zip(STRIDES, partitions, strict=True)
        )
    )


def group_nodes(network: FBNetV3) -> list[list[str]]:
    """The names of the nodes of each group of stage 0, first to last; the stem belongs to none."""
    names = iter(stage_zero(network)[1:])
    return [[next(names) for _ in range(1 + group.repeats)] for group in network.groups]


def move_choices(choices: Sequence[int] | Choices, source: FourPathSpace, target: FourPathSpace) -> Choices:
    """[S of target]: choices [S] of a space in another variant of it.

    A node has the choice of the node of the same name, in stage 0 of the block of the same group and number. Where a
    group has fewer repeats in the target, the choices of the others are dropped; where it has more, the additional ones
    have the choice of the last one of the source. A node that the source always runs is kept.

    Raises:
        UserError: the spaces differ in more than their variants.
    """
    if source.changed(variant=target.variant) != target:
        raise UserError("choices move between variants of one space, not between spaces of other stages or blocks")
    own = {variable.name: int(choice) for variable, choice in zip(source.variables, choices, strict=True)}
    counterparts = {
        name: names[min(number, len(names) - 1)]
        for names, others in zip(group_nodes(source.encoder), group_nodes(target.encoder), strict=True)
        for number, name in enumerate(others)
    }
    kept = target.full()
    return np.array(
        [
            own.get(counterparts.get(variable.name, variable.name), int(kept[position]))
            for position, variable in enumerate(target.variables)
        ],
        dtype=np.int64,
    )


def widen_choices(choices: Choices, source: Space, target: Space) -> Choices:
    """[S of target]: the same network, with the choices [S] of a space, in a space with the same nodes.

    Raises:
        UserError: the other space has not these nodes, or not the block of one of them.
    """
    if [node.name for node in source.nodes] != [node.name for node in target.nodes]:
        raise UserError(f"the nodes of {source.label} are not those of {target.label}")
    chosen = source.candidates(choices[None])[0]
    blocks = {
        node.name: None if candidate == SKIPPED else node.candidates[candidate]
        for node, candidate in zip(source.nodes, chosen, strict=True)
    }
    widened = target.empty()
    for node in target.nodes:
        options = [None if candidate == SKIPPED else node.candidates[candidate] for candidate in node.table]
        if blocks[node.name] not in options:
            raise UserError(f"the network is not in the space of {target.label}: {node.name} has another block there")
        counts = [target.choice_counts[variable] for variable in node.variables]
        if counts and blocks[node.name] is not None:  # a skipped node leaves the width of its path to the others
            widened[list(node.variables)] = np.unravel_index(options.index(blocks[node.name]), counts)
    return widened
