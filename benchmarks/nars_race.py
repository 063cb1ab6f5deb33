"""Does the search for pairs find better ones with fewer trainings? A race on stored trainings, with peers and controls.

All searchers choose from the pairs of ``nars_trainings.json``, whose trainings are done: a choice reveals its curve.
The figure is the final score of the best pair among those trained so far. Three more questions on the same data: what
the pretraining of the predictor saves, how early the ranking is final, and whether a predictor of shuffled scores, or
of random numbers, is as blind as it should be: no better than random search, whose distribution is known exactly.

    python -m benchmarks.nars_race --seeds 20 --control-seeds 60 --output runs/nars-race

Expected: NARS at or above every peer at 8, 16 and 32 trainings; a pretrained predictor reaches the tau that a plain one
reaches with twice the trainings; shuffled scores help nobody. The report has what came out. Writes ``report.json`` and
ends in one JSON line; about 50 minutes of one core.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks import stats
from benchmarks.experiment import machine, plain, threads_set
from benchmarks.nars_race_peers import PEERS
from benchmarks.nars_trainings import FILE
from export.files import read_json, write_json
from fbnetv5.search.nars.acquisition import choose
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.pairs import PairSpace, Vectors
from fbnetv5.search.nars.predictor import Ensemble, PredictorSettings, Pretrained, fit, pretrain
from fbnetv5.search.nars.prepare import prepare
from fbnetv5.search.nars.quality import rank_correlations, stop_step
from fbnetv5.spaces.space import Choices

BATCH = 8
CHECKPOINTS = (8, 16, 32, 64)
"""Numbers of trainings at which the best pair is compared."""
SPLIT_SIZES = (8, 16, 32, 64, 128)
"""Numbers of trainings that predictors are fitted to."""


@dataclass(frozen=True)
class World:
    """The stored trainings."""

    pairs: PairSpace
    choices: Choices
    """[N, S + R]."""
    steps: tuple[int, ...]
    curves: NDArray[np.float64]
    """[N, K]: scores at the evaluations, higher is better; a failed training has the lowest score."""
    seconds: NDArray[np.float64]
    """[N]."""
    pretrained: Pretrained
    plain: Pretrained
    """A predictor whose encoder was not pretrained."""
    settings: PredictorSettings

    @property
    def final(self) -> NDArray[np.float64]:
        """[N]: scores at the last evaluation."""
        return self.curves[:, -1]

    def fit(self, rows: Sequence[int], scores: NDArray[np.float64], *, seed: int, plain: bool = False) -> Ensemble:
        """An ensemble fitted to the trainings of some rows."""
        start = self.plain if plain else self.pretrained
        return fit(self.pairs, start, self.choices[list(rows)], scores, seed=seed, settings=self.settings)


def load_world(file: Path = FILE) -> World:
    """Read the data file and pretrain the predictor."""
    document = read_json(file, what="trainings", schema=1)
    config = NarsConfig(**document["search"])
    prepared = prepare(config)
    sign, trainings = prepared.sign, document["trainings"]
    steps = next(tuple(training["steps"]) for training in trainings if training["failure"] is None)
    curves = np.array([_curve(training, len(steps)) for training in trainings]) * sign
    curves = np.where(np.isfinite(curves), curves, np.nanmin(curves[np.isfinite(curves)]))
    drawn = prepared.pairs.from_unit(
        np.random.default_rng([config.seed, 5]).random((config.pretraining_pool, len(prepared.pairs.counts)))
    )
    statistics = prepared.statistics_of(prepared.pairs.architectures(drawn))
    with_epochs = [replace(config.predictor, pretraining_epochs=epochs) for epochs in (config.pretraining_epochs, 0)]
    pretrained, unlearned = (
        pretrain(prepared.pairs, drawn, statistics, seed=config.seed, settings=settings) for settings in with_epochs
    )
    return World(
        pairs=prepared.pairs,
        choices=np.array(document["pairs"]),
        steps=steps,
        curves=curves,
        seconds=np.array([training["seconds"] for training in trainings]),
        pretrained=pretrained,
        plain=unlearned,
        settings=config.predictor,
    )


def _curve(training: Mapping[str, Any], evaluations: int) -> list[float]:
    scores = list(training["scores"]) if training["failure"] is None else []
    return scores if len(scores) == evaluations else [float("nan")] * evaluations


Order = list[int]
"""Rows in the order in which a searcher trains them."""
Searcher = Callable[[World, int, int], Order]
"""(world, number of trainings, seed) -> rows."""


def nars(
    world: World,
    count: int,
    seed: int,
    *,
    method: str = "thompson",
    plain: bool = False,
    control: str | None = None,
    masked: str | None = None,
) -> Order:
    """The search's own iterations on the stored trainings.

    Args:
        world: the trainings.
        count: of trainings.
        seed: of the first batch and the predictors.
        method: of acquisition.
        plain: whether the predictor is not pretrained.
        control: "shuffled" fits the predictor to the scores in random order, "noise" to random numbers.
        masked: "recipe" or "architecture", the part of a pair that the predictor does not see.
    """
    generator = np.random.default_rng([seed, 0])
    order: Order = generator.permutation(len(world.choices))[:BATCH].tolist()
    seen = replace(world, pairs=MaskedPairs(world.pairs.space, world.pairs.recipes, masked=masked))
    rows = {tuple(pair): row for row, pair in enumerate(world.choices.tolist())}
    while len(order) < count:
        scores = world.final[order]
        if control is not None:
            scores = generator.permutation(scores) if control == "shuffled" else generator.standard_normal(len(scores))
        step = 1000 * seed + len(order)  # else the races of two seeds would share predictors
        ensemble = seen.fit(order, scores, seed=step, plain=plain)
        chosen = choose(ensemble, world.choices, world.choices[order], BATCH, method=method, seed=step)
        order += [rows[tuple(pair)] for pair in chosen.tolist()]
    return order


@dataclass(frozen=True)
class MaskedPairs(PairSpace):
    """Pairs whose vectors have zeros in place of the recipe or of the architecture."""

    masked: str | None = None

    def encode(self, pairs: Choices) -> Vectors:
        """[B, S + R] -> [B, F]."""
        vectors = super().encode(pairs)
        if self.masked == "recipe":
            vectors[:, self.architecture_features :] = 0.0
        if self.masked == "architecture":
            vectors[:, : self.architecture_features] = 0.0
        return vectors


SEARCHERS: dict[str, Searcher] = {
    "nars, thompson": nars,
    "nars, greedy (paper)": partial(nars, method="greedy"),
    "nars, no pretraining": partial(nars, plain=True),
    "architecture alone": partial(nars, masked="recipe"),
    "recipe alone": partial(nars, masked="architecture"),
    "nars, shuffled scores": partial(nars, control="shuffled"),
    **PEERS,
}
CONTROLS: dict[str, Searcher] = {
    "nars, thompson": nars,
    "nars, shuffled scores": partial(nars, control="shuffled"),
    "nars, random numbers": partial(nars, control="noise"),
}
"""Searchers that are compared with the exact distribution of random search."""
NULL_DRAWS = 20_000
"""Means of random searches that a p-value is counted on."""


def race(world: World, seeds: Sequence[int]) -> dict[str, list[list[float]]]:
    """By searcher: the best final score after the numbers of trainings, a list per seed."""
    best: dict[str, list[list[float]]] = {}
    for name, searcher in SEARCHERS.items():
        runs = [world.final[searcher(world, CHECKPOINTS[-1], seed)] for seed in seeds]
        best[name] = [[float(scores[:count].max()) for count in CHECKPOINTS] for scores in runs]
        print(name, np.round(np.mean(best[name], axis=0), 4).tolist(), flush=True)
    return best


def summarise_race(world: World, best: Mapping[str, list[list[float]]]) -> dict[str, Any]:
    """Per searcher and number of trainings: mean, share of all pairs that are better, and NARS less the searcher."""
    reference = np.array(best["nars, thompson"])
    rows: dict[str, Any] = {}
    for name, runs in best.items():
        values = np.array(runs)
        rows[name] = {
            str(count): {
                "mean": float(values[:, column].mean()),
                "share_better": float(np.mean([(world.final > value).mean() for value in values[:, column]])),
                "nars_less_this": asdict(stats.mean(reference[:, column] - values[:, column])),
                "p": stats.sign_flip_p(reference[:, column] - values[:, column], alternative="greater"),
            }
            for column, count in enumerate(CHECKPOINTS)
        }
    return rows


def random_best(scores: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distribution of the highest of ``count`` scores drawn without replacement: scores [N] and probabilities."""
    ordered, total = np.sort(scores), comb(len(scores), count)
    return ordered, np.array([comb(rank, count - 1) / total for rank in range(len(ordered))])


