"""Builds the TensorRT engine of an exported ONNX file and, with a GPU, runs it, compares its outputs and times it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.cuda import find_gpus
from export.errors import UnavailableError, VerificationError
from export.manifest import read_manifest, write_manifest
from export.progress import Progress
from export.reference import read_reference
from export.trt.engine import NAME as ENGINE
from export.trt.engine import Engine, ShapeRange, build_engine
from export.trt.engine_runner import open_engine
from export.trt.options import EngineOptions
from export.validate import ONNX, run_engine
from fbnetv5.data.resolution import Resolution
from fbnetv5.deploy.export_model import INPUT
from fbnetv5.deploy.exported import ENGINE as ENGINE_STAGE
from fbnetv5.deploy.exported import Exported, check_drop, metric_document
from fbnetv5.deploy.validate import time_engine
from fbnetv5.runs.config import Run
from fbnetv5.tasks import needed_targets

MAX_BATCH = 8
"""Maximum batch size of an engine."""


def add_engine(
    exported: Exported, options: EngineOptions, say: Callable[[str], None], progress: Progress | None = None
) -> Exported:
    """Build the engine of an exported ONNX file in the same folder, and add it to the manifest.

    Raises:
        UnavailableError: no TensorRT that can build is installed; the ONNX file stays as it is, and the message gives
            the package to install here and the command to run on another machine.
        VerificationError: the engine cannot be built, or not in the file's precision.
    """
    folder, model = exported.folder, exported.model
    say(f"{model.name}: building an engine")
    shapes = engine_shapes(model.resolution)
    try:
        engine = build_engine(
            folder / ONNX, folder / ENGINE, [shapes], precision=exported.precision, options=options, progress=progress
        )
    except UnavailableError as error:
        raise UnavailableError(
            f"the ONNX files are written, but no engine was built: {error}; or run where TensorRT is: "
            f"{_trtexec_command(folder, shapes)}"
        ) from None
    exported = replace(exported, engine=engine)
    try:
        exported = _run(exported, engine, say)
    except UnavailableError as error:
        say(f"{model.name}: {folder / ENGINE} built, not run: {error}")
    except VerificationError:
        (folder / ENGINE).unlink()
        raise
    manifest = read_manifest(folder)
    of_engine = {} if exported.engine_latency_ms_p50 is None else {"engine": exported.engine_latency_ms_p50}
    manifest = manifest.changed(
        engine=exported.engine,
        latency_ms={**manifest.latency_ms, **of_engine},
        parity=exported.parity_rows,
        metrics={task: metric_document(exported, task) for task in model.tasks},
    )
    write_manifest(folder, manifest, files=[ENGINE])
    return exported


def _run(exported: Exported, engine: Engine, say: Callable[[str], None]) -> Exported:
    """Run, compare and time the engine on this machine's GPU.

    Raises:
        UnavailableError: there is no GPU, or no package that allocates its memory.
        VerificationError: the engine's outputs differ from those of the ONNX file, or its metric drops too much.
    """
    folder, model = exported.folder, exported.model
    if not find_gpus():
        raise UnavailableError("no GPU here")
    say(f"{model.name}: running the engine")
    manifest, reference = read_manifest(folder), read_reference(folder)
    own = engine.build_options.version_compatible
    runner = open_engine(folder / engine.file, runtime=engine.runtime, version_compatible=own)
    comparison = run_engine(runner, manifest, reference)
    if comparison.failure_reason is not None:
        raise VerificationError(comparison.failure_message)
    metrics = dict(exported.metrics)
    if exported.metric_size == model.resolution:
        splits = Run.load(exported.run).data.changed(fit=model.fit).open(needed_targets(model.tasks))
        test = splits.test.resized(exported.metric_size)
        metrics[ENGINE_STAGE] = model.metrics(runner, test, max_batch=MAX_BATCH)
        check_drop(model.tasks, metrics, ENGINE_STAGE, exported.max_drop)
    first = {name: array[:1] for name, array in reference.inputs.items()}
    return replace(
        exported,
        engine=engine.changed(ran=True),
        comparisons=(*exported.comparisons, comparison),
        metrics=metrics,
        engine_latency_ms_p50=time_engine(folder, engine, first).latency_ms_median,
    )


def _trtexec_command(folder: Path, shapes: ShapeRange) -> str:
    """The command of TensorRT's ``trtexec`` that builds the same engine."""
    ranges = {"min": shapes.smallest, "opt": shapes.typical, "max": shapes.largest}
    sides = " ".join(f"--{kind}Shapes={shapes.name}:{'x'.join(map(str, shape))}" for kind, shape in ranges.items())
    return f"trtexec --onnx={folder / ONNX} --saveEngine={folder / ENGINE} --stronglyTyped --noTF32 {sides}"


def engine_shapes(deployed: Resolution) -> ShapeRange:
    """The shapes [N, 3, H, W] of an engine's input: 1 to ``MAX_BATCH`` images of the deploy resolution.

    The image size is fixed, although the ONNX file accepts others: tensorrt-rtx 1.7 fails on some networks of dynamic
    size.
    """
    smallest, largest = (1, 3, *deployed), (MAX_BATCH, 3, *deployed)
    return ShapeRange(name=INPUT, smallest=smallest, typical=smallest, largest=largest)
