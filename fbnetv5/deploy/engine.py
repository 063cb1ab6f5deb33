"""Builds the TensorRT engine beside an exported ONNX file, and runs, compares and times it where there is a GPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.calibration import Progress
from export.cuda import found_gpus
from export.engine import NAME as ENGINE
from export.engine import ShapeRange, build_engine
from export.engine_runner import open_engine
from export.errors import CheckFailed, NotHere
from export.ladder import complaint_of
from export.manifest import read_manifest, write_manifest
from export.options import EngineOptions
from export.reference import read_reference
from export.validate import ONNX, run_engine
from fbnetv5.data.resolution import Resolution
from fbnetv5.deploy.export_model import INPUT
from fbnetv5.deploy.exported import Exported, metric_document
from fbnetv5.deploy.validate import time_engine
from fbnetv5.runs.config import Run
from fbnetv5.tasks import needed_targets

MAX_BATCH = 8
"""Of an engine."""


def with_engine(
    exported: Exported, options: EngineOptions, say: Callable[[str], None], progress: Progress | None = None
) -> Exported:
    """Build the engine beside an exported ONNX file, and write it into the manifest.

    Raises:
        NotHere: no TensorRT that can build is installed; the ONNX file stays as it is, and the message says what to
            install here or to run where there is one.
        CheckFailed: there is no engine of this file, or none of its precision.
    """
    folder, name = exported.folder, exported.deliverable.name
    say(f"{name}: building an engine")
    shapes = engine_shapes(exported.deliverable.resolution)
    try:
        engine = build_engine(
            folder / ONNX, folder / ENGINE, [shapes], precision=exported.precision, options=options, progress=progress
        )
    except NotHere as error:
        raise NotHere(f"{error}; or run where TensorRT is: {_trtexec(folder, shapes)}") from None
    exported = replace(exported, engine=engine)
    try:
        exported = _run(exported, say)
    except NotHere as error:
        say(f"{name}: {folder / ENGINE} built, not run: {error}")
    except CheckFailed:
        (folder / ENGINE).unlink()
        raise
    changed = replace(
        read_manifest(folder),
        engine=exported.engine,
        parity=tuple(entry for one in exported.compared for entry in one.to_json()),
        metrics={task: metric_document(exported, task) for task in exported.deliverable.tasks},
    )
    write_manifest(folder, changed, files=[ENGINE])
    return exported


def _run(exported: Exported, say: Callable[[str], None]) -> Exported:
    """Run, compare and time the engine on this machine's GPU.

    Raises:
        NotHere: the GPU, or what gives its memory, is missing.
        CheckFailed: the engine does not give what the ONNX file gives.
    """
    folder, engine = exported.folder, exported.engine
    assert engine is not None
    if not found_gpus():
        raise NotHere("no GPU here")
    say(f"{exported.deliverable.name}: running the engine")
    manifest, reference = read_manifest(folder), read_reference(folder)
    runner = open_engine(folder / engine.file, runtime=engine.runtime)
    one = run_engine(runner, manifest, reference)
    if one.complaint is not None:
        raise CheckFailed(complaint_of(one))
    metrics = dict(exported.metrics)
    if exported.metric_size == exported.deliverable.resolution:
        splits = Run.load(exported.run).data.open(needed_targets(exported.deliverable.tasks))
        test = splits.test.resized(exported.metric_size)
        metrics["engine"] = exported.deliverable.metrics(runner, test, most=MAX_BATCH)
    first = {name: array[:1] for name, array in reference.inputs.items()}
    return replace(
        exported,
        engine=replace(engine, ran=True),
        compared=(*exported.compared, one),
        metrics=metrics,
        engine_latency_ms_p50=time_engine(folder, engine, first).latency_ms_median,
    )


def _trtexec(folder: Path, shapes: ShapeRange) -> str:
    """The command of TensorRT's own that builds the same engine."""
    ranges = {"min": shapes.smallest, "opt": shapes.typical, "max": shapes.largest}
    sides = " ".join(f"--{kind}Shapes={shapes.name}:{'x'.join(map(str, shape))}" for kind, shape in ranges.items())
    return f"trtexec --onnx={folder / ONNX} --saveEngine={folder / ENGINE} --stronglyTyped --noTF32 {sides}"


def engine_shapes(deployed: Resolution) -> ShapeRange:
    """The shapes [N, 3, H, W] of an engine's input: 1 to ``MAX_BATCH`` images of the deploy resolution.

    The size does not vary, though the ONNX file would let it: tensorrt-rtx 1.7 fails on some networks where it does.
    """
    smallest, largest = (1, 3, *deployed), (MAX_BATCH, 3, *deployed)
    return ShapeRange(name=INPUT, smallest=smallest, typical=smallest, largest=largest)
