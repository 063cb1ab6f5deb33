import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional

from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import Counter
from fbnetv5.data.loading import even_batches
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import ResizableSet, Sample
from fbnetv5.data.scenes import CLASSES
from fbnetv5.data.splits import Splits, open_splits
from fbnetv5.data.targets import CLASS, Target, class_names
from fbnetv5.evaluate import measure
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.search import scoring
from fbnetv5.search.scoring import FinalistScorer, batch_losses, calibration_images, labelled_batches
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from tests.samples import keep_labels

SPACE = FourPathSpace(stages=1, blocks_per_path=1, strict=True)
CPU = torch.device("cpu")


@pytest.fixture
def splits() -> Splits:
    return open_splits(None, size=(32, 32), targets=CLASSES, counts=(24, 24, 16))


@pytest.fixture(scope="module")
def budgets() -> Constraints:
    """Both multiply-adds and parameters are limited."""
    task = make_tasks(("seg",), CLASSES)["seg"]
    tables = [Counter((32, 32)).table(SPACE, task, unit) for unit in ("macs", "params")]
    return Constraints(budgets=[Budget(limit=1e9, unit="macs"), Budget(limit=1e9, unit="params")], tables=tables)


def make_supernet(splits: Splits, *tasks: str) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, make_tasks(tasks or ("cls", "seg"), class_names(splits.weights.targets)))


@pytest.mark.parametrize("task", ["cls", "seg"])
def test_a_finalist_has_the_loss_and_metric_of_its_derived_network(
    splits: Splits, budgets: Constraints, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH", 8)
    supernet = make_supernet(splits)
    finalist = FinalistScorer(supernet, splits, images=16, device=CPU)(task, SPACE.full(), budgets)
    network = supernet.derive(task, SPACE.full())
    recalibrate(network, calibration_images(splits.weights, CPU), network)
    batches = list(even_batches(splits.policies, batch=8, count=2))
    assert finalist.score == pytest.approx(measure(network.tasks, network.raw, batches)[task].compute(), abs=1e-6)
    losses = [network.task.losses(network.raw(normalise(b.images))[network.task.name], b) for b in batches]
    assert finalist.loss == pytest.approx(float(torch.cat(losses).detach().mean()), rel=1e-5)
    assert finalist.costs == tuple(table.cost_of(SPACE.full()) for table in budgets.tables)


def test_a_score_does_not_depend_on_what_was_scored_before(splits: Splits, budgets: Constraints) -> None:
    scorer = FinalistScorer(make_supernet(splits), splits, images=16, device=CPU)
    first = scorer("seg", SPACE.full(), budgets)
    scorer("seg", SPACE.empty(), budgets)
    assert scorer("seg", SPACE.full(), budgets) == first


def test_scoring_does_not_change_weights(splits: Splits, budgets: Constraints) -> None:
    supernet = make_supernet(splits)
    before = [parameter.clone() for parameter in supernet.parameters()]
    FinalistScorer(supernet, splits, images=8, device=CPU)("cls", SPACE.full(), budgets)
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.parameters(), strict=True))


def test_losses_of_a_batch_are_means_over_what_is_labelled(splits: Splits) -> None:
    batch = next(iter(even_batches(splits.policies, batch=8, count=1)))
    unlabelled = keep_labels(keep_labels(batch, "label", torch.arange(8) < 3), "mask", torch.zeros(8) > 0)
    supernet = make_supernet(splits)
    cls, seg = batch_losses(supernet, unlabelled, SPACE.full()[None], make_accelerator())[0]
    raw = supernet(normalise(batch.images), SPACE.full())["cls"]
    assert cls == pytest.approx(float(functional.cross_entropy(raw[:3].detach(), batch.targets["label"][:3])), rel=1e-5)
    assert np.isnan(seg)


def test_one_task_alone_has_the_same_loss(splits: Splits) -> None:
    batch = next(iter(even_batches(splits.policies, batch=8, count=1)))
    supernet, live = make_supernet(splits), []
    for name, module in supernet.blocks.named_modules():
        if name.count(".") == 1:
            module.register_forward_hook(lambda *_, name=name: live.append(name))
    both = batch_losses(supernet, batch, SPACE.full()[None], make_accelerator())[0]
    in_both, live[:] = list(live), []
    alone = batch_losses(supernet, batch, SPACE.full()[None], make_accelerator(), ["cls"])[0]
    assert alone[0] == both[0]
    assert np.isnan(alone[1])
    assert set(live) < set(in_both)


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run in mixed precision, as ``accelerate launch --mixed_precision bf16`` starts it."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("in_bf16")
def test_networks_are_scored_in_the_precision_of_the_run(splits: Splits) -> None:
    supernet, types = make_supernet(splits), set[torch.dtype]()
    for head in supernet.heads.values():
        head.register_forward_hook(lambda module, inputs, raw: types.add(raw.dtype))
    (batch,) = even_batches(splits.policies, batch=8, count=1)
    losses = batch_losses(supernet, batch, SPACE.full()[None], make_accelerator())[0]
    assert types == {torch.bfloat16}
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    expected = batch_losses(supernet, batch, SPACE.full()[None], make_accelerator())[0]
    assert not np.array_equal(losses, expected)
    assert losses == pytest.approx(expected, rel=0.05)


