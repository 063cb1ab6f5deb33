"""How fast does TensorRT build the blocks of a search space, and in how much memory?

Expected: one builder makes at least two engines a second of the blocks and heads of variant a at 224x224, in float32
and in half precision alike, and its process never uses more than 4 GB, so that checking all of them before they are
copied to a device takes seconds. For comparison: whole networks of 400M multiply-adds took 1.9 to 2.9 s each and at
most 1.0 GB (docs/export.md). One process builds them all, as the measuring process on a device does; one build of
each precision is a warm-up and does not count.

    python benchmarks/engine_builds.py

Needs tensorrt-rtx and Linux, and no GPU. It does not apply to TensorRT itself, which also times kernels on the GPU
during a build. Ends in one JSON line.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_GB = 4.0
MIN_PER_SECOND = 2.0
PRECISIONS = ("fp32", "fp16")


def write_graphs(folder: Path) -> None:
    """Write every distinct block and head at every precision, as ``PRECISION/NUMBER.onnx``."""
    from fbnetv5.data.scenes import CLASSES
    from fbnetv5.deploy.profile import Scope, graphs_of
    from fbnetv5.spaces.four_path import FourPathSpace
    from latency.profile import onnx_at

    scope = Scope(space=FourPathSpace(variant="a"), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(224, 224))
    for precision in PRECISIONS:
        (folder / precision).mkdir()
        for number, graph in enumerate(graphs_of(scope)):
            (folder / precision / f"{number:03d}.onnx").write_bytes(onnx_at(graph, precision)[0])


def build_all(folder: Path) -> dict[str, Any]:
    """Seconds of every build by precision, and this process's peak memory; it loads nothing but TensorRT."""
    from export.trt.bindings import find_variant
    from export.trt.builder import EngineBuilder

    variant = find_variant()
    builder = EngineBuilder(variant)
    seconds: dict[str, list[float]] = {}
    plans_mb = dict.fromkeys(PRECISIONS, 0.0)
    for precision in PRECISIONS:
        paths = sorted((folder / precision).glob("*.onnx"))
        builder.build(paths[0].read_bytes())
        for path in paths:
            start = time.perf_counter()
            built = builder.build(path.read_bytes())
            seconds.setdefault(precision, []).append(time.perf_counter() - start)
            plans_mb[precision] += len(built.plan) / 1e6
    version = f"{variant.name} {variant.version}"
    return {"seconds": seconds, "plans_mb": plans_mb, "peak_gb": peak_memory_gb(), "runtime": version}


def peak_memory_gb() -> float:
    """Peak memory of this process on Linux; getrusage would include the memory of its parent, with torch."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def build_in_subprocess(folder: Path) -> dict[str, Any]:
    """``build_all`` in a process that never loads torch; TensorRT may write to its stdout."""
    result = folder / "result.json"
    command = [sys.executable, __file__, "--build", str(folder), "--result", str(result)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    document: dict[str, Any] = json.loads(result.read_text())
    return document


def main() -> None:
    """Export, build, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description="Builds per second and peak memory of a space's engines.")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build is not None:
        arguments.result.write_text(json.dumps(build_all(arguments.build)))
        return
    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as name:
        write_graphs(Path(name))
        result = build_in_subprocess(Path(name))
    columns = ("precision", "engines", "a second", "ms p50", "ms max", "plans MB")
    print(" ".join(f"{column:>9}" for column in columns))
    for precision, seconds in result["seconds"].items():
        row = (len(seconds) / sum(seconds), 1e3 * statistics.median(seconds), 1e3 * max(seconds))
        figures = " ".join(f"{value:9.1f}" for value in (*row, result["plans_mb"][precision]))
        print(f"{precision:>9} {len(seconds):9d} {figures}")
    slowest = min(len(seconds) / sum(seconds) for seconds in result["seconds"].values())
    print(f"peak memory of the building process: {result['peak_gb']:.2f} GB, limit {LIMIT_GB:g} GB")
    print(
        json.dumps(
            {
                "benchmark": "engine_builds",
                "builds_per_second": {
                    precision: round(len(seconds) / sum(seconds), 2) for precision, seconds in result["seconds"].items()
                },
                "ms_p50": {key: round(1e3 * statistics.median(value), 1) for key, value in result["seconds"].items()},
                "engines": {precision: len(seconds) for precision, seconds in result["seconds"].items()},
                "peak_gb": round(result["peak_gb"], 3),
                "as_expected": result["peak_gb"] < LIMIT_GB and slowest >= MIN_PER_SECOND,
                "runtime": result["runtime"],
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
