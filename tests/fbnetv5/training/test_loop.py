from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from export.errors import UserError, VerificationError
from fbnetv5.architecture import load_architecture
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import Scenes
from fbnetv5.evaluate import evaluate_network
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.loop import TrainLoop
from tests.samples import keep_labels

MakeTraining = Callable[..., TrainConfig]
TASKS = "cls+det+seg"
IMAGES = Scenes("train", size=(32, 32), count=8)


@pytest.fixture
def make_loop(make_training: MakeTraining, networks: Path, branched: Path, tmp_path: Path) -> Callable[..., TrainLoop]:
    """(names of tasks, **fields that differ) -> the loop of a fresh training in the test's folder."""

    def make(tasks: str, **changes: object) -> TrainLoop:
        file = branched if "+" in tasks else networks / f"{tasks}.json"
        architecture, config = load_architecture(file), make_training(tasks, **changes)
        return TrainLoop(config, tmp_path, architecture, architecture.build(), dataset=IMAGES, held_out=IMAGES)

    return make


def test_without_decay_the_weights_of_the_last_step_are_evaluated(make_loop: Callable[..., TrainLoop]) -> None:
    loop = make_loop("cls", ema_decay=0.0)
    for batch in in_order(IMAGES, batch=4):
        loop.train(batch)
        loop.done += 1
        average = loop.average.network.state_dict()
        assert all(torch.equal(average[name], tensor) for name, tensor in loop.network.state_dict().items())


