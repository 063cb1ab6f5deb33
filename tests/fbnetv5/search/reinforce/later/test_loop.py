from pathlib import Path

import pytest
import torch

from fbnetv5.networks.supernet import Supernet
from fbnetv5.search.reinforce.later.loop import LaterEntry, LaterLoop
from fbnetv5.search.reinforce.later.prepare import prepare_later
from tests.fbnetv5.search.reinforce.later.conftest import MakeLater


@pytest.fixture
def loop(make_later: MakeLater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaterLoop:
    monkeypatch.setattr("fbnetv5.runs.loop.LOG_EVERY", 1)
    prepared = prepare_later(make_later())
    torch.manual_seed(0)
    return LaterLoop(tmp_path, prepared, prepared.make_supernet())


def parameters(supernet: Supernet) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}


def test_steps_change_the_head_alone(loop: LaterLoop) -> None:
    before, entries = parameters(loop.supernet), list[LaterEntry]()
    loop.run(entries.append)
    changed = {name for name, value in parameters(loop.supernet).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("heads.depth.")}
    assert loop.supernet.trunk_passes == 6
    assert [entry.step for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert all(entry.losses["depth"] > 0 for entry in entries)
    assert entries[-1].scalars.keys() == {"lr", "losses/depth"}


def test_the_learning_rate_rises_and_falls(loop: LaterLoop) -> None:
    loop.steps, rates = 200, []
    for loop.done in (0, 19, 100, 199):
        rates.append(loop.learning_rate() / loop.config.weight_lr)
    assert rates[0] < 0.06
    assert rates[1] > 0.9
    assert 0.4 < rates[2] < 0.6
    assert rates[3] < 0.02


def test_a_checkpoint_has_no_weights_of_the_trunk(loop: LaterLoop) -> None:
    loop.step()
    names = loop.tensors()
    assert names.keys() >= {"head/depth.classify.weight", "state/scale"}
    assert not any("blocks" in name for name in names)
