"""The state of a search as the command line shows it and the run's history stores it."""

from collections.abc import Mapping, Sequence
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
    """Expected cost of the policies, in the budget's unit; by task and unit, such as "det/ms", where a task has several
    budgets."""
    entropy: Mapping[str, float]
    """Mean over variables, in nats."""
    multiplier: Mapping[str, float]
    """Multiplier of the cost: the price of the target cost for policies in closed form, else the dual variable; named
    as expected costs are."""
    effective_samples: Mapping[str, float]
    """Kish's effective sample size of a policy step; absent before the first."""
    gradient_variance: Mapping[str, float]
    """Variance of REINFORCE's gradient, without the cost's, summed over logits; absent before the first policy step."""
    policies: Mapping[str, Sequence[Sequence[float]]] | None = None
    """[S, C] by task: the probability of every choice of every variable, rounded; None in most entries."""

    @property
    def scalars(self) -> dict[str, float]:
        """Every value per task by its name in TensorBoard, e.g. "losses/det"."""
        return {f"{name}/{task}": value for name in SERIES for task, value in getattr(self, name).items()}


SERIES = ("losses", "expected_cost", "entropy", "multiplier", "effective_samples", "gradient_variance")
"""The fields with a value per task."""
