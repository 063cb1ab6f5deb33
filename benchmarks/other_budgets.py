"""Are the networks that one search gives for other budgets better than random networks of these budgets?

``fbnetv5 derive`` finds networks for any budget by the panel of a finished search, whose architectures cost about the
search's own budgets. Here it derives a network per task for each of ten budgets, in multiply-adds, and the supernets of
a judge (``judge.py``), which no search trained, compare each with random networks of 93 to 99 % of its budget.

Expected: all ten budgets take at most five minutes, and for eight of ten the loss of each task's network is lower than
that of 90 % of the random ones.

    python -m benchmarks.judge runs/s0 --output runs/judge
    python -m benchmarks.other_budgets runs/s0 --judge runs/judge --output runs/other-budgets

A network takes some three seconds of one core in each of the judge's supernets; finished work is not repeated. With
``--scenes fresh`` or ``both`` the images are those of a judge that ran with either. Prints a table and ends in one JSON
line.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stats
from benchmarks.architectures import RANDOM_SEED, random_matched
from benchmarks.experiment import NAME, Experiment, Trial, begin_experiment, in_turns, plain
from benchmarks.judge import BOTH, FRESH, TEST, Scoring, folder_of, kinds_of, trial_of
from export.errors import UserError
from export.files import read_json_object, write_json
from fbnetv5.architecture import load_architecture
from fbnetv5.search.local import prune
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import derive, with_budgets
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.space import Choices

BUDGETS = "200M,250M,300M,350M,450M,500M,550M,600M,650M,700M"
NEEDED = 0.8
"""Share of the budgets of a task whose networks must be better than 90 % of the random ones."""
MAX_SECONDS = 300.0
SECONDS = "seconds.json"
"""File beside the networks of a budget: how long it took to derive and write them."""


def derive_once(run: Path, budget: str, folder: Path) -> float:
    """Write the networks of a budget into the folder unless they are there; return the seconds that this took.

    Raises:
        UserError: as ``derive``.
    """
    file = folder / SECONDS
    if not file.exists():
        start = time.perf_counter()
        networks = derive(
            run, with_budgets(run, {"macs": budget}), table=None, other_machine=False, progress=lambda *_: None
        )
        folder.mkdir(parents=True, exist_ok=True)
        networks.write(folder)
        write_json(file, {"seconds": time.perf_counter() - start})
    return float(read_json_object(file, what="time")["seconds"])


def share_beaten(losses: Sequence[float]) -> float:
    """The share of random networks with a higher loss than the derived one, whose loss is the first."""
    derived, *others = losses
    return stats.percentile(-derived, [-other for other in others]).value


def as_expected(shares: Mapping[str, Mapping[str, float]], seconds: float) -> bool:
    """Whether enough budgets of every task are above the 90th percentile, and deriving was fast enough.

    Args:
        shares: task -> budget -> the share of random networks that the derived one beats.
        seconds: that deriving all of them took.
    """
    enough = [np.mean([share > 0.9 for share in of_task.values()]) >= NEEDED for of_task in shares.values()]
    return seconds <= MAX_SECONDS and all(enough)


def networks_of(run: Path, folder: Path, budget: str, tasks: Sequence[str], count: int) -> dict[str, list[Choices]]:
    """By task, the derived network of a budget and, after it, the random ones.

    Raises:
        UserError: the window of the budget has too few networks.
    """
    constraints = prepare(with_budgets(run, {"macs": budget})).constraints
    networks = {}
    for task in tasks:
        table, limit = constraints[task].tables[0], constraints[task].budgets[0]
        derived = prune(load_architecture(folder / f"{task}.json").choices_array[None], table)
        networks[task] = [*derived, *random_matched(table, limit, count, seed=RANDOM_SEED)]
    return networks


def begin(arguments: argparse.Namespace, kind: str) -> Experiment:
    """Begin or resume the trials on the judge's scenes of a kind.

    Raises:
        UserError: the judge did not run on such scenes, or the folder is of another run or judge.
    """
    judging = read_json_object(folder_of(arguments.judge, kind) / NAME, what="experiment")
    return begin_experiment(
        folder_of(arguments.output, kind),
        name="other_budgets",
        configuration={"run": str(arguments.run.resolve()), "judge": judging},
        data=judging["data"],
        threads=arguments.threads,
    )


def report_trial(trial: Trial, result: Mapping[str, Any]) -> None:
    """Print a line for a judged network."""
    print(trial.arm, trial.unit, f"loss {np.mean(result['losses']):.4f}", flush=True)


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished search")
    parser.add_argument("--judge", type=Path, required=True, help="folder of judge.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the networks; resumed if it exists")
    parser.add_argument("--budgets", default=BUDGETS, help="multiply-adds, comma-separated")
    parser.add_argument("--tasks", help="of the search's, comma-separated; all by default")
    parser.add_argument("--scenes", choices=(TEST, FRESH, BOTH), default=TEST, help="as for the judge")
    parser.add_argument("--count", type=int, default=32, help="random networks per task and budget")
    parser.add_argument("--processes", type=int, default=2, help="networks measured at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Derive, judge, print a table and one JSON line."""
    arguments = parse(line)
    config = SearchConfig.load(arguments.run)
    if config.space != SearchConfig.load(arguments.judge).space:
        raise UserError(f"{arguments.run} was searched in another space than the judge's in {arguments.judge}")
    tasks = config.tasks if arguments.tasks is None else tuple(arguments.tasks.split(","))
    if unknown := set(tasks) - set(config.tasks):
        raise UserError(f"{arguments.run} has no task {', '.join(sorted(unknown))}; it has {', '.join(config.tasks)}")
    kinds = kinds_of(arguments.scenes)
    experiments = {kind: begin(arguments, kind) for kind in dict.fromkeys((TEST, *kinds))}
    budgets, seconds = arguments.budgets.split(","), 0.0
    networks: dict[tuple[str, str], list[Choices]] = {}
    for budget in budgets:
        folder = arguments.output / "derived" / budget
        seconds += derive_once(arguments.run, budget, folder)
        of_tasks = networks_of(arguments.run, folder, budget, tasks, arguments.count)
        networks |= {(task, budget): choices for task, choices in of_tasks.items()}
    trials = {key: [trial_of(key[0], choices) for choices in group] for key, group in networks.items()}
    of_kinds = [
        experiments[kind].run(
            in_turns(*trials.values()),
            Scoring(folder=arguments.judge, fresh=kind == FRESH),
            processes=arguments.processes,
            report=report_trial,
        )
        for kind in kinds
    ]
    losses = {
        key: [float(np.concatenate([of_kind[trial]["losses"] for of_kind in of_kinds]).mean()) for trial in group]
        for key, group in trials.items()
    }
    shares = {task: {budget: share_beaten(losses[task, budget]) for budget in budgets} for task in tasks}
    for task, of_task in shares.items():
        print(f"{task}:", ", ".join(f"{budget} beats {share:.3f}" for budget, share in of_task.items()))
    document = {
        "benchmark": "other_budgets",
        "seconds": seconds,
        "random_networks": arguments.count,
        "scenes": arguments.scenes,
        "share_beaten": shares,
        "losses": {f"{task} {budget}": values for (task, budget), values in losses.items()},
        "as_expected": as_expected(shares, seconds),
    }
    write_json(folder_of(arguments.output, arguments.scenes) / "report.json", plain(document))
    print(json.dumps(plain(document)))


if __name__ == "__main__":
    main()
