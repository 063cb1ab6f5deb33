"""Do all networks that a search may find pass the precision pipeline, from torch to an engine?

Expected: 20 random architectures for each task of a finished search, with its shared weights and batch norm calibrated
for each, and FBNetV3-A to -G with torch's initial weights, pass the gate of every precision (fp32 1e-4 of an output's
range; fp16 5e-3 and 45 dB; int8 25 dB on real images), and tensorrt-rtx builds an engine of every one at every
precision, with layers of that precision. int8 is calibrated on training scenes and compared on test scenes; it may
leave a few blocks in float, as export does.

    python benchmarks/ladder.py runs/latest --output docs/ladder.json

Networks that are already in the output are skipped. Needs tensorrt-rtx and no GPU; engines are built and not run. Ends
in one JSON line with the worst figures.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from export.errors import UserError
from export.files import write_json
from export.graph import to_onnx_bytes
from export.parity import GATES, compare
from export.precision_pipeline import REAL, SEEDED, Comparison, convert_and_verify
from export.runners import Array, OrtRunner, TorchRunner
from export.trt.engine import ShapeRange, build_engine
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import Scenes
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import load_checkpoint, load_weights
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.prepare import Prepared, prepare
from fbnetv5.search.scoring import calibration_images
from fbnetv5.spaces.fbnetv3 import FBNETV3, FBNetV3Network

INPUT = "images"
DEPLOY_SIZE = 224
"""Side of the images that the engines of searched networks take."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and the sizes of its images."""

    name: str
    module: nn.Module
    outputs: tuple[str, ...]
    ranked_by: str | None
    size: int
    """Side of the images that it is calibrated and compared on."""
    deploy_size: int
    """Side of the images that its engine takes."""


