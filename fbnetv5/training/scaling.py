"""Compound scaling of a network of a search to another number of multiply-adds, before a training.

EfficientNet (arXiv 1905.11946, section 3.3) scales depth, width and resolution together: depth by d^phi, width by
w^phi, resolution by r^phi. Its d, w, r come from a grid search for one network. Here they come from FBNetV3 (arXiv
2006.02049), which scales E up to G: the ratios of the two networks' numbers of blocks, sums of widths, and resolutions.
Their product d w^2 r^2 is 2.49; G has 2.47 times the multiply-adds of E.

Blocks are whole, widths multiples of 8 and sides multiples of 32. So depth and resolution are rounded first, and the
factor of the widths is the largest with which the network costs no more than the target. Widths of small networks have
few values: where much of the target stays unused, up to three blocks more or fewer are tried.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, make_architecture
from fbnetv5.costs.budgets import format_cost, parse_budget
from fbnetv5.data.resolution import Resolution
from fbnetv5.evaluate import trained_size
from fbnetv5.spaces.fbnetv3 import FBNETV3, FBNetV3
from fbnetv5.spaces.four_path import SkippablePaths
from fbnetv5.spaces.scaled import (
    MAX_WIDTH,
    MIN_WIDTH,
    block_counts,
    choices_of,
    scale_counts,
    scaled_space,
    width_of,
)
from fbnetv5.spaces.space import Space

KEPT = ("fit", "transferred_from")
"""Entries of the provenance that hold for the scaled network."""
SIDE = 32
"""Sides are multiples of the coarsest path's stride."""
PRECISION = 1e-4
"""Of the factor of the widths."""
OTHER_BLOCKS = 3
"""Blocks more or fewer than the rule's that are tried."""
FEW_UNUSED, MAX_UNUSED = 0.03, 0.1
"""Share of the target below which no other network is tried, and the largest that a scaled network leaves unused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Ratios of two networks of one family."""

    depth: float
    width: float
    resolution: float

    @property
    def cost(self) -> float:
        """The approximate ratio of their multiply-adds."""
        return float(self.depth * self.width**2 * self.resolution**2)


def ratios(small: FBNetV3, large: FBNetV3) -> Factors:
    """The ratios of two published networks."""

    def blocks(network: FBNetV3) -> int:
        return sum(1 + group.repeats for group in network.groups)

    def widths(network: FBNetV3) -> int:
        return network.stem_channels + sum(group.channels for group in network.groups)

    return Factors(
        depth=blocks(large) / blocks(small),
        width=widths(large) / widths(small),
        resolution=large.resolution / small.resolution,
    )


COEFFICIENTS = ratios(FBNETV3["e"], FBNETV3["g"])
"""Depth 1.09, width 1.25, resolution 1.21 at phi = 1."""


def scale(architecture: Architecture, file: Path, target: str) -> Architecture:
    """The network scaled so that its multiply-adds are at most ``target``, and near it.

    Args:
        architecture: of one task, in the default or the strict space, or scaled before.
        file: its file, for the provenance and errors.
        target: multiply-adds of the whole network, such as "200M", or "200M@192x192" with the deploy resolution.

    Raises:
        UserError: the network is of another space or of several tasks, the target cannot be parsed, or no scaled
            network is near it.
    """
    space = _scalable(architecture, file)
    budget, named = parse_budget(target, "macs")
    phi = _exponent(architecture, budget.limit, named)
    resolution = named or scale_size(architecture.resolution, [COEFFICIENTS.resolution**phi] * 2)
    before = block_counts(space, architecture.graph)
    total = round(COEFFICIENTS.depth**phi * sum(before))
    networks = list[Architecture]()
    for blocks in sorted(range(max(1, total - OTHER_BLOCKS), total + OTHER_BLOCKS + 1), key=lambda n: abs(n - total)):
        counts = scale_counts(before, blocks)
        networks.append(_widest(architecture, space, counts, resolution, budget.limit))
        if 0 <= _unused(networks[-1], budget.limit) <= FEW_UNUSED:
            break
    best = min(networks, key=lambda network: (_unused(network, budget.limit) < 0, abs(_unused(network, budget.limit))))
    if not 0 <= _unused(best, budget.limit) <= MAX_UNUSED:
        raise _out_of_reach(file, best, target)
    return best.changed(provenance=_provenance(architecture, file, best, budget.limit))


