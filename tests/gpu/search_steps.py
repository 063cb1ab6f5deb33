"""Measures search steps in one process, on the device and in the precision that accelerate finds in the environment.

    python -m tests.gpu.search_steps FILE PLAN SECONDS

PLAN is the JSON of a ``Plan`` of ``tests/gpu/search.py``, and FILE is written again after every measurement. A step is
a whole one of ``fbnetv5/search/reinforce/loop.py`` with three tasks: the next batch, the passes, the optimizer or the
policies. The images are demo scenes that are composed before.
"""

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch.profiler import ProfilerActivity, profile, record_function

from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import even_batches
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.processes import fastest_convolutions
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.prepare import Prepared, prepare
from fbnetv5.search.scoring import batch_losses
from fbnetv5.spaces.four_path import FourPathSpace
from tests.gpu.context import write_json
from tests.gpu.search import Plan
from tests.gpu.shares import DATA, STEPS, shares_of

TASKS = ("cls", "det", "seg")
MIN_STEPS = 1
TRACED_STEPS = 2
LOSS_IMAGES = 64

Step = Callable[[], None]


def main(file: str, plan_json: str, seconds: str) -> None:
    """Run all measurements that fit into the time."""
    deadline = time.monotonic() + float(seconds)
    plan, folder = Plan(**json.loads(plan_json)), Path(file).parent
    steps: list[dict[str, Any]] = []
    result: dict[str, Any] = {**settings(), "steps": steps, "ms_per_new_scene": {}}
    opened: dict[int, Prepared] = {}
    longest_s = s_per_pixel = 0.0
    for size, batch in plan.sizes_and_batches:
        started = time.monotonic()
        if started + max(longest_s, s_per_pixel * batch * size**2) > deadline:
            steps.append({"size": size, "batch": batch, "skipped": "the time is used up"})
            continue
        if size not in opened:
            opened[size], result["ms_per_new_scene"][size] = open_scenes(size, plan)
        steps.append(
            {"size": size, "batch": batch} | attempt(partial(measured_steps, opened[size], batch, plan, folder))
        )
        longest_s = max(longest_s, time.monotonic() - started)
        if result["torch_device"] == "cpu":  # a GPU's time hardly depends on the number of pixels
            s_per_pixel = longest_s / (batch * size**2)
        write_json(Path(file), result)
        if plan.loss_steps and "losses" not in result:
            result["losses"] = attempt(partial(losses_after, opened[size], plan, folder))
            write_json(Path(file), result)
    write_json(Path(file), result)


