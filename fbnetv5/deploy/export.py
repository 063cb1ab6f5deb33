"""Converts networks of a run to ONNX and verifies every precision stage: the work of ``fbnetv5 export``.

The float32 graph is compared with torch, every lower precision with the float32 graph, on noise and on real images, and
the task's metric is measured at each stage. Nothing is written before all comparisons have passed. Real images have the
size that the weights were trained at: weights straight from a search are less accurate at another size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from export.progress import Progress
from export.runners import OrtRunner, TorchRunner
from fbnetv5.data.config import DataConfig
from fbnetv5.deploy.convert import ExportData, convert_stages
from fbnetv5.deploy.export_folder import write_export_folder
from fbnetv5.deploy.export_model import INPUT, ExportModel, load_export_model
from fbnetv5.deploy.export_options import ExportOptions
from fbnetv5.deploy.exported import Exported, check_drop
from fbnetv5.evaluate import trained_size
from fbnetv5.runs.config import Run
from latency.profile import measure_network
from latency.protocol import Timing

_REFERENCE_IMAGES = 2
"""Images of the deploy resolution in ``reference.npz``."""


def export_tasks(
    run: Path,
    tasks: Sequence[str],
    output: Path,
    options: ExportOptions,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> Exported:
    """Export one task's network of a finished run, or the networks of several tasks in one file.

    Args:
        run: the run folder.
        tasks: one name, or several.
        output: folder to write ``model.onnx``, ``reference.npz`` and ``manifest.json`` to.
        options: how to export.
        say: called with a line at each step.
        progress: called with the progress of int8's calibration.

    Raises:
        UserError: the run has no such network, its files are damaged, or the options do not fit it.
        VerificationError: a stage differs from its reference by more than its precision explains, or the metric drops
            by more than allowed; nothing is written.
    """
    data_config = Run.load(run).data
    if options.fit is not None:
        data_config = data_config.changed(fit=options.fit)
    model = load_export_model(run, tasks, head=options.head, from_pixels=options.from_pixels, fit=data_config.fit)
    data = ExportData.of(_at_trained_size(data_config, model), model, options)
    say(f"{model.name}: exporting")
    stages = convert_stages(model, data, options, say, progress)
    say(f"{model.name}: measuring on the test images")
    test, threads = data.at_metric_size.test, torch.get_num_threads()
    metrics = {"torch": model.metrics(TorchRunner(model.module, [INPUT], model.output_names), test)}
    metrics |= {stage.precision: model.metrics(OrtRunner(stage.measured, threads=threads), test) for stage in stages}
    check_drop(model.tasks, metrics, options.precision, options.max_drop)
    say(f"{model.name}: timing")
    content, shape = stages[-1].content, (1, 3, *model.resolution)
    exported = Exported(
        run=run,
        folder=output,
        model=model,
        precision=options.precision,
        comparisons=tuple(comparison for stage in stages for comparison in stage.comparisons),
        metrics=metrics,
        metric_size=data.metric_size,
        max_drop=options.max_drop,
        kept_float=stages[-1].kept_float,
        latency_ms_p50=measure_network(content, shape, timing=Timing()).latency_ms_median,
    )
    write_export_folder(exported, content, model.first(data.at_deploy_size.test, _REFERENCE_IMAGES))
    return exported


def _at_trained_size(data: DataConfig, model: ExportModel) -> DataConfig:
    """The images of a run at the size that its networks' files name: one of several that ``derive`` chose from."""
    sizes = {trained_size(each) for each in model.architectures.values() if "trained_at" in each.provenance}
    return data.changed(size=sizes.pop()) if len(sizes) == 1 else data
