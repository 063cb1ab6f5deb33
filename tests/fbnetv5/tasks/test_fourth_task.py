"""A fourth task is one new file: a toy one is added to the folder and goes through search and export."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fbnetv5.tasks
from fbnetv5.cost import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.exporting import ExportOptions, export_tasks
from fbnetv5.search.config import SearchConfig
from fbnetv5.search.run import run_search, start_run
from fbnetv5.space import Space

COUNTING = '''
"""How many objects a picture shows, read from the 1/16 path."""

import torch
from torch import nn

from fbnetv5.data.sample import ABSENT
from fbnetv5.tasks.task import Task


class Head(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.number = nn.Linear(width, 1)

    def forward(self, features):
        return self.number(self.pool(features[0]).flatten(1))


class Closeness:
    def __init__(self):
        self.errors = []

    def update(self, outputs, batch):
        self.errors += (outputs[0][:, 0] - real_count(batch)).abs().tolist()

    def compute(self):
        return 1 / (1 + sum(self.errors) / len(self.errors))

    def report(self):
        return {"closeness": self.compute()}


def real_count(batch):
    return (batch.box_labels != ABSENT).sum(1).float()


class Counting(Task):
    name = "count"
    paths = (16,)
    metric_name = "closeness"
    output_names = ("number",)

    @property
    def labels(self):
        return ("objects",)

    def build_head(self, channels):
        return Head(channels[0])

    def labelled(self, batch):
        return batch.has_boxes

    def losses(self, raw, batch):
        return (raw[:, 0] - real_count(batch)).abs() * batch.has_boxes

    def deploy(self, raw):
        return (raw,)

    def new_metric(self):
        return Closeness()
'''


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "more_tasks"
    folder.mkdir()
    (folder / "counting.py").write_text(COUNTING)
    fbnetv5.tasks.__path__.append(str(folder))
    yield
    fbnetv5.tasks.__path__.remove(str(folder))
    del sys.modules["fbnetv5.tasks.counting"]


@pytest.mark.usefixtures("counting")
def test_a_task_in_a_new_file_is_searched_and_exported(tmp_path: Path) -> None:
    budget = Budget(limit=180e6, unit="macs")
    config = SearchConfig(
        budgets={"cls": budget, "count": budget},
        space=Space(stages=1, blocks_per_path=1),
        data=DataConfig(size=(32, 32), scenes=(24, 16, 16)),
        warmup_steps=2,
        steps=2,
        batch=4,
        policy_batch=4,
        panel_draws=16,
        panel_checks=3,
        finalists=1,
        score_pictures=16,
    )
    run = start_run(config, tmp_path / "run", lambda ranges: None, print)
    found = run_search(run, lambda progress: None, lambda *_: None)
    assert found["count"].task == "count"
    assert torch.isfinite(torch.tensor(found["count"].provenance["score"]))
    exported = export_tasks(run, ["count"], tmp_path / "out", ExportOptions(), lambda line: None)
    assert exported.drops["count"] == pytest.approx(0, abs=1e-4)
