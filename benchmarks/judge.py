"""An independent judge of finished searches: compares their networks with random ones, by weights of its own.

The weights of a search were trained under its own policies and favour its networks. The judge trains
supernets of its own, from other seeds and without policies: half of the steps under architectures of random depth, half
under random ones of each task's budget. With these weights, batch norm recalibrated for each network, it evaluates per
task the searched networks and 64 random ones of the window 93 to 99 % of the budget, on the same images: every
image's loss and the task's metric, both averaged over the supernets.

One supernet is not enough: it ranks networks by what its own training made of their blocks. The report has the mean
rank correlation of the random networks' losses between two supernets; their average is as much more reliable as the
Spearman-Brown formula says.

Controls show whether the judge is reliable. It must rank networks that are bad on purpose below the median of the
random ones at p < .01: those planted by a plan, and those of the highest loss that the fit of each search predicts. It
must find no difference (Kolmogorov-Smirnov) between random networks and those of another seed, or those that are found
by the fit to the panel of each search with shuffled losses, which are random ones if the fit shows no effects.

Test scenes show products and photographs that no weights have learned from, and only five photographs. With ``--scenes
fresh`` the images are as many new scenes of the products and photographs that the weights learned from, which no search
has seen either: then the networks are judged on images of one kind, and not by what they make of five other
photographs. ``--scenes both`` judges on all of them together: what a network gains on one kind alone counts half.

Long trainings on the few scenes of a search learn these by heart, and rank classifiers by how sure they are of their
errors. ``--steps 3000 --learn 96000`` trains the supernets without a repeated scene.

Expected: every searched network's loss is better than that of 90 % of the random ones.

    python -m benchmarks.judge runs/s0 runs/s1 --output runs/judge
    python -m benchmarks.judge runs/s0 runs/s1 --output runs/judge --scenes both

A network's loss with shared weights is not its loss when it is trained alone; from_scratch.py measures that. A
training takes some six minutes of one core, and a network some three seconds of one in each supernet; finished work is
not repeated.
Writes ``report.json``, in the folder ``fresh`` or ``both`` unless it judges on test scenes alone, and ends in one JSON
line.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import stats
from benchmarks.architectures import (
    CONTROL_SEED,
    PLANTED_SEED,
    RANDOM_SEED,
    architecture_key,
    best_by_shuffled_fit,
    density,
    planted_bad,
    random_matched,
    worst_by_fit,
)
from benchmarks.experiment import (
    Experiment,
    Trial,
    begin_experiment,
    compute_device,
    hash_images,
    in_turns,
    plain,
    threads_set,
)
from export.errors import UserError
from export.files import write_json
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget, format_cost
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.splits import Splits, Subset
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import by_group, load_checkpoint, load_weights
from fbnetv5.search.local import prune
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.controller import draw, uniform_controller
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.loop import SearchLoop, warmup_architecture
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.search.scoring import calibration_images
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.spaces.variants import widen_choices
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks.task import MetricInfo, Task

SEED = 1000
"""Seed of the weights of the judge's first supernet; those of the others follow. Searches have small seeds."""
TRAINING_BATCH = 32
"""Images of a step of its trainings, whatever the searches had."""
BATCH = 128
CONTROL_ALPHA = 0.01
FOUND, RANDOM, CONTROL, PLANTED = "found", "random", "control", "planted"
WORST, SHUFFLED = "worst by fit", "best by shuffled fit"
TEST, FRESH, BOTH = "test", "fresh", "both"

Groups = dict[str, list[Choices]]
"""Group -> networks of one task; those of ``FOUND`` are in the order of the runs."""


def kinds_of(scenes: str) -> tuple[str, ...]:
    """The kinds of scenes that a choice of ``--scenes`` names."""
    return (TEST, FRESH) if scenes == BOTH else (scenes,)


def folder_of(output: Path, scenes: str) -> Path:
    """The folder of the trials or the report of ``--scenes``: the output folder itself for test scenes."""
    return output if scenes == TEST else output / scenes


