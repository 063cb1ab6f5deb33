"""Do networks keep what they compute on their way from torch to an engine, whatever the search may find?

Expected: 20 random architectures of variant a for each of three tasks, and FBNetV3-A to -G, pass the gate of every
precision (fp32 1e-4 of an output's range; fp16 5e-3 and 45 dB; int8 25 dB on real pictures), and tensorrt-rtx builds an
engine of every one at every precision, with layers of that precision. Weights are random, as torch makes them: what
breaks here is an operator or a shape. How much a trained network loses stands in docs/results.md. int8 is calibrated on
16 scenes and judged on others.

    python benchmarks/ladder.py --output docs/ladder.json

What is in the output already is not done again. Needs tensorrt-rtx and no GPU;
engines are built and not run. Ends in one JSON line, the worst of everything.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
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
from fbnetv5.backbone import TaskNetwork
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.fbnetv3 import FBNETV3, FBNetV3Network
from fbnetv5.space import Space
from fbnetv5.tasks import make_tasks

INPUT = "images"
Part = Literal["train", "test"]
CALIBRATED_ON = 16


def cases(count: int) -> Iterator[tuple[str, nn.Module, tuple[str, ...], str | None, int]]:
    """Name, module, output names, the output others are ranked by, and resolution of each network."""
    for letter, config in FBNETV3.items():
        yield f"fbnetv3-{letter}", FBNetV3Network(config), ("logits",), None, -(-config.resolution // 32) * 32
    space = Space(variant="a")
    for name, task in make_tasks(("cls", "det", "seg"), CLASSES).items():
        for seed in range(count):
            rng = np.random.default_rng(seed)
            kept = rng.random(len(space.slots)) < rng.uniform(0.1, 1.0)
            choices = np.where(kept, rng.integers(1, np.asarray(space.choice_counts)), 0)
            network = TaskNetwork(task, space, choices)
            yield f"{name}-{seed}", network, task.output_names, task.ranked_by, 224


def batches(part: Part, size: int, count: int) -> list[Array]:
    """Demo scenes as networks read them, four at a time."""
    scenes = Scenes(part, size=(size, size), count=count, seed=0)
    return [normalise(batch.images).contiguous().numpy() for batch in in_order(scenes, batch=4)]


def run_case(module: nn.Module, outputs: tuple[str, ...], ranked_by: str | None, size: int) -> dict[str, Any]:
    """One network through the whole ladder."""
    seen, unseen = batches("train", size, CALIBRATED_ON), batches("test", size, 4)
    module.eval()
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).numpy()
    pictures = {SEEDED: {INPUT: noise}, REAL: {INPUT: unseen[0]}}
    content = to_onnx_bytes(module, (torch.from_numpy(noise),), input_names=[INPUT], output_names=outputs)
    compared = []
    for kind, inputs in pictures.items():
        reference, candidate = TorchRunner(module, [INPUT], outputs)(inputs), OrtRunner(content)(inputs)
        found = compare(reference, candidate, rank_by=ranked_by, tie=GATES["fp32"].tie)
        compared.append(Compared(rung="fp32 onnxruntime", precision="fp32", pictures=kind, outputs=found))
    graphs, result = {"fp32": content}, {"params": sum(p.numel() for p in module.parameters()), "size": size}
    for precision in ("fp16", "int8"):
        rung = climb(content, precision, pictures, calibration=[{INPUT: batch} for batch in seen])
        graphs[precision] = rung.content
        compared += rung.compared
    return {**result, "compared": [summary(one) for one in compared], "engines": engines(graphs, size)}


def summary(one: Compared) -> dict[str, Any]:
    """The worst of a comparison's outputs."""
    levels = [parity.sqnr_db for parity in one.outputs if parity.sqnr_db is not None]
    return {
        "precision": one.precision,
        "pictures": one.pictures,
        "gated": one.gated,
        "error": max(parity.error for parity in one.outputs),
        "sqnr_db": min(levels),
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
                if (row["precision"], row["pictures"]) == (precision, kind)
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
    parser.add_argument("--networks", type=int, default=20, help="random architectures of each task")
    parser.add_argument("--output", type=Path, required=True, help="JSON file, gone on with where it exists")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"networks": {}}
    networks: dict[str, Any] = document["networks"]
    for name, module, outputs, ranked_by, size in cases(arguments.networks):
        if name in networks:
            continue
        try:
            networks[name] = run_case(module, outputs, ranked_by, size)
        except UserError as error:
            networks[name] = {"error": str(error)}
        print(name, json.dumps(worst({name: networks[name]})), flush=True)
        about = {"date": time.strftime("%Y-%m-%d"), "machine": platform.processor() or platform.machine()}
        write_json(arguments.output, {"schema": 1, **about, "worst": worst(networks), "networks": networks})
    print(json.dumps(worst(networks)))


if __name__ == "__main__":
    main()
