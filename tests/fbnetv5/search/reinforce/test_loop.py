import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import in_order
from fbnetv5.data.sample import Batch
from fbnetv5.data.scenes import Scenes
from fbnetv5.search.reinforce import loop as module
from fbnetv5.search.reinforce import policies
from fbnetv5.search.reinforce.entry import SERIES, SearchEntry
from fbnetv5.search.reinforce.estimators import OnePass
from fbnetv5.search.reinforce.loop import WARMUP_KEPT, SearchLoop, policy_images, warmup_architecture
from fbnetv5.search.reinforce.policies import Policies
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.wide import WideSpace
from tests.fbnetv5.search.reinforce.conftest import tiny_config
from tests.samples import keep_labels

MakeLoop = Callable[..., SearchLoop]


def quiet(entry: SearchEntry) -> None:
    """Report nothing."""


def batch_of(loop: SearchLoop, images: int = 4) -> Batch:
    return next(in_order(loop.splits.weights, batch=images))


def unmasked(batch: Batch) -> Batch:
    return keep_labels(batch, "mask", torch.zeros(len(batch.images)) > 0)


def values(loop: SearchLoop) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loop.supernet.named_parameters()}


def moved(loop: SearchLoop, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in values(loop).items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("tasks", [("cls",), ("cls", "det", "seg")], ids=["one task", "three tasks"])
def test_every_step_passes_the_trunk_once(make_loop: MakeLoop, tasks: tuple[str, ...]) -> None:
    loop = make_loop(*tasks, warmup_steps=2, steps=3)
    passes: list[int] = []
    loop.run(lambda _: passes.append(loop.supernet.trunk_passes))
    assert passes == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("warmup", "steps", "phases"),
    [(2, 4, "wwpxpx"), (0, 3, "pxp"), (3, 0, "www")],
    ids=["both", "no warm-up", "warm-up alone"],
)
def test_policies_and_weights_alternate_after_the_warm_up(
    make_loop: MakeLoop, warmup: int, steps: int, phases: str
) -> None:
    loop = make_loop("cls", warmup_steps=warmup, steps=steps)
    letters = {"warm-up": "w", "policies": "p", "weights": "x"}
    assert "".join(letters[loop.phase(step)] for step in range(warmup + steps)) == phases


def test_policies_learn_from_few_images_that_are_repeated(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", warmup_steps=1, steps=7)
    assert len(loop.held_out) == 4
    spread = [loop.held_out[index].image for index in range(4)]
    assert all(torch.equal(image, loop.splits.policies[6 * index].image) for index, image in enumerate(spread))
    loop.run(quiet)
    assert isinstance(loop.policies.estimator, OnePass)
    assert loop.policies.estimator.fit is not None
    assert loop.policies.estimator.fit.counts[1] == 4 - 2  # the first two steps with policies go into the baseline


def test_policies_use_as_many_images_as_eight_repetitions_allow(make_loop: MakeLoop) -> None:
    assert len(make_loop("cls", steps=96).held_out) == 24
    assert len(make_loop("cls", steps=94).held_out) == 23


def test_warm_up_architectures_have_a_random_depth() -> None:
    space, rng = FourPathSpace(stages=16, blocks_per_path=16), np.random.default_rng(0)
    shares = [float((warmup_architecture(space, rng) != 0).mean()) for _ in range(300)]
    lowest, highest = WARMUP_KEPT
    assert (min(shares), max(shares)) == pytest.approx((lowest, highest), abs=0.06)
    assert np.mean(shares) == pytest.approx((lowest + highest) / 2, abs=0.03)


def test_warm_up_architectures_have_all_kernels_alike() -> None:
    space, rng = WideSpace(), np.random.default_rng(0)
    kernels = [number for number, variable in enumerate(space.variables) if variable.name.endswith(".kernel")]
    drawn = np.stack([warmup_architecture(space, rng)[kernels] for _ in range(100)])
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / drawn.size, 1 / 3, atol=0.03)


def test_weights_of_blocks_that_are_not_live_do_not_change(make_loop: MakeLoop) -> None:
    loop = make_loop("cls")
    loop.train_weights(batch_of(loop), loop.supernet.space.full(), np.ones(1))  # momentum that must not move them later
    before = values(loop)
    choices = np.array([0, 1, 0, 0])
    loop.train_weights(batch_of(loop), choices, np.ones(1))
    graph = loop.supernet.graph(choices)
    live = {f"blocks.{step.name}" for step in graph.steps} | {"heads.cls"}
    assert {".".join(name.split(".")[:2]) for name in moved(loop, before)} == live


