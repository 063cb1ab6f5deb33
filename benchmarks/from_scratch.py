"""Are searched networks better when each is trained alone? A comparison with random and bad ones of the same cost.

The unit is the architecture. For one task there are three groups: S, from searches of several seeds; R, random; W,
the worst by the fit of each search's panel, or from files. R and W cost 93 to 99 % of the search's budget. Each network
is trained once from scratch, all under the same conditions (common random numbers): the same demo scenes in the same
order, no scene twice in a training, and the same initial weights in the blocks that networks share. The endpoint is the
mean loss of the averaged weights on 4000 test scenes; the task's metric on 1000 of them is reported beside it. Nothing
is inherited from a search.

Expected: S has a lower loss than R, and a much lower one than W. The report has the result, whatever it is, and the
number of networks per group that would settle a comparison that is not settled.

    python -m benchmarks.from_scratch runs/s0 runs/s1 runs/s2 --task det --output runs/from-scratch --judge runs/judge

Classifiers learn too little in 400 steps of their recipe to tell them apart: compare them with ``--task cls --steps
800 --lr 0.01 --max-fan-in 128``, the learning rates of a search.

A training takes some two minutes of one core; finished trainings are not repeated. Networks have all their channels:
with half of them the found ones cost a fifth more than the random ones (docs/lab-notes.md). Writes ``TASK/report.json``
in the output folder and ends in one JSON line.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import judge, stats
from benchmarks.architectures import (
    RANDOM_SEED,
    architecture_key,
    random_matched,
    scaled_fbnetv3,
    worst_by_fit,
)
from benchmarks.experiment import Trial, begin_experiment, compute_device, hash_images, in_turns, plain, trial_file
from benchmarks.stored_scenes import ResidentScenes, StoredScenes, store_scenes
from export.errors import UserError, VerificationError
from export.files import read_json_object, write_json
from fbnetv5.architecture import load_architecture
from fbnetv5.blocks.specs import initialise
from fbnetv5.costs.tables import CostTable, Counter
from fbnetv5.data.config import DataConfig
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.scenes import CLASSES
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.search.local import prune
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import default_tasks, make_tasks, task_types
from fbnetv5.tasks.task import Task
from fbnetv5.training.average import MovingAverage
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.cuda_graphs import Raw, record
from fbnetv5.training.optimizer import learning_rate, make_optimizer

SEARCHED, RANDOM, WORST, FBNETV3, OTHER_TASK = "S", "R", "W", "fbnetv3-a", "other task"
SCENES_SEED = 3000
"""Seed of a training's scenes, to which its seed is added: searches and the judge have other seeds."""
EVALUATION_BATCH = 125
METRIC_SCENES = 1000
"""The metric of detection takes longer than the network and the loss do."""
STEPS = 400

Groups = dict[str, dict[str, Choices]]
"""Group -> architecture key -> choices."""


def seeded_network(task: Task, space: Space, choices: Choices, seed: int) -> Network:
    """The network of [S] with weights that depend on the seed and each block's name alone."""
    with torch.random.fork_rng(devices=[]):
        network = task_network(task, space, choices)
        for name, block in network.backbone.blocks.items():
            torch.manual_seed(named_seed(seed, name))
            initialise(block)
        torch.manual_seed(named_seed(seed, "head"))
        network.heads[task.name] = task.build_head(network.backbone.graph.channels(task.name))
    return network.to(memory_format=torch.channels_last)


