"""Files of earlier versions, kept in ``tests/data``: the files of users must load for years.

``python -m tests.contract.stored`` rewrites ``run/graphs.json`` with the graphs that the present code exports. Use it
only after an intended change of the exported graphs.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file

from export.graph_blocks import block_outputs
from export.runners import OrtRunner
from tests.command_line import document

STORED = Path(__file__).parent.parent / "data" / "v1"
TASKS = ("cls", "det", "seg")


def stored_run(folder: Path) -> Path:
    """A copy of the stored run with made-up weights: the repository has their names and shapes, not their values."""
    shutil.copytree(STORED / "run", folder)
    shapes = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
    for task in TASKS:
        rng = np.random.default_rng(0)
        tensors = {name: fill(name, shape, rng) for name, shape in sorted(shapes[task].items())}
        save_file(tensors, folder / f"{task}.safetensors")
    return folder


def fill(name: str, shape: list[int], rng: np.random.Generator) -> torch.Tensor:
    """Batch-norm values near the identity, or noise whose scale keeps the variance of a network's activations."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith("running_var"):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.from_numpy(rng.normal(1.0 if name.endswith(".1.weight") else 0.0, 0.1, shape).astype(np.float32))
    return torch.from_numpy(rng.normal(0.0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32))


def describe_graph(file: Path) -> dict[str, Any]:
    """Inputs, outputs, operators and blocks of an exported graph, and statistics of its outputs for fixed images."""
    content = file.read_bytes()
    runner = OrtRunner(content)
    outputs = runner({"images": np.random.default_rng(1).standard_normal((2, 3, 64, 64), dtype=np.float32)})
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    return {
        "inputs": [[spec.name, list(spec.shape), spec.dtype] for spec in runner.inputs],
        "outputs": [[spec.name, list(spec.shape), spec.dtype] for spec in runner.outputs],
        "operators": {operator: operators.count(operator) for operator in sorted(set(operators))},
        "blocks": list(block_outputs(content)),
        "means": {name: float(np.mean(values, dtype=np.float64)) for name, values in outputs.items()},
        "deviations": {name: float(np.std(values, dtype=np.float64)) for name, values in outputs.items()},
    }


def main() -> None:
    """Export the stored run and write the descriptions of its graphs."""
    with tempfile.TemporaryDirectory() as temporary:
        run, graphs = stored_run(Path(temporary) / "run"), {}
        for task in TASKS:
            exported = document("export", "--run", str(run), "--task", task, cwd=run)
            graphs[task] = describe_graph(run / exported["onnx"])
    (STORED / "run" / "graphs.json").write_text(json.dumps(graphs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
