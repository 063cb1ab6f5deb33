"""Runs the project's own commands in the folder of a part, and keeps their documents.

As a program, ``python -m tests.gpu.commands FILE ARGUMENTS...``, it is the command itself, which at its end writes to
FILE the device that accelerate used in it and the GPU memory that torch allocated in it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.gpu.context import Context, write_json
from tests.gpu.processes import python_environment, run_command


def run_fbnetv5(context: Context, name: str, arguments: list[str], *, tracked: bool = False) -> dict[str, Any]:
    """Run a command with ``--json``.

    Args:
        context: of the part; the command runs in its folder and time.
        name: of its log and document.
        arguments: of the command.
        tracked: also store the device and memory that it used.

    Returns:
        The command, its seconds, its document, the reason if it failed, and if it was tracked what it used.
    """
    folder = context.folder
    stdout, usage = folder / f"{name}.stdout", folder / f"{name}.usage.json"
    program = ["-m", "tests.gpu.commands", str(usage)] if tracked else ["-m", "fbnetv5"]
    ended = run_command(
        [sys.executable, "-P", *program, *arguments, "--json"],
        folder=folder,
        name=name,
        limit_s=context.left_s,
        environment=python_environment(),
        stdout=stdout,
    )
    try:
        document = json.loads(stdout.read_text(encoding="utf-8"))
    except ValueError:
        document = None
    failure = ended.failure or ("printed no JSON document" if document is None else None)
    entry = {
        "command": " ".join(["fbnetv5", *arguments]),
        "seconds": ended.seconds,
        "exit_code": ended.returncode,
        "failure": failure,
        "document": document,
    }
    if failure:
        entry["output_tail"] = ended.tail
    if usage.exists():
        entry["used"] = json.loads(usage.read_text(encoding="utf-8"))
    return entry


def main(file: str, *arguments: str) -> None:
    """Run the command in this process and write what it used."""
    from fbnetv5.cli import main as fbnetv5

    sys.argv = ["fbnetv5", *arguments]
    try:
        fbnetv5()
    finally:
        import torch

        from fbnetv5.runs.processes import make_accelerator

        write_json(
            Path(file),
            {
                "device": str(make_accelerator().device),
                "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
            },
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
