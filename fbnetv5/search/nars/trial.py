"""A trial: one training of a pair, in a run folder of its own, ``trials/NUMBER`` of the search's folder.

The folder is made whole or not at all, and is that of ``fbnetv5 train``. Its ``result.json`` is written at the end: the
scores at every evaluation, or why the training failed. A trial that was stopped early continues from its checkpoint
when more steps are wanted. Any process that sees the folder can train it.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from accelerate.utils import set_seed

from export.errors import UserError, VerificationError
from export.files import read_json_object, write_json
from fbnetv5.architecture import Architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.splits import Splits, without_policies
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.history import NAME as HISTORY
from fbnetv5.tasks import needed_targets
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.initial import initial_network
from fbnetv5.training.run import Prepared, open_loop

RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What a training gave."""

    steps: tuple[int, ...]
    """Steps of the evaluations."""
    scores: tuple[float, ...]
    """The task's metric on the held-out images at those steps."""
    failure: str | None = None
    """Why the training ended before its last step; None if it did not."""
    seconds: float = 0.0
    """Of the training, in all processes that worked on it."""

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


def read_result(folder: Path) -> TrialResult | None:
    """The result of a trial; None if it has none yet.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    document = read_json_object(path, what="trial result")
    try:
        return TrialResult(**{**document, "steps": tuple(document["steps"]), "scores": tuple(document["scores"])})
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); remove the folder {folder} to train it again") from None


def train_trial(folder: Path) -> TrialResult:
    """Train a trial from its last checkpoint to the step where it stops, and write its result.

    A loss that is not finite, or an error of torch such as too little memory, is a result too.

    Raises:
        UserError: the folder is damaged, or its images are missing.
    """
    earlier, started = read_result(folder), time.monotonic()
    config = TrainConfig.load(folder)
    failure = None
    try:
        set_seed(config.seed)
        open_loop(folder, _prepared(config)).run(lambda entry: None)
    except (VerificationError, RuntimeError) as error:
        failure = " ".join(str(error).split())
    seconds = time.monotonic() - started + (earlier.seconds if earlier else 0.0)
    curve = _curve(folder, config.task_names[0])
    result = TrialResult(steps=tuple(curve), scores=tuple(curve.values()), failure=failure, seconds=seconds)
    write_json(folder / RESULT, asdict(result))
    return result


def _prepared(config: TrainConfig) -> Prepared:
    """The configuration with its images, which are opened once per process."""
    splits = _opened(config.data, config.task_names)
    images, held_out = without_policies(splits, config.held_out)
    return Prepared(config=config, images=images, held_out=held_out, test=splits.test)


@lru_cache(maxsize=1)
def _opened(data: DataConfig, tasks: tuple[str, ...]) -> Splits:
    return data.open(needed_targets(tasks))


def _curve(folder: Path, task: str) -> dict[int, float]:
    """Step -> score at every evaluation after the first step, as the history has them."""
    lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines() if (folder / HISTORY).exists() else []
    entries = [json.loads(line) for line in lines]
    return {entry["step"]: entry["scores"][task] for entry in entries if entry["scores"] and entry["step"]}