def test_images_with_rare_labels_are_added_to_the_held_out_ones(splits: Splits) -> None:
    few = Few(splits.policies, labelled={5})
    scorer = FinalistScorer(
        make_supernet(splits), Splits(weights=splits.weights, policies=few, test=few), images=2, device=CPU
    )
    assert torch.cat([batch.present["mask"] for batch in scorer.held_out]).tolist() == [False, False, True]
    assert scorer.held_out[-1].images[0].equal(splits.policies[5].image)


def test_labelled_images_are_read_until_there_are_enough(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BATCH", 4)
    monkeypatch.setattr(scoring, "MIN_LABELLED", 3)
    few = Few(splits.policies, labelled=set(range(0, 24, 2)))
    batches = list(labelled_batches(few, [make_supernet(splits).tasks["seg"]]))
    assert all(bool(batch.present["mask"].all()) for batch in batches)
    labelled = sum(len(batch.images) for batch in batches)
    assert 3 <= labelled < 3 + 4
    assert len(few.read) < 24


class Few:
    """A set of which these images alone have masks; counts what is read."""

    def __init__(self, images: ResizableSet, *, labelled: set[int]) -> None:
        self.targets, self._images, self._labelled = images.targets, images, labelled
        self.read: list[int] = []

    def resized(self, size: Resolution) -> "Few":
        return Few(self._images.resized(size), labelled=self._labelled)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        sample = self._images[index]
        if index in self._labelled:
            return sample
        return replace(sample, targets={name: label for name, label in sample.targets.items() if name != "mask"})


def test_a_folder_sorted_by_class_is_calibrated_and_scored_on_all_classes() -> None:
    """20 classes of 150 images each, as ImageFolder orders them."""
    images = Sorted(classes=20, each=150)
    splits = Splits(weights=images, policies=images, test=images)
    scorer = FinalistScorer(make_supernet(splits, "cls"), splits, images=1024, device=CPU)
    for batch in scorer.held_out:
        assert len(set(batch.targets["label"].tolist())) == 20
    shades = torch.cat([calibrating[:, 0, 0, 0] for calibrating in scorer.calibration])
    assert len(set(shades.tolist())) == 20
    for calibrating in scorer.calibration:
        assert len(set(calibrating[:, 0, 0, 0].tolist())) == 20


def test_large_images_are_calibrated_on_as_many_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Sorted(classes=20, each=150)
    expected = torch.cat(list(calibration_images(images, CPU)))
    monkeypatch.setattr("fbnetv5.data.loading.MAX_PIXELS", 24 * 32 * 32)
    calibration = calibration_images(images, CPU)
    assert [len(batch) for batch in calibration] == 16 * [24]
    shades = (torch.cat(list(calibration))[:, 0, 0, 0].sort().values, expected[:, 0, 0, 0].sort().values)
    assert torch.equal(*shades)


class Sorted:
    """One shade of grey per class, sorted by class."""

    def __init__(self, *, classes: int, each: int, size: Resolution = (32, 32)) -> None:
        names = tuple(f"c{number}" for number in range(classes))
        self.targets: Mapping[str, Target] = {"label": Target(kind=CLASS, classes=names)}
        self._each, self._size = each, size

    def resized(self, size: Resolution) -> "Sorted":
        return Sorted(classes=len(self.targets["label"].classes), each=self._each, size=size)

    def __len__(self) -> int:
        return len(self.targets["label"].classes) * self._each

    def __getitem__(self, index: int) -> Sample:
        label = index // self._each
        image = torch.full((3, *self._size), label, dtype=torch.uint8)
        return Sample(image=image, targets={"label": label})


def test_calibration_images_are_those_that_weights_learn_on(image_folder: Path) -> None:
    splits = open_splits(image_folder, size=(64, 64), targets=CLASSES)
    images = torch.cat(list(calibration_images(splits.weights, CPU)))
    assert images.shape == (len(splits.weights), 3, 64, 64)
    assert abs(float(images.mean())) < 2