def against_random(world: World, seeds: Sequence[int]) -> dict[str, Any]:
    """By searcher and number of trainings: its mean best score less the expected one of random search, and p.

    p is the two-sided probability that as many random searches have a mean at least as far from the expectation. A race
    shares its first batch with the random search of its seed; this comparison is with all random searches instead.
    """
    rows: dict[str, Any] = {}
    for name, searcher in CONTROLS.items():
        orders = [searcher(world, CHECKPOINTS[-1], seed) for seed in seeds]
        rows[name] = {}
        for count in CHECKPOINTS:
            best, shares = random_best(world.final, count)
            gains = np.array([world.final[order[:count]].max() for order in orders]) - best @ shares
            drawn = np.random.default_rng(0).choice(best, size=(NULL_DRAWS, len(orders)), p=shares).mean(axis=1)
            p = float((1 + (abs(drawn - best @ shares) >= abs(gains.mean())).sum()) / (1 + NULL_DRAWS))
            rows[name][str(count)] = {"random": float(best @ shares), "gain": asdict(stats.mean(gains)), "p": p}
        print("against random:", name, rows[name], flush=True)
    return rows


TIMED = ("nars, thompson", "random", "evolution", "optuna tpe")
"""Searchers that are compared by time as well."""


def race_by_time(world: World, seeds: Sequence[int], threshold: float) -> dict[str, Any]:
    """With early stopping: the final score of the pair that looks best after the time of 8, 16, 32 and 64 trainings.

    A searcher sees the scores at the step where its first batch stops, and later trainings cost their share of the
    time. The score that counts is that of the pair trained to the end; the time of this last training is not added.
    """
    times = np.array(CHECKPOINTS) * world.seconds.mean()
    rows: dict[str, Any] = {}
    for name in TIMED:
        scores = [_scores_by_time(world, SEARCHERS[name], seed, threshold, times) for seed in seeds]
        rows[name] = dict(zip(map(str, CHECKPOINTS), np.mean(scores, axis=0).tolist(), strict=True))
        print("by time:", name, np.round(np.mean(scores, axis=0), 4).tolist(), flush=True)
    return rows


