"""What ``fbnetv5 export`` does: a derived network becomes ONNX in the precision that ships, with proof at every step.

The float32 graph is held against torch, every lower precision against the float32 graph, on noise and on real images,
and the task's metric is measured at each rung. Nothing is written before all of it has passed. Images are tested at
the size the weights were trained at: weights that came straight from a search are not at home at another.

Beside the file lie its manifest and what it answered to a few images, so that ``fbnetv5 validate`` can tell anywhere
whether it still is the same network.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from export.blame import find_culprit
from export.calibration import Batches, Progress
from export.engine import NAME as ENGINE
from export.errors import CheckFailed, UserError
from export.files import written_whole
from export.graph import Exporter, to_onnx_bytes
from export.ladder import (
    REAL,
    SEEDED,
    Compared,
    Images,
    Rung,
    climb,
    failure,
    rungs_to,
    values_of_blocks,
)
from export.manifest import Manifest, export_versions, write_manifest
from export.parity import GATES, compare_answers
from export.reference import NAME as REFERENCE
from export.reference import Reference, sample, write_reference
from export.runners import Array, OrtRunner, TensorSpec, TorchRunner
from export.validate import ONNX
from fbnetv5 import __version__
from fbnetv5.data.loading import in_order
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.splits import Splits
from fbnetv5.deploy.export_model import INPUT, Deliverable, load_deliverable
from fbnetv5.deploy.exported import Exported, metric_document
from fbnetv5.runs.config import Run
from fbnetv5.tasks import needed_targets
from fbnetv5.tasks.task import Task
from latency.profile import measure_network
from latency.protocol import Timing

_COMPARED = 8
"""Real images that rungs are compared on."""
_KEPT = 2
"""Images of the deploy resolution in the reference."""
_CALIBRATION = (128, 32)
"""Images that int8 is calibrated on: of the size that the metric is measured at, and of the deploy resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How networks are exported."""

    precision: str = "fp32"
    """fp32, fp16 or int8."""
    exporter: Exporter = "torchscript"
    """Of torch's two."""
    head: str | None = None
    """Form of a detector's outputs; None is topk."""
    from_pixels: bool = False
    """Preprocessing is part of the network."""
    fixed_size: bool = False
    """The file accepts the deploy resolution only; then the metric is measured at that size."""
    max_drop: float | None = None
    """Most that the metric may be worse than torch's, in its own unit."""
    keep_float: tuple[str, ...] = ()
    """Patterns of names of nodes that int8 leaves alone."""

    def __post_init__(self) -> None:
        rungs_to(self.precision)
        if self.max_drop is not None and not math.isfinite(self.max_drop):
            raise UserError(f"--max-drop is {self.max_drop}, where a number such as 0.01 is needed")
        if self.keep_float and self.precision != "int8":
            raise UserError("--keep-float names what int8 leaves alone; it needs --precision int8")