def cases(run: Path, count: int, wanted: Callable[[str], bool]) -> Iterator[Case]:
    """The wanted cases: FBNetV3, then random architectures, whose blocks are kept with a random probability."""
    for letter, config in FBNETV3.items():
        if not wanted(f"fbnetv3-{letter}"):
            continue
        side = -(-config.resolution // 32) * 32
        network = FBNetV3Network(config).eval()
        yield Case(
            name=f"fbnetv3-{letter}", module=network, outputs=("logits",), ranked_by=None, size=side, deploy_size=side
        )
    search = SearchConfig.load(run)
    prepared = prepare(search)
    supernet = load_supernet(run, search, prepared)
    calibration = calibration_images(prepared.splits.weights, torch.device("cpu"))
    for name, task in prepared.tasks.items():
        for seed in (seed for seed in range(count) if wanted(f"{name}-{seed}")):
            rng = np.random.default_rng(seed)
            kept = rng.random(len(search.space.variables)) < rng.uniform(0.1, 1.0)
            choices = search.space.random(kept, rng)
            derived = supernet.derive(name, choices)
            recalibrate(derived, calibration, derived)
            yield Case(
                name=f"{name}-{seed}",
                module=derived,
                outputs=task.output_names,
                ranked_by=task.ranked_by,
                size=search.data.size[0],
                deploy_size=DEPLOY_SIZE,
            )


def load_supernet(run: Path, config: SearchConfig, prepared: Prepared) -> Supernet:
    """The supernet with the final shared weights of a finished search."""
    checkpoint = load_checkpoint(run / "checkpoint")
    if checkpoint is None:
        raise UserError(f"{run} has no checkpoint: it is not a finished search")
    supernet = Supernet(config.space, prepared.tasks)
    weights = {name.removeprefix("weights/"): t for name, t in checkpoint[0].items() if name.startswith("weights/")}
    load_weights(supernet, weights, run)
    return supernet


def batches(part: Literal["train", "test"], size: int, count: int, batch: int) -> list[Mapping[str, Array]]:
    """Demo scenes as inputs of networks."""
    scenes = Scenes(part, size=(size, size), count=count, seed=0)
    return [
        {INPUT: normalise(scene_batch.images).contiguous().numpy()} for scene_batch in in_order(scenes, batch=batch)
    ]


def run_case(case: Case) -> dict[str, Any]:
    """Run one network through the precision pipeline and build its engines."""
    shape = (2, 3, case.deploy_size, case.deploy_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = {SEEDED: {INPUT: noise.numpy()}, REAL: batches("test", case.size, 8, 8)[0]}
    content = to_onnx_bytes(
        case.module,
        (noise,),
        input_names=[INPUT],
        output_names=case.outputs,
        dynamic_size=case.size != case.deploy_size,
    )
    comparisons = []
    for kind, inputs in images.items():
        reference = TorchRunner(case.module, [INPUT], case.outputs)(inputs)
        outputs = compare(reference, OrtRunner(content)(inputs), rank_by=case.ranked_by, tie=GATES["fp32"].tie)
        comparisons.append(Comparison(stage="fp32 onnxruntime", precision="fp32", images=kind, outputs=outputs))
    calibration = batches("train", case.size, 128 if case.size < case.deploy_size else 16, 16)
    calibration += batches("train", case.deploy_size, 16, 4)
    graphs, kept = {"fp32": content}, tuple[str, ...]()
    for precision in ("fp16", "int8"):
        stage = convert_and_verify(content, precision, images, calibration=calibration)
        graphs[precision], kept = stage.content, stage.kept_float
        comparisons += stage.comparisons
    return {
        "params": sum(parameter.numel() for parameter in case.module.parameters()),
        "compared": [summary(comparison) for comparison in comparisons],
        "kept_float": list(kept),
        "engines": build_engines(graphs, case.deploy_size),
    }


def summary(comparison: Comparison) -> dict[str, Any]:
    """The worst figures of a comparison's outputs."""
    finite = all(parity.finite for parity in comparison.outputs)
    levels = [parity.sqnr_db for parity in comparison.outputs if parity.sqnr_db is not None]
    return {
        "precision": comparison.precision,
        "images": comparison.images,
        "gated": comparison.gated,
        "error": max(parity.error for parity in comparison.outputs) if finite else None,
        "sqnr_db": min(levels, default=None),
        "failure_reason": comparison.failure_reason,
    }


def build_engines(graphs: dict[str, bytes], size: int) -> dict[str, Any]:
    """Build the engine of each precision; return its layers by type and the seconds."""
    shape = (1, 3, size, size)
    shapes = ShapeRange(name=INPUT, smallest=shape, typical=shape, largest=shape)
    engines: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision, content in graphs.items():
            path = Path(folder) / f"{precision}.onnx"
            path.write_bytes(content)
            began = time.perf_counter()
            engine = build_engine(path, path.with_suffix(".engine"), [shapes], precision=precision)
            seconds = round(time.perf_counter() - began, 2)
            engines[precision] = {"runtime": engine.runtime, "version": engine.version, "layers": engine.layers}
            engines[precision]["seconds"] = seconds
    return engines


def worst(networks: dict[str, Any]) -> dict[str, Any]:
    """The worst figures of each precision over all networks, the failed networks and the number of engines."""
    line: dict[str, Any] = {
        "networks": len(networks),
        "failed": sorted(name for name, result in networks.items() if failed(result)),
    }
    for precision in GATES:
        for kind in (SEEDED, REAL):
            rows = [
                row
                for result in networks.values()
                for row in result.get("compared", [])
                if (row["precision"], row["images"]) == (precision, kind) and row["error"] is not None
            ]
            if rows:
                line[f"{precision}_{kind}"] = {
                    "max_error": float(f"{max(row['error'] for row in rows):.2e}"),
                    "min_sqnr_db": round(min(row["sqnr_db"] for row in rows), 1),
                }
        line[f"{precision}_built"] = sum(precision in result.get("engines", {}) for result in networks.values())
    return line


def failed(result: dict[str, Any]) -> bool:
    """Whether a network could not be exported or did not pass a gate."""
    return "error" in result or any(row["failure_reason"] for row in result["compared"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished search on the demo scenes")
    parser.add_argument("--networks", type=int, default=20, help="random architectures of each task")
    parser.add_argument("--only", default="", help="prefix of the names to run, to divide the work among processes")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; continued if it exists")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"networks": {}}
    networks: dict[str, Any] = document["networks"]
    run = arguments.run.resolve().name
    if networks and document.get("run") != run:
        raise SystemExit(f"{arguments.output} is not of the search {run}; name another --output")

    def wanted(name: str) -> bool:
        return name not in networks and name.startswith(arguments.only)

    for case in cases(arguments.run, arguments.networks, wanted):
        try:
            networks[case.name] = run_case(case)
        except UserError as error:
            networks[case.name] = {"error": str(error)}
        print(case.name, json.dumps(worst({case.name: networks[case.name]})), flush=True)
        about = {"date": time.strftime("%Y-%m-%d"), "machine": platform.processor() or platform.machine()}
        write_json(arguments.output, {"schema": 2, "run": run, **about, "worst": worst(networks), "networks": networks})
    print(json.dumps(worst(networks)))


if __name__ == "__main__":
    main()
