"""Is the network of a task that was added to finished searches better than random ones of its budget?

``fbnetv5 search --add`` trains a head on a search's frozen trunk and finds a network for it. Here the supernets of a
judge (``judge.py``), which no search trained, get a head for the same task in the same way, each on its own frozen
trunk. By these weights, batch norm recalibrated for each network, the found networks and random ones of 93 to 99 % of
the budget are compared on the same test images.

Expected: every found network's loss is lower than that of 90 % of the random ones, and adding the task changed no file
of a search.

    fbnetv5 search --add depth --run runs/s0
    python -m benchmarks.judge runs/s0 --output runs/judge
    python -m benchmarks.added_task runs/s0 --task depth --judge runs/judge --output runs/judge-depth

A head takes some two minutes of one core, and a network some two seconds of one in each supernet; finished work is not
repeated. Writes ``report.json`` and ends in one JSON line.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.experiment import NAME, begin_experiment, plain, threads_set
from benchmarks.judge import (
    CONTROL,
    PLANTED,
    RANDOM,
    Scoring,
    count_cases,
    draw_groups,
    measure,
    print_table,
    summarise,
    supernet_folders,
)
from export.errors import UserError
from export.files import read_json_object, write_json
from fbnetv5.runs.checkpoint import load_checkpoint, save_checkpoint
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.later.loop import LaterEntry, LaterLoop
from fbnetv5.search.reinforce.later.prepare import prepare_on_trunk
from fbnetv5.search.reinforce.prepare import prepare


def added_config(runs: Sequence[Path], judge: SearchConfig) -> LaterConfig:
    """The configuration of the added task, with the images of the judge.

    Raises:
        UserError: the task was added with different settings, or the judge's supernets have other blocks.
    """
    first, *others = [LaterConfig.load(run) for run in runs]
    for run, other in zip(runs[1:], others, strict=True):
        for name in ("space", "budgets", "data", "steps"):
            if getattr(other, name) != getattr(first, name):
                raise UserError(f"the task was added to {run} with another {name} than to {runs[0]}; judge them apart")
    if first.space != judge.space:
        raise UserError(f"{runs[0]} was searched in another space than the judge's")
    return first.changed(data=judge.data)


def trained_trunks(folder: Path, judge: SearchConfig, supernets: int) -> list[Path]:
    """The folders of the judge's supernets.

    Raises:
        UserError: there are fewer than ``supernets``, or one of them has not been trained to the end.
    """
    trunks = supernet_folders(folder)
    checkpoints = [load_checkpoint(trunk / CHECKPOINT) for trunk in trunks]
    finished = [stored is not None and int(stored[1]["step"]) == judge.total_steps for stored in checkpoints]
    if not all(finished) or len(trunks) < supernets:
        raise UserError(f"{sum(finished)} of the {supernets} supernets in {folder} are trained; finish the judge first")
    return trunks


def train_head(config: LaterConfig, trunk: Path, folder: Path) -> None:
    """Train a head for the task on the trunk of a judge's supernet, and store both as a supernet with that task.

    Args:
        config: of the added task, with the seed of the supernet.
        trunk: folder of the supernet.
        folder: of the heads and the supernets with them.
    """
    target = folder / "supernets" / trunk.name / CHECKPOINT
    if load_checkpoint(target) is not None:
        return
    stored = load_checkpoint(trunk / CHECKPOINT)
    assert stored is not None
    tensors, state = stored
    torch.manual_seed(config.seed)
    prepared = prepare_on_trunk(config, tensors, trunk / CHECKPOINT / f"step-{state['step']}.safetensors")
    supernet = prepared.make_supernet()

    def report(entry: LaterEntry) -> None:
        if entry.step % 100 == 0:
            losses = {name: round(loss, 4) for name, loss in entry.losses.items()}
            print(f"head of supernet {config.seed}, step {entry.step}:", losses, flush=True)

    LaterLoop(folder / "heads" / trunk.name, prepared, supernet).run(report)
    weights = {f"weights/{name}": value for name, value in supernet.state_dict().items()}
    save_checkpoint(target, config.steps, weights, {})


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished searches that the task was added to")
    parser.add_argument("--task", default="depth", help="the task that was added")
    parser.add_argument("--judge", type=Path, required=True, help="folder of judge.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; resumed if it exists")
    parser.add_argument("--count", type=int, default=64, help="random networks")
    parser.add_argument("--processes", type=int, default=2, help="networks measured at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Train the heads, measure, print a table and one JSON line."""
    arguments = parse(line)
    runs = [run / "added" / arguments.task for run in arguments.runs]
    judge, judging = SearchConfig.load(arguments.judge), read_json_object(arguments.judge / NAME, what="experiment")
    config = added_config(runs, judge)
    experiment = begin_experiment(
        arguments.output,
        name="added_task",
        configuration={**config.as_search().to_json(), "judge": judging},
        data=judging["data"],
        threads=arguments.threads,
    )
    config.as_search().save(arguments.output)
    prepared = prepare(config.as_search())
    ((name, constraints),) = prepared.constraints.items()
    table, budget = constraints.tables[0], constraints.budgets[0]
    groups = draw_groups(name, table, budget, runs, {RANDOM: arguments.count, CONTROL: 0, PLANTED: 0})
    with threads_set(arguments.threads * arguments.processes):
        for trunk in trained_trunks(arguments.judge, judge, judging["supernets"]):
            train_head(config.changed(seed=int(trunk.name)), trunk, arguments.output)
    measured = measure(experiment, Scoring(folder=arguments.output), {name: groups}, {name: table}, arguments.processes)
    tasks = {name: summarise(measured[name], budget, runs, prepared.tasks[name].metric)}
    print_table(tasks, {name: budget})
    report = {"benchmark": "added_task", "steps": config.steps, **count_cases(tasks), "tasks": tasks}
    write_json(arguments.output / "report.json", plain(report))
    print(json.dumps(plain(report)))


if __name__ == "__main__":
    main()
