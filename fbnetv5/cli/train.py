"""``fbnetv5 train``: trains a network on its task, or jointly on all of its tasks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv5.cli.console import (
    check_resume_options,
    console,
    is_first_process,
    print_json,
    print_line,
    print_log,
    print_status,
    progress_bar,
    resumable,
)
from fbnetv5.cli.eval import print_evaluation
from fbnetv5.cli.options import (
    FIT,
    FIT_HELP,
    SIZE,
    ArchitectureFile,
    Data,
    Json,
    Seed,
    StrictData,
    Teacher,
)
from fbnetv5.deploy.report.write import finish_with_report

if TYPE_CHECKING:
    from rich.progress import Progress

    from fbnetv5.api import TrainResult
    from fbnetv5.training.config import TrainConfig
    from fbnetv5.training.loop import TrainEntry
    from fbnetv5.training.run import Prepared


Init = Annotated[
    str,
    typer.Option(
        help="Initial weights: inherited (from the search), scratch (random), torchvision or timm (pretrained on "
        "ImageNet), or a .safetensors file."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Run folder to create.", show_default="trained/TASK")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON or YAML file with further fields of the training, such as steps (schema: docs/schemas/train.json)."
    ),
]


def train(
    context: typer.Context,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task whose network in runs/latest is trained; with --arch, another task for the topology of that "
            "network, with a head of its own."
        ),
    ] = None,
    arch: ArchitectureFile = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="Train the topology of the network in another variant of its space: a, c, f, ac or a-lite.",
            show_default="that of the network",
        ),
    ] = None,
    scale_to: Annotated[
        str | None,
        typer.Option(
            metavar="MULTIPLY-ADDS",
            help="Train the network of a search scaled to this cost in depth, width and resolution, such as 200M; "
            "200M@192x192 sets the deploy resolution.",
        ),
    ] = None,
    data: Data = None,
    strict_data: StrictData = False,
    init: Init = "inherited",
    teacher: Teacher = None,
    size: Annotated[
        str | None,
        typer.Option(metavar=SIZE, help="Size that images are fitted to.", show_default="size of the search"),
    ] = None,
    fit: Annotated[str | None, typer.Option(metavar=FIT, help=FIT_HELP, show_default="fit of the search")] = None,
    output: Output = None,
    config: ConfigFile = None,
    seed: Seed = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="Run folder of an interrupted training to continue; settings are read from the folder."),
    ] = None,
    json: Json = False,
) -> None:
    """Train a network on its task, or jointly on all of its tasks."""
    from fbnetv5 import api
    from fbnetv5.runs.processes import process_group_cleanup

    if resume is not None:
        check_resume_options(context)

    def make_report(prepared: "Prepared") -> "Callable[[TrainEntry], None]":
        return train_report(bar, prepared.config)

    with process_group_cleanup(), progress_bar() as bar, resumable("train", make_report) as run:
        if resume is not None:
            result = api.resume_train(resume, log=print_log, started=run.started, report=run.report)
        else:
            result = api.train(
                task,
                arch=arch,
                variant=variant,
                scale_to=scale_to,
                data=data,
                strict_data=strict_data,
                init=init,
                teacher=teacher,
                size=size,
                fit=fit,
                output=output,
                config=config,
                seed=seed,
                log=print_log,
                started=run.started,
                report=run.report,
            )
    if is_first_process():
        print_result(result, as_json=json)
        finish_with_report(result.folder, print_log, run.prepared.test)


def train_report(bar: "Progress", config: "TrainConfig") -> "Callable[[TrainEntry], None]":
    """A callback that shows the step, losses and best scores; without a terminal, a line per evaluation and task."""
    from fbnetv5.tasks import task_types

    types, steps = task_types(), config.last_step
    line = bar.add_task(f"train {'+'.join(config.tasks)}", total=steps, note="")
    started: list[tuple[float, int]] = []

    def report(entry: "TrainEntry") -> None:
        started.append((time.monotonic(), entry.step))
        losses, step = entry.losses or {}, f"at step {entry.best_step}"
        best = ", ".join(f"{types[task].metric.name} {score:.4f}" for task, score in entry.best.items())
        loss = "".join(f"loss {losses[task]:.3f}, " for task in config.tasks if task in losses)
        bar.update(line, completed=entry.step, note=f"{loss}held-out best {best} {step}")
        if console().is_terminal or entry.scores is None:
            return
        seconds, done = started[-1][0] - started[0][0], entry.step - started[0][1]
        left = f", {(steps - entry.step) * seconds / done / 60:.1f} min left" if done else ""
        for task, score in entry.scores.items():
            name = f"{task}: " if len(config.tasks) > 1 else ""
            loss = f"loss {losses[task]:.3f}, " if losses else ""
            print_status(
                f"step {entry.step} of {steps}: {name}{loss}held-out {types[task].metric.label} {score:.4f}, "
                f"best {entry.best[task]:.4f} {step}{left}"
            )

    return report


def print_result(result: "TrainResult", *, as_json: bool) -> None:
    """Print, by task, the scores on the held-out images before and after the training; then all test evaluations."""
    if as_json:
        print_json(result.to_json())
        return
    file = result.folder / f"{result.architecture.file_name}.json"
    for name, evaluation in result.test.items():
        task = f"{name}, " if len(result.test) > 1 else ""
        print_line(
            f"{file}: {task}held-out {evaluation.metric.label} {result.initial[name]:.4f} before training, "
            f"{result.best[name]:.4f} at step {result.best_step}, the best of {result.steps} steps"
        )
    for evaluation in result.test.values():
        print_evaluation(evaluation)