def test_a_batch_without_masks_trains_the_other_tasks(make_loop: MakeLoop) -> None:
    with_seg, without = make_loop("cls", "seg", weight_decay=0.0), make_loop("cls", weight_decay=0.0)
    before, full = values(with_seg), with_seg.supernet.space.full()
    batch = unmasked(batch_of(with_seg))
    with_seg.train_weights(batch, full, np.ones(2))
    without.train_weights(batch, full, np.ones(1))
    assert moved(with_seg, before)
    assert not {name for name in moved(with_seg, before) if name.startswith("heads.seg")}
    assert with_seg.scale.values[0] == without.scale.values[0]
    assert with_seg.scale.values[1].isnan()
    trained = moved(without, before)
    alone = {name: value for name, value in values(without).items() if name in trained}
    assert all(name.startswith(("blocks.", "heads.cls.")) for name in alone)
    torch.testing.assert_close({name: value for name, value in values(with_seg).items() if name in alone}, alone)


def test_a_batch_without_masks_updates_the_other_policies_alone(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "cost_gradient", lambda controller, *_: (np.zeros(controller.logits[0].shape), 1.0))
    loop = make_loop("cls", "seg", estimator="average")
    average = loop.policies.estimator.state()["baseline.mean"]
    average[:] = 9.0
    full = loop.supernet.space.full()
    loop.train_weights(batch_of(loop), full, np.ones(2))
    before = loop.policies.controller.logits.clone()
    loop.train_policies(unmasked(batch_of(loop)), full[None], np.random.default_rng(0))
    assert loop.policies.controller.logits[0].ne(before[0]).any()
    assert torch.equal(loop.policies.controller.logits[1], before[1])
    assert average[0] != 9.0
    assert average[1] == 9.0


def test_a_folder_without_masks_trains_the_other_tasks(make_loop: MakeLoop, image_folder: Path) -> None:
    for path in (image_folder / "masks").iterdir():
        path.unlink()
    (image_folder / "masks").rmdir()
    batch = next(in_order(open_folder(image_folder).resized((32, 32)), batch=4))
    loop = make_loop("cls", "det", "seg")
    loop.train_weights(batch, loop.supernet.space.full(), np.ones(3))
    assert loop.scale.values.isfinite().tolist() == [True, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_loss_that_is_not_finite_names_its_step(make_loop: MakeLoop, value: float) -> None:
    loop = make_loop("cls", "seg", warmup_steps=4, max_skipped=0)

    def spoil(entry: SearchEntry) -> None:
        if entry.step == 3:
            with torch.no_grad():
                next(loop.supernet.heads["seg"].parameters()).fill_(value)

    with pytest.raises(UserError, match=r"the loss of seg is not finite at step 4; .* smaller learning rate"):
        loop.run(spoil)
    assert json.loads(next((loop.folder / "checkpoint").glob("*.json")).read_text())["step"] == 2


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", max_skipped=0)
    before = values(loop)
    next(iter(loop.supernet.heads.parameters())).register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="the gradient is not finite at step 1"):
        loop.train_weights(batch_of(loop), loop.supernet.space.full(), np.ones(1))
    assert not moved(loop, before)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_skipped_step_changes_neither_weights_nor_policies(make_loop: MakeLoop, lag: int) -> None:
    loop = make_loop("cls", "seg")
    loop.guard.lag = lag
    loop.guard.protect(loop.optimizer)
    batch, full = batch_of(loop), loop.supernet.space.full()
    loop.train_weights(batch, full, np.ones(2))
    tensors = {name: tensor.clone() for name, tensor in loop.tensors().items()}
    head = next(iter(loop.supernet.heads.values()))
    hook = head.register_forward_hook(lambda module, inputs, raw: raw * math.nan)
    loop.train_weights(batch, full, np.ones(2))
    loop.train_policies(batch, full[None], np.random.default_rng(0))
    hook.remove()
    assert loop.guard.skipped == 2
    changed = [name for name, tensor in loop.tensors().items() if not torch.allclose(tensor, tensors[name], 0, 0, True)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # nothing reads those of a supernet
    assert [name for name in changed if not name.endswith(statistics)] == []
    loop.train_weights(batch, full, np.ones(2))
    loop.train_policies(batch, full[None], np.random.default_rng(0))
    assert loop.guard.skipped == 2
    assert not loop.policies.tensors()["arrays/noise.weight"].equal(tensors["arrays/noise.weight"])


@pytest.mark.parametrize("processes", [1, 2])
def test_policies_use_an_image_eight_times_whatever_the_number_of_processes(processes: int) -> None:
    config = tiny_config("cls", steps=64, policy_every=4, policy_batch=2)
    images = policy_images(Scenes("train", size=(32, 32), count=100), config, processes=processes)
    assert 16 * 2 * processes / len(images) == 8


def test_with_a_lag_a_bad_step_keeps_weights_and_averages(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg", max_skipped=0)
    loop.guard.lag = 1
    loop.guard.protect(loop.optimizer)
    batch, full = batch_of(loop), loop.supernet.space.full()
    loop.train_weights(batch, full, np.ones(2))
    before, scale = values(loop), loop.scale.values.clone()
    hook = next(iter(loop.supernet.heads.parameters())).register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    loop.done += 1
    loop.train_weights(batch, full, np.ones(2))
    hook.remove()
    loop.done += 1
    with pytest.raises(UserError, match="the gradient is not finite at step 2"):
        loop.train_policies(batch, full[None], np.random.default_rng(0))
    assert not moved(loop, before)
    assert torch.equal(loop.scale.values, scale)


def test_the_host_reads_nothing_from_the_device_in_a_weight_step(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "det", "seg")
    loop.guard.lag = 1
    loop.guard.protect(loop.optimizer)
    batch = batch_of(loop)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loop.train_weights(batch, loop.supernet.space.empty(), np.ones(3))


@pytest.mark.gpu
def test_a_gpu_does_not_stop_between_forward_and_update(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "det", "seg")
    batch, full = batch_of(loop).to(loop.accelerator.device), loop.supernet.space.full()
    loop.supernet.register_forward_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))
    try:
        for _ in range(3):
            loop.train_weights(batch, full, np.ones(3))
            loop.done += 1
            torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    loop.guard.check_all()