def _scores_by_time(
    world: World, searcher: Searcher, seed: int, threshold: float, times: NDArray[np.float64]
) -> list[float]:
    """The final score of the pair with the best score at the stop, at each time; the first batch is always trained."""
    first = np.random.default_rng([seed, 0]).permutation(len(world.choices))[:BATCH]
    column = world.steps.index(stop_step(world.steps, world.curves[first], threshold))
    stopped = replace(world, curves=world.curves[:, : column + 1])
    order = np.array(searcher(stopped, min(2 * CHECKPOINTS[-1], len(world.choices)), seed))
    shares = np.where(np.arange(len(order)) < BATCH, 1.0, world.steps[column] / world.steps[-1])
    ends = np.cumsum(world.seconds[order] * shares)
    counts = np.maximum(np.searchsorted(ends, times, side="right"), BATCH)
    return [float(world.final[order[:count][stopped.final[order[:count]].argmax()]]) for count in counts]


def pretraining(world: World, seeds: Sequence[int]) -> dict[str, Any]:
    """Kendall's tau on the other trainings, by number of trainings fitted: quartiles over splits."""
    taus: dict[str, Any] = {}
    for count in SPLIT_SIZES:
        if count > len(world.choices) // 2:
            continue
        of_count: dict[str, list[float]] = {"pretrained": [], "plain": [], "shuffled": []}
        for seed in seeds:
            generator = np.random.default_rng([seed, 1])
            order = generator.permutation(len(world.choices))
            rows, others = order[:count], order[count:]
            scores = world.final[rows]
            for name, plain_, targets in (
                ("pretrained", False, scores),
                ("plain", True, scores),
                ("shuffled", False, generator.permutation(scores)),
            ):
                ensemble = world.fit(rows.tolist(), targets, seed=seed, plain=plain_)
                of_count[name].append(float(kendalltau(ensemble(world.choices[others]), world.final[others]).statistic))
        taus[str(count)] = {name: np.quantile(values, (0.25, 0.5, 0.75)).tolist() for name, values in of_count.items()}
        print(count, taus[str(count)], flush=True)
    return taus


def early_stopping(world: World, seeds: Sequence[int], threshold: float) -> dict[str, Any]:
    """Rank correlation with the last evaluation, the steps and rank that stopping early costs or saves."""
    steps, ranks = [], []
    for seed in seeds:
        order = np.random.default_rng([seed, 0]).permutation(len(world.choices))
        step = stop_step(world.steps, world.curves[order[:BATCH]], threshold)
        steps.append(step)
        others = order[BATCH : BATCH + 32]
        picked = others[world.curves[others, world.steps.index(step)].argmax()]
        ranks.append(int((world.final[others] > world.final[picked]).sum()))
    return {
        "steps": list(world.steps),
        "correlation_of_all": rank_correlations(world.curves),
        "threshold": threshold,
        "stop_at": steps,
        "compute_saved": float(1 - np.mean(steps) / world.steps[-1]),
        "final_rank_of_best_of_32": ranks,
    }


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=FILE, help="file of benchmarks/nars_trainings.py")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--control-seeds", type=int, default=60, help="races of each control")
    parser.add_argument("--threshold", type=float, default=0.92, help="rank correlation of early stopping")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Run all parts, print tables and one JSON line."""
    arguments = parse(line)
    seeds = range(arguments.seeds)
    with threads_set(1):
        world = load_world(arguments.data)
        report = plain(
            {
                "benchmark": "nars_race",
                "seeds": arguments.seeds,
                "trainings": len(world.choices),
                **machine(1),
                "early_stopping": early_stopping(world, seeds, arguments.threshold),
                "pretraining": pretraining(world, seeds),
                "race": summarise_race(world, race(world, seeds)),
                "against_random": against_random(world, range(arguments.control_seeds)),
                "race_by_time": race_by_time(world, seeds, arguments.threshold),
            }
        )
    write_json(arguments.output / "report.json", report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
