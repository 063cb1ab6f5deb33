"""Do networks keep what they compute on their way from torch to an engine, whatever the search may find?

Expected: 20 random architectures for each task of a finished search, with its shared weights and batch norm calibrated
for each, and FBNetV3-A to -G with weights as torch makes them, pass the gate of every precision (fp32 1e-4 of an
output's range; fp16 5e-3 and 45 dB; int8 25 dB on real images), and tensorrt-rtx builds an engine of every one at
every precision, with layers of that precision. int8 is calibrated on training scenes and judged on test scenes; it may
leave a few blocks in float, as export does.

    python benchmarks/ladder.py runs/latest --output docs/ladder.json

What is in the output already is not done again. Needs tensorrt-rtx and no GPU; engines are built and not run. Ends in
one JSON line, the worst of everything.
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

from export.engine import ShapeRange, build_engine
from export.errors import UserError
from export.files import write_json
from export.graph import to_onnx_bytes
from export.ladder import REAL, SEEDED, Compared, climb
from export.parity import GATES, compare
from export.runners import Array, OrtRunner, TorchRunner
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import Scenes
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import load_checkpoint, load_weights
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.run import Prepared, prepare
from fbnetv5.search.scoring import calibration_images
from fbnetv5.spaces.fbnetv3 import FBNETV3, FBNetV3Network

INPUT = "images"
DEPLOYED = 224
"""Side of the images that searched networks' engines take."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and the images it is at home with."""

    name: str
    module: nn.Module
    outputs: tuple[str, ...]
    ranked_by: str | None
    size: int
    """Side of the images it is calibrated and judged on."""
    deployed: int
    """Side of those that its engine takes."""


