"""Which searcher finds the best network per task with the fewest network evaluations? A race on known ground truth.

Every one of 4096 architectures is known on every chunk of held-out images (ground_truth.py), so a searcher's result
can be compared with the true optimum of the task's budget, 85 to 100 % of the space's median multiply-adds. An
evaluation is one architecture on one chunk; it returns the losses of all tasks, with the noise of a real search.
A searcher that needs a run per task shares its evaluations among the runs. Each returns the best network by its own
estimates.

Regret is the share of the way from the best architecture (0) to the median one (1) of those within the budget.

Expected: the one run of this project's default is at or below every peer's median regret, for each task, at 500, 1000
and 2000 evaluations.

    pip install 'fbnetv5[benchmarks]'
    python -m benchmarks.race --plot docs/race.svg

Of several files of ground truth, such as subspaces of the wide space, medians are over all of them, and those of each
are compared as well. ``--unseen 8`` keeps eight chunks from all searchers and measures the regret on them:

    python -m benchmarks.ground_truth runs/wide --wide 5 --chunks 16
    python -m benchmarks.race --data runs/wide/wide-*.npz --unseen 8 --seeds 4

Prints a table of medians and quartiles and ends in one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import ground_truth
from benchmarks.race_peers import genetic, linear_surrogate, nsga2, random_search, tpe
from benchmarks.race_search import one_pass, run_per_task
from benchmarks.race_world import Floats, Rows, World

LIMITS = (500, 1000, 2000)
Searcher = Callable[[World, int, int], Rows]
"""(world, evaluations, seed) -> an architecture per task."""
OURS = "one pass, control (the default)"
SEARCHERS: Mapping[str, Searcher] = {
    OURS: one_pass,
    "one pass, image": partial(one_pass, kind="image"),
    "one pass, pair": partial(one_pass, kind="pair"),
    "one pass, average (the reference)": partial(one_pass, kind="average"),
    "policies at rest, control": partial(one_pass, lr=0.0),
    "REINFORCE per task": partial(one_pass, kind="per-task"),
    "a run per task": run_per_task,
    "random search": partial(random_search, chunks=8),
    "linear surrogate": partial(linear_surrogate, chunks=8),
    "Optuna TPE": partial(tpe, chunks=8),
    "Optuna NSGA-II": partial(nsga2, chunks=8),
    "genetic (pymoo)": partial(genetic, chunks=8),
}
"""With all eight chunks per candidate the peers were best at 2000 evaluations on other seeds (docs/lab-notes.md)."""

Job = tuple[str, int, int, Path]
"""(searcher, evaluations, seed, file of the ground truth)."""


def solve(job: Job, unseen: int) -> Floats:
    """[T]: the regret of a searcher's result."""
    name, limit, seed, path = job
    world = World(ground_truth.load(path), unseen=unseen)
    return world.regret(SEARCHERS[name](world, limit, seed))


def race(jobs: list[Job], unseen: int, processes: int) -> dict[Job, Floats]:
    """The regret of every job."""
    if processes == 1:
        return {job: solve(job, unseen) for job in jobs}
    with get_context("spawn").Pool(processes) as pool:
        return dict(zip(jobs, pool.imap(partial(solve, unseen=unseen), jobs), strict=True))


def summarise(regrets: Mapping[Job, Floats]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Searcher -> evaluations -> task -> quartiles and median of the regret over seeds and files."""
    grouped: dict[str, dict[str, list[Floats]]] = {}
    for (name, limit, _, _), regret in regrets.items():
        grouped.setdefault(name, {}).setdefault(str(limit), []).append(regret)
    return {
        name: {
            limit: {
                task: [round(float(q), 4) for q in np.percentile(np.array(runs)[:, column], [25, 50, 75])]
                for column, task in enumerate(ground_truth.TASKS)
            }
            for limit, runs in by_limit.items()
        }
        for name, by_limit in grouped.items()
    }


def behind(results: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> list[str]:
    """Cases in which a peer's median regret is below the default's."""
    return [
        f"{name}, {task}, {limit}: {quartiles[1]} < {results[OURS][limit][task][1]}"
        for name, by_limit in results.items()
        for limit, by_task in by_limit.items()
        for task, quartiles in by_task.items()
        if OURS in results and quartiles[1] < results[OURS][limit][task][1]
    ]


def plot(results: Mapping[str, Mapping[str, Mapping[str, list[float]]]], path: Path) -> None:
    """Median regret against evaluations with the quartiles as a band, a panel per task."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "race"
    figure, panels = plt.subplots(1, len(ground_truth.TASKS), figsize=(12, 4), sharey=True, layout="constrained")
    for panel, task in zip(panels, ground_truth.TASKS, strict=True):
        for name, by_limit in results.items():
            quartiles = np.array([by_task[task] for by_task in by_limit.values()])
            limits = [int(limit) for limit in by_limit]
            style = {"linewidth": 3.0, "color": "black", "zorder": 3} if name == OURS else {"linewidth": 1.2}
            (line,) = panel.plot(limits, quartiles[:, 1], marker="o", markersize=3, label=name, **style)
            panel.fill_between(limits, quartiles[:, 0], quartiles[:, 2], alpha=0.08, color=line.get_color())
        panel.set(title=task, xlabel="network evaluations", xscale="log", xticks=limits, xticklabels=limits)
        panel.minorticks_off()
    panels[0].set_ylabel("regret (0 best, 1 median)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Race, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--limits", type=int, nargs="+", default=LIMITS, help="network evaluations")
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS), choices=SEARCHERS, metavar="NAME")
    parser.add_argument("--data", type=Path, nargs="+", default=[ground_truth.DATA])
    parser.add_argument("--unseen", type=int, default=0, help="chunks that only the regret is measured on")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="image to write, .svg or .png")
    arguments = parser.parse_args()
    start = time.perf_counter()
    jobs = [
        (name, limit, seed, path)
        for name in arguments.searchers
        for limit in arguments.limits
        for seed in range(arguments.seeds)
        for path in arguments.data
    ]
    regrets = race(jobs, arguments.unseen, arguments.processes)
    results = summarise(regrets)
    for name, by_limit in results.items():
        for limit, by_task in by_limit.items():
            cells = ("{1:.3f} ({0:.3f} to {2:.3f})".format(*by_task[task]) for task in ground_truth.TASKS)
            print(f"{name:<34} {limit:>5}  " + "  ".join(cells))
    if arguments.plot is not None:
        plot(results, arguments.plot)
    about = {"seeds": arguments.seeds, "seconds": round(time.perf_counter() - start), "behind": behind(results)}
    if len(arguments.data) > 1:
        of_files = {path: {job: regret for job, regret in regrets.items() if job[3] == path} for path in arguments.data}
        about["behind_in_files"] = {str(path): behind(summarise(own)) for path, own in of_files.items()}
    print(json.dumps({"benchmark": "race", **about, "results": results}))


if __name__ == "__main__":
    main()
