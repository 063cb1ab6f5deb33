"""The trials of a search: which pairs were chosen in which iteration, and what their trainings gave.

``trials.json`` in the run folder lists the pairs of every iteration; it is written before their trainings start, so a
resumed search trains the same pairs. The results stand in the trials' own folders.

Shape legend: N trials, S variables of the space, R of the recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict

from export.document import Document
from export.errors import UserError, VerificationError
from export.files import read_json, write_json
from fbnetv5.runs.checkpoint import check_identity
from fbnetv5.search.nars.trial import TrialResult
from fbnetv5.spaces.space import Choices

NAME = "trials.json"
SCHEMA = 1
Pair = Annotated[tuple[int, ...], Strict(False)]


class Batch(Document):
    """The pairs of one iteration."""

    title: ClassVar[str] = "batch of trials"
    pairs: Annotated[tuple[Pair, ...], Strict(False)]
    stop_at: Annotated[int, Field(ge=1)] | None = None
    """Step at which their trainings stop; None for the last."""


@dataclass(slots=True)
class Trials:
    """The batches of a search so far, and the results of their trainings."""

    folder: Path
    """The run folder."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What a search must have when it is resumed, as JSON values."""
    batches: list[Batch] = field(default_factory=list)
    continued: tuple[int, ...] = ()
    """Numbers of the trials that were stopped early and are trained to the end at last."""
    results: list[TrialResult] = field(default_factory=list)
    """Of the trials that are finished, in their order."""

    @property
    def pairs(self) -> Choices:
        """[N, S + R]: the pairs of all batches."""
        return np.array([pair for batch in self.batches for pair in batch.pairs], dtype=np.int64)

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / f"{number:03d}"

    def numbers(self, batch: int) -> range:
        """The numbers of the trials of a batch."""
        first = sum(len(earlier.pairs) for earlier in self.batches[:batch])
        return range(first, first + len(self.batches[batch].pairs))

    def add(self, batch: Batch) -> None:
        """Add a batch and write the file; the batch's trainings may then start."""
        self.batches.append(batch)
        self.save()

    def save(self) -> None:
        """Write the file."""
        document = {
            "schema": SCHEMA,
            "kind": "trials",
            "identity": dict(self.identity),
            "batches": [batch.to_json() for batch in self.batches],
            "continued": list(self.continued),
        }
        write_json(self.folder / NAME, document)

    def scores_at(self, step: int, sign: float, *, impute: bool = True) -> NDArray[np.float64]:
        """[N]: scores at a step times ``sign``, so that higher is better.

        Args:
            step: of the trainings.
            sign: -1 for a metric of which lower values are better.
            impute: whether trials without a score, which failed, have the lowest of the others; else NaN.

        Raises:
            VerificationError: every training failed.
        """
        scores = np.array([score_at(result, step) for result in self.results]) * sign
        finite = scores[np.isfinite(scores)]
        if not len(finite):
            reasons = "; ".join(sorted({result.failure or "no score" for result in self.results}))
            raise VerificationError(f"all {len(scores)} trainings of {self.folder} failed: {reasons}")
        return np.where(np.isfinite(scores), scores, finite.min() if impute else np.nan)


def score_at(result: TrialResult, step: int) -> float:
    """The score at a step; NaN if the training failed or has none there."""
    if result.failure is not None or step not in result.steps:
        return float("nan")
    return result.scores[result.steps.index(step)]


def load_trials(folder: Path, counts: NDArray[np.int64], identity: Mapping[str, Any] | None = None) -> Trials:
    """The batches of a run folder; none in a new one. Results are added by the search.

    Args:
        folder: the run folder.
        counts: number of choices of each variable of a pair [S + R].
        identity: of the search that goes on with them; None for one that only reads them.

    Raises:
        UserError: the file is damaged, or of a search with another identity.
    """
    trials, path = Trials(folder, identity or {}), folder / NAME
    if path.exists():
        document = read_json(path, what="list of trials", schema=SCHEMA)
        check_identity(document.get("identity", {}), trials.identity, folder, "nars")
        try:
            trials.batches = [Batch(**batch) for batch in document["batches"]]
            trials.continued = tuple(document["continued"])
            _check(trials, counts)
        except (KeyError, TypeError, UserError) as error:
            raise UserError(f"{path} is damaged: {error}. Start a new nars") from None
    return trials


def _check(trials: Trials, counts: NDArray[np.int64]) -> None:
    """Raise a ``UserError`` if a pair does not fit the space, or a trial that is continued does not exist."""
    pairs = [pair for batch in trials.batches for pair in batch.pairs]
    for number, pair in enumerate(pairs):
        if len(pair) != len(counts) or not all(0 <= choice < count for choice, count in zip(pair, counts, strict=True)):
            raise UserError(f"pair {number} does not fit the space")
    if unfinite := set(trials.continued) - set(range(len(pairs))):
        raise UserError(f"there is no trial {min(unfinite)} to continue")
