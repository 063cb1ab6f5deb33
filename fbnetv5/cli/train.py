"""``fbnetv5 train``: one found network alone."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from fbnetv5.cli.console import (
    console,
    interruptible,
    is_first_process,
    print_json,
    print_line,
    progress_bar,
    refuse_others,
    say,
)
from fbnetv5.cli.eval import print_evaluation
from fbnetv5.cli.options import Data, Json, architecture_file, say_layout

if TYPE_CHECKING:
    from fbnetv5.training.config import TrainConfig
    from fbnetv5.training.loop import TrainEntry
    from fbnetv5.training.run import Result


def train(
    context: typer.Context,
    task: Annotated[
        str | None, typer.Option(help="Task whose network to train; the architecture file says it too.")
    ] = None,
    arch: Annotated[Path | None, typer.Option(help="Architecture file; runs/latest/TASK.json if not given.")] = None,
    data: Data = None,
    init: Annotated[
        str,
        typer.Option(help="Where weights start: inherited (from the search), scratch, timm, or a .safetensors file."),
    ] = "inherited",
    size: Annotated[
        str | None, typer.Option(help="Size of the images, HEIGHTxWIDTH; that of the search if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make; trained/TASK if not given.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file that sets any other field of the training, such as steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[Path | None, typer.Option(help="Folder of a training to go on with.")] = None,
    json: Json = False,
) -> None:
    """Train one found network alone."""
    from fbnetv5.runs.processes import process_group_cleanup, relaunch_command
    from fbnetv5.training.config import TrainConfig
    from fbnetv5.training.run import prepare, run_training, start_training

    if resume is not None:
        refuse_others(context)
        folder, prepared = resume, prepare(TrainConfig.load(resume))
    else:
        from fbnetv5.architecture import load_architecture
        from fbnetv5.data.config import DataConfig
        from fbnetv5.data.resolution import parse_resolution
        from fbnetv5.evaluate import check_task, trained_size

        say_layout(data)
        file = architecture_file(task, arch)
        architecture = load_architecture(file)
        check_task(architecture, task, file)
        trained = trained_size(architecture) if size is None else parse_resolution(size)
        chosen = TrainConfig.make(
            config,
            defaults=architecture.make_task().training,
            task=architecture.task,
            init=init,
            data=DataConfig.of(data, size=trained),
            seed=seed,
        )
        folder, prepared = start_training(chosen, file, output or Path("trained") / architecture.task)
    way_on = f"go on with: {relaunch_command(f'train --resume {folder}')}"
    with process_group_cleanup(), progress_bar() as bar, interruptible(way_on):
        result = run_training(folder, prepared, train_report(bar, prepared.config), say)
    if is_first_process():
        print_trained(result, as_json=json)


def train_report(bar: Progress, config: "TrainConfig") -> "Callable[[TrainEntry], None]":
    """Shows the step, the loss and the best score so far; without a terminal, in a line at each measurement."""
    line = bar.add_task(f"train {config.task}", total=config.steps, note="")
    started: list[tuple[float, int]] = []

    def report(now: "TrainEntry") -> None:
        started.append((time.monotonic(), now.step))
        loss = "" if now.loss is None else f"loss {now.loss:.3f}, "
        best = f"held-out score {now.best:.4f} of step {now.best_step}"
        bar.update(line, completed=now.step, note=loss + best)
        if not console.is_terminal and now.score is not None:
            seconds, steps = started[-1][0] - started[0][0], now.step - started[0][1]
            left = f", {(config.steps - now.step) * seconds / steps / 60:.1f} min left" if steps else ""
            say(f"step {now.step} of {config.steps}: {loss}score {now.score:.4f}, best {best}{left}")

    return report


def print_trained(result: "Result", *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
        return
    metric, file = result.test.metric.name, result.folder / f"{result.test.task}.json"
    print_line(
        f"{file}: held-out {metric} {result.first:.4f} before, {result.best:.4f} of step {result.best_step}, "
        f"{result.steps} steps done"
    )
    print_evaluation(result.test)
