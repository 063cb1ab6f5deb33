"""``fbnetv5 export``: exports networks of a run as ONNX files and TensorRT engines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import print_json, print_line, print_log, print_table, progress_bar, stage_lines
from fbnetv5.cli.options import FIT, FIT_HELP, Json

if TYPE_CHECKING:
    from fbnetv5.api import Exported

TaskOption = Annotated[
    str | None,
    typer.Option(
        help="Task to export, or comma-separated tasks to export as one joint network, such as cls,det.",
        show_default="each task in its own file",
    ),
]
Run = Annotated[Path, typer.Option(help="Run folder of a search or training.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder to write to; each network gets a subfolder.", show_default="RUN/export"
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="Precision of the network: fp32, fp16 or int8. Every higher precision is verified on the way."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Maximum by which a task's metric may be worse than in torch, in the unit of the metric, such as 0.01. "
        "A larger drop is exit code 1, and this network is not written.",
        show_default="no limit",
    ),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(help="Name pattern of ONNX nodes that int8 leaves in float, such as '/head/*'; repeatable."),
]
Head = Annotated[
    str | None,
    typer.Option(
        help="Form of a detector's outputs: topk (best boxes), decode (all boxes) or nms (boxes after non-maximum "
        "suppression, for ONNX Runtime only).",
        show_default="topk",
    ),
]
Pixels = Annotated[
    bool, typer.Option("--pixels", help="Make the input uint8 RGB images; the network contains the normalisation.")
]
FixedSize = Annotated[bool, typer.Option("--fixed-size", help="Accept images of the deploy resolution only.")]
DynamicSize = Annotated[bool, typer.Option("--dynamic-size", help="Accept images of any size (the default).")]
FitOption = Annotated[str | None, typer.Option("--fit", metavar=FIT, help=FIT_HELP, show_default="fit of the run")]
ExporterOption = Annotated[str, typer.Option(help="PyTorch's ONNX exporter: torchscript (faster) or dynamo.")]
EngineOption = Annotated[
    bool, typer.Option("--engine", help="Build a TensorRT engine too; TensorRT for RTX needs no GPU for it.")
]
EngineConfig = Annotated[
    Path | None,
    typer.Option(help="JSON file with options of the engine's build, such as workspace_mb or timing_cache."),
]


def export(
    task: TaskOption = None,
    run: Run = Path("runs/latest"),
    output: Output = None,
    precision: PrecisionOption = "fp32",
    max_drop: MaxDrop = None,
    keep_float: KeepFloat = None,
    head: Head = None,
    pixels: Pixels = False,
    fit: FitOption = None,
    fixed_size: FixedSize = False,
    dynamic_size: DynamicSize = False,
    exporter: ExporterOption = "torchscript",
    engine: EngineOption = False,
    engine_config: EngineConfig = None,
    json: Json = False,
) -> None:
    """Export networks of a run as verified ONNX files and engines.

    Each file is verified against the torch network before it is written.
    """
    from fbnetv5 import api

    if fixed_size and dynamic_size:
        raise UserError("--fixed-size and --dynamic-size exclude each other")
    try:
        with progress_bar() as bar:
            results = api.export(
                run,
                task,
                output=output,
                precision=precision,
                max_drop=max_drop,
                keep_float=keep_float or (),
                head=head,
                pixels=pixels,
                fit=fit,
                fixed_size=fixed_size,
                exporter=exporter,
                engine=engine,
                engine_options=engine_config,
                log=print_log,
                progress=stage_lines(bar),
            )
    except api.IncompleteExportError as error:
        if error.exported:
            print_exported(error.exported, joint=task is not None, as_json=json)
        raise
    print_exported(results, joint=task is not None, as_json=json)


def print_exported(results: "Sequence[Exported]", *, joint: bool, as_json: bool) -> None:
    """Print a table with a row per task, then the savings of joint networks and the engines.

    Args:
        results: the exported folders.
        joint: the only export is of the tasks that the user named; its JSON document is not in a list.
        as_json: print the JSON document instead.
    """
    if as_json:
        documents = [exported.to_json() for exported in results]
        print_json(documents[0] if joint else {"exported": documents})
        return
    columns = ["task", "multiply-adds", "params", "predicted latency", "measured latency"]
    columns += ["metric", "value by stage", "max error"]
    print_table(columns, [_row(exported, task) for exported in results for task in exported.model.tasks])
    for exported in results:
        model = exported.model
        if exported.kept_float:
            print_line(f"{model.name}: nodes that int8 leaves in float: {' '.join(exported.kept_float)}")
        if model.sharing is not None:
            print_line(
                f"{model.name}: {model.sharing.blocks_shared} blocks run once for several tasks, "
                f"{model.sharing.macs_joint / 1e6:.1f}M multiply-adds instead of "
                f"{model.sharing.macs_separate / 1e6:.1f}M"
            )
        if exported.engine is not None:
            engine, latency_ms = exported.engine, exported.engine_latency_ms_p50
            latency = "not run on this machine" if latency_ms is None else f"median latency {latency_ms:.3f} ms"
            print_line(f"{exported.folder / engine.file}: {engine.runtime} {engine.version}, {latency}")


def _row(exported: "Exported", task: str) -> list[str]:
    """The cells of a task's row."""
    architecture, (height, width) = exported.model.architectures[task], exported.metric_size
    return [
        task,
        f"{architecture.cost.macs / 1e6:.1f}M",
        f"{architecture.cost.params / 1e6:.2f}M",
        architecture.latency_text,
        f"{exported.latency_ms_p50:.2f} ms",
        f"{exported.model.tasks[task].metric.label} at {height}x{width}",
        " ".join(f"{stage} {metrics[task]:.4f}" for stage, metrics in exported.metrics.items()),
        f"{exported.max_error:.1e}",
    ]
