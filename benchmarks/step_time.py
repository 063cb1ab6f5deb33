"""How long does a search step take compared with the trunk alone, and does it grow with the number of tasks?

Expected: with three tasks a step that trains weights takes at most 1.35 times the forward and backward pass of the
bare trunk on the same architecture and images, and a step that trains policies at most 1.35 times its forward pass;
from one task to six, only heads and losses are added, never a trunk pass. All are timed in turn in one process, so
that drift affects all alike.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --size 224x224 --batch 8 --seg-classes 150

Ends in one JSON line.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import parse_resolution
from fbnetv5.data.sample import Batch
from fbnetv5.networks.supernet import Supernet
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks.segmentation import Segmentation

REPETITIONS = 15
TASKS = ("cls", "det", "seg")


def make_loop(tasks: tuple[str, ...], copies: int, options: argparse.Namespace) -> SearchLoop:
    """A loop over ``tasks``, each ``copies`` times with a head, policy and loss of its own."""
    config = SearchConfig(
        budgets={task: (Budget(limit=400e6, unit="macs"),) for task in tasks},
        data=DataConfig(scenes=(512, 256, 32), size=options.size),
        **({} if options.batch is None else {"batch": options.batch, "policy_batch": options.batch}),
    )
    prepared = prepare(config)
    if "seg" in tasks and options.seg_classes is not None:
        labels = tuple(f"class {number}" for number in range(options.seg_classes))
        prepared.tasks["seg"] = Segmentation({**prepared.tasks["seg"].classes, "mask": labels})
    names = {f"{task}{number or ''}": task for number in range(copies) for task in tasks}
    copied = config.changed(budgets={name: config.budgets[task] for name, task in names.items()})
    supernet = Supernet(config.space, {name: prepared.tasks[task] for name, task in names.items()})
    constraints = {name: prepared.constraints[task] for name, task in names.items()}
    return SearchLoop(copied, Path(tempfile.gettempdir()), supernet, prepared.splits, constraints)


def passes(loop: SearchLoop, batch: Batch, held_out: Batch, choices: Choices) -> dict[str, Callable[[], None]]:
    """The timed calls of one loop: the trunk alone and both kinds of step, on one architecture."""
    net = loop.supernet
    rng = np.random.default_rng(0)

    def trunk() -> None:
        features = net.trunk(normalise(batch.images), choices)
        means = [feature.mean() for read in features.values() for feature in read]
        torch.stack(means).sum().backward()  # type: ignore[no-untyped-call]
        net.zero_grad(set_to_none=True)

    @torch.no_grad()
    def trunk_forward() -> None:
        net.trunk(normalise(held_out.images), choices)

    return {
        "trunk": trunk,
        "weights": lambda: loop.train_weights(batch, choices, np.ones(len(loop.config.tasks))),
        "trunk_forward": trunk_forward,
        "policies": lambda: loop.train_policies(held_out, choices[None], rng),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Times a search step beside the trunk alone.")
    parser.add_argument("--size", type=parse_resolution, default=(64, 64), help="of the images")
    parser.add_argument("--batch", type=int, help="images of a step, those of a search by default")
    parser.add_argument("--seg-classes", type=int, help="of segmentation, whose labels do not change")
    return parser.parse_args()


def main() -> None:
    """Time, print a table and one JSON line."""
    options = parse()
    torch.manual_seed(0)
    loops = {
        n: make_loop(tasks, copies, options) for n, tasks, copies in ((1, ("cls",), 1), (3, TASKS, 1), (6, TASKS, 2))
    }
    batch = next(loops[3].weight_batches)
    held_out = next(loops[3].policy_batches)
    space = loops[3].supernet.space
    choices = np.random.default_rng(0).integers(0, 2, len(space.variables))
    calls = {
        (n, kind): call for n, loop in loops.items() for kind, call in passes(loop, batch, held_out, choices).items()
    }
    seconds: dict[tuple[int, str], list[float]] = {key: [] for key in calls}
    for repetition in range(REPETITIONS + 2):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if repetition >= 2:
                seconds[key].append(time.perf_counter() - start)
    ms = {key: 1e3 * statistics.median(values) for key, values in seconds.items()}
    per_step = {}
    for n, loop in loops.items():
        before = loop.supernet.trunk_passes
        loop.train_weights(batch, choices, np.ones(len(loop.config.tasks)))
        loop.train_policies(held_out, choices[None], np.random.default_rng(0))
        per_step[n] = (loop.supernet.trunk_passes - before) / 2
    columns = ("tasks", "trunk ms", "weights", "ratio", "forward", "policies", "ratio", "passes")
    print(" ".join(f"{column:>9}" for column in columns))
    for n in loops:
        trunk, weights, forward, policies = (ms[n, k] for k in ("trunk", "weights", "trunk_forward", "policies"))
        row = (n, trunk, weights, weights / trunk, forward, policies, policies / forward, per_step[n])
        print(" ".join(f"{value:9.2f}" for value in row))
    print(
        json.dumps(
            {
                "benchmark": "step_time",
                "ms_p50": {f"{n}_{kind}": round(value, 2) for (n, kind), value in ms.items()},
                "weights_over_trunk": {str(n): round(ms[n, "weights"] / ms[n, "trunk"], 3) for n in loops},
                "policies_over_forward": {str(n): round(ms[n, "policies"] / ms[n, "trunk_forward"], 3) for n in loops},
                "trunk_passes_per_step": {str(n): value for n, value in per_step.items()},
                "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
