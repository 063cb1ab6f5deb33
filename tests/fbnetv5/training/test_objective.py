from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fbnetv5.architecture import load_architecture
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.data.scenes import CLASSES, TARGETS, Scenes
from fbnetv5.data.targets import SOFT_LABEL, SoftLabel, Target
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.distillation import open_distillation_teacher
from fbnetv5.training.mix import draw_patch
from fbnetv5.training.objective import Objective, shares_of_terms
from tests.samples import keep_labels

IMAGES = Scenes("train", size=(32, 32), count=8)

MakeObjective = Callable[..., tuple[Network, Objective]]


@pytest.fixture
def make_objective(make_training: Callable[..., TrainConfig], networks: Path) -> MakeObjective:
    """(**fields that differ) -> a network that classifies, and the objective of its training."""

    def make(**changes: object) -> tuple[Network, Objective]:
        network = load_architecture(networks / "cls.json").build()
        nn.init.normal_(network.get_parameter("heads.cls.pooled.classifier.weight"))
        targets = TARGETS | {"soft_label": Target(kind=SOFT_LABEL, classes=CLASSES["label"])}
        return network, Objective(make_training("cls", **changes), network, targets, make_accelerator())

    return make


@pytest.fixture
def batch() -> Batch:
    (batch,) = in_order(IMAGES, batch=8)
    return batch


def test_mixup_blends_images_and_losses_alike(make_objective: MakeObjective, batch: Batch) -> None:
    network, objective = make_objective(mixup=0.7, seed=5)
    share = np.random.default_rng([5, 0]).beta(0.7, 0.7)
    assert 0.01 < share < 0.99
    ((total,),), ((count,),) = objective.losses(batch, step=0, process=0)
    images = normalise(batch.images)
    with torch.no_grad():
        (logits,) = network(share * images + (1 - share) * images.flip(0))
    each = functional.log_softmax(logits, dim=1)
    truth = batch.targets["label"]
    expected = -(share * each[range(8), truth] + (1 - share) * each[range(8), truth.flip(0)]).sum()
    torch.testing.assert_close(total.detach(), expected, rtol=1e-4, atol=1e-4)
    assert count == 8


def test_cutmix_weights_the_losses_of_both_classes_by_their_pixels(make_objective: MakeObjective, batch: Batch) -> None:
    network, objective = make_objective(cutmix=0.7, label_smoothing=0.2, seed=5)
    ((total,),), ((count,),) = objective.losses(batch, step=0, process=0)
    rows, columns = draw_patch(np.random.default_rng([5, 0]), 0.7, (32, 32))
    images = normalise(batch.images)
    images[:, :, rows, columns] = images.flip(0)[:, :, rows, columns].clone()
    share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / 32**2
    with torch.no_grad():
        (logits,) = network(images)
    truth = functional.one_hot(batch.targets["label"], 10)
    target = 0.8 * (share * truth + (1 - share) * truth.flip(0)) + 0.2 / 10
    torch.testing.assert_close(total.detach(), -(target * logits.log_softmax(1)).sum(), rtol=1e-4, atol=1e-4)
    assert 0.01 < share < 0.99
    assert count == 8
    assert network.task.label_smoothing == 0.0  # that of evaluations and files


def test_each_step_and_process_drops_other_activations(make_objective: MakeObjective, batch: Batch) -> None:
    network, objective = make_objective(dropout=0.5, stochastic_depth=0.5, seed=7)

    def loss(step: int, process: int) -> float:
        with torch.no_grad():
            return float(objective.losses(batch, step=step, process=process)[0])

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(1, 0), loss(0, 1), loss(1, 1)}) == 4
    network.eval()
    assert loss(0, 0) == loss(1, 0) == loss(0, 1)


@pytest.fixture
def taught(make_objective: MakeObjective, networks: Path) -> Callable[..., tuple[Network, Objective]]:
    """(**fields that differ) -> as ``make_objective``, with the stored network as a teacher."""
    return partial(make_objective, teacher=str(networks / "cls.json"))


