"""``fbnetv5 train``: trains the network of one task."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    console,
    interruptible,
    is_first_process,
    print_json,
    print_line,
    print_status,
    progress_bar,
)
from fbnetv5.cli.eval import print_evaluation
from fbnetv5.cli.options import SIZE, ArchitectureFile, Data, Json, Seed, architecture_file, print_layout

if TYPE_CHECKING:
    from rich.progress import Progress

    from fbnetv5.training.config import TrainConfig
    from fbnetv5.training.loop import TrainEntry
    from fbnetv5.training.run import Prepared, Result


def train(
    context: typer.Context,
    task: Annotated[str | None, typer.Option(help="Task whose network in runs/latest is trained.")] = None,
    arch: ArchitectureFile = None,
    data: Data = None,
    init: Annotated[
        str,
        typer.Option(
            help="Initial weights: inherited (from the search), scratch (random), torchvision or timm (pretrained on "
            "ImageNet), or a .safetensors file."
        ),
    ] = "inherited",
    size: Annotated[
        str | None,
        typer.Option(metavar=SIZE, help="Size that images are resized to.", show_default="size of the search"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder to create.", show_default="trained/TASK"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="JSON or YAML file with further fields of the training, such as steps "
            "(schema: docs/schemas/train.json)."
        ),
    ] = None,
    seed: Seed = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="Run folder of an interrupted training to continue; settings are read from the folder."),
    ] = None,
    json: Json = False,
) -> None:
    """Train the network of one task."""
    from fbnetv5.runs.processes import process_group_cleanup, relaunch_command
    from fbnetv5.training.config import TrainConfig
    from fbnetv5.training.run import prepare, run_training

    if resume is not None:
        check_resume_options(context)
        folder, prepared = resume, prepare(TrainConfig.load(resume))
    else:
        folder, prepared = _start(
            architecture_file(task, arch),
            task,
            data=data,
            init=init,
            size=size,
            output=output,
            fields=config,
            seed=seed,
        )
    hint = relaunch_command(f"train --resume {folder}")
    with process_group_cleanup(), progress_bar() as bar, interruptible(hint):
        result = run_training(folder, prepared, train_report(bar, prepared.config), print_status)
    if is_first_process():
        print_result(result, as_json=json)


def _start(
    file: Path,
    task: str | None,
    *,
    data: Path | None,
    init: str,
    size: str | None,
    output: Path | None,
    fields: Path | None,
    seed: int,
) -> "tuple[Path, Prepared]":
    """Create the run folder of a training from the options of the command."""
    from fbnetv5.architecture import load_architecture
    from fbnetv5.data.config import DataConfig
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.evaluate import check_task, trained_size
    from fbnetv5.training.config import TrainConfig
    from fbnetv5.training.run import start_training

    print_layout(data)
    architecture = load_architecture(file)
    check_task(architecture, task, file)
    image_size = trained_size(architecture) if size is None else parse_resolution(size)
    config = TrainConfig.make(
        fields,
        defaults=architecture.make_task().training,
        task=architecture.task,
        init=init,
        data=DataConfig.of(data, size=image_size),
        seed=seed,
    )
    return start_training(config, file, output or Path("trained") / architecture.task)


def train_report(bar: "Progress", config: "TrainConfig") -> "Callable[[TrainEntry], None]":
    """A callback that shows the step, the loss and the best score; without a terminal, a line per evaluation."""
    from fbnetv5.tasks import task_types

    metric = task_types()[config.task].metric.label
    line = bar.add_task(f"train {config.task}", total=config.steps, note="")
    started: list[tuple[float, int]] = []

    def report(entry: "TrainEntry") -> None:
        started.append((time.monotonic(), entry.step))
        loss = "" if entry.loss is None else f"loss {entry.loss:.3f}, "
        best = f"best {entry.best:.4f} at step {entry.best_step}"
        bar.update(line, completed=entry.step, note=f"{loss}held-out {metric}: {best}")
        if not console().is_terminal and entry.score is not None:
            seconds, steps = started[-1][0] - started[0][0], entry.step - started[0][1]
            left = f", {(config.steps - entry.step) * seconds / steps / 60:.1f} min left" if steps else ""
            print_status(
                f"step {entry.step} of {config.steps}: {loss}held-out {metric} {entry.score:.4f}, {best}{left}"
            )

    return report


def print_result(result: "Result", *, as_json: bool) -> None:
    """Print the score of the held-out images before and after the training, then the evaluation on the test images."""
    if as_json:
        print_json(result.to_json())
        return
    metric, file = result.test.metric.label, result.folder / f"{result.test.task}.json"
    print_line(
        f"{file}: held-out {metric} {result.initial_score:.4f} before training, {result.best:.4f} at step "
        f"{result.best_step}, the best of {result.steps} steps"
    )
    print_evaluation(result.test)
