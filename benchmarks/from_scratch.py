"""Are the searched networks better when each is trained alone? Theirs against others of the same budget, same recipe.

For each task: the searched network, five random ones whose cost lies in the same window (85 to 100 % of the budget),
and FBNetV3-A with the task's head, scaled to the budget by leaving out one of its repeats. Every one is trained from
scratch on the demo scenes by `fbnetv5 train --init scratch` with the task's recipe, once per seed, and measured on the
test scenes. Nothing is inherited from the search, so this judges the architectures alone.

Expected: the searched network's mean score is above the median of the random ones for every task. The table says what
came out, whatever it is.

    python -m benchmarks.from_scratch runs/latest --output runs/from-scratch

A training of 300 steps takes some three minutes of one core; what the output holds already is not done again, and a
training that was cut off goes on. Prints a table and ends in one JSON line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.against_random import random_architectures
from export.errors import UserError
from export.files import read_json_object, write_json
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.blocks import InvertedResidual
from fbnetv5.cost import CostTable, Counter, Resolution
from fbnetv5.search.config import SearchConfig
from fbnetv5.search.run import prepare
from fbnetv5.space import SKIP, Choices, Space

RANDOM = 5
RESULT = "result.json"
RECIPE = "recipe.json"

Cell = tuple[int, str, str]
"""(seed, task, contestant)."""


def contestants(run: Path, config: SearchConfig) -> dict[str, dict[str, Architecture]]:
    """Task -> name -> architecture, the searched one first."""
    if config.space.variant != "a":
        raise UserError(f"{run} searched variant {config.space.variant}; the networks are held against FBNetV3-A")
    drawn = random_architectures(config, prepare(config), RANDOM)
    found: dict[str, dict[str, Architecture]] = {}
    for task, budget in config.budgets.items():
        if budget.unit != "macs":
            raise UserError(f"{run} has a budget in {budget.unit}; scaling FBNetV3-A to it needs one in multiply-adds")
        searched = load_architecture(run / f"{task}.json")
        macs = Counter(searched.resolution).table(config.space, searched.make_task(), "macs")
        found[task] = {"searched": searched, "fbnetv3-a": with_choices(searched, scaled_fbnetv3(macs, budget.limit))}
        found[task] |= {f"random-{n}": with_choices(searched, choices) for n, choices in enumerate(drawn[task], 1)}
    return found


def scaled_fbnetv3(macs: CostTable, limit: float) -> Choices:
    """[S]: stage 0 in full and nothing else, less the one repeat that brings it nearest below ``limit``."""
    full = stage_zero(macs.space)
    shorter = [np.where(np.arange(len(full)) == slot, SKIP, full) for slot in np.nonzero(full)[0]]
    fitting = [choices for choices in (full, *shorter) if macs.one(choices) <= limit]
    if not fitting:
        raise UserError(
            f"FBNetV3 less one repeat still costs more than {limit / 1e6:.0f}M; search with a larger budget"
        )
    return max(fitting, key=macs.one)


def stage_zero(space: Space) -> Choices:
    """[S]: every repeat of stage 0, no later block and no fusion."""
    kept = [node.stage == 0 and isinstance(node.candidates[0], InvertedResidual) for node in space.slots]
    return np.array(kept, dtype=np.int64)


def with_choices(like: Architecture, choices: Choices) -> Architecture:
    """Another architecture of the same space, task and resolution."""
    counter, task = Counter(like.resolution), like.make_task()
    macs, params = (int(counter.table(like.space, task, unit).one(choices)) for unit in ("macs", "params"))
    chosen = tuple(int(choice) for choice in choices)
    return replace(like, choices=chosen, macs=macs, params=params, latency_ms=None, provenance={})


def train(cell: Cell, output: Path, size: Resolution, threads: int) -> float:
    """The task's metric on the test scenes after one training, run now or before."""
    seed, task, name = cell
    folder = output / f"seed-{seed}" / task / name
    result = folder / RESULT
    if not result.exists():
        start = ["--resume", str(folder)]
        if not (folder / "training.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # cut off before there was anything to go on from
            start = ["--task", task, "--arch", str(output / task / f"{name}.json"), "--init", "scratch"]
            start += ["--size", f"{size[0]}x{size[1]}", "--seed", str(seed)]
            start += ["--config", str(output / task / RECIPE), "--output", str(folder)]
        command = [sys.executable, "-m", "fbnetv5", "train", "--json", *start]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, capture_output=True, env=environment, text=True)
        if done.returncode:
            raise UserError(f"training {folder} ended with code {done.returncode}: {done.stderr.strip()[-400:]}")
        write_json(result, json.loads(done.stdout))
    return float(read_json_object(result, what="training result")["test"]["metric"]["value"])


def summarise(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How the searched network stands among the others, from everyone's score per seed."""
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    others = [mean for name, mean in means.items() if name.startswith("random")]
    return {
        "searched": means["searched"],
        "fbnetv3_a": means["fbnetv3-a"],
        "random_median": float(np.median(others)),
        "random_best": max(others),
        "random_beaten": sum(means["searched"] > other for other in others),
        "between_seeds_sd": float(np.sqrt(np.mean([np.var(values, ddof=1) for values in scores.values()]))),
    }


def main() -> None:
    """Train, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished search")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings; they go on if it exists")
    parser.add_argument("--tasks", help="comma-separated; all if not given")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time; they share the cores")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    config = SearchConfig.load(arguments.run / "config.json")
    found = contestants(arguments.run, config)
    if arguments.tasks:
        found = {task: found[task] for task in arguments.tasks.split(",")}
    recipe = {"steps": arguments.steps, "evaluate_every": arguments.steps}
    for task, entrants in found.items():
        known = arguments.output / task / RECIPE
        if known.exists() and read_json_object(known, what="recipe") != recipe:
            parser.error(f"{arguments.output} holds trainings for {task} of other steps; choose another --output")
        write_json(known, recipe)
        for name, architecture in entrants.items():
            file = arguments.output / task / f"{name}.json"
            if file.exists() and load_architecture(file).choices != architecture.choices:
                parser.error(f"{file} is another network than this run's; choose another --output")
            architecture.save(file)
    cells = [(seed, task, name) for seed in range(arguments.seeds) for task in found for name in found[task]]
    metrics = {task: next(iter(entrants.values())).make_task().metric_name for task, entrants in found.items()}
    threads = max(1, (os.cpu_count() or 1) // arguments.processes)

    def scored(cell: Cell) -> float:
        score = train(cell, arguments.output, config.size, threads)
        print(*cell, f"{score:.4f}", f"{(time.perf_counter() - begin) / 60:.1f} min", flush=True)
        return score

    with ThreadPoolExecutor(arguments.processes) as pool:
        scores = dict(zip(cells, pool.map(scored, cells), strict=True))
    results = {}
    for task, entrants in found.items():
        of_task = {name: [scores[seed, task, name] for seed in range(arguments.seeds)] for name in entrants}
        for name, architecture in entrants.items():
            row = "  ".join(f"{score:.4f}" for score in of_task[name])
            print(f"{task} {name:<10} {architecture.macs / 1e6:6.1f}M {architecture.params / 1e6:5.2f}M  {row}")
        results[task] = {"metric": metrics[task], **summarise(of_task), "scores": of_task}
    about = {"seeds": arguments.seeds, "steps": arguments.steps, "minutes": (time.perf_counter() - begin) / 60}
    print(json.dumps({"benchmark": "from_scratch", **about, "results": results}))


if __name__ == "__main__":
    main()
