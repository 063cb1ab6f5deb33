"""``fbnetv5 export``: writes a run's networks as ONNX files and TensorRT engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from export.errors import UnavailableError, UserError
from fbnetv5.cli.console import outermost, print_json, print_line, print_table, progress_bar, say, stage_lines
from fbnetv5.cli.options import Json, task_names

if TYPE_CHECKING:
    from export.graph import Exporter
    from export.precision import Precision
    from fbnetv5.deploy.exported import Exported

TaskOption = Annotated[
    str | None, typer.Option(help="Task to export, or several in one file: cls,det. Default: each task of the run.")
]
Run = Annotated[Path, typer.Option(help="Run folder.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write to. Default: RUN/export.")]
PrecisionOption = Annotated[str, typer.Option(help="fp32, fp16 or int8; every precision above it is verified as well.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(help="Maximum by which a metric may be worse than torch's, such as 0.01; else exit code 1."),
]
KeepFloat = Annotated[
    list[str] | None, typer.Option(help="Nodes that int8 leaves in float, such as '/head/*'; may be repeated.")
]
Head = Annotated[str | None, typer.Option(help="Outputs of a detector: topk, decode or nms.")]
Pixels = Annotated[bool, typer.Option("--pixels", help="Take uint8 images; normalise inside the network.")]
FixedSize = Annotated[bool, typer.Option("--fixed-size", help="Accept the deploy resolution only.")]
DynamicSize = Annotated[bool, typer.Option("--dynamic-size", help="Accept any size; this is the default.")]
ExporterOption = Annotated[str, typer.Option(help="Exporter of torch: torchscript, which is fast, or dynamo.")]
EngineOption = Annotated[bool, typer.Option("--engine", help="Also build TensorRT engines; needs no GPU.")]
EngineConfig = Annotated[
    Path | None, typer.Option(help="JSON file of engine options, such as workspace_mb or timing_cache.")
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
    fixed_size: FixedSize = False,
    dynamic_size: DynamicSize = False,
    exporter: ExporterOption = "torchscript",
    engine: EngineOption = False,
    engine_config: EngineConfig = None,
    json: Json = False,
) -> None:
    """Write a run's networks as validated ONNX files, and as engines."""
    from export.trt.options import EngineOptions
    from fbnetv5.deploy.engine import add_engine
    from fbnetv5.deploy.export import export_tasks
    from fbnetv5.deploy.export_model import networks_of
    from fbnetv5.deploy.export_options import ExportOptions
    from fbnetv5.deploy.exported import document

    if fixed_size and dynamic_size:
        raise UserError("--fixed-size and --dynamic-size exclude each other")
    if head is not None and task is None:
        raise UserError("--head is of one task; add --task det")
    if engine and head == "nms":
        raise UserError("--head nms is for ONNX Runtime: TensorRT builds no engine of it. Leave out --engine")
    if engine_config is not None and not engine:
        raise UserError("--engine-config sets how an engine is built; it needs --engine")
    options = ExportOptions(
        precision=cast("Precision", precision),
        exporter=cast("Exporter", exporter),
        head=head,
        from_pixels=pixels,
        fixed_size=fixed_size,
        max_drop=max_drop,
        keep_float=tuple(keep_float or ()),
    )
    engine_options = EngineOptions.load(engine_config) if engine_config else EngineOptions()
    results, unavailable = [], None
    with progress_bar() as bar:
        for names in [task_names(task)] if task else networks_of(run):
            folder = (output or run / "export") / "+".join(names)
            exported = export_tasks(run, names, folder, options, say, stage_lines(bar))
            if engine and unavailable is None:
                try:
                    exported = add_engine(exported, engine_options, say, outermost(stage_lines(bar)))
                except UnavailableError as error:
                    unavailable = error
            results.append(exported)
    if json:
        print_json(document(results[0]) if task else {"exported": [document(exported) for exported in results]})
    else:
        print_exported(results)
    if unavailable is not None:
        raise UnavailableError(f"the ONNX files are written, and no engine was built: {unavailable}")


def print_exported(results: "list[Exported]") -> None:
    """Print a table with a row per task, then the savings of joint networks and the engines."""
    columns = ["task", "multiply-adds", "params", "predicted", "measured", "metric", "by stage", "parity"]
    print_table(columns, [_row(exported, task) for exported in results for task in exported.model.tasks])
    for exported in results:
        model = exported.model
        if exported.kept_float:
            print_line(f"{model.name}: left in float by int8: {' '.join(exported.kept_float)}")
        if model.sharing is not None:
            print_line(
                f"{model.name}: {model.sharing.blocks_shared} blocks run once for several tasks, "
                f"{model.sharing.macs_joint / 1e6:.1f}M multiply-adds instead of "
                f"{model.sharing.macs_separate / 1e6:.1f}M"
            )
        if exported.engine is not None:
            engine, latency_ms = exported.engine, exported.engine_latency_ms_p50
            latency = "not run" if latency_ms is None else f"{latency_ms:.3f} ms"
            print_line(f"{exported.folder / engine.file}: {engine.runtime} {engine.version}, {latency}")


def _row(exported: "Exported", task: str) -> list[str]:
    architecture, (height, width) = exported.model.architectures[task], exported.metric_size
    return [
        task,
        f"{architecture.cost.macs / 1e6:.1f}M",
        f"{architecture.cost.params / 1e6:.2f}M",
        architecture.latency_text,
        f"{exported.latency_ms_p50:.2f} ms",
        f"{exported.model.tasks[task].metric.name} @{height}x{width}",
        " ".join(f"{stage} {metrics[task]:.4f}" for stage, metrics in exported.metrics.items()),
        f"{exported.max_error:.1e}",
    ]
