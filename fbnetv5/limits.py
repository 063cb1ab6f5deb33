"""What the configurations of a search and of a training share: numbers that cannot work are refused at once."""

import math
from collections.abc import Mapping
from typing import Any

from export.errors import UserError

Limits = Mapping[str, tuple[float, float]]
"""By field, the least and the most that each of its numbers may be."""
POSITIVE = (1e-12, 1e12)
NOT_NEGATIVE = (0.0, 1e12)
SHARE = (0.0, 1.0)
SEED = (0, 2**31 - 1)
"""Streams of pictures and torch's and numpy's generators are seeded with small multiples of it."""


def at_least(least: int) -> tuple[float, float]:
    """Limits without a most."""
    return (least, math.inf)


def check_limits(what: str, config: Any, limits: Limits) -> None:
    """Hold the fields of a configuration, numbers or tuples of them, against their limits.

    Raises:
        UserError: one is outside, or no number.
    """
    for name, (least, most) in limits.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not least <= number <= most:
                allowed = f"at least {least}" if most == math.inf else f"from {least:.10g} to {most:.10g}"
                raise UserError(f"{what}: {name} must be {allowed}, not {number}")
