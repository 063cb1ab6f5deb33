import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.errors import VerificationError
from fbnetv5.search.bmtas.loop import BranchLoop
from tests.fbnetv5.search.bmtas.conftest import MakeLoop, SinglePrecision

ROOT = Path(__file__).parents[4]


def test_phases_follow_the_configuration(make_loop: MakeLoop) -> None:
    loop = make_loop()
    assert [loop.phase(step) for step in range(6)] == ["warm-up"] * 2 + ["routing", "weights"] * 2
    assert loop.temperature == 5.0
    for loop.done in (7, 8):
        assert loop.temperature == pytest.approx(0.1)


@pytest.mark.parametrize("routing", ["soft", "sampled"])
def test_steps_of_the_routing_change_no_weights_and_the_others_no_logits(make_loop: MakeLoop, routing: str) -> None:
    loop = make_loop(routing=routing)
    for loop.done in (0, 1):  # the copies are equal before
        loop.step()
    loop.done = 2
    before = {name: value.clone() for name, value in loop.supernet.named_parameters()}
    started = loop.logits.detach().clone()
    loop.step()
    assert not torch.equal(loop.logits, started)
    assert all(torch.equal(value, before[name]) for name, value in loop.supernet.named_parameters())
    logits = loop.logits.detach().clone()
    loop.done = 3
    loop.step()
    assert torch.equal(loop.logits, logits)
    assert any(not torch.equal(value, before[name]) for name, value in loop.supernet.named_parameters())


def test_the_gradient_of_the_routing_does_not_count_in_steps_that_train_weights(make_loop: MakeLoop) -> None:
    loop = make_loop()
    for loop.done in range(3):
        loop.step()
    loop.logits.grad = torch.full_like(loop.logits, torch.nan)  # as after a skipped step of the routing
    before = {name: value.clone() for name, value in loop.supernet.named_parameters()}
    loop.done = 3
    loop.step()
    assert loop.guard.skipped == 0
    assert any(not torch.equal(value, before[name]) for name, value in loop.supernet.named_parameters())


def test_the_routing_starts_at_the_budget_or_uniform(make_loop: MakeLoop) -> None:
    loop = make_loop()
    assert float(loop._expected_share().detach()) == pytest.approx(1.0, rel=1e-5)
    assert not make_loop(start="uniform").logits.any()


def test_an_entry_has_the_routing_of_every_task(make_loop: MakeLoop) -> None:
    loop = make_loop()
    loop.done = loop.steps
    entry = loop.entry(last=True)
    assert entry is not None
    assert entry.routing is not None
    for number, task in enumerate(loop.config.tasks):
        expected = loop.logits.detach().softmax(-1)[:, number]
        torch.testing.assert_close(torch.tensor(entry.routing[task]), expected, atol=1e-4, rtol=0)


def test_an_accelerator_needs_no_doubles_for_an_entry(make_loop: MakeLoop) -> None:
    loop = make_loop()
    loop.done = 8
    expected = loop.entry(last=True)
    loop.logits = loop.logits.detach().as_subclass(SinglePrecision)
    assert loop.entry(last=True) == expected is not None


def test_the_multiplier_follows_the_expected_cost(make_loop: MakeLoop) -> None:
    loop = make_loop(start="uniform")
    loop.done = 2
    expected = float(loop._expected_share().detach())
    loop.step()
    assert loop.multiplier == pytest.approx(0.5 * (expected - 1), rel=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_the_expected_cost_returns_to_the_budget(make_loop: MakeLoop, shared: bool) -> None:
    loop = make_loop(start="budget" if shared else "uniform", routing_lr=0.5, draws=2)
    with torch.no_grad():  # the uniform routing is a saddle point of the cost
        loop.logits[..., 0] += 2.0 if shared else 0.3
    before = float(loop._expected_share().detach()) - 1.0
    assert before < 0 if shared else before > 0
    loop.done = 2
    for _ in range(6):
        loop.train_routing(next(loop.routing_batches))
    assert abs(float(loop._expected_share().detach()) - 1.0) < 0.5 * abs(before)


def test_a_fixed_weight_of_the_cost_stays(make_loop: MakeLoop) -> None:
    loop = make_loop(cost_weight=3.0)
    loop.done = 2
    loop.step()
    assert loop.multiplier == 3.0


def test_the_price_of_cost_makes_tasks_share(make_loop: MakeLoop) -> None:
    loop = make_loop(cost_weight=1e4, routing_lr=1.0, start="uniform")
    with torch.no_grad():
        loop.logits += 0.1 * torch.randn(loop.logits.shape, generator=torch.Generator().manual_seed(0))
    before = float(loop._expected_share().detach())
    loop.done = 2
    for _ in range(5):
        loop.train_routing(next(loop.routing_batches))
    assert float(loop._expected_share().detach()) < 0.8 * before


def test_a_resumed_search_has_the_same_state(make_loop: MakeLoop, tmp_path: Path) -> None:
    whole = make_loop(tmp_path / "whole", steps=4)
    whole.run(lambda entry: None)
    part = make_loop(tmp_path / "part", steps=4)
    part.steps = 2
    part.run(lambda entry: None)
    resumed = make_loop(tmp_path / "part", steps=4)
    resumed.run(lambda entry: None)
    assert resumed.multiplier == whole.multiplier
    assert_equal(resumed, whole)
    shutil.rmtree(tmp_path / "whole")


def assert_equal(one: BranchLoop, other: BranchLoop) -> None:
    tensors = other.tensors()
    for name, value in one.tensors().items():
        assert torch.equal(value, tensors[name]), name


def test_a_loss_that_is_not_finite_is_an_error_and_changes_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop(max_skipped=0)
    with torch.no_grad():
        next(loop.supernet.heads["det"].parameters()).fill_(torch.nan)
    before = {name: value.clone() for name, value in loop.supernet.named_parameters()}
    with pytest.raises(VerificationError, match="the loss of det is not finite at step 1"):
        loop.step()
    assert all(value.equal(before[n]) or n.startswith("heads.det") for n, value in loop.supernet.named_parameters())


@pytest.mark.parametrize("routing", [pytest.param("soft", marks=pytest.mark.slow), "sampled"])
def test_two_processes_have_the_same_weights_and_routing(tmp_path: Path, routing: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "tests.fbnetv5.search.bmtas.two_processes", str(tmp_path), routing]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
