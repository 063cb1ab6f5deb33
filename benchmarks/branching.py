"""Which tree of tasks is best within a budget? Searches, peers and ablations, each tree trained alone.

Five tasks on the demo scenes, one of which is planted to contradict the others (``benchmarks/branching_world.py``), an
FBNetV3-A of half the width, one budget. Per seed: networks of single tasks, all tasks sharing every layer, random trees
of the same cost, branching by representation similarity, both routings of ``fbnetv5 branch`` for about the same time,
the soft routing with the resource loss of the released code, and ablations. All trees of a seed are trained from the
same weights, on the same images in the same order. Delta_m is the mean relative gain of the metrics over the networks
of single tasks, without the planted task.

    python -m benchmarks.branching --output runs/branching --seeds 0 1

Expected: found trees are better than random ones, and part the planted task from the others. The report has the
result, whatever it is. Finished work is not repeated. Estimated for two cores with nothing else running: one hour.
Writes ``report.json`` and ends in one JSON line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import stats
from benchmarks.branching_trees import SEARCHES, costs_of, random_tree, rsa_tree, search
from benchmarks.branching_world import (
    PLANTED,
    SIZE,
    TASKS,
    Plan,
    pretrain,
    pretrained,
    scenes,
    space_of,
    train_tree,
    tree_network,
)
from benchmarks.experiment import Experiment, Trial, begin_experiment, hash_images, machine, plain
from export.files import write_json
from fbnetv5.costs.counting import count
from fbnetv5.data.sample import Sample
from fbnetv5.data.targets import Target
from fbnetv5.evaluate import delta_m
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_tensors, load_weights, save_tensors
from fbnetv5.search.bmtas.trees import Groups
from fbnetv5.tasks import task_types
from latency.backends import open_backend
from latency.profile import Network as TimedNetwork
from latency.profile import measure_networks
from latency.protocol import Timing

RANDOM_TREES = 2
REAL_TASKS = tuple(task for task in TASKS if task != PLANTED)


@dataclass(frozen=True, slots=True)
class Work:
    """Runs a trial: "pretrain", "single TASK", "search METHOD" or "train METHOD", of the seed that is its unit."""

    plan: Plan

    def __call__(self, trial: Trial) -> dict[str, Any]:
        kind, _, name = trial.arm.partition(" ")
        seed = int(trial.unit)
        if kind == "pretrain":
            return pretrain(self.plan, seed)
        weights = pretrained(self.plan, seed)
        if kind == "search":
            return search(self.plan, self.plan.folder / "searches" / f"{name}-{seed}", seed, weights, name)
        if kind == "single":
            groups: Sequence[Groups] = [(0,)] * len(space_of((name,)).layers)
            network, result = train_tree(self.plan, (name,), groups, seed, weights)
            save_tensors(single_file(self.plan, name, seed), network.state_dict())
            return result
        _, result = train_tree(self.plan, TASKS, [tuple(row) for row in trial.inputs["groups"]], seed, weights)
        return result


def single_file(plan: Plan, task: str, seed: int) -> Path:
    """The weights of the network of one task."""
    return plan.folder / f"single-{task}-{seed}.safetensors"


def run_all(plan: Plan, seeds: Sequence[int], searches: Sequence[str], processes: int) -> list[dict[str, Any]]:
    """A row per seed and method: its tree, cost, metrics and losses, and those of the networks of single tasks."""
    experiment = begin(plan, seeds)
    work = Work(plan)

    def run(trials: Sequence[Trial]) -> dict[Trial, dict[str, Any]]:
        return experiment.run(trials, work, processes=processes, report=print_trial)

    run([Trial(arm="pretrain", unit=str(seed)) for seed in seeds])
    costs, _ = costs_of(plan)
    layers, tasks = costs.needed.shape
    shared = {"groups": [[0] * tasks] * layers, "cost": costs.all_shared}
    trees = {(seed, "shared"): shared for seed in seeds}
    for number in range(RANDOM_TREES):
        trees |= {(seed, f"random {number}"): random_tree(plan, 100 * seed + number) for seed in seeds}
    first = [Trial(arm=f"search {name}", unit=str(seed)) for name in searches for seed in seeds]
    first += [Trial(arm=f"single {task}", unit=str(seed)) for task in TASKS for seed in seeds]
    first += [training(method, seed, tree) for (seed, method), tree in trees.items()]
    done = run(first)
    for seed in seeds:
        trees |= {(seed, name): done[Trial(arm=f"search {name}", unit=str(seed))] for name in searches}
        trees[seed, "rsa"] = rsa_tree(plan, single_networks(plan, seed), seed)
    done |= run([training(method, seed, tree) for (seed, method), tree in trees.items()])
    rows = []
    for (seed, method), tree in trees.items():
        single = {task: done[Trial(arm=f"single {task}", unit=str(seed))] for task in TASKS}
        rows.append(row(method, seed, tree, done[Trial(arm=f"train {method}", unit=str(seed))], single))
    return rows


def begin(plan: Plan, seeds: Sequence[int]) -> Experiment:
    """The experiment's folder, new or of the same settings; its data are represented by 100 scenes."""
    settings = {name: value for name, value in asdict(plan).items() if name not in ("folder", "threads")}
    images = scenes("test", seeds[0])
    sample = _Listed([images[index] for index in range(100)], images.targets)
    return begin_experiment(
        plan.folder,
        name="branching",
        configuration={"plan": settings},
        data=hash_images(sample),
        threads=plan.threads,
    )


