"""How much faster is a step of ``fbnetv5 train`` on a GPU if the network's passes are replayed as CUDA graphs?

FBNetV3-A with the head of each task, on demo scenes that the GPU holds. Both kinds of step are timed in turn in one
process. Expected: at small images, where the CPU limits the speed, replayed steps take less than half the time; the
losses after the same steps from the same weights differ by rounding alone.

    python -m benchmarks.replayed_training

Needs an NVIDIA GPU. Ends in one JSON line.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.architectures import stage_zero
from benchmarks.experiment import compute_device, machine
from export.errors import UnavailableError
from fbnetv5.architecture import make_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.sample import Batch
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.loop import TrainLoop

WARMUP, STEPS, TURNS = 5, 10, 4
SHAPES = ((64, 32), (64, 128), (224, 32), (224, 128))
"""(side in pixels, images of a batch)."""


def make_loop(task: str, side: int, batch: int, *, cuda_graphs: bool) -> TrainLoop:
    """A training of FBNetV3-A for a task, with the same weights for the same task."""
    space = FourPathSpace()
    architecture = make_architecture(space, {task: stage_zero(space).tolist()}, CLASSES, (224, 224), provenance={})
    config = TrainConfig(
        task_names=(task,), init="scratch", data=DataConfig(size=(side, side)), batch=batch, cuda_graphs=cuda_graphs
    )
    torch.manual_seed(0)
    images = Scenes("train", size=(side, side), count=1)
    folder = Path(tempfile.gettempdir())
    return TrainLoop(config, folder, architecture, architecture.build(), dataset=images, held_out=images)


def run_steps(loop: TrainLoop, batches: Sequence[Batch], count: int) -> tuple[float, float]:
    """(milliseconds per step, the last step's loss)."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        losses = loop.train(batches[loop.done % len(batches)])
        loop.done += 1
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin) / count, float(losses)


def compare(task: str, side: int, batch: int) -> dict[str, Any]:
    """Time both kinds of step in turn."""
    scenes = Scenes("train", size=(side, side), count=4 * batch)
    batches = [each.to(compute_device()) for each in in_order(scenes, batch=batch)]
    torch.cuda.reset_peak_memory_stats()
    loops = {name: make_loop(task, side, batch, cuda_graphs=name == "replayed") for name in ("eager", "replayed")}
    first = {name: run_steps(loop, batches, WARMUP)[1] for name, loop in loops.items()}
    ms: dict[str, list[float]] = {name: [] for name in loops}
    last: dict[str, float] = {}
    for _ in range(TURNS):
        for name, loop in loops.items():
            milliseconds, last[name] = run_steps(loop, batches, STEPS)
            ms[name].append(milliseconds)
    medians = {name: round(statistics.median(values), 2) for name, values in ms.items()}
    return {
        "task": task,
        "side": side,
        "batch": batch,
        "ms": medians,
        "ratio": round(medians["eager"] / medians["replayed"], 2),
        f"losses_after_{WARMUP}": first,
        f"losses_after_{WARMUP + TURNS * STEPS}": last,
        "max_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6),
    }


def main(line: Sequence[str] | None = None) -> None:
    """Time, print a line per shape and one JSON line."""
    parser = argparse.ArgumentParser(description="Steps of a training with and without CUDA graphs.")
    parser.add_argument("--tasks", nargs="+", default=["cls", "det", "seg"])
    arguments = parser.parse_args(line)
    if not torch.cuda.is_available():
        raise UnavailableError("CUDA graphs need an NVIDIA GPU: run this benchmark on a machine with one")
    rows = []
    for task in arguments.tasks:
        for side, batch in SHAPES:
            rows.append(compare(task, side, batch))
            print(rows[-1], flush=True)
    print(json.dumps({"benchmark": "replayed_training", **machine(torch.get_num_threads()), "rows": rows}))


if __name__ == "__main__":
    main()
