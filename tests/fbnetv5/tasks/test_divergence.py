from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbnetv5.data.targets import SoftLabel
from fbnetv5.tasks.divergence import binary_divergence, class_divergence, soft_label_divergence

TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])


def random_logits(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (2 * torch.randn(shape, generator=generator) for _ in range(2))
    return first.requires_grad_(), second


def softmax(logits: Tensor, temperature: float) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = np.exp(logits.detach().double().numpy() / temperature)
    scaled /= scaled.sum(1, keepdims=True)
    return scaled


@TEMPERATURES
def test_the_divergence_of_classes_is_that_of_its_definition(temperature: float) -> None:
    own, teacher = random_logits(2, 5, 3, 4)
    p, q = softmax(teacher, temperature), softmax(own, temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(class_divergence(own, teacher, temperature).detach(), expected, rtol=1e-4)


@TEMPERATURES
def test_a_probability_of_yes_diverges_like_two_classes(temperature: float) -> None:
    own, teacher = random_logits(6, 7)
    two, of_teacher = (torch.stack([torch.zeros_like(logits), logits], 1) for logits in (own, teacher))
    expected = class_divergence(two, of_teacher, temperature)
    torch.testing.assert_close(binary_divergence(own, teacher, temperature), expected, rtol=1e-4, atol=1e-6)


@TEMPERATURES
def test_the_gradient_is_the_difference_of_the_probabilities(temperature: float) -> None:
    """Hinton et al., equation 2: (q - p) / T, here times T squared."""
    own, teacher = random_logits(4, 5)
    (gradient,) = torch.autograd.grad(class_divergence(own, teacher, temperature).sum(), own)
    expected = temperature * (softmax(own, temperature) - softmax(teacher, temperature))
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("divergence", [class_divergence, binary_divergence])
def test_certain_networks_of_one_opinion_do_not_diverge(divergence: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    logits = torch.tensor([[300.0, -300.0], [-80.0, 80.0]], requires_grad=True)
    distance = divergence(logits, logits.detach().clone(), 1.0)
    assert distance.abs().max() == 0.0
    (gradient,) = torch.autograd.grad(distance.sum(), logits)
    assert gradient.abs().max() == 0.0


def test_half_precision_is_compared_in_float32() -> None:
    own, teacher = (logits.detach().half() for logits in random_logits(2, 3))
    assert class_divergence(own, teacher, 1.0).dtype == binary_divergence(own, teacher, 1.0).dtype == torch.float32


@TEMPERATURES
def test_a_soft_label_of_all_classes_is_the_teacher_itself(temperature: float) -> None:
    own, teacher = random_logits(4, 6)
    label = SoftLabel(*teacher.softmax(1).sort(descending=True))
    expected = class_divergence(own, teacher, temperature)
    torch.testing.assert_close(soft_label_divergence(own, label, temperature), expected, rtol=1e-4, atol=1e-6)


@TEMPERATURES
def test_the_classes_of_a_soft_label_share_all_of_the_probability(temperature: float) -> None:
    own, teacher = random_logits(4, 6)
    probabilities, ids = teacher.softmax(1).topk(3)
    p = probabilities.double().numpy() ** (1 / temperature)
    p /= p.sum(1, keepdims=True)
    q = np.take_along_axis(softmax(own, temperature), ids.numpy(), 1)
    expected = temperature**2 * (p * np.log(p / q)).sum(1)
    divergence = soft_label_divergence(own, SoftLabel(probabilities, ids), temperature)
    np.testing.assert_allclose(divergence.detach(), expected, rtol=1e-4)


def test_padded_classes_and_images_without_a_soft_label_change_nothing() -> None:
    own, teacher = random_logits(2, 6)
    probabilities, ids = teacher.softmax(1).topk(3)
    alone = soft_label_divergence(own, SoftLabel(probabilities, ids), 2.0)
    padded = SoftLabel(torch.cat([probabilities, torch.zeros(2, 2)], 1), torch.cat([ids, torch.zeros(2, 2).long()], 1))
    padded.probabilities[1] = 0
    values = soft_label_divergence(own, padded, 2.0)
    assert values.tolist() == [pytest.approx(float(alone[0].detach())), 0]
    (gradient,) = torch.autograd.grad(values.sum(), own)
    assert gradient.isfinite().all()
    assert gradient[1].tolist() == [0] * 6