def named_seed(seed: int, name: str) -> int:
    """A seed of 63 bits from a seed and a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def train(network: Network, scenes: StoredScenes | ResidentScenes, config: TrainConfig) -> Network:
    """Train on the scenes in order, each once; returns the moving average of the weights, in eval mode.

    Raises:
        VerificationError: the gradient is not finite.
    """
    average = MovingAverage(network, decay=config.ema_decay)
    parameters: list[Tensor] = list(network.parameters())
    device = parameters[0].device
    optimizer = make_optimizer(config, parameters)
    network.train()
    forward: Raw = network.raw
    if device.type == "cuda":
        forward = record(network, normalise(scenes.batch(range(config.batch)).to(device).images))
    finite = torch.ones((), dtype=torch.bool, device=device)
    for step in range(config.steps):
        batch = scenes.batch(range(step * config.batch, (step + 1) * config.batch)).to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step) * group.get("lr_factor", 1.0)
        raw = forward(normalise(batch.images))[network.task.name]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(network.task.losses(raw, batch).mean())
        finite &= torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm).isfinite()
        optimizer.step()
        average.update(step + 1)
    if not finite:  # read once, so that a GPU does not wait for the CPU in every step
        raise VerificationError("a gradient is not finite")
    return average.network


@torch.no_grad()
def measure(network: Network, scenes: StoredScenes | ResidentScenes) -> tuple[float, float]:
    """(mean loss per image of all scenes, the task's metric on the first ``METRIC_SCENES``)."""
    total, metric, device = 0.0, network.task.new_metric(), next(network.parameters()).device
    for start in range(0, len(scenes), EVALUATION_BATCH):
        batch = scenes.batch(range(start, min(start + EVALUATION_BATCH, len(scenes)))).to(device)
        raw = network.raw(normalise(batch.images))[network.task.name]
        total += float(network.task.losses(raw, batch).double().sum())
        if start < METRIC_SCENES:
            network.task.measure(metric, raw, batch)
    return total / len(scenes), metric.compute()


@cache
def open_scenes(folder: Path) -> StoredScenes | ResidentScenes:
    """The folder's scenes, opened once in each process; a GPU keeps them in its memory."""
    device = compute_device()
    return StoredScenes(folder) if device.type == "cpu" else ResidentScenes(StoredScenes(folder), device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Trains and evaluates the network of a trial."""

    space: Space
    config: TrainConfig
    scenes: Path
    test: Path

    def __call__(self, trial: Trial) -> dict[str, Any]:
        choices = np.array(trial.inputs["choices"], dtype=np.int64)
        (task,) = make_tasks(self.config.tasks, CLASSES).values()
        network = seeded_network(task, self.space, choices, self.config.seed).to(compute_device())
        begin = time.perf_counter()
        average = train(network, open_scenes(self.scenes), self.config)
        seconds = time.perf_counter() - begin
        loss, metric = measure(average, open_scenes(self.test))
        return {"loss": loss, "metric": metric, "ms_per_step": 1e3 * seconds / self.config.steps}


def training_config(arguments: argparse.Namespace, size: Resolution) -> TrainConfig:
    """The task's recipe without augmentation, which is not needed if no image is repeated."""
    lr = {} if arguments.lr is None else {"lr": arguments.lr}
    return TrainConfig(
        task_names=(arguments.task,),
        data=DataConfig(size=size),
        init="scratch",
        seed=arguments.seed,
        steps=arguments.steps,
        batch=arguments.batch,
        warmup_steps=min(100, arguments.steps // 5),
        max_fan_in=arguments.max_fan_in,
        **{name: value for name, value in task_types()[arguments.task].training.items() if name == "lr"} | lr,
    )


def draw_groups(arguments: argparse.Namespace, config: SearchConfig, table: CostTable, counter: Counter) -> Groups:
    """The networks to train, by group.

    Raises:
        UserError: a file is of another space or task, or a group has fewer than two networks.
    """
    task, budget = arguments.task, config.budgets[arguments.task][0]
    groups = {
        SEARCHED: read_all([*(run / f"{task}.json" for run in arguments.runs), *arguments.found], task, config.space),
        RANDOM: random_matched(table, budget, arguments.count, seed=RANDOM_SEED),
        WORST: read_all(arguments.worst, task, config.space) or [worst_by_fit(run, task) for run in arguments.runs],
    }
    if arguments.fbnetv3:
        macs = counter.table(config.space, make_tasks((task,), CLASSES)[task], "macs")
        groups[FBNETV3] = [scaled_fbnetv3(macs, budget.limit)]
    if arguments.other_task:
        files = [run / f"{arguments.other_task}.json" for run in arguments.runs]
        groups[OTHER_TASK] = read_all(files, arguments.other_task, config.space)
    live = {name: prune(np.stack(group), table) for name, group in groups.items()}
    distinct = {name: {architecture_key(choices): choices for choices in group} for name, group in live.items()}
    for name in (SEARCHED, RANDOM, WORST):
        if len(distinct[name]) < 2:
            raise UserError(f"group {name} has {len(distinct[name])} network; name more runs or files, two at least")
    return distinct


def read_all(files: Sequence[Path], task: str, space: Space) -> list[Choices]:
    """The choices of architecture files.

    Raises:
        UserError: a file is of another task, space or classes.
    """
    architectures = [load_architecture(file) for file in files]
    for file, architecture in zip(files, architectures, strict=True):
        labels = make_tasks((task,), CLASSES)[task].labels
        if (architecture.task, architecture.space) != (task, space) or architecture.make_task().labels != labels:
            raise UserError(f"{file} is not a network for {task} of the runs' space on the demo scenes; leave it out")
    return [architecture.choices_array for architecture in architectures]


def compare(first: Sequence[float], second: Sequence[float], *, better: stats.Alternative) -> dict[str, Any]:
    """Compare two groups' values; ``better`` is the expected direction of the first group's difference.

    The effect size and figures derived from it are left out if all values of each group are equal.
    """
    p = stats.permutation_p(first, second)
    comparison = {
        "difference": asdict(stats.mean_difference(first, second)),
        "p_one_sided": stats.permutation_p(first, second, alternative=better),
        "p_two_sided": p,
        "settled": p < stats.ALPHA,
        "detectable_g": stats.detectable_effect(min(len(first), len(second))),
    }
    if len(set(first)) > 1 or len(set(second)) > 1:
        effect = stats.hedges_g(first, second)
        comparison |= {"hedges_g": asdict(effect), "networks_per_group_to_settle": stats.units_needed(effect.value)}
    return comparison


def predicted_losses(source: Path, task: str, keys: Sequence[str]) -> dict[str, float]:
    """The predicted loss of each architecture before its training, if there is one.

    Args:
        source: a judge's folder, or a JSON file of architecture keys and losses, such as a fit predicts.
        task: the judged task.
        keys: of the architectures.
    """
    if source.is_file():
        losses = read_json_object(source, what="predicted losses")
        return {key: float(losses[key]) for key in keys if key in losses}
    files = {key: trial_file(source, Trial(arm=task, unit=key)) for key in keys}
    return {
        key: float(np.mean(read_json_object(file, what="trial")["gave"]["losses"]))
        for key, file in files.items()
        if file.exists()
    }


def correlate(predicted: Mapping[str, float], losses: Mapping[str, float]) -> dict[str, Any]:
    """Rank correlation of predicted and measured losses over the architectures that have both."""
    both = sorted(set(predicted) & set(losses))
    if len(both) < 4:
        return {"networks": len(both)}
    correlation = stats.spearman([predicted[key] for key in both], [losses[key] for key in both])
    return {"networks": len(both), "spearman": asdict(correlation)}


def summarise(groups: Groups, results: Mapping[str, Mapping[str, float]], table: CostTable) -> dict[str, Any]:
    """The report's figures: every network, every group, and S against W and R."""
    networks = {
        name: [{"key": key, "cost": table.cost_of(choices), **results[key]} for key, choices in group.items()]
        for name, group in groups.items()
    }
    means = {
        name: {figure: float(np.mean([row[figure] for row in rows])) for figure in rows[0] if figure != "key"}
        | {"networks": len(rows)}
        for name, rows in networks.items()
    }

    def values(name: str, figure: str) -> list[float]:
        return [results[key][figure] for key in groups[name]]

    against = {
        other: {
            "loss": compare(values(SEARCHED, "loss"), values(other, "loss"), better="less"),
            "metric": compare(values(SEARCHED, "metric"), values(other, "metric"), better="greater"),
        }
        for other in (WORST, RANDOM)
    }
    return {"groups": means, "searched_against": against, "networks": networks}


def print_table(report: Mapping[str, Any]) -> None:
    """A line per group and comparison."""
    for name, row in report["groups"].items():
        print(
            f"{name:<10} {row['networks']:3d} networks, cost {row['cost']:.4g}, loss {row['loss']:.4f}, "
            f"metric {row['metric']:.4f}"
        )
    for name, figures in report["searched_against"].items():
        for figure, row in figures.items():
            print(f"S - {name}, {figure}: {interval(row['difference'])}, p {row['p_two_sided']:.4f}", end="")
            if "hedges_g" in row:
                needed = row["networks_per_group_to_settle"] or f"over {stats.MAX_UNITS}"
                print(f", g {interval(row['hedges_g'])}; networks per group to settle: {needed}", end="")
            print()


def interval(estimate: Mapping[str, float]) -> str:
    """E.g. "-0.0123 (-0.0201 to -0.0045)"."""
    return f"{estimate['value']:+.4f} ({estimate['low']:+.4f} to {estimate['high']:+.4f})"


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished searches with one budget")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings; resumed if it exists")
    parser.add_argument("--task", default="det", choices=default_tasks())
    parser.add_argument("--found", type=Path, nargs="*", default=[], help="more architecture files for S")
    parser.add_argument("--worst", type=Path, nargs="*", default=[], help="files for W; the worst by each fit if none")
    parser.add_argument("--fbnetv3", action="store_true", help="also train FBNetV3-A, scaled to the budget")
    parser.add_argument("--other-task", choices=default_tasks(), help="also train the networks found for this task")
    parser.add_argument("--judge", type=Path, help="folder of judge.py, or JSON file of predicted losses by key")
    parser.add_argument("--count", type=int, default=15, help="networks in R")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and scenes")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    add_training_options(parser)
    return parser.parse_args(line)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the trainings, which ``equal_latency.py`` has as well."""
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, help="learning rate; that of the task's recipe by default")
    parser.add_argument("--max-fan-in", type=int, help="inputs of a layer above which its learning rate is lower")
    parser.add_argument("--test", type=int, default=4000, help="test scenes")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")


def open_config(runs: Sequence[Path], task: str) -> SearchConfig:
    """The searches' configuration, whose images must be the demo scenes.

    Raises:
        UserError: the runs differ, have no such task, or were searched on other images.
    """
    config = judge.judge_config(runs, steps=0, images=1)
    if config.data.folder is not None:
        raise UserError(f"{runs[0]} was searched on {config.data.folder}; this benchmark trains on demo scenes alone")
    if task not in config.budgets:
        raise UserError(f"{runs[0]} has no task {task}; it has: {', '.join(config.tasks)}")
    return config


def compose_scenes(arguments: argparse.Namespace, size: Resolution) -> tuple[Path, Path]:
    """The folders of the scenes to train and to test on; tasks of one output folder share them."""
    seed = SCENES_SEED + arguments.seed
    counts = {"train": arguments.steps * arguments.batch, "test": arguments.test}
    train_folder, test_folder = (arguments.output / f"{split}-{count}-{seed}" for split, count in counts.items())
    store_scenes(train_folder, "train", size=size, count=counts["train"], seed=seed)
    store_scenes(test_folder, "test", size=size, count=counts["test"], seed=seed)
    return train_folder, test_folder


def train_all(arguments: argparse.Namespace, groups: Groups, space: Space, config: TrainConfig) -> dict[str, Any]:
    """Architecture key -> the result of its training."""
    scenes, test = compose_scenes(arguments, config.data.size)
    experiment = begin_experiment(
        arguments.output / arguments.task,
        name="from_scratch",
        configuration={"space": space.to_json(), "recipe": config.to_json()},
        data=hash_images(StoredScenes(scenes), StoredScenes(test)),
        threads=arguments.threads,
    )
    trials = [[judge.trial_of(arguments.task, choices) for choices in group.values()] for group in groups.values()]
    work = Training(space=space, config=config, scenes=scenes, test=test)
    finished = experiment.run(in_turns(*trials), work, processes=arguments.processes, report=print_trial)
    return {trial.unit: result for trial, result in finished.items()}


def main(line: Sequence[str] | None = None) -> None:
    """Train, print a table and one JSON line."""
    arguments = parse(line)
    search = open_config(arguments.runs, arguments.task)
    constraints = prepare(search).constraints[arguments.task]
    table, counter = constraints.tables[0], Counter(constraints.budgets[0].resolution)
    groups = draw_groups(arguments, search, table, counter)
    results = train_all(arguments, groups, search.space, training_config(arguments, search.data.size))
    report = {"benchmark": "from_scratch", "task": arguments.task, "steps": arguments.steps, "seed": arguments.seed}
    report |= summarise(groups, results, table)
    if arguments.judge:
        predicted = predicted_losses(arguments.judge, arguments.task, list(results))
        report["predicted"] = correlate(predicted, {key: result["loss"] for key, result in results.items()})
    print_table(report)
    write_json(arguments.output / arguments.task / "report.json", plain(report))
    print(json.dumps(plain(report)))


def print_trial(trial: Trial, result: Mapping[str, float]) -> None:
    """Print a line for a finished training."""
    figures = f"loss {result['loss']:.4f} metric {result['metric']:.4f} at {result['ms_per_step']:.0f} ms a step"
    print(trial.arm, trial.unit, figures, flush=True)


if __name__ == "__main__":
    main()
