"""Draws where the tasks of a branched network part, as text."""

from fbnetv5.architecture import Architecture
from fbnetv5.spaces.branching import BranchingSpace


def tree_lines(architecture: Architecture) -> list[str]:
    """One line per run of layers with the same groups, e.g. "layer 8 to 14:  cls+det | seg"; none for other spaces."""
    if not isinstance(architecture.space, BranchingSpace):
        return []
    tasks = list(architecture.choices)
    by_layer = list(zip(*architecture.choices.values(), strict=True))
    starts = [n for n, groups in enumerate(by_layer) if n == 0 or groups != by_layer[n - 1]]
    lines = []
    for start, end in zip(starts, [*starts[1:], len(by_layer)], strict=True):
        groups = by_layer[start]
        names = ["+".join(t for t, own in zip(tasks, groups, strict=True) if own == g) for g in sorted(set(groups))]
        span = f"layer {start}" if end == start + 1 else f"layers {start} to {end - 1}"
        lines.append(f"{span}: {' | '.join(names)}")
    return lines
