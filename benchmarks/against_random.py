"""Does a finished search beat random choice? Its networks against random architectures of the same budget window.

Expected: on the test pictures, with the same shared weights and batch norm recalibrated for each network, every task's
searched network scores above the 90th percentile of 64 random architectures whose cost lies in the same window (85 to
100 % of the budget). Random architectures keep each slot with one probability, chosen so that the expected cost meets
the budget.

    python benchmarks/against_random.py runs/latest

Prints a table and ends in one JSON line.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from fbnetv5.architecture import load_architecture
from fbnetv5.backbone import recalibrate
from fbnetv5.data.loading import in_order
from fbnetv5.evaluate import evaluate
from fbnetv5.search.checkpoint import load_checkpoint, load_weights
from fbnetv5.search.config import SearchConfig
from fbnetv5.search.controller import Controller
from fbnetv5.search.derive import AIM, find_tilt, sample_within
from fbnetv5.search.run import Prepared, prepare
from fbnetv5.search.scoring import BATCH, calibration_pictures
from fbnetv5.space import Choices
from fbnetv5.supernet import Supernet


def random_architectures(config: SearchConfig, prepared: Prepared, count: int) -> dict[str, list[Choices]]:
    """Per task, ``count`` random architectures within its budget's window."""
    untrained = Controller(config.space.choice_counts, len(config.tasks), lr=1.0)
    found = {}
    for task, (name, budget) in enumerate(config.budgets.items()):
        rng = np.random.default_rng([2026, task])
        tilt = find_tilt(untrained, task, prepared.tables[name], AIM * budget.limit, rng)
        found[name] = sample_within(untrained.tilted(task, tilt), prepared.tables[name], budget, count, rng)
    return found


def main() -> None:
    """Score, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished search")
    parser.add_argument("--tasks", help="comma-separated, to share the work among processes; all if not given")
    parser.add_argument("--count", type=int, default=64, help="random architectures per task")
    arguments = parser.parse_args()
    config = SearchConfig.load(arguments.run / "config.json")
    prepared = prepare(config)
    supernet = Supernet(config.space, prepared.tasks).to(memory_format=torch.channels_last)
    checkpoint = load_checkpoint(arguments.run / "checkpoint")
    if checkpoint is None:
        parser.error(f"{arguments.run} has no checkpoint: it is not a finished search")
    weights = {name.removeprefix("weights/"): t for name, t in checkpoint[0].items() if name.startswith("weights/")}
    load_weights(supernet, weights, arguments.run)
    calibration = calibration_pictures(prepared.parts.weights, torch.device("cpu"))
    test = list(in_order(prepared.parts.test, batch=BATCH))

    def score(name: str, choices: Choices) -> float:
        network = supernet.derive(name, choices).to(memory_format=torch.channels_last)
        recalibrate(network, calibration, network)
        return evaluate(network.task, network, test)

    results = {}
    drawn = random_architectures(config, prepared, arguments.count)
    for name in arguments.tasks.split(",") if arguments.tasks else drawn:
        searched = load_architecture(arguments.run / f"{name}.json")
        mine = score(name, searched.choices_array)
        others = [score(name, choices) for choices in drawn[name]]
        results[name] = {
            "metric": prepared.tasks[name].metric_name,
            "searched": mine,
            "random_p50": float(np.percentile(others, 50)),
            "random_p90": float(np.percentile(others, 90)),
            "random_best": max(others),
            "share_beaten": float(np.mean([mine > other for other in others])),
            "above_p90": bool(mine > np.percentile(others, 90)),
        }
        print(name, json.dumps(results[name]), flush=True)
    print(
        json.dumps(
            {
                "benchmark": "against_random",
                "count": arguments.count,
                "test_pictures": len(prepared.parts.test),
                "seed": config.seed,
                "steps": config.total_steps,
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    main()
