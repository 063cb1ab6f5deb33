"""``fbnetv5 export``: a run's networks as ONNX files and engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from export.errors import NotHere, UserError
from fbnetv5.cli.console import outermost, print_json, print_line, print_table, progress_bar, say, stage_lines
from fbnetv5.cli.options import Json, task_names

if TYPE_CHECKING:
    from export.graph import Exporter
    from fbnetv5.deploy.exported import Exported


def export(
    task: Annotated[
        str | None, typer.Option(help="Task to export, or several in one file: cls,det. Without it each of the run's.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/latest"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; RUN/export if not given.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8; every one above it is proven as well.")] = "fp32",
    max_drop: Annotated[
        float | None, typer.Option(help="Most that a metric may be worse than torch's, such as 0.01; else exit code 1.")
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Nodes that int8 leaves alone, such as '/head/*'; may be repeated.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="What a detector answers: topk, decode or nms.")] = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Take uint8 images; normalise inside the network.")] = False,
    fixed_size: Annotated[bool, typer.Option("--fixed-size", help="Accept the deploy resolution only.")] = False,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Accept any size; this is usual.")] = False,
    exporter: Annotated[
        str, typer.Option(help="Of torch's two: torchscript, which is fast, or dynamo.")
    ] = "torchscript",
    engine: Annotated[bool, typer.Option("--engine", help="Also build TensorRT engines; needs no GPU.")] = False,
    engine_config: Annotated[
        Path | None, typer.Option(help="JSON file of how engines are built, such as workspace_mb or timing_cache.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn a run's networks into validated ONNX files, and these into engines."""
    from export.options import EngineOptions
    from fbnetv5.deploy.engine import with_engine
    from fbnetv5.deploy.export import ExportOptions, export_tasks
    from fbnetv5.deploy.export_model import tasks_of
    from fbnetv5.deploy.exported import document

    if fixed_size and dynamic_size:
        raise UserError("--fixed-size and --dynamic-size exclude each other")
    if head is not None and task is None:
        raise UserError("--head is of one task; add --task det")
    if engine and head == "nms":
        raise UserError("--head nms is for ONNX Runtime: TensorRT builds no engine of it. Leave out --engine")
    if engine_config is not None and not engine:
        raise UserError("--engine-config says how an engine is built; it needs --engine")
    options = ExportOptions(
        precision=precision,
        exporter=cast("Exporter", exporter),
        head=head,
        from_pixels=pixels,
        fixed_size=fixed_size,
        max_drop=max_drop,
        keep_float=tuple(keep_float or ()),
    )
    engine_options = EngineOptions.load(engine_config) if engine_config else EngineOptions()
    exported, missing = [], None
    with progress_bar() as bar:
        for names in [task_names(task)] if task else [[name] for name in tasks_of(run)]:
            folder = (output or run / "export") / "+".join(names)
            one = export_tasks(run, names, folder, options, say, stage_lines(bar))
            if engine and missing is None:
                try:
                    one = with_engine(one, engine_options, say, outermost(stage_lines(bar)))
                except NotHere as error:
                    missing = error
            exported.append(one)
    if json:
        print_json(document(exported[0]) if task else {"exported": [document(one) for one in exported]})
    else:
        print_exported(exported)
    if missing is not None:
        raise NotHere(f"the ONNX files are written, and no engine was built: {missing}")


def print_exported(exported: "list[Exported]") -> None:
    rows = []
    for one in exported:
        for task, network in one.deliverable.architectures.items():
            found = {rung: metrics[task] for rung, metrics in one.metrics.items()}
            judged = [parity for step in one.compared if step.gated for parity in step.outputs if not parity.ranked]
            worst = max(parity.error for parity in judged)
            rows.append(
                [
                    task,
                    f"{network.cost.macs / 1e6:.1f}M",
                    f"{network.cost.params / 1e6:.2f}M",
                    network.latency_text,
                    f"{one.latency_ms_p50:.2f} ms",
                    f"{one.deliverable.tasks[task].metric.name} @{one.metric_size[0]}x{one.metric_size[1]}",
                    " ".join(f"{rung} {value:.4f}" for rung, value in found.items()),
                    f"{worst:.1e}",
                ]
            )
        if one.kept_float:
            print_line(f"{one.deliverable.name}: left in float by int8: {' '.join(one.kept_float)}")
        if one.deliverable.sharing is not None:
            saved = one.deliverable.sharing
            print_line(
                f"{one.deliverable.name}: {saved.blocks_shared} blocks run once for several tasks, "
                f"{saved.macs_joint / 1e6:.1f}M multiply-adds for {saved.macs_separate / 1e6:.1f}M"
            )
    print_table(["task", "multiply-adds", "params", "predicted", "measured", "metric", "by rung", "parity"], rows)
    for one in exported:
        if one.engine is not None:
            ran = "not run" if one.engine_latency_ms_p50 is None else f"{one.engine_latency_ms_p50:.3f} ms"
            print_line(f"{one.folder / one.engine.file}: {one.engine.runtime} {one.engine.version}, {ran}")