def test_the_loss_is_that_of_labels_and_that_of_the_teacher_by_their_shares(
    taught: MakeObjective, networks: Path, batch: Batch
) -> None:
    network, objective = taught(distillation=0.7, temperature=2.0, label_smoothing=0.1)
    some = keep_labels(batch, "label", torch.arange(8) < 3)
    sums, counts = objective.losses(some, step=0, process=0)
    assert counts.tolist() == [[3], [8]]
    teacher = load_architecture(networks / "cls.json").load(networks / "cls.safetensors").eval()
    with torch.no_grad():
        (own,), (others,) = network(normalise(batch.images)), teacher(normalise(batch.images))
    labels = functional.cross_entropy(own[:3], batch.targets["label"][:3], label_smoothing=0.1)
    p, q = (logits.div(2).softmax(1) for logits in (others, own))
    distance = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(objective.means(sums, counts), (0.3 * labels + 0.7 * distance)[None], rtol=1e-4, atol=0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_term_without_a_share_does_not_count(taught: MakeObjective, batch: Batch, share: float) -> None:
    _, objective = taught(distillation=share)
    sums, counts = objective.losses(batch, step=0, process=0)
    mean = objective.means(sums, counts)
    assert counts.tolist() == [[8 * (1 - share)], [8 * share]]
    torch.testing.assert_close(mean, sums[int(share)] / 8)
    unlabelled, counts = objective.losses(keep_labels(batch, "label", torch.zeros(8) > 0), step=0, process=0)
    torch.testing.assert_close(objective.means(unlabelled, counts), mean * share)


def test_a_teacher_changes_neither_what_is_dropped_nor_mixed(
    make_objective: MakeObjective, taught: MakeObjective, batch: Batch
) -> None:
    recipe = {"dropout": 0.5, "stochastic_depth": 0.5, "mixup": 0.5}
    network, alone = make_objective(**recipe)
    (expected,), _ = alone.losses(batch, step=3, process=1)
    other, objective = taught(**recipe)
    other.load_state_dict(network.state_dict())
    (labels, _), _ = objective.losses(batch, step=3, process=1)
    torch.testing.assert_close(labels, expected)


def test_a_task_that_the_teacher_lacks_has_its_labels_alone(branched: Path, networks: Path) -> None:
    teacher = open_distillation_teacher(
        str(networks / "det.json"), load_architecture(branched).make_tasks(), torch.device("cpu")
    )
    torch.testing.assert_close(
        shares_of_terms(0.8, ("cls", "det", "seg"), teacher.tasks), torch.tensor([[1, 0.2, 1], [0, 0.8, 0]])
    )
    assert shares_of_terms(0.8, ("cls", "det"), ()).tolist() == [[1, 1]]


def with_soft_labels(batch: Batch, networks: Path, count: int) -> Batch:
    """The batch with the probabilities of the ``count`` most probable classes by the stored network."""
    teacher = load_architecture(networks / "cls.json").load(networks / "cls.safetensors").eval()
    with torch.no_grad():
        (logits,) = teacher(normalise(batch.images))
    labels = SoftLabel(*logits.softmax(1).topk(count))
    known = torch.ones(len(batch.images)).bool()
    return replace(
        batch, targets={**batch.targets, "soft_label": labels}, present={**batch.present, "soft_label": known}
    )


@pytest.mark.parametrize("recipe", [{}, {"temperature": 3.0, "distillation": 0.6}])
def test_soft_labels_of_all_classes_give_the_loss_of_the_live_teacher(
    make_objective: MakeObjective, taught: MakeObjective, networks: Path, batch: Batch, recipe: dict[str, float]
) -> None:
    network, live = taught(**recipe)
    other, stored = make_objective(teacher="soft-labels", **recipe)
    other.load_state_dict(network.state_dict())
    expected, counts = live.losses(batch, step=0, process=0)
    sums, counts_of_stored = stored.losses(with_soft_labels(batch, networks, 10), step=0, process=0)
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(counts_of_stored, counts)
    assert expected[1] > 1e-3
    mean = live.means(expected, counts)
    torch.testing.assert_close(stored.means(sums, counts), mean, rtol=1e-4, atol=1e-4)


def test_an_image_without_a_soft_label_has_no_such_term(
    make_objective: MakeObjective, networks: Path, batch: Batch
) -> None:
    _, objective = make_objective(teacher="soft-labels")
    soft = with_soft_labels(batch, networks, 3)
    known = torch.arange(8) < 5
    label = soft.targets["soft_label"]
    some = replace(
        soft,
        targets={**soft.targets, "soft_label": label._replace(probabilities=label.probabilities * known[:, None])},
        present={**soft.present, "soft_label": known},
    )
    sums, counts = objective.losses(some, step=0, process=0)
    assert counts.tolist() == [[8], [5]]
    first, _ = objective.losses(soft, step=0, process=0)
    assert 0 < sums[1] < first[1]
    torch.testing.assert_close(sums[0], first[0])
    alone, counts = objective.losses(keep_labels(some, "label", torch.zeros(8) > 0), step=0, process=0)
    torch.testing.assert_close(objective.means(alone, counts), 0.8 * sums[1] / 5)


def test_cutmix_weights_the_soft_labels_of_both_images(
    make_objective: MakeObjective, networks: Path, batch: Batch
) -> None:
    network, objective = make_objective(teacher="soft-labels", cutmix=0.7, seed=5)
    soft = with_soft_labels(batch, networks, 10)
    sums, _ = objective.losses(soft, step=0, process=0)
    rows, columns = draw_patch(np.random.default_rng([5, 0]), 0.7, (32, 32))
    images = normalise(batch.images)
    images[:, :, rows, columns] = images.flip(0)[:, :, rows, columns].clone()
    share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / 32**2
    with torch.no_grad():
        (own,) = network(images)
    task, flipped = network.tasks["cls"], soft.flipped()
    expected = share * task.soft_losses(own, soft, 1.0) + (1 - share) * task.soft_losses(own, flipped, 1.0)
    torch.testing.assert_close(sums[1, 0].detach(), expected.sum(), rtol=1e-4, atol=1e-4)
