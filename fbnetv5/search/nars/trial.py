"""A trial: one training of a pair, in a run folder of its own, ``trials/NUMBER`` of the search's folder.

The folder is made whole or not at all, and is that of ``fbnetv5 train``. Its ``result.json`` is written at the end: the
scores at every evaluation, or why the training failed. A trial that was stopped early continues from its checkpoint
when more steps are wanted. Any process that sees the folder can train it.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Self

import torch
from accelerate.utils import set_seed
from pydantic import Field, Strict, model_validator

from export.document import Document
from export.errors import UserError, VerificationError
from export.files import read_json_object, write_json
from fbnetv5.architecture import Architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.splits import Splits, without_policies
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.history import NAME as HISTORY
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.tasks import needed_targets
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.initial import initial_network
from fbnetv5.training.run import Prepared, open_loop

RESULT = "result.json"


class TrialResult(Document):
    """What a training gave."""

    title: ClassVar[str] = "trial result"
    steps: Annotated[tuple[int, ...], Strict(False)]
    """Steps of the evaluations."""
    scores: Annotated[tuple[float, ...], Strict(False)]
    """The task's metric on the held-out images at those steps."""
    failure: str | None = None
    """Why the training ended before its last step; None if it did not."""
    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """Of the training, in all processes that worked on it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.steps) != len(self.scores):
            raise UserError(f"trial result: {len(self.steps)} steps do not fit {len(self.scores)} scores")
        return self

    @property
    def last_step(self) -> int:
        return self.steps[-1] if self.steps else 0


def make_trial(folder: Path, architecture: Architecture, config: TrainConfig) -> None:
    """Make a trial's folder, whole or not at all; one that exists gets the configuration, and is otherwise kept.

    Raises:
        UserError: the folder cannot be written.
    """
    if folder.exists():
        config.save(folder)
        return
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make {temporary}: {error.strerror}") from None
    network = initial_network(architecture, config.init, file=temporary, seed=config.seed)
    architecture.save(temporary / f"{architecture.file_name}.json")
    save_tensors(temporary / f"{architecture.file_name}.safetensors", network.state_dict())
    config.save(temporary)
    temporary.rename(folder)


@contextmanager
def damaged(folder: Path) -> Iterator[None]:
    """Add the way out to the error of a damaged file in a trial's folder."""
    try:
        yield
    except VerificationError:
        raise
    except UserError as error:
        raise UserError(f"{error}. Remove the folder {folder} to train this trial again, then resume") from None


ATTEMPT = "failed-once"
"""File in a trial's folder whose training failed once for another reason than the trial itself."""


def read_result(folder: Path) -> TrialResult | None:
    """The result of a trial; None if it has none yet.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    with damaged(folder):
        document = read_json_object(path, what="trial result")
        try:
            return TrialResult(**document)
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from None


def train_trial(folder: Path) -> TrialResult:
    """Train a trial from its last checkpoint to the step where it stops, and write its result.

    A loss or a score that is not finite, or too little memory, is a result too.

    Raises:
        UserError: the folder is damaged, its images are missing, or torch fails for another reason for the first time:
            then the trial is trained once more when the search is resumed.
    """
    earlier, started = read_result(folder), time.monotonic()
    with damaged(folder):
        config = TrainConfig.load(folder)
    prepared, failure = _prepared(config), None
    try:
        with damaged(folder):
            _check_checkpoint(folder, config)
            set_seed(config.seed)
            loop = open_loop(folder, prepared)
            loop.restore()  # as the run does again: here its errors are those of the folder
        loop.run(lambda entry: None)
    except VerificationError as error:
        failure = " ".join(str(error).split())
    except RuntimeError as error:
        failure, attempt = " ".join(str(error).split()), folder / ATTEMPT
        if not is_lack_of_memory(error) and not attempt.exists():
            attempt.touch()
            raise UserError(f"the training of {folder} failed: {failure}. Correct that, then resume") from error
    if failure is None:
        (folder / ATTEMPT).unlink(missing_ok=True)
    seconds = time.monotonic() - started + (earlier.seconds if earlier else 0.0)
    result = _result(folder, config, failure, seconds)
    write_json(folder / RESULT, result.to_json())
    return result


def is_lack_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate memory, on a GPU or a CPU."""
    texts = ("out of memory", "alloc_failed", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error).lower() for text in texts)


def _check_checkpoint(folder: Path, config: TrainConfig) -> None:
    """Check that a trial that was trained has a checkpoint; it would start again from weights that were trained."""
    if _curve(folder, config.task_names[0]) and not any((folder / CHECKPOINT).glob("step-*.json")):
        raise UserError(f"{folder / CHECKPOINT} has no checkpoint of a training that had begun")


def _result(folder: Path, config: TrainConfig, failure: str | None, seconds: float) -> TrialResult:
    """The result of a training that has ended, from its history.

    Raises:
        UserError: the history lacks an evaluation.
    """
    curve = _curve(folder, config.task_names[0])
    evaluated = sorted({*range(config.evaluate_every, config.last_step + 1, config.evaluate_every), config.last_step})
    if failure is None and list(curve) != evaluated:
        with damaged(folder):
            raise UserError(f"{folder / HISTORY} is damaged: it lacks evaluations of the training")
    finite = {step: score for step, score in curve.items() if math.isfinite(score)}
    if failure is None and len(finite) < len(curve):
        failure = f"its score is not finite at step {min(curve.keys() - finite.keys())}"
    return TrialResult(steps=tuple(finite), scores=tuple(finite.values()), failure=failure, seconds=seconds)


def _prepared(config: TrainConfig) -> Prepared:
    """The configuration with its images, which are opened once per process."""
    splits = _opened(config.data, needed_targets(config.task_names, soft=config.reads_soft_labels))
    images, held_out = without_policies(splits, config.held_out)
    return Prepared(config=config, images=images, held_out=held_out, test=splits.test)


@lru_cache(maxsize=1)
def _opened(data: DataConfig, targets: tuple[str, ...]) -> Splits:
    return data.open(targets)


def _curve(folder: Path, task: str) -> dict[int, float]:
    """Step -> score at every evaluation after the first step, as the readable lines of the history have them."""
    path, curve = folder / HISTORY, {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if entry["scores"] and entry["step"]:
                curve[int(entry["step"])] = float(entry["scores"][task])
    return curve
