"""The state of a search as it is shown to people and written to the run's history."""

from collections.abc import Mapping
from dataclasses import dataclass

from fbnetv5.runs.history import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEntry(Entry):
    """The state of a search; mappings are by task."""

    phase: str
    """What the last step trained: "warm-up", "weights" or "policies"."""
    losses: Mapping[str, float]
    """Moving averages of the training losses."""
    expected_cost: Mapping[str, float]
    """Of the policies, in the budget's unit."""
    entropy: Mapping[str, float]
    """Mean over variables, in nats."""
    multiplier: Mapping[str, float]
    """Of the cost: the price of the aimed cost for policies in closed form, else the dual multiplier."""
    effective_samples: Mapping[str, float]
    """How many draws from the task's own policy a policy step is worth; absent before the first."""
    gradient_variance: Mapping[str, float]
    """Of REINFORCE's gradient, without the cost, summed over logits; absent before the first."""

    @property
    def scalars(self) -> dict[str, float]:
        """Every value per task as TensorBoard names it, e.g. "losses/det"."""
        return {f"{name}/{task}": value for name in SERIES for task, value in getattr(self, name).items()}


SERIES = ("losses", "expected_cost", "entropy", "multiplier", "effective_samples", "gradient_variance")
"""The fields with a value per task."""