def cases(run: Path, count: int, wanted: Callable[[str], bool]) -> Iterator[Case]:
    """Those of the names wanted: FBNetV3, then random architectures, each slot kept with one random probability."""
    for letter, config in FBNETV3.items():
        if not wanted(f"fbnetv3-{letter}"):
            continue
        side = -(-config.resolution // 32) * 32
        network = FBNetV3Network(config).eval()
        yield Case(
            name=f"fbnetv3-{letter}", module=network, outputs=("logits",), ranked_by=None, size=side, deployed=side
        )
    search = SearchConfig.load(run)
    prepared = prepare(search)
    supernet = load_supernet(run, search, prepared)
    calibration = calibration_images(prepared.parts.weights, torch.device("cpu"))
    for name, task in prepared.tasks.items():
        for seed in (seed for seed in range(count) if wanted(f"{name}-{seed}")):
            rng = np.random.default_rng(seed)
            kept = rng.random(len(search.space.variables)) < rng.uniform(0.1, 1.0)
            choices = np.where(kept, rng.integers(1, np.asarray(search.space.choice_counts)), 0)
            derived = supernet.derive(name, choices)
            recalibrate(derived, calibration, derived)
            yield Case(
                name=f"{name}-{seed}",
                module=derived,
                outputs=task.output_names,
                ranked_by=task.ranked_by,
                size=search.data.size[0],
                deployed=DEPLOYED,
            )


def load_supernet(run: Path, config: SearchConfig, prepared: Prepared) -> Supernet:
    """With the shared weights that a finished search ended with."""
    checkpoint = load_checkpoint(run / "checkpoint")
    if checkpoint is None:
        raise UserError(f"{run} has no checkpoint: it is not a finished search")
    supernet = Supernet(config.space, prepared.tasks)
    weights = {name.removeprefix("weights/"): t for name, t in checkpoint[0].items() if name.startswith("weights/")}
    load_weights(supernet, weights, run)
    return supernet


def batches(part: Literal["train", "test"], size: int, count: int, batch: int) -> list[Mapping[str, Array]]:
    """Demo scenes as networks read them."""
    scenes = Scenes(part, size=(size, size), count=count, seed=0)
    return [{INPUT: normalise(one.images).contiguous().numpy()} for one in in_order(scenes, batch=batch)]


def run_case(case: Case) -> dict[str, Any]:
    """One network through the whole ladder."""
    shape = (2, 3, case.deployed, case.deployed)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = {SEEDED: {INPUT: noise.numpy()}, REAL: batches("test", case.size, 8, 8)[0]}
    content = to_onnx_bytes(
        case.module, (noise,), input_names=[INPUT], output_names=case.outputs, dynamic_size=case.size != case.deployed
    )
    compared = []
    for kind, inputs in images.items():
        reference = TorchRunner(case.module, [INPUT], case.outputs)(inputs)
        found = compare(reference, OrtRunner(content)(inputs), rank_by=case.ranked_by, tie=GATES["fp32"].tie)
        compared.append(Compared(rung="fp32 onnxruntime", precision="fp32", images=kind, outputs=found))
    calibration = batches("train", case.size, 128 if case.size < case.deployed else 16, 16)
    calibration += batches("train", case.deployed, 16, 4)
    graphs, kept = {"fp32": content}, tuple[str, ...]()
    for precision in ("fp16", "int8"):
        rung = climb(content, precision, images, calibration=calibration)
        graphs[precision], kept = rung.content, rung.kept_float
        compared += rung.compared
    return {
        "params": sum(parameter.numel() for parameter in case.module.parameters()),
        "compared": [summary(one) for one in compared],
        "left_in_float_by_int8": list(kept),
        "engines": engines(graphs, case.deployed),
    }


def summary(one: Compared) -> dict[str, Any]:
    """The worst of a comparison's outputs."""
    finite = all(parity.finite for parity in one.outputs)
    levels = [parity.sqnr_db for parity in one.outputs if parity.sqnr_db is not None]
    return {
        "precision": one.precision,
        "images": one.images,
        "gated": one.gated,
        "error": max(parity.error for parity in one.outputs) if finite else None,
        "sqnr_db": min(levels, default=None),
        "complaint": one.complaint,
    }


def engines(graphs: dict[str, bytes], size: int) -> dict[str, Any]:
    """Build each precision's engine: layers by type, and seconds."""
    shape = (1, 3, size, size)
    shapes = ShapeRange(name=INPUT, smallest=shape, typical=shape, largest=shape)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision, content in graphs.items():
            path = Path(folder) / f"{precision}.onnx"
            path.write_bytes(content)
            began = time.perf_counter()
            engine = build_engine(path, path.with_suffix(".engine"), [shapes], precision=precision)
            seconds = round(time.perf_counter() - began, 2)
            found[precision] = {"runtime": engine.runtime, "version": engine.version, "layers": engine.layers}
            found[precision]["seconds"] = seconds
    return found


def worst(networks: dict[str, Any]) -> dict[str, Any]:
    """The worst figure of each precision over all networks, and how many passed."""
    line: dict[str, Any] = {
        "networks": len(networks),
        "failed": sorted(n for n, one in networks.items() if failed(one)),
    }
    for precision in GATES:
        for kind in (SEEDED, REAL):
            rows = [
                row
                for one in networks.values()
                for row in one.get("compared", [])
                if (row["precision"], row["images"]) == (precision, kind) and row["error"] is not None
            ]
            if rows:
                line[f"{precision}_{kind}"] = {
                    "most_error": float(f"{max(row['error'] for row in rows):.2e}"),
                    "least_sqnr_db": round(min(row["sqnr_db"] for row in rows), 1),
                }
        line[f"{precision}_built"] = sum(precision in one.get("engines", {}) for one in networks.values())
    return line


def failed(one: dict[str, Any]) -> bool:
    return "error" in one or any(row["complaint"] for row in one["compared"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished search on the demo scenes")
    parser.add_argument("--networks", type=int, default=20, help="random architectures of each task")
    parser.add_argument("--only", default="", help="beginning of the names to do, to share the work among processes")
    parser.add_argument("--output", type=Path, required=True, help="JSON file, gone on with where it exists")
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
        write_json(arguments.output, {"schema": 1, "run": run, **about, "worst": worst(networks), "networks": networks})
    print(json.dumps(worst(networks)))


if __name__ == "__main__":
    main()
