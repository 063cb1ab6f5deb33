"""Steps per minute of ``fbnetv5 branch`` under both routings, by number of tasks.

A step of the soft routing runs every layer T * T times, one of the sampled routing at most T times, for each of its
draws where the routing is trained. The limit is in the same run: a step that trains one network per task, without a
supernet, runs every layer T times.

    python -m benchmarks.routing_speed --tasks 2 3 5 8 --threads 1

Expected: the sampled routing is nearly as fast as the limit, and the soft one falls behind by a factor of T. Some five
minutes of one core. Prints a table and one JSON line.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.experiment import machine
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.loop import BranchLoop
from fbnetv5.search.bmtas.prepare import prepare
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.tasks import task_types

SCENES = (128, 64, 32)
METHODS = ("soft", "sampled", "own copies")
"""The two routings, and the limit: every task trains its own copies, as in the warm-up."""


def seconds_per_step(method: str, tasks: Sequence[str], *, width: float, batch: int, periods: int) -> float:
    """The median time of a period of the search (three steps of weights, one of the routing), per step."""
    config = BranchConfig(
        budget=Budget(limit=1e12, unit="macs", resolution=(64, 64)),
        task_names=tuple(tasks),
        width=width,
        batch=batch,
        routing="sampled" if method == "sampled" else "soft",
        warmup_share=1.0 if method == "own copies" else 0.0,
        data=DataConfig(scenes=SCENES),
    )
    prepared = prepare(config)
    with tempfile.TemporaryDirectory() as folder:
        loop = BranchLoop(prepared, Path(folder), BranchedSupernet(prepared.space, prepared.tasks))
        times = [_period(loop, config.routing_every) for _ in range(periods + 1)]
    return median(times[1:])  # the first composes the scenes


def _period(loop: BranchLoop, steps: int) -> float:
    begin = time.perf_counter()
    for _ in range(steps):
        loop.step()
        loop.done += 1
    return (time.perf_counter() - begin) / steps


def main(line: Sequence[str] | None = None) -> None:
    """Time all methods, print a table and one JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 5, 8], help="numbers of tasks")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--periods", type=int, default=3, help="timed periods of four steps")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(line)
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    for count in arguments.tasks:
        names = list(task_types())[:count]
        row: dict[str, Any] = {"tasks": count}
        for method in METHODS:
            seconds = seconds_per_step(
                method, names, width=arguments.width, batch=arguments.batch, periods=arguments.periods
            )
            row[method] = 60 / seconds
        rows.append(row)
        print(f"{count} tasks: " + ", ".join(f"{method} {row[method]:.1f}" for method in METHODS), flush=True)
    report = {"benchmark": "routing_speed", **machine(arguments.threads), **vars(arguments), "steps_per_minute": rows}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
