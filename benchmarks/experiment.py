"""Resumable experiments: every trial writes a file, and a folder is resumed only with its own settings.

A trial is one unit (a network, a seed) of one arm (a task, a method). ``experiment.json`` in the folder records the
settings of the experiment: its configuration, the hash of its data, and the machine. ``trials/ARM/UNIT.json`` has the
result of one trial.
"""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from export.errors import UserError
from export.files import read_json, read_json_object, write_json
from fbnetv5.data.sample import ImageSet, Sample
from fbnetv5.runs.processes import make_accelerator
from latency.runtimes.onnxruntime import cpu_name

SCHEMA = 1
NAME = "experiment.json"

Work = Callable[["Trial"], dict[str, Any]]
"""Runs one trial and returns a JSON document; it is pickled if there are several processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One unit of one arm."""

    arm: str
    unit: str
    inputs: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Inputs of the work, as JSON; equal for one arm and unit throughout an experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment's folder, new or resumed."""

    folder: Path
    threads: int
    """Torch's threads in each process."""

    def run(
        self, trials: Sequence[Trial], work: Work, *, processes: int, report: Callable[[Trial, dict[str, Any]], None]
    ) -> dict[Trial, dict[str, Any]]:
        """The results of all trials, those of earlier calls included.

        Args:
            trials: run in this order; several processes finish them in another.
            work: runs a trial.
            processes: number of trials at a time; 1 runs them in this process.
            report: called with every trial of this call and its result.

        Raises:
            UserError: the folder has a trial of the same name with other inputs, or the work raised it.
        """
        results = {trial: stored for trial in trials if (stored := self.stored(trial)) is not None}
        todo = [trial for trial in dict.fromkeys(trials) if trial not in results]
        for trial, result in _run(_Saving(self.folder, work), todo, min(processes, len(todo)), self.threads):
            report(trial, result)
            results[trial] = result
        return {trial: results[trial] for trial in trials}

    def stored(self, trial: Trial) -> dict[str, Any] | None:
        """The stored result of a trial; None if there is none.

        Raises:
            UserError: the trial ran with other inputs.
        """
        path = trial_file(self.folder, trial)
        if not path.exists():
            return None
        document = read_json(path, what="trial", schema=SCHEMA)
        if document["inputs"] != plain(trial.inputs):
            raise UserError(f"{path} is a trial with other inputs; name another folder for this experiment")
        result: dict[str, Any] = document["gave"]
        return result


@dataclass(frozen=True, slots=True)
class _Saving:
    """Runs a trial and writes its file."""

    folder: Path
    work: Work

    def __call__(self, trial: Trial) -> tuple[Trial, dict[str, Any]]:
        begin = time.perf_counter()
        result = plain(self.work(trial))
        seconds = round(time.perf_counter() - begin, 3)
        document = {"schema": SCHEMA, "inputs": plain(trial.inputs), "gave": result, "seconds": seconds}
        write_json(trial_file(self.folder, trial), document)
        return trial, result


def trial_file(folder: Path, trial: Trial) -> Path:
    """The file of a trial's result."""
    return folder / "trials" / trial.arm / f"{trial.unit}.json"


def begin_experiment(
    folder: Path, *, name: str, configuration: Mapping[str, Any], data: str, threads: int
) -> Experiment:
    """Make the folder of an experiment, or check that it was begun with the same settings.

    Args:
        folder: of the experiment.
        name: of the benchmark.
        configuration: all that determines a trial's result besides its inputs and the data.
        data: hash of the images and labels used.
        threads: of each process that runs trials.

    Raises:
        UserError: the experiment was begun with other settings.
    """
    now = {"benchmark": name, "data": data, **machine(threads), **plain(configuration)}
    path = folder / NAME
    if path.exists():
        _check_same(read_json_object(path, what="experiment"), now, path)
    else:
        write_json(path, {"schema": SCHEMA, "begun": dt.date.today().isoformat(), **now})
    return Experiment(folder=folder, threads=threads)


def _check_same(begun: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    for key in sorted((set(begun) | set(now)) - {"schema", "begun"}):
        if begun.get(key) != now.get(key):
            raise UserError(
                f"{path.parent} was begun with other {key}: {begun.get(key)}, now {now.get(key)}. "
                "Resume with the same settings, or name another folder"
            )


def machine(threads: int) -> dict[str, Any]:
    """Properties of the machine that may change a result."""
    gpu = {"gpu": torch.cuda.get_device_name()} if compute_device().type == "cuda" else {}
    return {"cpu": cpu_name(), "threads": threads, "torch": torch.__version__, **gpu}


def compute_device() -> torch.device:
    """The GPU or another accelerator of this machine; without one the CPU."""
    device: torch.device = make_accelerator().device
    return device


def hash_images(*sets: ImageSet) -> str:
    """SHA-256 over the images and all labels of each set, in order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for images in sets:
        for index in range(len(images)):
            _digest_sample(digest.update, images[index])
    return digest.hexdigest()


def _digest_sample(update: Callable[[bytes], None], sample: Sample) -> None:
    """Hash the image, then every label in the order of names."""
    update(f"{tuple(sample.image.shape)}".encode())
    update(sample.image.contiguous().numpy().tobytes())
    for name, value in sorted(sample.targets.items()):
        update(f" {name} ".encode())
        for part in value if isinstance(value, tuple) else (value,):
            update(part.contiguous().numpy().tobytes() if isinstance(part, torch.Tensor) else str(part).encode())


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as read from a JSON file: tuples become lists."""
    read: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return read


def _run(
    work: _Saving, trials: Sequence[Trial], processes: int, threads: int
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    if processes <= 1:
        with threads_set(threads):
            yield from map(work, trials)
        return
    with get_context("spawn").Pool(processes, torch.set_num_threads, (threads,)) as pool:
        yield from pool.imap_unordered(work, trials)


@contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Set the number of torch's threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turns(*groups: Iterable[Trial]) -> list[Trial]:
    """The first trial of every group, then the second, and so on: an interrupted experiment has some of each."""
    queues = [list(group) for group in groups]
    longest = max(map(len, queues), default=0)
    return [queue[position] for position in range(longest) for queue in queues if position < len(queue)]