def settings() -> dict[str, Any]:
    """What torch computes on and how, as it is in this process."""
    return {
        "torch_device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_in_matrix_products": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def open_scenes(size: int, plan: Plan) -> tuple[Prepared, float]:
    """The inputs of a search with all its scenes composed, and the milliseconds that one scene took."""
    prepared = prepare(config_of(size, plan, batch=2))
    splits = prepared.splits
    started = time.perf_counter()
    for images in (splits.weights, splits.policies):
        for index in range(len(images)):
            images[index]
    return prepared, 1e3 * (time.perf_counter() - started) / (len(splits.weights) + len(splits.policies))


def config_of(size: int, plan: Plan, *, batch: int, steps: int = 1200) -> SearchConfig:
    """A search of three tasks on images of that side; half of ``steps`` are warm-up."""
    return SearchConfig(
        budgets={task: (Budget(limit=400e6, unit="macs"),) for task in TASKS},
        space=FourPathSpace(stages=1, blocks_per_path=1) if plan.small_space else FourPathSpace(),
        data=DataConfig(size=(size, size), scenes=(plan.scenes, plan.scenes, 32)),
        batch=batch,
        policy_batch=batch,
        warmup_steps=steps // 2,
        steps=steps - steps // 2,
    )


def make_loop(prepared: Prepared, config: SearchConfig, folder: Path) -> SearchLoop:
    """A loop with the initial weights of a seed."""
    set_seed(config.seed)
    return SearchLoop(config, folder, Supernet(config.space, prepared.tasks), prepared.splits, prepared.constraints)


def attempt(measurement: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a measurement, or why there is none: on a GPU each may be the first that ever ran."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        return measurement()
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": True, "message": str(error).splitlines()[0]}
    except Exception as error:  # noqa: BLE001  # any error is a finding, and the other measurements follow
        first_line = next(iter(str(error).strip().splitlines()), "")
        return {"error": f"{type(error).__name__}: {first_line}", "traceback": traceback.format_exc()[-3000:]}


def measured_steps(prepared: Prepared, batch: int, plan: Plan, folder: Path) -> dict[str, Any]:
    """Both kinds of step at a batch size: those that train weights, then those that train policies."""
    loop = make_loop(prepared, config_of(prepared.config.data.size[0], plan, batch=batch), folder)
    rng = np.random.default_rng(0)
    device, traced = loop.accelerator.device, batch in plan.traced_batches

    def train_weights() -> None:
        with record_function(DATA):
            images = next(loop.weight_batches)
        loop.train_weights(images, loop.policies.controller.propose(rng), np.ones(len(TASKS)))

    def train_policies() -> None:
        with record_function(DATA):
            images = next(loop.policy_batches)
        loop.train_policies(images, loop.policies.draw(rng), rng)

    return {
        "loop_device": str(device),
        "mixed_precision": loop.accelerator.mixed_precision,
        "weights": attempt(partial(measure, train_weights, device, plan, folder, traced=traced)),
        "policies": attempt(partial(measure, train_policies, device, plan, folder, traced=traced)),
    }


@fastest_convolutions()
def measure(step: Step, device: torch.device, plan: Plan, folder: Path, *, traced: bool) -> dict[str, Any]:
    """Steps per second, peak memory, and the shares of the time, of one kind of step, as in ``Loop.run``."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(plan.warmup_steps):
        step()
    synchronise(device)
    started, count = time.perf_counter(), 0
    while count < MIN_STEPS or (count < plan.max_steps and time.perf_counter() - started < plan.seconds):
        step()
        count += 1
    synchronise(device)
    elapsed_s = time.perf_counter() - started
    peak_memory_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    profiled = attempt(partial(trace, step, device, folder)) if traced else {}
    return {"steps_per_s": count / elapsed_s, "steps": count, "peak_memory_mb": peak_memory_mb, "trace": profiled}


def synchronise(device: torch.device) -> None:
    """Wait until the GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def trace(step: Step, device: torch.device, folder: Path) -> dict[str, Any]:
    """The shares of ``TRACED_STEPS`` profiled steps; on a GPU whose kernels the profiler cannot record, the reason."""
    on_gpu, path = device.type == "cuda", folder / "trace.json"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler, record_function(STEPS):
        for _ in range(TRACED_STEPS):
            step()
        synchronise(device)
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    path.unlink()
    result = shares_of(events, TRACED_STEPS)
    if on_gpu and not result["gpu_operations_per_step"]:
        return {"error": "the profiler recorded no GPU operations; CUPTI may be missing or not permitted"}
    return result


def losses_after(prepared: Prepared, plan: Plan, folder: Path) -> dict[str, Any]:
    """Losses of a fixed architecture on fixed held-out images before and after the first steps of a search."""
    config = config_of(prepared.config.data.size[0], plan, batch=plan.loss_batch, steps=plan.loss_steps)
    loop = make_loop(prepared, config, folder)
    images = next(even_batches(prepared.splits.policies, batch=LOSS_IMAGES, count=1)).to(loop.accelerator.device)

    def losses() -> dict[str, float]:
        values = batch_losses(loop.supernet, images, config.space.full()[None], loop.accelerator)[0]
        return {task: float(value) for task, value in zip(loop.supernet.tasks, values, strict=True)}

    before, started = losses(), time.perf_counter()
    while loop.done < loop.steps:
        loop.step()
        loop.done += 1
    after = losses()
    return {"steps": loop.done, "seconds": time.perf_counter() - started, "before": before, "after": after}


if __name__ == "__main__":
    main(*sys.argv[1:])