class JudgeLoop(SearchLoop):
    """A warm-up to the end: every other step under an architecture of random depth, the others at a task's budget."""

    @cached_property
    def densities(self) -> list[NDArray[np.float64]]:
        """Per task [S, C]: the probabilities of choices that meet its budget."""
        untrained = uniform_controller(self.supernet.space, 1)
        return [density(untrained, own.tables[0], own.budgets[0]) for own in self.constraints.values()]

    def step(self) -> None:
        rng = np.random.default_rng([self.config.seed, self.done])
        turn, odd = divmod(self.done, 2)
        if odd:
            probabilities = self.densities[turn % len(self.densities)]
            choices = draw(probabilities, 1, rng)[0]
        else:
            choices = warmup_architecture(self.supernet.space, rng)
        self.train_weights(next(self.weight_batches), choices, np.ones(len(self.config.tasks)))


def train_judge(config: SearchConfig, folder: Path) -> None:
    """Train a supernet of the judge into the folder's checkpoint, or resume the training."""
    torch.manual_seed(config.seed)
    prepared = prepare(config)
    supernet = Supernet(config.space, prepared.tasks)

    def report(entry: SearchEntry) -> None:
        if entry.step % 100 == 0:
            losses = {name: round(loss, 4) for name, loss in entry.losses.items()}
            print(f"supernet {config.seed}, step {entry.step}:", losses, flush=True)

    JudgeLoop(config, folder, supernet, prepared.splits, prepared.constraints).run(report)


def judged_images(config: SearchConfig, splits: Splits, *, fresh: bool) -> ImageSet:
    """The test scenes; if ``fresh``, as many of the weights' split that come after all scenes of the searches.

    Raises:
        UserError: fresh scenes are asked for, and the images are no scenes.
    """
    if not fresh:
        return splits.test
    if config.data.folder is not None:
        raise UserError(f"--scenes {FRESH} composes demo scenes, and the searches used images in {config.data.folder}")
    learn, hold_out, images = config.data.scenes
    longer = config.data.changed(scenes=(learn, hold_out + images, images))
    held_out = prepare(config.changed(data=longer)).splits.policies
    return Subset(held_out, range(hold_out, hold_out + images))


class Judge:
    """The trained weights of all supernets, and the images that networks are judged on."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        """Load the checkpoints of ``train_judge``.

        Args:
            folder: of the judge.
            fresh: whether the images are fresh scenes.

        Raises:
            UserError: a supernet is not trained.
        """
        config = SearchConfig.load(folder)
        prepared = prepare(config)
        self.supernets = [load_supernet(config, prepared.tasks, each) for each in supernet_folders(folder)]
        self.device = compute_device()
        self.calibration = calibration_images(prepared.splits.weights, self.device)
        images = judged_images(config, prepared.splits, fresh=fresh)
        self.images = [batch.to(self.device) for batch in in_order(images, batch=BATCH, limit=config.data.scenes[2])]

    def score(self, task: str, choices: Choices) -> dict[str, Any]:
        """The figures of one architecture [S], averaged over the supernets.

        Returns:
            "losses" of each labelled image, the task's "metric", and "of_supernets", the mean loss in each.
        """
        losses, metrics = zip(*(self._score(supernet, task, choices) for supernet in self.supernets), strict=True)
        return {
            "losses": np.mean(losses, axis=0).round(6).tolist(),
            "metric": float(np.mean(metrics)),
            "of_supernets": [round(float(of_one.mean()), 6) for of_one in losses],
        }

    @torch.no_grad()
    def _score(self, supernet: Supernet, task: str, choices: Choices) -> tuple[NDArray[np.float64], float]:
        """The loss of each labelled image and the task's metric."""
        network = supernet.derive(task, choices).to(self.device).to(memory_format=torch.channels_last)
        recalibrate(network, self.calibration, network)
        losses, metric = [], network.task.new_metric()
        for batch in self.images:
            raw = network.raw(normalise(batch.images))[network.task.name]
            losses.append(network.task.losses(raw, batch)[network.task.labelled(batch)])
            network.task.measure(metric, raw, batch)
        return torch.cat(losses).double().cpu().numpy(), metric.compute()