def test_a_loss_of_0_keeps_all_values_finite(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop("cls", "seg")
    monkeypatch.setattr(loop.supernet.tasks["seg"], "losses", lambda raw, batch: raw.flatten(1).sum(1) * 0)
    full = loop.supernet.space.full()
    loop.train_weights(batch_of(loop), full, np.ones(2))
    loop.train_policies(batch_of(loop), full[None], np.random.default_rng(0))
    assert bool(loop.scale.values.isfinite().all())
    assert all(bool(torch.isfinite(value).all()) for value in values(loop).values())
    assert bool(torch.isfinite(loop.policies.controller.logits).all())


def test_the_learning_rate_rises_and_ends_at_a_hundredth(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARMUP_LR_STEPS", 4)
    loop = make_loop("cls", warmup_steps=10, steps=20, weight_lr=1e-3, batch=2, policy_batch=2)
    rates: list[float] = []
    loop.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    loop.run(quiet)
    cosine = [0.505 + 0.495 * math.cos(math.pi * step / 20) for step in range(20)]
    assert rates == pytest.approx([1e-3 * min(1.0, (step + 1) / 4) * rate for step, rate in enumerate(cosine)])
    assert rates[-1] < 2e-5


def test_history_has_a_line_a_step_with_every_task(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg", warmup_steps=2, steps=2)
    entries: list[SearchEntry] = []
    loop.run(entries.append)
    lines = [json.loads(line) for line in (loop.folder / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [entry.step for entry in entries] == [1, 2, 3, 4]
    assert [line["phase"] for line in lines] == ["warm-up", "warm-up", "policies", "weights"]
    for name in SERIES:
        assert lines[-1][name] == getattr(entries[-1], name)
        assert set(lines[-1][name]) == {"cls", "seg"}
    last = np.array([lines[-1]["policies"][task] for task in ("cls", "seg")])
    np.testing.assert_allclose(last, loop.policies.controller.probabilities(), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": FourPathSpace(stages=1, blocks_per_path=2, strict=True)}, "was made with other space"),
        ({"tasks": ("seg",)}, r"was made with other tasks: \['cls'\], now \['seg'\]"),
        ({"estimator": "average"}, "was made with other estimator: control, now average"),
        ({"steps": 80}, "of another version or configuration: its baseline.means does not fit"),
    ],
    ids=["space", "tasks", "estimator", "steps"],
)
def test_a_checkpoint_of_another_search_is_refused(
    make_loop: MakeLoop, changes: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_loop("cls", warmup_steps=1, steps=0).run(quiet)
    monkeypatch.setattr(Policies, "_start_at_target_costs", lambda self: None)
    tasks = changes.pop("tasks", ("cls",))
    other = make_loop(*tasks, **changes)  # type: ignore[misc]
    with pytest.raises(UserError, match=message):
        other.run(quiet)


def test_half_precision_without_loss_scaling_is_refused(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.mixed_precision", "fp16")
    with pytest.raises(UserError, match="fp16 mixed precision needs loss scaling"):
        make_loop("cls")
