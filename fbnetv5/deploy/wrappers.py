"""What changes in a network before it is exported: preprocessing becomes part of it; and what several tasks share.

Shape legend: N images, H x W pixels.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from fbnetv5.costs.tables import Counter
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.networks.backbone import Network


class FromPixels(nn.Module):
    """A network that takes images as they are stored, uint8 [N, 3, H, W] in RGB, and normalises them itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(normalise(images))
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What one network for several tasks saves at one resolution."""

    blocks_shared: int
    """Blocks that run once for two tasks or more."""
    blocks_separate: int
    """Blocks of the tasks' networks when each runs alone, all together."""
    macs_joint: int
    """Multiply-adds of the joint network, heads included."""
    macs_separate: int
    """Of the tasks' networks, each alone, all together."""

    @property
    def saved(self) -> float:
        """The share of multiply-adds that need not be done again, 0..1."""
        return 1 - self.macs_joint / self.macs_separate


def measure_sharing(network: Network, resolution: Resolution) -> Sharing:
    """What a network of several tasks saves on images of ``resolution``, compared with one network per task."""
    counter, graph = Counter(resolution), network.backbone.graph
    joint = counter.graph(graph, network.tasks).macs
    saved = sum(counter.block(step.block, step.stride).macs * (len(step.tasks) - 1) for step in graph.steps)
    return Sharing(
        blocks_shared=len(graph.shared),
        blocks_separate=sum(len(step.tasks) for step in graph.steps),
        macs_joint=joint,
        macs_separate=joint + saved,
    )
