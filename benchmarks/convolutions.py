"""How fast are the convolutions of ``fbnetv5.blocks.convolutions`` on a CPU, compared with torch's own?

The shapes are those of variant a's blocks in a search at 64x64, 32 images, float32, channels last. The forward and
backward pass of 1x1 convolutions are timed, and of depthwise convolutions the gradient of the weight. All are timed in
turn in one process, so that drift affects all alike.

Expected: 1x1 convolutions take .4 to .9 of torch's time, 5x5 depthwise ones on maps of 2x2 and 4x4 at most a quarter.

    python -m benchmarks.convolutions --threads 2

Prints a table and ends in one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from fbnetv5.blocks.convolutions import PointwiseConv2d, weight_gradient

IMAGES = 32
REPETITIONS = 15


class Shape(NamedTuple):
    """Of a convolution; depthwise if the kernel is larger than 1."""

    in_channels: int
    out_channels: int
    side: int
    kernel: int = 1
    stride: int = 1

    @property
    def name(self) -> str:
        return (
            f"{self.in_channels}-{self.out_channels} {self.kernel}x{self.kernel} s{self.stride} {self.side}x{self.side}"
        )


SHAPES = (
    Shape(48, 24, 16),
    Shape(40, 120, 8),
    Shape(120, 360, 4),
    Shape(360, 120, 4),
    Shape(224, 896, 2),
    Shape(896, 224, 2),
    Shape(360, 32, 1),
    Shape(56, 896, 1),
    Shape(896, 896, 2, 5),
    Shape(736, 736, 2, 5),
    Shape(720, 720, 4, 5, 2),
    Shape(360, 360, 4, 5),
    Shape(160, 160, 8, 5, 2),
    Shape(64, 64, 2, 3),
)


def depthwise(shape: Shape) -> dict[str, Callable[[], object]]:
    """Both ways to compute the gradient of a depthwise convolution's weight."""
    channels, kernel, stride, pad = shape.in_channels, shape.kernel, shape.stride, shape.kernel // 2
    x = torch.randn(IMAGES, channels, shape.side, shape.side).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel)
    gradient = torch.randn_like(torch.conv2d(x, weight, None, stride, pad, 1, channels))
    window = ([stride] * 2, [pad] * 2, [1, 1], False, [0, 0], channels)
    backward = torch.ops.aten.convolution_backward
    return {
        "torch": lambda: backward(gradient, x, weight, None, *window, [False, True, False]),
        "ours": lambda: weight_gradient(x, gradient, kernel, stride, pad),
    }


def pointwise(shape: Shape) -> dict[str, Callable[[], object]]:
    """The forward and backward pass of a 1x1 convolution of both kinds."""
    x = torch.randn(IMAGES, shape.in_channels, shape.side, shape.side).to(memory_format=torch.channels_last)
    x.requires_grad_()
    kinds = {"torch": nn.Conv2d(shape.in_channels, shape.out_channels, 1, bias=False)}
    kinds["ours"] = PointwiseConv2d(shape.in_channels, shape.out_channels, bias=False)
    gradient = torch.randn_like(kinds["torch"](x))

    def both_passes(module: nn.Conv2d) -> None:
        torch.autograd.grad(module(x), (x, module.weight), gradient)

    return {name: partial(both_passes, module) for name, module in kinds.items()}


def main() -> None:
    """Time, print a table and one JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    timed = {shape: pointwise(shape) if shape.kernel == 1 else depthwise(shape) for shape in SHAPES}
    seconds: dict[tuple[Shape, str], list[float]] = {}
    for repetition in range(REPETITIONS + 2):
        for shape, ways in timed.items():
            for name, call in ways.items():
                start = time.perf_counter()
                call()
                if repetition >= 2:
                    seconds.setdefault((shape, name), []).append(time.perf_counter() - start)
    ms = {key: 1e3 * statistics.median(values) for key, values in seconds.items()}
    rows = {}
    print("channels, kernel, stride, map  torch ms  ours ms  ours / torch")
    for shape in SHAPES:
        theirs, ours = ms[shape, "torch"], ms[shape, "ours"]
        print(f"{shape.name:29} {theirs:9.2f} {ours:8.2f} {ours / theirs:13.2f}")
        rows[shape.name] = {"torch_ms_p50": round(theirs, 3), "ours_ms_p50": round(ours, 3)}
    about = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    print(json.dumps({"benchmark": "convolutions", **about, "shapes": rows}))


if __name__ == "__main__":
    main()
