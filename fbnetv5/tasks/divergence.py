"""Divergences of a network's probabilities from those of a teacher, which distillation losses are made of.

The logits are divided by a temperature first, and the divergence is multiplied by the square of the temperature, so
that the size of the gradient hardly depends on it (Hinton et al., arXiv 1503.02531, section 2). KL(teacher || network)
differs from the cross entropy with the teacher's probabilities by their entropy alone: the gradient is the same, and
equal networks have the divergence 0.

Of a soft label, the K most probable classes, the probabilities are divided by their sum and the other classes count as
impossible. At a temperature T they are raised to the power 1 / T first, which is what dividing logits by T does. With
all classes, K = C, this is the divergence from the teacher that computed them.

Shape legend: N images, C classes, K of them, ... any axes.
"""

import math

from torch import Tensor
from torch.nn import functional

from fbnetv5.data.targets import SoftLabel


def class_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence in nats of distributions over classes: [N, C, ...], [N, C, ...] -> [N, ...]."""
    own, other = ((each.float() / temperature).log_softmax(1) for each in (logits, teacher))
    return functional.kl_div(own, other, reduction="none", log_target=True).sum(1) * temperature**2


def soft_label_divergence(logits: Tensor, label: SoftLabel, temperature: float) -> Tensor:
    """KL divergence in nats from soft labels: [N, C] and the collated labels -> [N], 0 without a label."""
    own = (logits.float() / temperature).log_softmax(1).gather(1, label.class_ids)
    is_class = label.probabilities > 0
    powers = label.probabilities.where(is_class, 1.0).log() / temperature
    other = powers.masked_fill(~is_class, -math.inf).log_softmax(1).where(is_class, 0.0)
    return ((other - own) * other.exp() * is_class).sum(1) * temperature**2


def binary_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence in nats of each probability of "yes": [...], [...] -> [...]."""
    own, other = (each.float() / temperature for each in (logits, teacher))
    target = other.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(own, target, reduction="none")
    entropy = functional.binary_cross_entropy_with_logits(other, target, reduction="none")
    return (cross - entropy) * temperature**2
