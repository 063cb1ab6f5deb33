"""Divergences of a network's probabilities from those of a teacher, which distillation losses are made of.

The logits are divided by a temperature first, and the divergence is multiplied by the square of the temperature, so
that the size of the gradient hardly depends on it (Hinton et al., arXiv 1503.02531, section 2). KL(teacher || network)
differs from the cross entropy with the teacher's probabilities by their entropy alone: the gradient is the same, and
equal networks have the divergence 0.

Shape legend: N images, C classes, ... any axes.
"""

from torch import Tensor
from torch.nn import functional


def class_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence in nats of distributions over classes: [N, C, ...], [N, C, ...] -> [N, ...]."""
    own, other = ((each.float() / temperature).log_softmax(1) for each in (logits, teacher))
    return functional.kl_div(own, other, reduction="none", log_target=True).sum(1) * temperature**2


def binary_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence in nats of each probability of "yes": [...], [...] -> [...]."""
    own, other = (each.float() / temperature for each in (logits, teacher))
    target = other.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(own, target, reduction="none")
    entropy = functional.binary_cross_entropy_with_logits(other, target, reduction="none")
    return (cross - entropy) * temperature**2