@dataclass(frozen=True, slots=True)
class _Listed:
    """Samples as a set of images, for their hash."""

    samples: Sequence[Sample]
    targets: Mapping[str, Target]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def training(method: str, seed: int, tree: Mapping[str, Any]) -> Trial:
    """The trial that trains a tree."""
    return Trial(arm=f"train {method}", unit=str(seed), inputs={"groups": tree["groups"]})


def single_networks(plan: Plan, seed: int) -> dict[str, Network]:
    """The trained networks of the single tasks, in eval mode."""
    networks = {}
    for task in TASKS:
        network = tree_network((task,), [(0,)] * len(space_of((task,)).layers), seed, None)
        file = single_file(plan, task, seed)
        load_weights(network, load_tensors(file), file)
        networks[task] = network.eval()
    return networks


def row(
    method: str, seed: int, tree: Mapping[str, Any], result: Mapping[str, Any], single: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The figures of one tree of one seed."""
    types = task_types()
    values = {task: result["metrics"][task] for task in REAL_TASKS}
    baselines = {task: single[task]["metrics"][task] for task in REAL_TASKS}
    losses = [1 - result["losses"][task] / single[task]["losses"][task] for task in REAL_TASKS]
    return {
        "method": method,
        "seed": seed,
        "groups": tree["groups"],
        "macs": tree["cost"],
        "delta_m": delta_m(values, baselines, {task: types[task].metric for task in REAL_TASKS}) / 100,
        "delta_loss": float(np.mean(losses)),
        "planted_alone_from": first_alone(tree["groups"], TASKS.index(PLANTED)),
        "metrics": result["metrics"],
        "single": baselines,
        "entropy": tree.get("entropy"),
    }


def first_alone(groups: Sequence[Groups], task: int) -> int:
    """The first layer that the task shares with no other; the number of layers if there is none."""
    alone = (layer for layer, row in enumerate(groups) if list(row).count(row[task]) == 1)
    return next(alone, len(groups))


def add_latencies(rows: Sequence[dict[str, Any]]) -> None:
    """Measure every tree's network on one thread of the CPU, all beside each other; add ``latency_ms`` to each row."""
    names = [" ".join(map(str, np.ravel(row["groups"]))) for row in rows]
    networks = [timed_network(name, row["groups"]) for name, row in zip(names, rows, strict=True)]
    singles = [timed_network(task, [(0,)] * len(rows[0]["groups"]), (task,)) for task in TASKS]
    measured = measure_networks([*networks, *singles], backend=open_backend("cpu"), timing=Timing())
    five = sum(measured[task].measurement.latency_ms_median for task in TASKS)
    for name, of_row in zip(names, rows, strict=True):
        of_row |= {"latency_ms": measured[name].measurement.latency_ms_median, "five_networks_ms": five}


def timed_network(key: str, groups: Sequence[Groups], tasks: Sequence[str] = TASKS) -> TimedNetwork:
    """A tree's network with random weights, for its latency: different in every branch, or ONNX Runtime merges them."""

    def build() -> Network:
        network = tree_network(tasks, groups, 0, None).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        return network

    return TimedNetwork(
        key=key,
        build=build,
        input_shapes=((3, *SIZE),),
        output_names=tuple(f"{name}_{output}" for name in tasks for output in task_types()[name].output_names),
        task="+".join(tasks),
        blocks={},
        macs=count(build, ((3, *SIZE),)).macs,
    )


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds by method; with two seeds or more, every method against the random trees of the same seeds."""
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for of_row in rows:
        methods.setdefault("random" if of_row["method"].startswith("random") else of_row["method"], []).append(of_row)
    figures = ("delta_m", "delta_loss", "macs", "latency_ms", "planted_alone_from")
    seeds = {of_row["seed"] for of_row in rows}
    means: dict[str, dict[str, Any]] = {
        method: {figure: float(np.mean([row[figure] for row in of_method])) for figure in figures}
        | {"delta_m_by_seed": [row["delta_m"] for row in of_method], "trees": len(of_method)}
        for method, of_method in methods.items()
    }
    against = {
        method: asdict(
            stats.mean_difference(*[[row["delta_m"] for row in methods[name]] for name in (method, "random")])
        )
        for method in methods
        if method != "random" and len(seeds) > 1
    }
    return {"methods": means, "delta_m_less_that_of_random_trees": against}


def print_table(report: Mapping[str, Any]) -> None:
    """A line per method."""
    for method, of_method in sorted(report["methods"].items(), key=lambda item: -item[1]["delta_m"]):
        by_seed = " ".join(f"{100 * value:+.1f}" for value in of_method["delta_m_by_seed"])
        print(
            f"{method:<18} Delta_m {100 * of_method['delta_m']:+6.2f} % ({by_seed}), by loss "
            f"{100 * of_method['delta_loss']:+6.2f} %, {of_method['macs'] / 1e6:.1f}M multiply-adds, "
            f"{of_method['latency_ms']:.2f} ms, planted task alone from layer {of_method['planted_alone_from']:.1f}"
        )


def print_trial(trial: Trial, result: Mapping[str, Any]) -> None:
    """Print a line for a finished trial."""
    shown = {name: value for name, value in result.items() if name in ("metrics", "cost", "entropy", "seconds")}
    print(trial.arm, trial.unit, json.dumps(shown or dict(result)), flush=True)


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for all trials; resumed if it exists")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--searches", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--pretraining-steps", type=int, default=2500)
    parser.add_argument("--training-steps", type=int, default=300)
    parser.add_argument("--soft-steps", type=int, default=100, help="of the searches with the soft routing")
    parser.add_argument("--sampled-steps", type=int, default=400, help="of the searches with the sampled routing")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--budget-share", type=float, default=0.4, help="0: all tasks share; 1: none does")
    parser.add_argument("--processes", type=int, default=2, help="trials at a time, of one thread each")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Run all trials, print a table and one JSON line."""
    arguments = vars(parse(line))
    folder, seeds, searches, processes = (arguments.pop(name) for name in ("output", "seeds", "searches", "processes"))
    rows = run_all(Plan(folder=folder, **arguments), seeds, searches, processes)
    add_latencies(rows)
    report = plain(
        {"benchmark": "branching", "seeds": seeds, **arguments, **machine(1), **summarise(rows), "rows": rows}
    )
    write_json(folder / "report.json", report)
    print_table(report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