def supernet_folders(folder: Path) -> list[Path]:
    """The folders of a judge's supernets, by seed."""
    return sorted((folder / "supernets").iterdir(), key=lambda each: int(each.name))


def load_supernet(config: SearchConfig, tasks: Mapping[str, Task], folder: Path) -> Supernet:
    """A supernet with the weights of the folder's checkpoint.

    Raises:
        UserError: there is no checkpoint.
    """
    checkpoint = load_checkpoint(folder / "checkpoint")
    if checkpoint is None:
        raise UserError(f"{folder} has no checkpoint: this supernet of the judge is not trained")
    supernet = Supernet(config.space, tasks)
    load_weights(supernet, by_group(checkpoint[0])["weights"], folder)
    return supernet


@cache
def open_judge(folder: Path, *, fresh: bool = False) -> Judge:
    """The folder's judge, opened once in each process."""
    return Judge(folder, fresh=fresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Scores the network of a trial: the arm is the task."""

    folder: Path
    fresh: bool = False
    """Whether the images are fresh scenes."""

    def __call__(self, trial: Trial) -> dict[str, Any]:
        return open_judge(self.folder, fresh=self.fresh).score(
            trial.arm, np.array(trial.inputs["choices"], dtype=np.int64)
        )


def trial_of(task: str, choices: Choices) -> Trial:
    """The trial of a network, whatever group it is in."""
    return Trial(arm=task, unit=architecture_key(choices), inputs={"choices": choices.tolist()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A network's figures by the judge."""

    cost: float
    """In the unit of the task's budget."""
    losses: NDArray[np.float64]
    """Loss of each image, averaged over the supernets."""
    of_supernets: NDArray[np.float64]
    """Mean loss in each supernet."""
    metric: float
    """Averaged over the supernets."""

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return float(self.losses.mean())

    @classmethod
    def joined(cls, kinds: Sequence["Measured"]) -> "Measured":
        """The figures of one network on as many images of several kinds, over all of them."""
        return cls(
            cost=kinds[0].cost,
            losses=np.concatenate([kind.losses for kind in kinds]),
            of_supernets=np.mean([kind.of_supernets for kind in kinds], axis=0),
            metric=float(np.mean([kind.metric for kind in kinds])),
        )


def judge_config(runs: Sequence[Path], *, steps: int, images: int, learn: int | None = None) -> SearchConfig:
    """The configuration of the judge of these runs, with its training steps and number of scenes to judge on.

    Its supernets learn from the searches' scenes, or from ``learn`` of their products and photographs.

    Runs of the default and of the wide space are judged together in the wide one, which has all networks of both.

    Raises:
        UserError: the runs differ in space, budgets or images; or ``learn`` is less than they learned from, or given
            for images that are no scenes.
    """
    configs = [SearchConfig.load(run) for run in runs]
    widest = next((config.space for config in configs if isinstance(config.space, WideSpace)), configs[0].space)
    first, *others = [config.changed(space=judged_in(config.space, widest), compile_blocks=False) for config in configs]
    for run, other in zip(runs[1:], others, strict=True):
        for name in ("space", "budgets", "data", "table"):
            if getattr(other, name) != getattr(first, name):
                raise UserError(f"{run} was searched with another {name} than {runs[0]}; judge them apart")
    searched, hold_out, _ = first.data.scenes
    if learn is not None and (first.data.folder is not None or learn < searched):
        raise UserError(f"--learn composes demo scenes, at least the {searched} that the searches learned from")
    data = first.data.changed(scenes=(learn or searched, hold_out, images))
    return first.changed(seed=SEED, batch=TRAINING_BATCH, warmup_steps=steps, steps=0, data=data)


def judged_in(space: Space, widest: Space) -> Space:
    """The space in which networks of ``space`` are judged: ``widest`` if it has the same nodes, and more choices."""
    same_nodes = [node.name for node in space.nodes] == [node.name for node in widest.nodes]
    return widest if same_nodes and isinstance(widest, WideSpace) else space


def draw_groups(task: str, table: CostTable, budget: Budget, runs: Sequence[Path], counts: Mapping[str, int]) -> Groups:
    """The networks of a task: those of the runs, and as many of each other group as ``counts`` has.

    Planted networks come with the worst of each run by the fit of its panel, and controls with the best of each run by
    a fit to its panel's shuffled losses.
    """
    networks = [load_architecture(run / f"{task}.json") for run in runs]
    searched = [widen_choices(network.choices_array, network.space, table.space) for network in networks]

    def of_runs(by_fit: Callable[[Path, str], Choices], count: int) -> list[Choices]:
        pairs = zip(runs, networks, strict=True)
        return [widen_choices(by_fit(run, task), network.space, table.space) for run, network in pairs if count]

    return {
        FOUND: list(prune(np.stack(searched), table)),
        RANDOM: random_matched(table, budget, counts[RANDOM], seed=RANDOM_SEED),
        CONTROL: random_matched(table, budget, counts[CONTROL], seed=CONTROL_SEED),
        PLANTED: planted_bad(task, table, budget, counts[PLANTED], seed=PLANTED_SEED) if counts[PLANTED] else [],
        WORST: of_runs(worst_by_fit, counts[PLANTED]),
        SHUFFLED: of_runs(best_by_shuffled_fit, counts[CONTROL]),
    }


def assess(network: Measured, others: Sequence[Measured], budget: Budget, metric: MetricInfo) -> dict[str, Any]:
    """Compare a network with random ones; every percentile is the share of them that it beats."""
    difference = network.losses - np.mean([other.losses for other in others], axis=0)
    sign = -1.0 if metric.lower_is_better else 1.0
    losses, metrics = [-other.loss for other in others], [sign * other.metric for other in others]
    by_loss = stats.percentile(-network.loss, losses)
    return {
        "cost": network.cost,
        "share_of_budget": network.cost / budget.limit,
        "loss": network.loss,
        "metric": network.metric,
        "percentile_by_loss": asdict(by_loss),
        "percentile_by_metric": asdict(stats.percentile(sign * network.metric, metrics)),
        "p_by_loss": stats.rank_p(-network.loss, losses),
        "p_by_metric": stats.rank_p(sign * network.metric, metrics),
        "above_p90_by_loss": by_loss.value > 0.9,
        "loss_difference": asdict(stats.mean(difference)),
        "p_over_images": stats.sign_flip_p(difference, alternative="less"),
    }


def check_planted(planted: Sequence[Measured], others: Sequence[Measured]) -> dict[str, Any]:
    """Whether the judge ranks networks that are bad on purpose below the median of random ones."""
    losses, reference = [network.loss for network in planted], [other.loss for other in others]
    below = [loss > float(np.median(reference)) for loss in losses]
    p = stats.permutation_p(losses, reference, alternative="greater")
    return {
        "networks": len(planted),
        "below_median": sum(below),
        "percentiles": [stats.percentile(-loss, [-other for other in reference]).value for loss in losses],
        "costs": [network.cost for network in planted],
        "p_value": p,
        "passed": p < CONTROL_ALPHA and 2 * sum(below) > len(below),
    }


def check_control(control: Sequence[Measured], others: Sequence[Measured]) -> dict[str, Any]:
    """Whether networks that are no better or worse by design have losses like the others."""
    p = stats.same_distribution_p([network.loss for network in control], [other.loss for other in others])
    return {"networks": len(control), "p_value": p, "passed": p >= CONTROL_ALPHA}


def agreement(networks: Sequence[Measured]) -> dict[str, Any]:
    """How much the supernets agree on networks.

    Returns:
        the rank correlation of losses between two "supernets", averaged over pairs of them, and that of "their_mean"
        with the mean of as many others, by the formula of Spearman and Brown (British Journal of Psychology 3, 1910);
        None for a single supernet.
    """
    losses = np.stack([network.of_supernets for network in networks], axis=1)
    pairs = list(combinations(losses, 2))
    if not pairs:
        return {"supernets": None, "their_mean": None}
    correlation = float(np.mean([spearmanr(*pair).statistic for pair in pairs]))
    signal = max(0.0, correlation)  # the formula is for supernets that agree
    return {"supernets": correlation, "their_mean": len(losses) * signal / (1 + (len(losses) - 1) * signal)}


def summarise(
    measured: Mapping[str, Sequence[Measured]], budget: Budget, runs: Sequence[Path], metric: MetricInfo
) -> dict[str, Any]:
    """A task's part of the report."""
    others = measured[RANDOM]
    losses, metrics = [other.loss for other in others], [other.metric for other in others]
    summary: dict[str, Any] = {
        "metric": metric.name,
        "random": {
            "networks": len(others),
            "loss_mean": float(np.mean(losses)),
            "loss_sd": float(np.std(losses, ddof=1)),
            "metric_p50": float(np.median(metrics)),
            "metric_p90": float(np.percentile(metrics, 10 if metric.lower_is_better else 90)),
            "metric_best": min(metrics) if metric.lower_is_better else max(metrics),
        },
        "agreement": agreement(others),
        "runs": {
            str(run): assess(network, others, budget, metric)
            for run, network in zip(runs, measured[FOUND], strict=True)
        },
    }
    if len(runs) > 1:  # a single network has no spread to test, here and below
        searched = [network.loss for network in measured[FOUND]]
        summary["all_runs"] = {
            "hedges_g": asdict(stats.hedges_g(searched, losses)),
            "p_value": stats.permutation_p(searched, losses, alternative="less"),
        }
    for name in (CONTROL, SHUFFLED):
        if len(measured[name]) > 1:
            summary[name] = check_control(measured[name], others)
    for name in (PLANTED, WORST):
        if len(measured[name]) > 1:
            summary[name] = check_planted(measured[name], others)
    return summary


def count_cases(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many searched networks there are, over all tasks and runs, and how many beat 90 % of the random ones."""
    cases = [case for task in tasks.values() for case in task["runs"].values()]
    return {"cases": len(cases), "above_p90_by_loss": sum(case["above_p90_by_loss"] for case in cases)}


def print_table(tasks: Mapping[str, Mapping[str, Any]], budgets: Mapping[str, Budget]) -> None:
    """A line per task and run, and one per control."""
    for name, task in tasks.items():
        print(f"{name}: random {task['random']}, agreement {task['agreement']}")
        for run, case in task["runs"].items():
            place = case["percentile_by_loss"]
            print(
                f"{name} {run}: {format_cost(case['cost'], budgets[name].unit)}, loss {case['loss']:.4f} beats "
                f"{place['value']:.3f} ({place['low']:.3f} to {place['high']:.3f}), {task['metric']} "
                f"{case['metric']:.4f} beats {case['percentile_by_metric']['value']:.3f}, p {case['p_by_loss']:.4f}"
            )
        for check in (PLANTED, WORST, CONTROL, SHUFFLED):
            if check in task:
                print(f"{name} {check}: p {task[check]['p_value']:.4f}, passed: {task[check]['passed']}")


def measure(
    experiment: Experiment,
    scoring: Scoring,
    groups: Mapping[str, Groups],
    tables: Mapping[str, CostTable],
    processes: int,
) -> dict[str, dict[str, list[Measured]]]:
    """Task -> group -> the figures of its networks."""
    queues = [
        [trial_of(task, choices) for choices in group] for task in groups for group in groups[task].values() if group
    ]

    def report(trial: Trial, result: Mapping[str, Any]) -> None:
        print(trial.arm, trial.unit, f"loss {np.mean(result['losses']):.4f} metric {result['metric']:.4f}", flush=True)

    results = experiment.run(in_turns(*queues), scoring, processes=processes, report=report)

    def measured(task: str, choices: Choices) -> Measured:
        result = results[trial_of(task, choices)]
        return Measured(
            cost=tables[task].cost_of(choices),
            losses=np.array(result["losses"]),
            of_supernets=np.array(result["of_supernets"]),
            metric=result["metric"],
        )

    return {
        task: {name: [measured(task, choices) for choices in group] for name, group in of_task.items()}
        for task, of_task in groups.items()
    }


def joined(kinds: Sequence[Mapping[str, Sequence[Measured]]]) -> dict[str, list[Measured]]:
    """Group -> a task's networks, of which each kind of images has figures in the same order."""
    return {
        name: [Measured.joined(of_network) for of_network in zip(*(kind[name] for kind in kinds), strict=True)]
        for name in kinds[0]
    }


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished searches")
    parser.add_argument("--output", type=Path, required=True, help="folder of the judge; resumed if it exists")
    parser.add_argument("--count", type=int, default=64, help="random networks per task")
    parser.add_argument(
        "--controls", type=int, default=32, help="random networks of another seed per task; 0 leaves out all controls"
    )
    parser.add_argument("--planted", type=int, default=8, help="bad networks per task; 0 leaves out all bad ones")
    parser.add_argument("--images", type=int, default=1024, help="of each kind that networks are judged on")
    parser.add_argument(
        "--scenes",
        choices=(TEST, FRESH, BOTH),
        default=TEST,
        help="test scenes, new scenes of the weights' products and photographs, or both",
    )
    parser.add_argument("--supernets", type=int, default=4, help="of the judge, whose losses are averaged")
    parser.add_argument("--steps", type=int, default=1500, help="of the judge's training")
    parser.add_argument("--learn", type=int, help="scenes that it learns from (default: those of the searches)")
    parser.add_argument("--processes", type=int, default=2, help="networks measured at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    return parser.parse_args(line)


def begin(arguments: argparse.Namespace, config: SearchConfig, splits: Splits, kind: str) -> Experiment:
    """Begin or resume the trials on the scenes of a kind.

    Raises:
        UserError: the folder is of a judge with other settings, or the images are a folder of the user's.
    """
    return begin_experiment(
        folder_of(arguments.output, kind),
        name="judge",
        configuration={**config.to_json(), "supernets": arguments.supernets},
        data=hash_images(splits.weights, judged_images(config, splits, fresh=kind == FRESH)),
        threads=arguments.threads,
    )


def main(line: Sequence[str] | None = None) -> None:
    """Train the judge, measure, print a table and one JSON line."""
    arguments = parse(line)
    config = judge_config(arguments.runs, steps=arguments.steps, images=arguments.images, learn=arguments.learn)
    prepared = prepare(config)
    kinds = kinds_of(arguments.scenes)
    experiments = {
        kind: begin(arguments, config, prepared.splits, kind) for kind in dict.fromkeys((TEST, *kinds))
    }  # the folder is of one judge, whatever it judges on
    config.save(arguments.output)
    counts = {RANDOM: arguments.count, CONTROL: arguments.controls, PLANTED: arguments.planted}
    budgets = {name: own.budgets[0] for name, own in prepared.constraints.items()}
    tables = {name: own.tables[0] for name, own in prepared.constraints.items()}
    groups = {name: draw_groups(name, tables[name], budget, arguments.runs, counts) for name, budget in budgets.items()}
    seeds = range(SEED, SEED + arguments.supernets)
    with threads_set(arguments.threads * arguments.processes):
        for seed in seeds:
            train_judge(config.changed(seed=seed), arguments.output / "supernets" / str(seed))
    measured = [
        measure(
            experiments[kind],
            Scoring(folder=arguments.output, fresh=kind == FRESH),
            groups,
            tables,
            arguments.processes,
        )
        for kind in kinds
    ]
    tasks = {
        name: summarise(
            joined([of_kind[name] for of_kind in measured]), budget, arguments.runs, prepared.tasks[name].metric
        )
        for name, budget in budgets.items()
    }
    print_table(tasks, budgets)
    report = {
        "benchmark": "judge",
        "steps": arguments.steps,
        "learn": config.data.scenes[0],
        "images": arguments.images,
        "scenes": arguments.scenes,
        "supernets": list(seeds),
        **count_cases(tasks),
        "tasks": tasks,
    }
    write_json(folder_of(arguments.output, arguments.scenes) / "report.json", plain(report))
    print(json.dumps(plain(report)))


if __name__ == "__main__":
    main()
