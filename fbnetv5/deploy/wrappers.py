"""Preprocessing as a part of an exported network, and the savings of one network for several tasks.

Shape legend: N images, H x W pixels.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from fbnetv5.costs.tables import Counter
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.networks.backbone import Network


class FromPixels(nn.Module):
    """A network that takes stored images, uint8 [N, 3, H, W] in RGB, and normalises them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(normalise(images))
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The savings of one network for several tasks at one resolution, compared with one network per task."""

    blocks_shared: int
    """Blocks that run once for two or more tasks."""
    blocks_separate: int
    """Total number of blocks if each task's network runs separately."""
    macs_joint: int
    """Multiply-adds of the joint network, heads included."""
    macs_separate: int
    """Total multiply-adds if each task's network runs separately."""

    @property
    def saved(self) -> float:
        """Share of multiply-adds that the joint network saves, 0..1."""
        return 1 - self.macs_joint / self.macs_separate


def measure_sharing(network: Network, resolution: Resolution) -> Sharing:
    """The savings of a network of several tasks on images of ``resolution``."""
    counter, graph = Counter(resolution), network.backbone.graph
    joint = counter.graph(graph, network.tasks).macs
    saved = sum(counter.block(step.block, step.stride).macs * (len(step.tasks) - 1) for step in graph.steps)
    return Sharing(
        blocks_shared=len(graph.shared),
        blocks_separate=sum(len(step.tasks) for step in graph.steps),
        macs_joint=joint,
        macs_separate=joint + saved,
    )