def describe_scaling(old: Architecture, new: Architecture) -> str:
    """One line: the factors of a scaled network, and the costs of both networks."""
    origin = new.provenance["scaled_from"]
    before, after = origin["blocks"]
    sizes = ["x".join(map(str, each.resolution)) for each in (old, new)]
    costs = [f"{each.cost.macs / 1e6:.1f}M multiply-adds, {each.cost.params / 1e6:.2f}M params" for each in (new, old)]
    return (
        f"{new.name} scaled from {old.space.label}: {before} to {after} blocks, {origin['width']:.3g} times the "
        f"widths, {sizes[0]} to {sizes[1]}: {costs[0]}, instead of {costs[1]}"
    )


def scale_size(size: Resolution, factors: Sequence[float]) -> Resolution:
    """(height, width) times a factor each, rounded to multiples of 32, at least 32."""
    height, width = (
        max(SIDE, math.floor(side * factor / SIDE + 0.5) * SIDE) for side, factor in zip(size, factors, strict=True)
    )
    return height, width


def largest_width(cost: Callable[[float], float], limit: float) -> float:
    """The largest factor of widths with which the cost, which grows with it, is at most ``limit``.

    The smallest factor if the cost is higher with all of them.
    """
    low, high = MIN_WIDTH, MAX_WIDTH
    while high / low > 1 + PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    return low


def _scalable(architecture: Architecture, file: Path) -> SkippablePaths:
    """The space of a network that can be scaled.

    Raises:
        UserError: it cannot.
    """
    space: Space = architecture.space
    if len(architecture.choices) > 1 or not isinstance(space, SkippablePaths):
        raise UserError(
            f"{file} is a network for {architecture.name} of {space.label}; only networks of one task, of the default "
            "and the strict space of fbnetv5 search, can be scaled"
        )
    return space


def _exponent(architecture: Architecture, limit: float, resolution: Resolution | None) -> float:
    """The exponent phi with which the network costs about ``limit``, at this resolution if it is set."""
    ratio, of_all = limit / architecture.cost.macs, COEFFICIENTS.cost
    if resolution is not None:
        ratio /= math.prod(resolution) / math.prod(architecture.resolution)
        of_all /= COEFFICIENTS.resolution**2
    return math.log(ratio) / math.log(of_all)


def _widest(
    architecture: Architecture, space: SkippablePaths, counts: Sequence[int], resolution: Resolution, limit: float
) -> Architecture:
    """The network with these numbers of blocks and the largest widths that cost at most ``limit``."""

    def at_width(width: float) -> Architecture:
        scaled = scaled_space(space, counts, width)
        choices = {architecture.task: choices_of(scaled, counts, architecture.graph)}
        return make_architecture(scaled, choices, architecture.classes, resolution, provenance={})

    return at_width(largest_width(lambda width: at_width(width).cost.macs, limit))


def _unused(network: Architecture, limit: float) -> float:
    """The share of the target that the network leaves unused; negative if it exceeds the target."""
    return 1 - network.cost.macs / limit


def _out_of_reach(file: Path, nearest: Architecture, target: str) -> UserError:
    size = "x".join(map(str, nearest.resolution))
    return UserError(
        f"{file} cannot be scaled to {target}: at {size} the nearest network has "
        f"{format_cost(nearest.cost.macs, 'macs')} multiply-adds. Choose another target, or name another resolution, "
        f"as in {target.partition('@')[0].strip()}@HxW"
    )


def _provenance(architecture: Architecture, file: Path, scaled: Architecture, limit: float) -> dict[str, Any]:
    """The origin of the scaled network, and the size of its images: scaled as the deploy resolution is."""
    pairs = zip(scaled.resolution, architecture.resolution, strict=True)
    images = scale_size(trained_size(architecture), [new / old for new, old in pairs])
    kept = {key: architecture.provenance[key] for key in KEPT if key in architecture.provenance}
    networks = (architecture, scaled)
    spaces = [_scalable(network, file) for network in networks]
    origin = {
        "file": str(file.resolve()),
        "space": architecture.space.label,
        "macs": architecture.cost.macs,
        "resolution": list(architecture.resolution),
        "blocks": [sum(block_counts(space, network.graph)) for space, network in zip(spaces, networks, strict=True)],
        "width": round(width_of(spaces[1]) / width_of(spaces[0]), 4),
    }
    budget = {"limit": limit, "unit": "macs"}
    return {"version": __version__, "budget": budget, "trained_at": list(images), **kept, "scaled_from": origin}
