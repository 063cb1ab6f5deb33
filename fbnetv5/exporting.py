"""What ``fbnetv5 export`` does: a task's derived network becomes ONNX, with proof that it is the same network.

The same file is compared with torch on random pictures at the deploy resolution, measured on the test pictures, and
timed. Pictures are tested at the size the weights were trained at: weights that came straight from a search are not at
home at another.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export import tensorrt
from export.engine import NAME as ENGINE
from export.engine import Engine, ShapeRange, build_engine
from export.errors import NotHere, UserError
from export.graph import to_onnx
from export.manifest import Manifest, Preprocessing, export_versions, read_manifest, write_manifest
from export.parity import Parity, check, compare
from export.runners import OrtRunner, TorchRunner
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.backbone import TaskNetwork
from fbnetv5.cost import Resolution
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import MEAN, STD
from fbnetv5.data.sample import PictureSet
from fbnetv5.evaluate import evaluate
from fbnetv5.search.checkpoint import load_tensors, load_weights
from fbnetv5.search.config import SearchConfig
from fbnetv5.search.run import open_data
from latency.profile import measure_network
from latency.protocol import Timing

ONNX = "model.onnx"
INPUT = "images"
TOLERANCE = 1e-4
"""Of an output's range, for float32."""
MAX_BATCH = 8
"""Of an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One task's exported folder and what was measured of it."""

    folder: Path
    architecture: Architecture
    metric_name: str
    metric_torch: float
    metric_onnx: float
    metric_size: Resolution
    """Of the test pictures."""
    latency_ms_p50: float
    """Of the ONNX file at the deploy resolution, batch 1, one thread of this processor."""
    parity: tuple[Parity, ...]
    engine: Engine | None = None


def export_task(
    run: Path, task: str, output: Path, say: Callable[[str], None], *, fixed_size: bool = False
) -> Exported:
    """Export one task's network of a finished run.

    Args:
        run: the run folder.
        task: its name.
        output: folder to write ``model.onnx`` and ``manifest.json`` to.
        say: takes one line about what is being done.
        fixed_size: the file accepts the deploy resolution only; then the metric is measured at that size.

    Raises:
        UserError: the run has no such network, or its files are damaged.
        CheckFailed: ONNX Runtime's outputs differ from torch's.
    """
    architecture, network = load_network(run, task)
    config = SearchConfig.load(run / "config.json")
    path = output / ONNX
    (output / ENGINE).unlink(missing_ok=True)  # of an earlier export: it would not be of this network
    say(f"{task}: exporting")
    example = torch.randn(2, 3, *architecture.resolution, generator=torch.Generator().manual_seed(0))
    names = network.task.output_names
    to_onnx(network, (example,), path, input_names=[INPUT], output_names=names, dynamic_size=not fixed_size)
    runner = OrtRunner(path, threads=torch.get_num_threads())
    parity = _parity(network, runner, example)
    check(parity, TOLERANCE)
    say(f"{task}: measuring on the test pictures")
    size = architecture.resolution if fixed_size else config.size
    metrics = _metrics(network, runner, open_data(replace(config, size=size)).test)
    say(f"{task}: timing")
    measured = measure_network(path, (1, 3, *architecture.resolution), timing=Timing())
    exported = Exported(
        folder=output,
        architecture=architecture,
        metric_name=network.task.metric_name,
        metric_torch=metrics[0],
        metric_onnx=metrics[1],
        metric_size=size,
        latency_ms_p50=measured.latency_ms_median,
        parity=parity,
    )
    write_manifest(output, _manifest(exported, network, runner), files=[path.name])
    return exported


def with_engine(exported: Exported, say: Callable[[str], None]) -> Exported:
    """Build the engine beside an exported ONNX file, and write it into the manifest.

    Raises:
        NotHere: no TensorRT that can build is installed; the ONNX file stays as it is, and the message says what to
            install here or to run where there is one.
        CheckFailed: there is no engine of this file, or none that is float32 throughout.
    """
    folder, task = exported.folder, exported.architecture.task
    say(f"{task}: building an engine")
    shapes = engine_shapes(exported.architecture.resolution)
    try:
        engine = build_engine(folder / ONNX, folder / ENGINE, [shapes])
    except NotHere as error:
        raise NotHere(f"{error}; or run where TensorRT is: {_trtexec(folder, shapes)}") from None
    write_manifest(folder, replace(read_manifest(folder), engine=engine), files=[ONNX, ENGINE])
    reason = "this version runs no engines" if tensorrt.load_driver() else "no GPU here"
    say(f"{task}: {folder / ENGINE} built, not run: {reason}")
    return replace(exported, engine=engine)


