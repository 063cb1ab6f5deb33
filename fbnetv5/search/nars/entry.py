"""The state of a search for pairs as the command line shows it and the run's history stores it."""

from dataclasses import dataclass

from fbnetv5.runs.history import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class NarsEntry(Entry):
    """The state after a batch of trainings; ``step`` counts the trainings."""

    best: float
    """Best metric of all trainings at ``stop_at``."""
    failed: int
    """Trainings that failed."""
    stop_at: int
    """Step at which the trainings are compared, and later ones stop."""
    tau: float
    """Kendall's tau of predictions for trainings that were held out of the fit, see ``quality.py``."""
    mean_absolute_error: float
    coverage: float
    spread_factor: float
    seconds: float
    """Of all trainings."""

    @property
    def scalars(self) -> dict[str, float]:
        names = ("best", "failed", "stop_at", "tau", "mean_absolute_error", "coverage", "spread_factor", "seconds")
        return {name: getattr(self, name) for name in names}
