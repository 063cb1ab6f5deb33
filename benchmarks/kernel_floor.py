"""What does the kernel floor change in estimates? Blocks of variant a and FBNetV3-A, with and without it, at fp16.

Expected: at batch 1 on a large GPU nearly every kernel is below the floor, so that the floor decides most estimates. No
estimate is compared with a GPU.

    python -m benchmarks.kernel_floor

Prints two lines for each device and ends in one JSON line.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.published_networks import SCOPE, published_graphs
from fbnetv5.deploy.profile import graphs_of
from fbnetv5.spaces.fbnetv3 import FBNETV3
from latency.devices import GPUS, Gpu
from latency.estimate import estimate_ms
from latency.profile import onnx_of

DEVICES = ("a100", "h100")


def summarize(
    blocks: Sequence[str], network: Sequence[str], contents: Mapping[str, bytes], gpu: Gpu
) -> dict[str, float]:
    """The range of the estimates of ``blocks``, and the sum over ``network``, whose keys may repeat.

    Args:
        blocks: keys of blocks.
        network: keys of the blocks of a network.
        contents: ONNX graphs by key.
        gpu: the device.
    """
    estimates = {key: estimate_ms(contents[key], gpu, "fp16") for key in {*blocks, *network}}
    latencies_ms = [estimates[key].latency_ms for key in blocks]
    return {
        "block_ms_min": min(latencies_ms),
        "block_ms_max": max(latencies_ms),
        "blocks_bound_by_launch": sum(estimates[key].bound == "launch" for key in blocks),
        "network_ms": math.fsum(estimates[key].latency_ms for key in network),
        "network_kernels": sum(estimates[key].kernels or 0 for key in network),
    }


def main() -> None:
    """Estimate with and without the floor."""
    blocks, network = graphs_of(SCOPE), published_graphs(FBNETV3["a"].with_ordinary_padding())
    contents = {graph.key: onnx_of(graph)[0] for graph in {graph.key: graph for graph in [*blocks, *network]}.values()}
    keys = [graph.key for graph in blocks], [graph.key for graph in network]
    rows = []
    for device in DEVICES:
        for gpu in (replace(GPUS[device], kernel_floor_us=0.0), GPUS[device]):
            figures = {"kernel_floor_us": gpu.kernel_floor_us, **summarize(*keys, contents, gpu)}
            print(f"{device}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
            rows.append({"device": device, **figures})
    print(json.dumps({"estimated": True, "blocks": len(blocks), "rows": rows}))


if __name__ == "__main__":
    main()
