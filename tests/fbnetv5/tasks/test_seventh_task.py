"""A further task is one new file, its own kind of target included: a toy one goes through every command's work."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fbnetv5.tasks
from export.errors import VerificationError
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.scenes import LABELLERS, TARGETS
from fbnetv5.deploy.export import export_tasks
from fbnetv5.deploy.export_options import ExportOptions
from fbnetv5.evaluate import evaluate_file
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.run import run_training, start_training

COUNTING = '''
"""How many objects an image shows, read from the 1/16 path."""

import torch
from torch import nn

from fbnetv5.data.scenes import LABELLERS, TARGETS
from fbnetv5.data.targets import Kind, Target
from fbnetv5.tasks.task import MetricInfo, Task


class NumberKind(Kind):
    """A number of an image. Value: an int; collated: float32 [N], NaN where not labelled."""

    def collate(self, values, size):
        return torch.tensor([float("nan") if value is None else value for value in values])


TARGETS["number"] = Target(kind=NumberKind())
LABELLERS["number"] = lambda layers: len(layers.objects)


class Head(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.number = nn.Linear(width, 1)

    def forward(self, features):
        return self.number(self.pool(features[0]).flatten(1))


class MeanError:
    def __init__(self):
        self.errors = []

    def update(self, outputs, batch):
        known = batch.present["number"]
        self.errors += (outputs[0][:, 0].cpu() - batch.targets["number"].cpu())[known.cpu()].abs().tolist()

    def merge(self, other):
        self.errors += other.errors

    def compute(self):
        return sum(self.errors) / len(self.errors)

    def report(self):
        return {"error": self.compute()}


class Counting(Task):
    name = "count"
    targets = ("number",)
    paths = (16,)
    metric = MetricInfo(name="error", unit="objects", lower_is_better=True)
    output_names = ("number",)
    training = {"lr": 0.01}

    def build_head(self, channels):
        return Head(channels[0])

    def losses(self, raw, batch):
        return torch.where(self.labelled(batch), raw[:, 0] - batch.targets["number"], 0.0).abs()

    def deploy(self, raw):
        return (raw,)

    def new_metric(self):
        return MeanError()
'''


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "more_tasks"
    folder.mkdir()
    (folder / "counting.py").write_text(COUNTING)
    fbnetv5.tasks.__path__.append(str(folder))
    yield
    fbnetv5.tasks.__path__.remove(str(folder))
    del sys.modules["fbnetv5.tasks.counting"], TARGETS["number"], LABELLERS["number"]


@pytest.mark.usefixtures("counting")
def test_a_task_in_a_new_file_is_searched_trained_measured_and_exported(tmp_path: Path) -> None:
    budget = Budget(limit=180e6, unit="macs")
    data = DataConfig(size=(32, 32), scenes=(24, 16, 16))
    config = SearchConfig(
        budgets={"cls": (budget,), "count": (budget,)},
        space=FourPathSpace(stages=1, blocks_per_path=1),
        data=data,
        warmup_steps=2,
        steps=2,
        batch=4,
        policy_batch=4,
        panel_draws=16,
        panel_checks=3,
        finalists=1,
        score_images=16,
    )
    run, prepared = start_run(config, tmp_path / "run", lambda ranges: None, print)
    found = run_search(run, prepared, lambda progress: None, lambda *_: None)
    assert found["count"].task == "count"
    assert torch.isfinite(torch.tensor(found["count"].provenance["score"]))
    training = TrainConfig(
        task_names=("count",),
        data=data,
        held_out=8,
        steps=4,
        batch=4,
        evaluate_every=2,
        **fbnetv5.tasks.task_types()["count"].training,
    )
    folder, opened = start_training(training, run / "count.json", tmp_path / "trained")
    result = run_training(folder, opened, lambda now: None, print)
    assert result.best["count"] <= result.initial["count"]
    measured = evaluate_file(folder / "count.json", task="count", weights=None, data=None, size=None)["count"]
    assert measured.to_json()["metric"].keys() == {"name", "unit", "lower_is_better", "value"}
    assert measured.value == measured.figures["error"] > 0
    with pytest.raises(VerificationError, match=r"count: error goes from .* worse, and at most -1 was allowed"):
        export_tasks(folder, ["count"], tmp_path / "out", ExportOptions(max_drop=-1.0), lambda line: None)
    exported = export_tasks(folder, ["count"], tmp_path / "out", ExportOptions(), lambda line: None)
    assert exported.drops["count"] == pytest.approx(0, abs=1e-4)
