"""Part "search": the speed, memory and losses of search steps on the GPU in fp32 and bf16, and the CPU's speed.

Each device and precision has a process of its own (``tests/gpu/search_steps.py``), because accelerate reads the
precision once per process, and so that a fault of the GPU in one of them leaves the others whole.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.gpu.context import Context
from tests.gpu.processes import python_environment, run_command

BASELINE_BATCH = 128
"""Images of a step that the CPU and the GPU are compared at."""
KINDS = ("weights", "policies")
"""What a step trains."""
PRECISIONS = {"fp32": "no", "bf16": "bf16"}
"""Precision -> accelerate's name of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one process measures."""

    sizes_and_batches: tuple[tuple[int, int], ...]
    """(side of an image in pixels, images of a step), in the order of measuring."""
    scenes: int
    """Images that weights are trained on, and as many held-out ones."""
    warmup_steps: int
    max_steps: int
    seconds: float
    """Time after which a kind of step has been timed for long enough."""
    traced_batches: tuple[int, ...] = ()
    """Batch sizes at which some steps are traced: a trace takes longer than the measurement."""
    loss_steps: int = 0
    """Steps whose effect on the losses is measured; 0: none."""
    loss_batch: int = 32
    small_space: bool = False
    """Search the smallest space instead of the default one."""


GPU_PLAN = Plan(
    sizes_and_batches=((64, 128), (224, 128), (64, 512), (224, 512), (64, 32), (224, 32)),
    scenes=512,
    warmup_steps=5,
    max_steps=50,
    seconds=1.5,
    traced_batches=(BASELINE_BATCH,),
    loss_steps=60,
)
CPU_PLAN = Plan(
    sizes_and_batches=((64, BASELINE_BATCH), (224, BASELINE_BATCH)),
    scenes=256,
    warmup_steps=1,
    max_steps=3,
    seconds=1.0,
)
REHEARSAL_PLAN = Plan(
    sizes_and_batches=((64, 2),),
    scenes=16,
    warmup_steps=0,
    max_steps=1,
    seconds=0.0,
    traced_batches=(2,),
    loss_steps=2,
    loss_batch=2,
    small_space=True,
)


def run(context: Context) -> list[str]:
    """Measure on the GPU in both precisions, then on the CPU in fp32 for comparison."""
    context.check_torch()
    plan, cpu_plan = GPU_PLAN, CPU_PLAN
    if context.is_rehearsal:
        plan, cpu_plan = REHEARSAL_PLAN, replace(REHEARSAL_PLAN, traced_batches=(), loss_steps=0)
    processes: list[dict[str, Any]] = []
    failures = []
    for device, precision, numbers, share in (
        (context.device, "fp32", plan, 0.42),
        (context.device, "bf16", plan, 0.72),
        ("cpu", "fp32", cpu_plan, 1.0),
    ):
        entry = measure(context, f"{len(processes)}-{device}-{precision}", device, precision, numbers, share)
        processes.append(entry)
        context.save({"processes": processes, "comparisons": comparisons(processes)})
        failures += [f"{title(entry)}: {entry['failure']}"] if entry["failure"] else []
        failures += [f"{title(entry)}: {error}" for error in dict.fromkeys(errors_in(entry))]
    return failures


def measure(context: Context, name: str, device: str, precision: str, plan: Plan, share: float) -> dict[str, Any]:
    """The result of one process, which may use ``share`` of the part's remaining time; incomplete if it failed."""
    file, left_s = context.folder / f"{name}.json", context.left_s * share
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    ended = run_command(
        [sys.executable, "-P", "-m", "tests.gpu.search_steps", str(file), json.dumps(asdict(plan)), str(0.9 * left_s)],
        folder=context.folder,
        name=name,
        limit_s=left_s,
        environment=python_environment(ACCELERATE_MIXED_PRECISION=PRECISIONS[precision], **hidden),
    )
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"steps": []}
    return {"device": device, "precision": precision, "seconds": ended.seconds, "failure": ended.failure, **result}


def errors_in(value: Any) -> Iterator[str]:
    """Every "error" anywhere in a process's result."""
    if isinstance(value, list):
        for item in value:
            yield from errors_in(item)
    if isinstance(value, dict):
        if "error" in value:
            yield value["error"]
        for item in value.values():
            yield from errors_in(item)


def title(entry: dict[str, Any]) -> str:
    """Device and precision of a process."""
    return f"{entry['device']} {entry['precision']}"


def comparisons(processes: list[dict[str, Any]]) -> dict[str, Any]:
    """Speeds relative to the third process, the CPU's; losses of the second process relative to the first."""
    *measured, last = processes
    baseline = {(step["size"], step["batch"]): step for step in last["steps"]} if len(processes) == 3 else {}
    ratios = []
    for entry in measured:
        for step in entry["steps"]:
            other = baseline.get((step["size"], step["batch"]), {})
            rates, others = (
                {kind: side[kind]["steps_per_s"] for kind in KINDS if "steps_per_s" in side.get(kind, {})}
                for side in (step, other)
            )
            ratio = {kind: rate / others[kind] for kind, rate in rates.items() if kind in others}
            if ratio:
                ratios.append({"precision": entry["precision"], "size": step["size"], "batch": step["batch"], **ratio})
    losses = [entry["losses"]["after"] for entry in processes[:2] if "after" in entry.get("losses", {})]
    relative = {task: losses[1][task] / losses[0][task] for task in losses[0]} if len(losses) == 2 else None
    return {"speed_over_cpu": ratios, "losses_bf16_over_fp32": relative}


def summarise(result: dict[str, Any]) -> list[str]:
    """Lines of the printed summary: a line per device, precision, size, batch and kind of step."""
    lines = []
    for entry in result["processes"]:
        for step in entry["steps"]:
            head = f"{title(entry)} {step['size']}x{step['size']} batch {step['batch']}"
            measured = [kind for kind in KINDS if kind in step]
            lines += [f"{head}: {kind} {text_of(step[kind])}" for kind in measured]
            lines += [] if measured else [f"{head}: {text_of(step)}"]
        losses = entry.get("losses", {})
        if "after" in losses:
            before, after = losses["before"], losses["after"]
            texts = ", ".join(f"{task} {before[task]:.3f} -> {after[task]:.3f}" for task in after)
            lines.append(f"{title(entry)}: losses after {losses['steps']} steps: {texts}")
    for ratio in result["comparisons"]["speed_over_cpu"]:
        texts = ", ".join(f"{kind} {ratio[kind]:.1f}" for kind in KINDS if kind in ratio)
        lines.append(
            f"speed relative to the CPU in fp32, {ratio['precision']} {ratio['size']}x{ratio['size']} "
            f"batch {ratio['batch']}: {texts}"
        )
    return lines


def text_of(figures: dict[str, Any]) -> str:
    """What was measured of one kind of step, or why it was not."""
    if "steps_per_s" not in figures:
        return next((f"{name}: {figures[name]}" for name in ("error", "skipped") if name in figures), "out of memory")
    memory = "" if figures["peak_memory_mb"] is None else f", {figures['peak_memory_mb']:.0f} MiB"
    shares = figures["trace"].get("shares", {})
    texts = ", ".join(f"{name} {part:.0%}" for name, part in shares.items())
    return f"{figures['steps_per_s']:.2f} steps/s{memory}" + (f"; {texts}" if texts else "")
