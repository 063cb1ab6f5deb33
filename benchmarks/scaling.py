"""What a million images cost: labelling, reading and searching, on 1, 8 and 64 GPUs.

Nothing is run: measured rates of one process are multiplied, and two things that many processes add are computed, the
cores that decode images fast enough, and the all-reduce of gradients. A ring moves 2 (N - 1) / N times the gradients
through every link (Patarasuk and Yuan, Journal of Parallel and Distributed Computing 69(2), 2009); it is not
overlapped with the backward pass here, so its share is an upper limit. Latency of messages is left out.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --images 100000 --epochs 5

Prints a table and ends in one JSON line.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

DECODE_S = 0.68e-3
"""CPU time to read a 256x256 JPEG from a shard and resize it to 224x224, one vCPU of an AMD EPYC (shards.py)."""
WEIGHT_STEPS_PER_S, POLICY_STEPS_PER_S = 8.4, 21.9
"""Search steps at 224x224 with 128 images on an H100 (docs/gpu.md)."""
BATCH, POLICY_EVERY = 128, 4
PARAMETERS = 12.4e6
"""Of the supernet of variant a with three tasks; gradients are float32."""
INSIDE_BYTES_PER_S, ACROSS_BYTES_PER_S = 450e9, 50e9
"""One direction of a GPU's NVLink inside of a machine (H100 SXM), and of its InfiniBand NDR link across machines:
figures of the makers' data sheets."""
GPUS_PER_MACHINE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One pass over the images on a number of GPUs."""

    gpus: int
    all_reduce_ms: float
    """Of the gradients of one step."""
    step_ms: float
    """A step that trains weights, all-reduce included."""
    efficiency: float
    """Share of the step that is computation."""
    hours_per_epoch: float
    gpu_hours_per_epoch: float
    decoding_cores: float
    """That deliver images as fast as all GPUs consume them."""
    labelling_hours: float
    """Of all images, at ``--label-rate`` images per second and GPU."""


def all_reduce_s(gpus: int, size: float) -> float:
    """Seconds to sum ``size`` bytes over the GPUs by a ring, at the slowest link of the ring."""
    bandwidth = INSIDE_BYTES_PER_S if gpus <= GPUS_PER_MACHINE else ACROSS_BYTES_PER_S
    return 2 * (gpus - 1) / gpus * size / bandwidth


def plan(gpus: int, images: int, label_rate: float) -> Plan:
    """The cost of one epoch of a search: of every ``POLICY_EVERY`` steps one trains policies."""
    communication = all_reduce_s(gpus, 4 * PARAMETERS)
    weights, policies = 1 / WEIGHT_STEPS_PER_S, 1 / POLICY_STEPS_PER_S
    share = 1 / POLICY_EVERY
    step = (1 - share) * (weights + communication) + share * policies
    images_per_s = gpus * BATCH / step
    hours = images / images_per_s / 3600
    return Plan(
        gpus=gpus,
        all_reduce_ms=1e3 * communication,
        step_ms=1e3 * (weights + communication),
        efficiency=weights / (weights + communication),
        hours_per_epoch=hours,
        gpu_hours_per_epoch=gpus * hours,
        decoding_cores=images_per_s * DECODE_S,
        labelling_hours=images / (label_rate * gpus) / 3600,
    )


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=float, default=1.0, help="passes of the search over the images")
    parser.add_argument("--label-rate", type=float, default=100.0, help="images per second that a GPU's teachers label")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Print the table and one JSON line."""
    arguments = parse(line)
    plans = [plan(gpus, round(arguments.images * arguments.epochs), arguments.label_rate) for gpus in arguments.gpus]
    rows: list[dict[str, Any]] = [asdict(each) for each in plans]
    for row in rows:
        print(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    print(json.dumps({"benchmark": "scaling", "images": arguments.images, "epochs": arguments.epochs, "plans": rows}))


if __name__ == "__main__":
    main()
