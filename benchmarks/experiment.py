"""Experiments that can be cut off: every trial leaves a file, and a folder goes on only as it was begun.

A trial is one unit (a network, a seed) of one arm (a task, a method). ``experiment.json`` in the folder records what
the experiment was begun with: its configuration, the hash of its data, and the machine. ``trials/ARM/UNIT.json`` holds
what one trial gave.
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
from latency.cpu import cpu_name

SCHEMA = 1
NAME = "experiment.json"

Work = Callable[["Trial"], dict[str, Any]]
"""Does one trial and returns a JSON document; it is pickled where there are several processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One unit of one arm."""

    arm: str
    unit: str
    inputs: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the work reads, as JSON; the same for one arm and unit throughout an experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment's folder, begun or gone on with."""

    folder: Path
    threads: int
    """Of each process."""

    def run(
        self, trials: Sequence[Trial], work: Work, *, processes: int, report: Callable[[Trial, dict[str, Any]], None]
    ) -> dict[Trial, dict[str, Any]]:
        """What every trial gave, now or before.

        Args:
            trials: done in this order, as far as several processes keep to one.
            work: does a trial.
            processes: how many trials at a time; 1 is this process.
            report: called with every trial done now, and what it gave.

        Raises:
            UserError: the folder holds a trial of that name with other inputs, or the work raised it.
        """
        found = {trial: kept for trial in trials if (kept := self.kept(trial)) is not None}
        todo = [trial for trial in dict.fromkeys(trials) if trial not in found]
        for trial, gave in _done(_Saving(self.folder, work), todo, min(processes, len(todo)), self.threads):
            report(trial, gave)
            found[trial] = gave
        return {trial: found[trial] for trial in trials}

    def kept(self, trial: Trial) -> dict[str, Any] | None:
        """What a trial gave before; None if it is not done.

        Raises:
            UserError: it was done with other inputs.
        """
        path = trial_file(self.folder, trial)
        if not path.exists():
            return None
        document = read_json(path, what="trial", schema=SCHEMA)
        if document["inputs"] != plain(trial.inputs):
            raise UserError(f"{path} is a trial with other inputs; name another folder for this experiment")
        gave: dict[str, Any] = document["gave"]
        return gave


@dataclass(frozen=True, slots=True)
class _Saving:
    """Does a trial and leaves its file."""

    folder: Path
    work: Work

    def __call__(self, trial: Trial) -> tuple[Trial, dict[str, Any]]:
        begin = time.perf_counter()
        gave = plain(self.work(trial))
        seconds = round(time.perf_counter() - begin, 3)
        document = {"schema": SCHEMA, "inputs": plain(trial.inputs), "gave": gave, "seconds": seconds}
        write_json(trial_file(self.folder, trial), document)
        return trial, gave


def trial_file(folder: Path, trial: Trial) -> Path:
    """Where an experiment keeps what a trial gave."""
    return folder / "trials" / trial.arm / f"{trial.unit}.json"


def begin_experiment(
    folder: Path, *, name: str, configuration: Mapping[str, Any], data: str, threads: int
) -> Experiment:
    """Make the folder of an experiment, or check that it was begun with the same.

    Args:
        folder: of the experiment.
        name: of the benchmark.
        configuration: all that decides a trial's result besides its inputs and the data.
        data: hash of the images and labels used.
        threads: of each process that does trials.

    Raises:
        UserError: it was begun with something else.
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
                "Go on as it was begun, or name another folder"
            )


def machine(threads: int) -> dict[str, Any]:
    """What of the machine may decide a result."""
    return {"processor": cpu_name(), "threads": threads, "torch": torch.__version__}


def hash_images(*sets: ImageSet) -> str:
    """SHA-256 over the images and all labels of each set, in order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for images in sets:
        for index in range(len(images)):
            _digest_sample(digest.update, images[index])
    return digest.hexdigest()


def _digest_sample(update: Callable[[bytes], None], sample: Sample) -> None:
    """The image, then every label in the order of names."""
    update(f"{tuple(sample.image.shape)}".encode())
    update(sample.image.contiguous().numpy().tobytes())
    for name, value in sorted(sample.targets.items()):
        update(f" {name} ".encode())
        for part in value if isinstance(value, tuple) else (value,):
            update(part.contiguous().numpy().tobytes() if isinstance(part, torch.Tensor) else str(part).encode())


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it is read back from a JSON file: tuples become lists."""
    read: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return read


def _done(
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
    """Torch computes with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turns(*groups: Iterable[Trial]) -> list[Trial]:
    """The first trial of every group, then the second, and so on: a cut-off experiment has some of each."""
    queues = [list(group) for group in groups]
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]
