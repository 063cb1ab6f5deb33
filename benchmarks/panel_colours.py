"""Does a panel on images of other colours choose networks that are better by other weights?

A panel measures blocks under the weights of one training, and a part of what it measures is true of these weights and
images alone. Each supernet of a judge (``judge.py``), which no search trained, goes through the final phase of a search
three times up to the finalists: with the panel's images as they are for all tasks, in other colours for all tasks, and
as each task has them by default. The judge's other supernets compare the finalists, on unchanged test images, with
random networks of 93 to 99 % of the budget: z is the difference of a loss from the random networks' mean in units of
their standard deviation, averaged over the first finalists.

In the last arm each part of the panel has all its architectures near the budgets of its own tasks, so it differs from
the others not in colours alone.

Expected: with other colours for all tasks z is lower for classification, and higher for detection.

    python -m benchmarks.judge runs/s0 --output runs/judge
    python -m benchmarks.panel_colours --judge runs/judge --output runs/panel-colours

A panel takes some five minutes of one core, and a network some three seconds in each of the judge's supernets; finished
work is not repeated. Prints a table and ends in one JSON line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stats
from benchmarks.architectures import RANDOM_SEED, random_matched
from benchmarks.experiment import NAME, Trial, begin_experiment, in_turns, plain
from benchmarks.judge import RANDOM, JudgeLoop, Scoring, load_supernet, supernet_folders, trial_of
from export.errors import UserError
from export.files import read_json_object, write_json
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.final_phase import fit_panel, observe, search_models
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.tasks.task import Task

AS_THEY_ARE = "as they are"
ARMS = {AS_THEY_ARE: False, "other colours": True, "by task": None}
"""What the panel's images are -> ``panel_colours`` of all tasks, or None for that of each task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """The final phase of a search up to the finalists: the arm is an arm of ``ARMS``, the unit a supernet."""

    judge: Path

    def __call__(self, trial: Trial) -> dict[str, Any]:
        """The finalists' choices and the rank correlation of the panel's fit, both by task."""
        folder = self.judge / "supernets" / trial.unit
        config = SearchConfig.load(self.judge).changed(seed=int(trial.unit))
        prepared = prepare(config)
        tasks = with_colours(prepared.tasks, ARMS[trial.arm])
        supernet = load_supernet(config, tasks, folder)
        loop = JudgeLoop(config, folder, supernet, prepared.splits, prepared.constraints)
        models, qualities = fit_panel(loop, observe(loop, lambda *_: None))
        return {
            "networks": {
                name: [choices.tolist() for choices in networks]
                for name, networks in search_models(loop, models, qualities).items()
            },
            "rank_correlation": {name: quality.rank_correlation for name, quality in qualities.items()},
        }


def with_colours(tasks: Mapping[str, Task], changed: bool | None) -> dict[str, Task]:
    """Copies of the tasks whose panels all have other colours, or none; None leaves that of each task."""
    copies = {name: copy(task) for name, task in tasks.items()}
    for task in copies.values():
        task.panel_colours = task.panel_colours if changed is None else changed
    return copies


def standardised(networks: NDArray[np.float64], others: NDArray[np.float64], own: int) -> float:
    """Mean z of networks in the supernets other than their own.

    Args:
        networks: [K, J], the losses of networks in each supernet.
        others: [R, J], of random networks.
        own: number of the supernet whose panel chose the networks.
    """
    of_networks, of_others = (np.delete(losses, own, axis=1).mean(1) for losses in (networks, others))
    return float(((of_networks - of_others.mean()) / of_others.std(ddof=1)).mean())


def summarise(z: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A task's z by arm, one per supernet, and how they differ from those with the images as they are."""
    differences = {arm: np.array(values) - np.array(z[AS_THEY_ARE]) for arm, values in z.items() if arm != AS_THEY_ARE}
    return {
        "z": {arm: list(values) for arm, values in z.items()},
        "difference": {arm: asdict(stats.mean(each)) for arm, each in differences.items()},
        "p_value": {arm: stats.sign_flip_p(each, alternative="less") for arm, each in differences.items()},
    }


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", type=Path, required=True, help="folder of judge.py, with two supernets or more")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; resumed if it exists")
    parser.add_argument("--networks", type=int, default=4, help="finalists per task and panel that are judged")
    parser.add_argument("--count", type=int, default=32, help="random networks per task")
    parser.add_argument("--processes", type=int, default=2, help="panels or networks measured at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Run the panels, judge their finalists, print a table and one JSON line."""
    arguments = parse(line)
    config, judging = SearchConfig.load(arguments.judge), read_json_object(arguments.judge / NAME, what="experiment")
    seeds = [folder.name for folder in supernet_folders(arguments.judge)]
    if len(seeds) < 2:
        raise UserError(f"{arguments.judge} has a single supernet: none is left to judge its networks")
    experiment = begin_experiment(
        arguments.output,
        name="panel_colours",
        configuration={"judge": judging},
        data=judging["data"],
        threads=arguments.threads,
    )
    panels = {arm: [Trial(arm=arm, unit=seed) for seed in seeds] for arm in ARMS}

    def report_panel(trial: Trial, result: Mapping[str, Any]) -> None:
        print(f"panel of {trial.unit}, {trial.arm}: {result['rank_correlation']}", flush=True)

    def report_network(trial: Trial, result: Mapping[str, Any]) -> None:
        print(trial.arm, trial.unit, f"loss {np.mean(result['losses']):.4f}", flush=True)

    searched = experiment.run(
        in_turns(*panels.values()), Searching(judge=arguments.judge), processes=arguments.processes, report=report_panel
    )
    networks = {
        (task, trial.arm, trial.unit): result["networks"][task][: arguments.networks]
        for trial, result in searched.items()
        for task in config.tasks
    }
    for task, own in prepare(config).constraints.items():
        random = random_matched(own.tables[0], own.budgets[0], arguments.count, seed=RANDOM_SEED)
        networks[task, RANDOM, RANDOM] = [choices.tolist() for choices in random]
    groups = {key: [trial_of(key[0], np.array(choices)) for choices in group] for key, group in networks.items()}
    scoring = Scoring(folder=arguments.judge)
    results = experiment.run(in_turns(*groups.values()), scoring, processes=arguments.processes, report=report_network)
    losses = {key: np.array([results[trial]["of_supernets"] for trial in group]) for key, group in groups.items()}
    document: dict[str, Any] = {"benchmark": "panel_colours", "seeds": seeds, "tasks": {}}
    for task in config.tasks:
        others = losses[task, RANDOM, RANDOM]
        z = {
            arm: [standardised(losses[task, arm, seed], others, own) for own, seed in enumerate(seeds)] for arm in ARMS
        }
        document["tasks"][task] = summary = summarise(z)
        for arm in ARMS:
            print(f"{task}, {arm}: z", " ".join(f"{value:.2f}" for value in z[arm]))
        for arm, difference in summary["difference"].items():
            print(f"{task}, {arm} less {AS_THEY_ARE}: {difference}, p {summary['p_value'][arm]:.3f}")
    document["rank_correlation"] = {
        arm: [searched[trial]["rank_correlation"] for trial in trials] for arm, trials in panels.items()
    }
    write_json(arguments.output / "report.json", plain(document))
    print(json.dumps(plain(document)))


if __name__ == "__main__":
    main()
