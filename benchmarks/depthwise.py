"""How fast is the weight gradient of a depthwise convolution on small maps, compared with torch's own?

The shapes are those of variant a's blocks in a search at 64x64, 32 images, float32, channels last. All are timed in
turn in one process, so that drift affects all alike.

Expected: where ``fbnetv5.blocks.depthwise`` is used (outputs smaller than the kernel) it is at least as fast as
torch, and several times as fast on 2x2 and 4x4 maps with AVX2. On a CPU with AVX-512 torch may have a fast kernel
of its own.

    python -m benchmarks.depthwise

Prints a table and ends in one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fbnetv5.blocks.depthwise import weight_gradient

IMAGES = 32
SHAPES = ((896, 2, 5, 1), (736, 2, 5, 1), (720, 4, 5, 2), (360, 4, 5, 1), (160, 8, 5, 2), (64, 2, 3, 1))
"""(channels, side of the input, kernel, stride)."""
REPETITIONS = 15


def calls(channels: int, side: int, kernel: int, stride: int) -> dict[str, Callable[[], Tensor]]:
    """Both ways to compute one shape's weight gradient."""
    x = torch.randn(IMAGES, channels, side, side).to(memory_format=torch.channels_last)
    weight, pad = torch.randn(channels, 1, kernel, kernel), kernel // 2
    gradient = torch.randn_like(torch.conv2d(x, weight, None, stride, pad, 1, channels))

    def of_torch() -> Tensor:
        gradient_of_torch: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], channels, [False, True, False]
        )[1]
        return gradient_of_torch

    return {"torch": of_torch, "ours": lambda: weight_gradient(x, gradient, kernel, stride, pad)}


def main() -> None:
    """Time, print a table and one JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    timed = {shape: calls(*shape) for shape in SHAPES}
    seconds: dict[tuple[tuple[int, ...], str], list[float]] = {}
    for repetition in range(REPETITIONS + 2):
        for shape, ways in timed.items():
            for name, call in ways.items():
                start = time.perf_counter()
                call()
                if repetition >= 2:
                    seconds.setdefault((shape, name), []).append(time.perf_counter() - start)
    ms = {key: 1e3 * statistics.median(values) for key, values in seconds.items()}
    rows = {}
    print("channels  side  kernel  stride  torch ms  ours ms  ratio")
    for shape in SHAPES:
        theirs, ours = ms[shape, "torch"], ms[shape, "ours"]
        print("{:8} {:5} {:7} {:7}".format(*shape), f"{theirs:9.2f} {ours:8.2f} {theirs / ours:6.1f}")
        rows["x".join(map(str, shape))] = {"torch_ms_p50": round(theirs, 3), "ours_ms_p50": round(ours, 3)}
    about = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    print(json.dumps({"benchmark": "depthwise", **about, "shapes": rows}))


if __name__ == "__main__":
    main()
