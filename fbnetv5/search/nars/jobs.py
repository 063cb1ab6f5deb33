"""Runs independent trials: one after the other, in several processes of this machine, or on a Ray cluster.

A process that is killed leaves its trial with the last checkpoint, from which another attempt goes on. When one of
several processes is killed, the trials that are left run once more, one at a time, which takes less memory and tells
which of them is the cause. A trial whose process is killed again is recorded as failed. All processes must see the run
folder; on several machines it lies on a shared file system.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from export.files import write_json
from export.progress import Progress
from fbnetv5.search.nars.trial import RESULT, TrialResult, read_result, train_trial

Runner = Callable[[Sequence[Path]], None]
"""Trains the trials of these folders to the end of their configurations."""


def stage_name(folders: Sequence[Path]) -> str:
    """The name of a batch in progress lines."""
    return f"trials {folders[0].name} to {folders[-1].name}"


def in_this_process(progress: Progress) -> Runner:
    """A runner that trains one trial after the other."""

    def run(folders: Sequence[Path]) -> None:
        stage = stage_name(folders)
        for done, folder in enumerate(folders):
            progress(stage, done, len(folders))
            train_trial(folder)
        progress(stage, len(folders), len(folders))

    return run


def in_processes(jobs: int, progress: Progress) -> Runner:
    """A runner that trains ``jobs`` trials at a time, in processes that share the threads torch has in this one.

    Their number follows the CPU cores that this process may use and ``OMP_NUM_THREADS``.
    """

    def run(folders: Sequence[Path]) -> None:
        threads = max(1, torch.get_num_threads() // jobs)
        for folder in _run_pool(folders, jobs, threads, progress):
            if _run_pool([folder], 1, threads, progress):
                record_loss(folder)

    return run


def _run_pool(folders: Sequence[Path], jobs: int, threads: int, progress: Progress) -> list[Path]:
    """Train the trials; return those whose process was killed, and those that were not trained because of it."""
    left = set(folders)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(threads,))
    try:
        futures = {pool.submit(train_trial, folder): folder for folder in folders}
        for future in as_completed(futures):
            future.result()
            left.discard(futures[future])
            progress(stage_name(folders), len(folders) - len(left), len(folders))
    except BrokenProcessPool:
        pass
    except BaseException:  # also a KeyboardInterrupt: the trainings would go on to their ends
        _terminate(pool)
        raise
    pool.shutdown()
    return [folder for folder in folders if folder in left]


def _terminate(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once; their trials keep their last checkpoints."""
    processes = list(pool._processes.values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def record_loss(folder: Path) -> None:
    """Write the result of a trial whose process was killed in every attempt."""
    earlier = read_result(folder)
    result = TrialResult(
        steps=earlier.steps if earlier else (),
        scores=earlier.scores if earlier else (),
        failure="its process was killed in every attempt, perhaps for lack of memory",
        seconds=earlier.seconds if earlier else 0.0,
    )
    write_json(folder / RESULT, result.to_json())
