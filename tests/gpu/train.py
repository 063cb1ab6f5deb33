"""Part "train": the commands from a search to a validated file, a few steps each, and the device that they used."""

import json
from typing import Any

from tests.gpu.commands import run_fbnetv5
from tests.gpu.context import Context
from tests.gpu.processes import ROOT

TRAINING = {"steps": 40, "warmup_steps": 5, "evaluate_every": 20, "held_out": 64, "scenes": [512, 64, 64]}
"""Fields of the training's ``--config``."""
REHEARSED = {"steps": 4, "evaluate_every": 4, "batch": 8, "scenes": [32, 16, 16]}
"""Fields that a rehearsal changes."""


def run(context: Context) -> list[str]:
    """Run the commands until one fails."""
    context.check_torch()
    config = context.folder / "training.json"
    config.write_text(json.dumps(TRAINING | (REHEARSED if context.is_rehearsal else {})), encoding="utf-8")
    quick = ["--config", str(ROOT / "tests" / "quick-search.json"), "--name", "run"]
    small = ["--flops", "15M@64x64", "--stages", "1", "--blocks-per-path", "1"]
    budget = small if context.is_rehearsal else ["--flops", "32M@64x64"]
    commands = {
        "search": ["search", *budget, *quick],
        "train": ["train", "--task", "seg", "--config", str(config), "--output", "trained"],
        "export": ["export", "--task", "seg", "--run", "trained", "--output", "exported"],
        "validate": ["validate", "exported/seg"],
    }
    entries: dict[str, Any] = {}
    for name, arguments in commands.items():
        entries[name] = run_fbnetv5(context, name, arguments, tracked=name in ("search", "train"))
        context.save({"commands": entries})
        failure = entries[name]["failure"] or wrong_device(entries[name].get("used"), context.device)
        if failure:
            return [f"{name}: {failure}"]
    return []


def wrong_device(used: dict[str, Any] | None, device: str) -> str | None:
    """Why a command did not compute on the device; None if it did, or if its device was not tracked."""
    if used is None:
        return None
    on_device = used["device"].partition(":")[0] == device
    if on_device and (device == "cpu" or used["peak_gpu_memory_mb"]):
        return None
    return f"computed on {used['device']} with {used['peak_gpu_memory_mb'] or 0:.0f} MiB of GPU memory, not on {device}"


def summarise(result: dict[str, Any]) -> list[str]:
    """Lines of the printed summary: a line per command."""
    lines = []
    for name, entry in result["commands"].items():
        used = entry.get("used")
        memory = "" if not used or used["peak_gpu_memory_mb"] is None else f", {used['peak_gpu_memory_mb']:.0f} MiB"
        on_device = f" on {used['device']}{memory}" if used else ""
        lines.append(f"{name}{on_device}: {entry['failure'] or 'exit code 0'}, {entry['seconds']} s")
    return lines
