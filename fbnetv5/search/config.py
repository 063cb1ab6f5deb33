"""What a search is told: one frozen record, written to the run folder so that a resumed run is the same search."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from export.errors import UserError
from export.files import read_json, read_json_object, write_json
from fbnetv5.cost import Budget, Resolution, check_resolution
from fbnetv5.limits import NOT_NEGATIVE, POSITIVE, SEED, SHARE, Limits, at_least, check_limits
from fbnetv5.search.estimators import ESTIMATORS
from fbnetv5.space import Space

SCHEMA = 1
TUNABLE = (
    "pictures",
    "warmup_steps",
    "steps",
    "batch",
    "policy_batch",
    "weight_lr",
    "weight_decay",
    "policy_lr",
    "estimator",
    "multiplier_lr",
    "policy_every",
    "importance",
    "clip_norm",
    "panel_draws",
    "panel_checks",
    "finalists",
    "score_pictures",
    "checkpoint_every",
)
"""The fields that a user's file may set; the others come from flags."""
LIMITS: Limits = {
    "seed": SEED,
    "warmup_steps": at_least(0),
    "steps": at_least(0),
    # Batch norm has no statistics of one picture on a 1x1 map.
    "batch": at_least(2),
    "policy_batch": at_least(2),
    "weight_lr": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "policy_lr": POSITIVE,
    "multiplier_lr": NOT_NEGATIVE,
    "clip_norm": POSITIVE,
    "pictures": at_least(1),
    "policy_every": at_least(2),
    "importance": SHARE,
    "panel_draws": at_least(16),
    "panel_checks": at_least(3),
    "finalists": at_least(1),
    "score_pictures": at_least(1),
    "checkpoint_every": at_least(1),
}


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Everything that decides a search's result."""

    budgets: dict[str, Budget]
    """Per task; its keys are the run's tasks."""
    space: Space = field(default_factory=Space)
    data: str | None = None
    """Folder of the user's pictures; None for the demo scenes."""
    pictures: tuple[int, int, int] = (8000, 2000, 1000)
    """How many demo scenes: for weights, for policies, for the test."""
    size: Resolution = (64, 64)
    """Height and width of the pictures the search trains on."""
    table: str | None = None
    """Latency table file: budgets in ms are counted by it; beside a budget in multiply-adds it predicts latency."""
    foreign_table: bool = False
    """Whether that table may be of another machine."""
    seed: int = 0
    warmup_steps: int = 600
    """Steps that train weights under architectures of random depth before any policy moves."""
    steps: int = 1200
    """Steps after the warm-up."""
    policy_every: int = 4
    """Of the steps after the warm-up, every so many-th trains policies, beginning with the first."""
    batch: int = 32
    """Pictures of a step that trains weights, per process."""
    policy_batch: int = 64
    """Pictures of a step that trains policies, per process; it needs no backward pass."""
    weight_lr: float = 5e-3
    weight_decay: float = 0.01
    policy_lr: float = 0.04
    """Of policies that step along a gradient; without effect on the default estimator, as is ``multiplier_lr``."""
    estimator: str = ESTIMATORS[0]
    """How policies learn from losses; docs/search.md describes each, "average" is the reference."""
    multiplier_lr: float = 0.5
    """Of the dual ascent: what a step at twice the budget's aim adds to the multiplier."""
    importance: float = 0.0
    """Share of the importance weights in the loss of a step that trains weights: 0 counts every task's loss fully, 1 is
    the paper's rule."""
    clip_norm: float = 5.0
    panel_draws: int = 280
    """Architectures that the panel runs, each on one of its batches, when the weights are final."""
    panel_checks: int = 24
    """Further architectures that the panel runs on all of its batches, to hold its fit against."""
    finalists: int = 8
    """Architectures per task whose losses are compared on the same pictures in the end."""
    score_pictures: int = 1024
    """Held-out pictures of that comparison."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        check_resolution(self.size)
        if not self.budgets:
            raise UserError("a search needs at least one task with a budget")
        check_limits("search", self, LIMITS)
        if self.estimator not in ESTIMATORS:
            raise UserError(f"search: estimator must be one of {', '.join(ESTIMATORS)}, not {self.estimator!r}")

    @property
    def total_steps(self) -> int:
        return self.warmup_steps + self.steps

    def policy_steps(self, after: int) -> int:
        """How many of the first ``after`` steps that follow the warm-up train policies."""
        return -(-after // self.policy_every)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.budgets)

    def save(self, path: Path) -> None:
        """Write ``config.json``."""
        write_json(path, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``config.json``.

        Raises:
            UserError: missing, damaged, or with fields of another version.
        """
        document: dict[str, Any] = read_json(path, what="search configuration", schema=SCHEMA)
        del document["schema"]
        if set(document) != set(cls.__dataclass_fields__):
            wrong = ", ".join(sorted(set(document) ^ set(cls.__dataclass_fields__)))
            raise UserError(
                f"search configuration {path} is of another version; fields that differ: {wrong}. Start a new search"
            )
        for name in TUNABLE:
            document[name] = _checked(name, document[name], path)
        try:
            document["budgets"] = {task: Budget.from_json(budget) for task, budget in document["budgets"].items()}
            document["size"] = tuple(document["size"])
            document["space"] = Space.from_json(document["space"])
            return cls(**document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"search configuration {path} is damaged ({type(error).__name__}: {error})") from None


def read_fields(path: Path) -> dict[str, Any]:
    """Fields of a search that a user's JSON file sets: an object of field names and values, for those without a flag.

    Raises:
        UserError: missing, not JSON, or a field that does not exist, has a flag, or is of another type.
    """
    document = read_json_object(path, what="search configuration")
    return {name: _checked(name, value, path) for name, value in document.items()}


def _checked(name: str, value: Any, path: Path) -> Any:
    defaults = {field.name: field.default for field in fields(SearchConfig) if field.name in TUNABLE}
    if name not in defaults:
        raise UserError(f"{path}: there is no field {name!r} to set; there are: {', '.join(defaults)}")
    default = defaults[name]
    if isinstance(default, tuple):
        fits = isinstance(value, list) and len(value) == len(default) and all(type(item) is int for item in value)
        value = tuple(value) if fits else value
    else:
        fits = type(value) is type(default) or (isinstance(default, float) and type(value) is int)
    if not fits:
        raise UserError(f"{path}: {name} must be like {default!r}, not {value!r}")
    return value
