"""A tiny network with the same kinds of blocks as real networks, for fast exports."""

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.graph import to_onnx_bytes
from export.graph_blocks import block_name
from export.runners import Array

BLOCKS = ("backbone/stem", "backbone/middle", "backbone/last", "head/mix", "head/classifier")


class Backbone(nn.Module):
    """Three blocks; the second has a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Hardswish(inplace=True))
        middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish(), nn.Conv2d(8, 8, 1))
        last = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Hardswish(inplace=True))
        self.blocks = nn.ModuleDict({"stem": stem, "middle": middle, "last": last})

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks["stem"](x)
        result: Tensor = self.blocks["last"](x + self.blocks["middle"](x))
        return result


class Head(nn.Module):
    """Two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(12, 16, 1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.mix(x).mean((2, 3)))
        return result


class Tiny(nn.Module):
    """[N, 3, H, W] -> logits [N, 10], or the two largest probabilities and their indices."""

    def __init__(self, *, best: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = Backbone()
        self.head = Head()
        self.best = best

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits: Tensor = self.head(self.backbone(x))
        if not self.best:
            return logits
        values, indices = logits.softmax(1).topk(2, dim=1)
        return values, indices


class TwoHeads(nn.Module):
    """[N, 3, H, W] -> logits [N, 10] of either head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.one, self.other = Backbone(), Head(), Head()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        return self.one(features), self.other(features)


def images(count: int = 4, seed: int = 0) -> dict[str, Array]:
    return {"images": np.random.default_rng(seed).standard_normal((count, 3, 32, 32), dtype=np.float32)}


def exported(module: nn.Module, outputs: Sequence[str] = ("logits",)) -> bytes:
    module.eval()
    return to_onnx_bytes(module, (torch.randn(2, 3, 32, 32),), input_names=["images"], output_names=outputs)


def sabotaged(content: bytes, block: str, factor: float = 1.5) -> bytes:
    """The graph with the first weights of a block scaled."""
    model = onnx.load_from_string(content)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weight_names = [
        node.input[1] for node in model.graph.node if block_name(node.name) == block and len(node.input) > 1
    ]
    tensor = next(weights[name] for name in weight_names if name in weights)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name))
    return bytes(model.SerializeToString())
