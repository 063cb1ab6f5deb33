"""Converts a network of a run to ONNX in float32 and in each lower precision, and verifies each stage."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from export.calibration import Batches
from export.errors import VerificationError
from export.faulty_block import find_faulty_block
from export.graph import to_onnx_bytes
from export.parity import GATES, compare_groups
from export.precision_pipeline import (
    REAL,
    SEEDED,
    Comparison,
    Images,
    PrecisionStage,
    block_values,
    convert_and_verify,
    explain_failure,
    precisions_to,
)
from export.progress import Progress
from export.runners import OrtRunner, TorchRunner
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.splits import Splits
from fbnetv5.deploy.export_model import INPUT, ExportModel
from fbnetv5.deploy.export_options import ExportOptions
from fbnetv5.tasks import needed_targets

_COMPARED_IMAGES = 8
"""Real images that the stages are compared on."""
_CALIBRATION_IMAGES = (128, 32)
"""Images that int8 is calibrated on: of the metric's size, and of the deploy resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportData:
    """The images of a run at the two sizes that an export uses."""

    at_metric_size: Splits
    """The size that the metric is measured at."""
    at_deploy_size: Splits
    """The deploy resolution; the same object if both sizes are equal."""
    metric_size: Resolution

    @classmethod
    def of(cls, data: DataConfig, model: ExportModel, options: ExportOptions) -> "ExportData":
        """Open the images of a run, with the targets that the model's tasks need."""
        size = model.resolution if options.fixed_size else data.size
        targets = needed_targets(model.tasks)
        splits = data.open(targets).resized(size)
        deployed = splits if size == model.resolution else splits.resized(model.resolution)
        return cls(at_metric_size=splits, at_deploy_size=deployed, metric_size=size)


def convert_stages(
    model: ExportModel,
    data: ExportData,
    options: ExportOptions,
    say: Callable[[str], None],
    progress: Progress | None,
) -> list[PrecisionStage]:
    """The graph in float32 and in each lower precision down to the requested one, each verified.

    Args:
        model: the network to convert.
        data: images to compare and calibrate on.
        options: how to export.
        say: called with a line at each step.
        progress: called with the progress of int8's calibration.

    Raises:
        VerificationError: a graph cannot be exported or does not pass the gate of its precision.
    """
    real = model.first(data.at_metric_size.test, _COMPARED_IMAGES)
    images = {SEEDED: model.seeded(model.resolution, 2), REAL: real}
    (height, width), (deploy_height, deploy_width) = real[INPUT].shape[2:], model.resolution
    stages = [_export_float(model, options, images, (min(height, deploy_height), min(width, deploy_width)))]
    for precision in precisions_to(options.precision)[1:]:
        say(f"{model.name}: converting to {precision}")
        stages.append(
            convert_and_verify(
                stages[0].content,
                precision,
                images,
                calibration=_calibration_batches(model, data) if precision == "int8" else (),
                keep_float=options.keep_float,
                threads=torch.get_num_threads(),
                progress=progress,
            )
        )
    return stages


def _export_float(model: ExportModel, options: ExportOptions, images: Images, smallest: Resolution) -> PrecisionStage:
    """The float32 graph, verified against torch.

    It is traced on images of the smallest size that it must accept: on small images a detector of one class has fewer
    than a hundred boxes to choose from, and tracing fixes the number of its outputs.

    Raises:
        VerificationError: the graph cannot be exported, or its outputs differ from torch's.
    """
    example = torch.from_numpy(model.seeded(smallest, 2)[INPUT])
    content = to_onnx_bytes(
        model.module,
        (example,),
        input_names=[INPUT],
        output_names=model.output_names,
        dynamic_batch=model.max_images is None,
        dynamic_size=not options.fixed_size,
        exporter=options.exporter,
    )
    torch_runner = TorchRunner(model.module, [INPUT], model.output_names)
    ort_runner = OrtRunner(content, threads=torch.get_num_threads())
    comparisons = []
    for kind, inputs in images.items():
        groups = model.task_outputs.values()
        outputs = compare_groups(torch_runner(inputs), ort_runner(inputs), groups, gate=GATES["fp32"])
        comparison = Comparison(stage="fp32 onnxruntime", precision="fp32", images=kind, outputs=outputs)
        if comparison.failure_reason is not None:
            blocks = block_values(content, content, inputs)
            expected, output = torch_runner.blocks(inputs), comparison.failed_output
            faulty_block = find_faulty_block(content, expected, blocks, "fp32", output=output)
            raise VerificationError(explain_failure(comparison, faulty_block))
        comparisons.append(comparison)
    return PrecisionStage(precision="fp32", content=content, comparisons=tuple(comparisons))


def _calibration_batches(model: ExportModel, data: ExportData) -> Batches:
    """Training images of both sizes as the network's input; of one size if the two are equal."""
    metric_images, deploy_images = _CALIBRATION_IMAGES
    sets = [(data.at_deploy_size, deploy_images, 4)]
    if data.at_metric_size is not data.at_deploy_size:
        sets.insert(0, (data.at_metric_size, metric_images, 16))
    return [
        model.feed(batch.images)
        for parts, count, size in sets
        for batch in in_order(parts.weights, batch=min(size, model.max_images or size), limit=count)
    ]
