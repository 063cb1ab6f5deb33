"""Makes the data of the race of ``fbnetv5 nars``: short real trainings of many pairs of an architecture and a recipe.

The pairs are the first of the search's own pool (``fbnetv5/search/nars/pool.py``): FBNetV3's stages at a quarter of the
width within a budget, and the recipes of the default search. Every pair is trained once, on the demo scenes, from the
same seed; its metric on 1000 held-out scenes is kept at every evaluation.

    python -m benchmarks.nars_trainings --output runs/nars-trainings --count 400

Finished trainings are not repeated. Writes ``trainings.json`` in the output folder; the copy beside this script is what
``benchmarks/nars_race.py`` reads. One training takes about 15 seconds of one core.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiment import Experiment, Trial, begin_experiment, machine, plain
from export.files import write_json
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.pool import sample_pool
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.recipes import default_recipes
from fbnetv5.search.nars.results import pair_architecture
from fbnetv5.search.nars.trial import make_trial, train_trial
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import task_types

FILE = Path(__file__).parent / "nars_trainings.json"


def make_config(task: str) -> NarsConfig:
    """The search whose pool is trained."""
    return NarsConfig(
        task_name=task,
        recipes=default_recipes(task_types()[task]),
        budgets=(Budget(limit=5e6, unit="macs", resolution=(64, 64)),),
        space=StageSpace(width=0.25),
        data=DataConfig(size=(64, 64), scenes=(8000, 1000, 100)),
        training={"steps": 160, "batch": 16, "evaluate_every": 20, "warmup_steps": 16, "checkpoint_every": 100_000},
        pool=1024,
    )


@dataclass(frozen=True, slots=True)
class Work:
    """Trains a pair, whose choices are the trial's input, in a folder that is removed afterwards."""

    folder: Path
    config: NarsConfig

    def __call__(self, trial: Trial) -> dict[str, Any]:
        folder = self.folder / "folders" / trial.unit
        shutil.rmtree(folder, ignore_errors=True)
        pair = np.array(trial.inputs["pair"])
        prepared = prepared_once(self.config)
        make_trial(folder, pair_architecture(prepared, pair), self.config.train_config(prepared.pairs.recipe(pair)))
        result = train_trial(folder)
        shutil.rmtree(folder)
        return {
            "steps": result.steps,
            "scores": result.scores,
            "failure": result.failure,
            "seconds": round(result.seconds, 2),
        }


_PREPARED: dict[str, Prepared] = {}
"""By task: the inputs of the search, opened once per process."""


def prepared_once(config: NarsConfig) -> Prepared:
    """The opened inputs of a search."""
    if config.task_name not in _PREPARED:
        _PREPARED[config.task_name] = prepare(config)
    return _PREPARED[config.task_name]


def begin(folder: Path, config: NarsConfig) -> Experiment:
    """The experiment's folder, new or of the same settings; the demo scenes follow from the configuration."""
    return begin_experiment(
        folder, name="nars_trainings", configuration={"search": config.to_json()}, data="demo scenes", threads=1
    )


def run(folder: Path, task: str, numbers: range, processes: int) -> dict[str, Any]:
    """Train the pairs of the pool at ``numbers``; return the document of the data file."""
    config = make_config(task)
    prepared = prepared_once(config)
    pool = sample_pool(prepared.pairs, prepared.constraints(config.budgets), config.pool, config.seed)
    pairs = pool[numbers].tolist()
    trials = [
        Trial(arm="train", unit=f"{number:04d}", inputs={"pair": pair})
        for number, pair in zip(numbers, pairs, strict=True)
    ]
    results = begin(folder, config).run(trials, Work(folder, config), processes=processes, report=print_trial)
    return {
        "schema": 1,
        "kind": "nars trainings",
        **machine(1),
        "search": config.to_json(),
        "pairs": pairs,
        "trainings": [results[trial] for trial in trials],
    }


def print_trial(trial: Trial, result: dict[str, Any]) -> None:
    """Print a line for a finished training."""
    print(trial.unit, json.dumps(result), flush=True)


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for all trainings; resumed if it exists")
    parser.add_argument("--task", default="depth")
    parser.add_argument("--first", type=int, default=0, help="number of the first pair in the pool")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, of one thread each")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Train all pairs and write the data file."""
    arguments = parse(line)
    numbers = range(arguments.first, arguments.first + arguments.count)
    document = plain(run(arguments.output, arguments.task, numbers, arguments.processes))
    write_json(arguments.output / "trainings.json", document)
    seconds = [training["seconds"] for training in document["trainings"]]
    print(json.dumps({"benchmark": "nars_trainings", "trainings": len(seconds), "seconds": sum(seconds)}))


if __name__ == "__main__":
    main()