def _trtexec(folder: Path, shapes: ShapeRange) -> str:
    """The command of TensorRT's own that builds the same engine."""
    ranges = {"min": shapes.smallest, "opt": shapes.typical, "max": shapes.largest}
    sides = " ".join(f"--{kind}Shapes={shapes.name}:{'x'.join(map(str, shape))}" for kind, shape in ranges.items())
    return f"trtexec --onnx={folder / ONNX} --saveEngine={folder / ENGINE} --noTF32 {sides}"


def engine_shapes(deployed: Resolution) -> ShapeRange:
    """The shapes [N, 3, H, W] of an engine's input: 1 to ``MAX_BATCH`` pictures of the deploy resolution.

    The size does not vary, though the ONNX file would let it: tensorrt-rtx 1.7 fails on some networks where it does.
    """
    smallest, largest = (1, 3, *deployed), (MAX_BATCH, 3, *deployed)
    return ShapeRange(name=INPUT, smallest=smallest, typical=smallest, largest=largest)


def load_network(run: Path, task: str) -> tuple[Architecture, TaskNetwork]:
    """A finished run's network of a task, with its weights, in eval mode.

    Raises:
        UserError: the run has not that network (yet), or a file is damaged or of another network.
    """
    path = run / f"{task}.json"
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in run.glob("*.safetensors"))) or "none yet"
        raise UserError(
            f"{run} has no network for {task!r}; it has: {there}. A search that stopped goes on with --resume"
        )
    architecture = load_architecture(path)
    network = architecture.build()
    weights = path.with_suffix(".safetensors")
    load_weights(network, load_tensors(weights), weights)
    return architecture, network.eval()


def tasks_of(run: Path) -> list[str]:
    """The tasks of a run, in its own order.

    Raises:
        UserError: it is not a run folder.
    """
    return list(SearchConfig.load(run / "config.json").tasks)


def _parity(network: TaskNetwork, runner: OrtRunner, pictures: Tensor) -> tuple[Parity, ...]:
    inputs = {INPUT: pictures.numpy()}
    reference = TorchRunner(network, [INPUT], network.task.output_names)(inputs)
    return compare(reference, runner(inputs), rank_by=network.task.ranked_by)


def _metrics(network: TaskNetwork, runner: OrtRunner, pictures: PictureSet) -> tuple[float, float]:
    """The task's metric in torch and in ONNX Runtime."""

    def in_ort(images: Tensor) -> list[Tensor]:
        outputs = runner({INPUT: np.ascontiguousarray(images.numpy())})
        return [torch.from_numpy(outputs[name]) for name in network.task.output_names]

    batches = list(in_order(pictures, batch=64))
    return evaluate(network.task, network, batches), evaluate(network.task, in_ort, batches)


def _manifest(exported: Exported, network: TaskNetwork, runner: OrtRunner) -> Manifest:
    return Manifest(
        inputs=runner.inputs,
        outputs=runner.outputs,
        preprocessing=Preprocessing(resize=exported.architecture.resolution, mean=MEAN, std=STD),
        labels=network.task.labels,
        architecture=exported.architecture.to_json(),
        versions={"fbnetv5": __version__, **export_versions()},
        parity=exported.parity,
        metrics={
            f"{exported.metric_name}_torch": exported.metric_torch,
            f"{exported.metric_name}_onnxruntime": exported.metric_onnx,
        },
    )


def document(exported: Exported) -> dict[str, Any]:
    """The ``--json`` form of one export."""
    architecture = exported.architecture
    return {
        "task": architecture.task,
        "folder": str(exported.folder),
        "onnx": str(exported.folder / ONNX),
        **_engine_document(exported),
        "macs": architecture.macs,
        "params": architecture.params,
        "latency_ms": {
            "predicted": None if architecture.latency_ms is None else architecture.latency_ms["value"],
            "table": None if architecture.latency_ms is None else architecture.latency_ms["table"],
            "measured": exported.latency_ms_p50,
        },
        "metric": {
            "name": exported.metric_name,
            "torch": exported.metric_torch,
            "onnxruntime": exported.metric_onnx,
            "resolution": list(exported.metric_size),
        },
        "parity": [{"output": parity.name, "error": parity.error} for parity in exported.parity],
    }


def _engine_document(exported: Exported) -> dict[str, Any]:
    engine = exported.engine
    if engine is None:
        return {"engine": None}
    return {
        "engine": str(exported.folder / engine.file),
        "runtime": {"name": engine.runtime, "version": engine.version},
        "ran": engine.ran,
        "precision": {"requested": engine.precision, "layers": engine.layers},
        "shapes": [asdict(one) for one in engine.shapes],
    }