@pytest.mark.parametrize("weights", ["average", "paper", {"cls": 1.0, "det": 0.5, "seg": 4.0}], ids=str)
def test_the_gradient_is_that_of_the_weighted_mean_losses(make_loop: Callable[..., TrainLoop], weights: object) -> None:
    loop = make_loop(TASKS, task_weights=weights, clip_norm=1e9)
    (batch,) = in_order(IMAGES, batch=8)
    batch = keep_labels(batch, "mask", torch.arange(8) < 3)  # 3 of 8 images have a mask
    raw = loop.network.train().raw(normalise(batch.images))
    losses = {name: task.losses(raw[name], batch) for name, task in loop.network.tasks.items()}
    means = {"cls": losses["cls"].mean(), "det": losses["det"].mean(), "seg": losses["seg"].sum() / 3}
    factors = {"cls": 1.0, "det": 1.0, "seg": 1.0} if weights == "paper" else weights
    if not isinstance(factors, dict):
        factors = {name: 1 / mean.item() for name, mean in means.items()}
    objective = torch.stack([factors[name] * mean for name, mean in means.items()]).sum()
    expected = torch.autograd.grad(objective, list(loop.network.parameters()))
    assert loop.train(batch).tolist() == pytest.approx([mean.item() for mean in means.values()], rel=1e-4)
    for parameter, gradient in zip(loop.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_also_that_of_the_distance_from_a_teacher(
    make_loop: Callable[..., TrainLoop], branched: Path
) -> None:
    weights = {"cls": 1.0, "det": 0.5, "seg": 4.0}
    loop = make_loop(TASKS, task_weights=weights, clip_norm=1e9, teacher=str(branched), distillation=0.25)
    (batch,) = in_order(IMAGES, batch=8)
    batch = keep_labels(batch, "mask", torch.arange(8) < 3)
    teacher = load_architecture(branched).load(branched.with_suffix(".safetensors")).eval()
    raw, taught = loop.network.train().raw(normalise(batch.images)), teacher.raw(normalise(batch.images))
    means = []
    for name, task in loop.network.tasks.items():
        labels = task.losses(raw[name], batch).sum() / (3 if name == "seg" else 8)
        distance = task.distillation_losses(raw[name], taught[name], 1.0).mean()
        means.append(0.75 * labels + 0.25 * distance)
    objective = torch.stack([weights[name] * mean for name, mean in zip(loop.network.tasks, means, strict=True)]).sum()
    expected = torch.autograd.grad(objective, list(loop.network.parameters()))
    assert loop.train(batch).tolist() == pytest.approx([mean.item() for mean in means], rel=1e-4)
    for parameter, gradient in zip(loop.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_one_evaluation_measures_all_tasks(make_loop: Callable[..., TrainLoop]) -> None:
    loop = make_loop(TASKS)
    evaluations = evaluate_network(loop.average.network, IMAGES, size=(32, 32))
    assert loop.evaluate() == {name: evaluation.value for name, evaluation in evaluations.items()}


def test_a_batch_without_labels_hardly_changes_weights(make_loop: Callable[..., TrainLoop]) -> None:
    loop = make_loop("cls", weight_decay=0.0)
    before = {name: parameter.clone() for name, parameter in loop.network.named_parameters()}
    (batch,) = in_order(IMAGES, batch=8)
    assert loop.train(keep_labels(batch, "label", torch.zeros(8) > 0)) == 0.0
    assert all(torch.equal(before[name], parameter) for name, parameter in loop.network.named_parameters())


def test_a_gradient_of_nan_changes_no_weight(
    make_loop: Callable[..., TrainLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop("seg", max_skipped=0)
    before = {name: tensor.clone() for name, tensor in loop.network.named_parameters()}
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(
        VerificationError, match=r"the gradient is not finite at step 1; the last good checkpoint is none yet"
    ):
        loop.train(next(iter(in_order(IMAGES, batch=4))))
    assert all(torch.equal(before[name], tensor) for name, tensor in loop.network.named_parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_with_a_lag_a_bad_step_changes_neither_weights_nor_average(
    make_loop: Callable[..., TrainLoop], optimizer: str
) -> None:
    loop = make_loop("seg", optimizer=optimizer, max_skipped=0)
    loop.guard.lag = 1
    loop.guard.protect(loop.optimizer)
    batch = next(iter(in_order(IMAGES, batch=4)))
    before = {name: tensor.clone() for name, tensor in loop.network.named_parameters()}
    average = deepcopy(loop.average.network.state_dict())
    loop.network.heads["seg"].register_forward_hook(lambda module, inputs, raw: raw * torch.nan)
    loop.train(batch)
    assert all(torch.equal(before[name], tensor) for name, tensor in loop.network.named_parameters())
    assert all(torch.equal(average[name], tensor) for name, tensor in loop.average.network.state_dict().items())
    loop.done += 1
    with pytest.raises(VerificationError, match="the loss of seg is not finite at step 1;"):
        loop.train(batch)


@pytest.mark.parametrize("spoiled", [1, 3], ids=["second step", "last step"])
def test_with_a_lag_a_bad_step_is_neither_logged_nor_saved(make_loop: Callable[..., TrainLoop], spoiled: int) -> None:
    loop = make_loop("cls", steps=4, evaluate_every=2, checkpoint_every=2, max_skipped=0)
    loop.guard.lag = 1
    loop.guard.protect(loop.optimizer)
    entries: list[int] = []
    head = loop.network.heads["cls"]
    head.register_forward_hook(lambda module, inputs, raw: raw * torch.nan if loop.done == spoiled else None)
    with pytest.raises(VerificationError, match=f"the loss of cls is not finite at step {spoiled + 1};"):
        loop.run(lambda entry: entries.append(entry.step))
    assert entries == list(range(0, spoiled, 2))
    assert [path.name for path in (loop.folder / "checkpoint").glob("*.json")] == [f"step-{spoiled - 1}.json"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("lag", [0, 1])
def test_a_skipped_step_changes_no_tensor_of_a_checkpoint(
    make_loop: Callable[..., TrainLoop], optimizer: str, lag: int
) -> None:
    if lag and optimizer == "sgd":
        pytest.skip("on a CPU, the SGD of a training is not fused and needs no lag")
    loop = make_loop(TASKS, optimizer=optimizer, steps=9, warmup_steps=0)
    loop.guard.lag = lag
    loop.guard.protect(loop.optimizer)
    batch = next(iter(in_order(IMAGES, batch=4)))
    loop.train(batch)
    loop.done += 1
    before = {name: tensor.clone() for name, tensor in loop.tensors().items()}
    hook = loop.network.backbone.register_forward_hook(
        lambda module, inputs, features: {name: [x * torch.inf for x in each] for name, each in features.items()}
    )
    loop.train(batch)
    hook.remove()
    loop.guard.check_all()
    assert loop.guard.skipped == 1
    counts = ("num_batches_tracked", "|step")  # of batches, and of RMSProp's steps, which its arithmetic does not use
    after = loop.tensors()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert [name for name in changed if not name.endswith(counts)] == []


@pytest.mark.parametrize(
    ("tasks", "recipe"),
    [
        ("det", {"mixup": 0.5}),
        (
            "seg",
            {"cutmix": 0.5, "label_smoothing": 0.1, "dropout": 0.1, "stochastic_depth": 0.1, "optimizer": "rmsprop"},
        ),
        pytest.param(TASKS, {"mixup": 0.5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_host_reads_nothing_from_the_device_in_a_step(
    make_loop: Callable[..., TrainLoop], tasks: str, recipe: dict[str, Any]
) -> None:
    loop = make_loop(tasks, **recipe)
    loop.guard.lag = 1
    loop.guard.protect(loop.optimizer)
    batch = next(iter(in_order(IMAGES, batch=4)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        loop.train(batch)


def test_a_teacher_is_not_read_by_the_host_either(make_loop: Callable[..., TrainLoop], networks: Path) -> None:
    loop = make_loop("det", teacher=str(networks / "det.json"))
    batch = next(iter(in_order(IMAGES, batch=4)))
    loop.guard.lag = 1
    loop.guard.protect(loop.optimizer)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loop.train(batch)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_a_gpu_does_not_stop_between_forward_and_update(make_loop: Callable[..., TrainLoop], optimizer: str) -> None:
    loop = make_loop("det", optimizer=optimizer, dropout=0.1, stochastic_depth=0.1, cuda_graphs=False)
    loop.network.heads["det"].register_forward_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))
    try:
        for batch in in_order(IMAGES, batch=4):
            loop.train(batch.to(loop.accelerator.device))
            loop.done += 1
            torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    loop.guard.check_all()


def test_fp16_is_refused(make_loop: Callable[..., TrainLoop], monkeypatch: pytest.MonkeyPatch) -> None:
    class HalfPrecision:
        mixed_precision = "fp16"

    monkeypatch.setattr("fbnetv5.runs.loop.make_accelerator", HalfPrecision)
    with pytest.raises(UserError, match="fp16 mixed precision needs loss scaling"):
        make_loop("cls")
