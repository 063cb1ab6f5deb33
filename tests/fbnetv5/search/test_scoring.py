from pathlib import Path

import pytest
import torch

from fbnetv5.backbone import recalibrate
from fbnetv5.data.loading import in_order
from fbnetv5.data.parts import Parts, open_parts
from fbnetv5.evaluate import evaluate
from fbnetv5.search import scoring
from fbnetv5.search.scoring import SharedWeightScorer, calibration_pictures
from fbnetv5.space import Space
from fbnetv5.supernet import Supernet
from fbnetv5.tasks import make_tasks

SPACE = Space(stages=1, blocks_per_path=1, strict=True)
CPU = torch.device("cpu")


@pytest.fixture
def parts() -> Parts:
    return open_parts(None, size=(32, 32), counts=(24, 24, 16))


def make_supernet(parts: Parts) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, make_tasks(("cls", "seg"), parts.weights.classes))


@pytest.mark.parametrize("task", ["cls", "seg"])
def test_a_score_is_that_of_the_derived_network(parts: Parts, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BATCH", 8)
    supernet = make_supernet(parts)
    found = SharedWeightScorer(supernet, parts, limit=16, device=CPU)(SPACE.full(), 16)
    network = supernet.derive(task, SPACE.full())
    recalibrate(network, calibration_pictures(parts.weights, CPU), network)
    alone = evaluate(supernet.tasks[task], network, in_order(parts.policies, batch=8, limit=16))
    assert found[task] == pytest.approx(alone, abs=1e-6)


def test_a_score_does_not_depend_on_what_was_scored_before(parts: Parts) -> None:
    scorer = SharedWeightScorer(make_supernet(parts), parts, limit=16, device=CPU)
    first = scorer(SPACE.full(), 16)
    scorer(SPACE.empty(), 16)
    assert scorer(SPACE.full(), 16) == first


@pytest.mark.parametrize(("pictures", "looked_at"), [(1, 8), (8, 8), (9, 16), (20, 20), (99, 20)])
def test_as_many_pictures_are_looked_at_as_asked(
    parts: Parts, pictures: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH", 8)
    supernet, seen = make_supernet(parts), list[int]()
    scorer = SharedWeightScorer(supernet, parts, limit=20, device=CPU)
    monkeypatch.setattr(scoring, "recalibrate", lambda *_: supernet.eval())
    supernet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    scorer(SPACE.empty(), pictures)
    assert sum(seen) == looked_at


def test_weights_are_left_as_they_were(parts: Parts) -> None:
    supernet = make_supernet(parts)
    before = [parameter.clone() for parameter in supernet.parameters()]
    SharedWeightScorer(supernet, parts, limit=8, device=CPU)(SPACE.full(), 8)
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.parameters(), strict=True))


def test_calibration_pictures_are_those_that_weights_learn_on(picture_folder: Path) -> None:
    parts = open_parts(picture_folder, size=(64, 64))
    found = torch.cat(list(calibration_pictures(parts.weights, CPU)))
    assert found.shape == (len(parts.weights), 3, 64, 64)
    assert abs(float(found.mean())) < 2