def export_tasks(
    run: Path,
    tasks: Sequence[str],
    output: Path,
    options: ExportOptions,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> Exported:
    """Export one task's network of a finished run, or those of several tasks in one file.

    Args:
        run: the run folder.
        tasks: one name, or several.
        output: folder to write ``model.onnx``, ``reference.npz`` and ``manifest.json`` to.
        options: how.
        say: takes one line about what is being done.
        progress: told how far int8's calibration is.

    Raises:
        UserError: the run has no such network, its files are damaged, or the options do not fit it.
        CheckFailed: a rung differs from the one above it by more than its precision explains, or the metric drops by
            more than allowed; nothing is written.
    """
    data = Run.load(run).data
    given = load_deliverable(run, tasks, head=options.head, from_pixels=options.from_pixels)
    size = given.resolution if options.fixed_size else data.size
    needed = needed_targets(given.tasks)
    parts = data.open(needed).resized(size)
    deployed = parts if size == given.resolution else parts.resized(given.resolution)
    images = {SEEDED: given.seeded(given.resolution, 2), REAL: given.first(parts.test, _COMPARED)}
    say(f"{given.name}: exporting")
    rungs = _rungs(given, options, images, parts, deployed, say, progress)
    say(f"{given.name}: measuring on the test images")
    threads = torch.get_num_threads()
    metrics = {"torch": given.metrics(TorchRunner(given.module, [INPUT], given.output_names), parts.test)}
    metrics |= {one.precision: given.metrics(OrtRunner(one.content, threads=threads), parts.test) for one in rungs}
    _check_drop(given.tasks, metrics, options)
    say(f"{given.name}: timing")
    shape = (1, 3, *given.resolution)
    exported = Exported(
        run=run,
        folder=output,
        deliverable=given,
        precision=options.precision,
        compared=tuple(compared for one in rungs for compared in one.compared),
        metrics=metrics,
        metric_size=size,
        max_drop=options.max_drop,
        kept_float=rungs[-1].kept_float,
        latency_ms_p50=measure_network(rungs[-1].content, shape, timing=Timing()).latency_ms_median,
    )
    _write(exported, rungs[-1].content, given.first(deployed.test, _KEPT))
    return exported


def _rungs(
    given: Deliverable,
    options: ExportOptions,
    images: Images,
    parts: Splits,
    deployed: Splits,
    say: Callable[[str], None],
    progress: Progress | None,
) -> list[Rung]:
    """The graph in float32 and in each lower precision down to the one asked for, each compared with the one before."""
    (height, width), (deployed_height, deployed_width) = images[REAL][INPUT].shape[2:], given.resolution
    rungs = [_float_rung(given, options, images, (min(height, deployed_height), min(width, deployed_width)))]
    for precision in rungs_to(options.precision)[1:]:
        say(f"{given.name}: converting to {precision}")
        rungs.append(
            climb(
                rungs[0].content,
                precision,
                images,
                calibration=_calibration(given, parts.weights, deployed.weights) if precision == "int8" else (),
                keep_float=options.keep_float,
                threads=torch.get_num_threads(),
                progress=progress,
            )
        )
    return rungs


def _float_rung(given: Deliverable, options: ExportOptions, images: Images, smallest: Resolution) -> Rung:
    """The float32 graph, which gives what torch gives.

    It is traced on images of the smallest size that it is to take: a detector of one class has fewer than a hundred
    boxes to choose from on small ones, and how many it answers is fixed then.

    Raises:
        CheckFailed: it does not, or cannot be made.
    """
    example = torch.from_numpy(given.seeded(smallest, 2)[INPUT])
    content = to_onnx_bytes(
        given.module,
        (example,),
        input_names=[INPUT],
        output_names=given.output_names,
        dynamic_batch=given.max_images is None,
        dynamic_size=not options.fixed_size,
        exporter=options.exporter,
    )
    in_torch = TorchRunner(given.module, [INPUT], given.output_names)
    in_ort = OrtRunner(content, threads=torch.get_num_threads())
    found = []
    for kind, inputs in images.items():
        outputs = compare_answers(in_torch(inputs), in_ort(inputs), given.answers.values(), gate=GATES["fp32"])
        one = Compared(rung="fp32 onnxruntime", precision="fp32", images=kind, outputs=outputs)
        if one.complaint is not None:
            blocks = values_of_blocks(content, content, inputs)
            raise CheckFailed(failure(one, find_culprit(content, in_torch.blocks(inputs), blocks, "fp32")))
        found.append(one)
    return Rung(precision="fp32", content=content, compared=tuple(found))


def _calibration(given: Deliverable, images: ImageSet, deployed: ImageSet) -> Batches:
    """Training images of both sizes, as the network's input."""
    sets = [(images, _CALIBRATION[0], 16), (deployed, _CALIBRATION[1], 4)]
    return [
        given.feed(one.images)
        for source, count, batch in (sets if images is not deployed else sets[1:])
        for one in in_order(source, batch=min(batch, given.max_images or batch), limit=count)
    ]


def _check_drop(tasks: Mapping[str, Task], metrics: dict[str, dict[str, float]], options: ExportOptions) -> None:
    if options.max_drop is None:
        return
    for task, shipped in metrics[options.precision].items():
        drop = tasks[task].metric.drop(metrics["torch"][task], shipped)
        if drop > options.max_drop:
            name, reference = tasks[task].metric.name, metrics["torch"][task]
            raise CheckFailed(
                f"{task}: {name} goes from {reference:.4f} in torch to {shipped:.4f} in {options.precision}, which is "
                f"{drop:.4f} worse, and at most {options.max_drop:g} was allowed (--max-drop); nothing is written"
            )


def _write(exported: Exported, content: bytes, inputs: Mapping[str, Array]) -> None:
    """The folder, the manifest last: what it names is there."""
    folder, runner = exported.folder, OrtRunner(content)
    manifest = _manifest(exported, runner.inputs, runner.outputs)
    (folder / ENGINE).unlink(missing_ok=True)  # of an earlier export: it would not be of this network
    with written_whole(folder / ONNX) as temporary:
        temporary.write_bytes(content)
    blocks = values_of_blocks(content, content, inputs)
    write_reference(
        folder,
        Reference(
            inputs=inputs, outputs=runner(inputs), blocks={name: sample(values) for name, values in blocks.items()}
        ),
    )
    write_manifest(folder, manifest, files=[ONNX, REFERENCE])


def _manifest(exported: Exported, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Manifest:
    given = exported.deliverable
    return Manifest(
        precision=exported.precision,
        inputs=inputs,
        outputs=outputs,
        answers=given.answers,
        preprocessing=given.preprocessing,
        labels={name: task.labels for name, task in given.tasks.items()},
        architecture={name: one.to_json() for name, one in given.architectures.items()},
        versions={"fbnetv5": __version__, **export_versions()},
        parity=tuple(entry for one in exported.compared for entry in one.to_json()),
        metrics={task: metric_document(exported, task) for task in given.tasks},
    )
