"""Classification: one class for the whole image, read from the coarsest path.

Head: FBNetV3's classifier (arXiv 2006.02049, table 8), a shared block, so that the task costs as much as the published
networks. Loss: cross entropy. Metric: top-1 accuracy.

Shape legend: N images, C classes, F channels of the feature at stride 32, h x w its pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import UserError
from fbnetv5.blocks.specs import PooledHead, initialise
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import ABSENT
from fbnetv5.tasks.divergence import class_divergence, soft_label_divergence
from fbnetv5.tasks.task import Metric, MetricInfo, Task


class Classification(Task):
    """Raw and deployable outputs are the same logits [N, C]."""

    name = "cls"
    order = 1
    by_default = True
    targets = ("label",)
    soft_target = "soft_label"
    min_classes = 2
    paths = (32,)
    metric = MetricInfo(name="top1")
    output_names = ("logits",)
    can_smooth = True
    panel_colours = True
    training: ClassVar[Mapping[str, Any]] = {"lr": 7e-4, "colour": 0.0}
    """The only augmentation is mirroring: the class is that of the whole image, and a crop may remove its object."""

    def build_head(self, channels: Sequence[int]) -> nn.Module:
        (width,) = channels
        head = ClassificationHead(width, len(self.labels))
        initialise(head)
        return head

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of each image in nats: [N, C] -> [N]."""
        return functional.cross_entropy(
            raw.float(),
            batch.targets["label"],
            ignore_index=ABSENT,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )

    def distillation_losses(self, raw: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """KL divergence of the classes in nats: [N, C], [N, C] -> [N]."""
        return class_divergence(raw, teacher, temperature)

    def soft_losses(self, raw: Tensor, batch: Batch, temperature: float) -> Tensor:
        """KL divergence of the classes in nats: [N, C] -> [N]."""
        return soft_label_divergence(raw, batch.targets["soft_label"], temperature)

    def deploy(self, raw: Tensor) -> tuple[Tensor, ...]:
        return (raw,)

    def new_metric(self) -> Metric:
        return Top1()


class ClassificationHead(nn.Module):
    """One feature [N, F, h, w] -> logits [N, C]."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.pooled = PooledHead(width, classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        (coarsest,) = features
        logits: Tensor = self.pooled(coarsest)
        return logits


class Top1:
    """Share of labelled images whose largest logit is the true class; the report adds that of the five largest."""

    def __init__(self) -> None:
        self._correct = 0
        self._among_five = 0
        self._images = 0

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        (logits,) = outputs
        truth = batch.targets["label"].cpu()
        is_labelled = truth != ABSENT
        logits = logits.cpu()
        five = logits.topk(min(5, logits.shape[1]), dim=1).indices
        self._correct += int(torch.count_nonzero((logits.argmax(1) == truth) & is_labelled))
        self._among_five += int(torch.count_nonzero((five == truth[:, None]).any(1) & is_labelled))
        self._images += int(torch.count_nonzero(is_labelled))

    def merge(self, other: "Top1") -> None:
        self._correct += other._correct
        self._among_five += other._among_five
        self._images += other._images

    def compute(self) -> float:
        """The share, 0..1.

        Raises:
            UserError: no image had a class.
        """
        if not self._images:
            raise UserError("no labelled images in the test images: top1 needs a class on at least one of them")
        return self._correct / self._images

    def report(self) -> dict[str, Any]:
        """top1 and top5; with fewer than five classes, all of them count for the latter."""
        return {"top1": self.compute(), "top5": self._among_five / self._images}
