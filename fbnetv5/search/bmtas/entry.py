"""The state of a search for a branched network as the command line shows it and the run's history stores it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fbnetv5.runs.history import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchEntry(Entry):
    """The state of a search for a branched network."""

    phase: str
    """What the last step trained: "warm-up", "weights" or "routing"."""
    losses: Mapping[str, float]
    """By task, moving averages of the training losses."""
    expected_cost: float
    """Expected cost of the tree, in the budget's unit."""
    multiplier: float
    """Weight of the expected cost in the objective of the routing."""
    entropy: float
    """Mean over tasks and layers of the routing's entropy, in nats."""
    temperature: float
    """Of the Gumbel-softmax."""
    routing: Mapping[str, Sequence[Sequence[float]]] | None = None
    """[L, T] by task: the probability of every copy of every layer, rounded; None in most entries."""

    @property
    def scalars(self) -> dict[str, float]:
        names = ("expected_cost", "multiplier", "entropy", "temperature")
        return {f"losses/{task}": loss for task, loss in self.losses.items()} | {
            name: getattr(self, name) for name in names
        }
