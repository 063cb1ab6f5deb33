"""A search for a branched network that is small enough for tests: a narrow encoder and images of 32x32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.loop import BranchLoop
from fbnetv5.search.bmtas.prepare import Prepared, prepare
from fbnetv5.search.bmtas.supernet import BranchedSupernet

TASKS = ("cls", "det", "seg")

MakeLoop = Callable[..., BranchLoop]


class SinglePrecision(torch.Tensor):
    """A tensor of an accelerator without doubles, until it is copied to the CPU."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.double:
            raise TypeError("this accelerator has no float64")
        result = super().__torch_function__(function, types, args, kwargs)  # type: ignore[no-untyped-call]
        return result.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else result


def tiny_config(**changes: Any) -> BranchConfig:
    fields: dict[str, Any] = {
        "budget": Budget(limit=150e6, unit="macs"),
        "task_names": TASKS,
        "width": 0.25,
        "data": DataConfig(size=(32, 32), scenes=(24, 24, 16)),
        "batch": 4,
        "steps": 8,
        "warmup_share": 0.25,
        "routing_every": 2,
        "draws": 2,
        "score_images": 16,
        "checkpoint_every": 2,
    }
    return BranchConfig(**fields | changes)


@pytest.fixture(scope="session")
def prepared() -> Prepared:
    """The inputs of the default configuration; counting takes longer than a step."""
    return prepare(tiny_config())


@pytest.fixture
def make_loop(tmp_path: Path, prepared: Prepared) -> MakeLoop:
    """(fields that differ) -> the loop of a fresh search in the test's folder."""

    def make(folder: Path = tmp_path, **changes: Any) -> BranchLoop:
        config = tiny_config(**changes)
        torch.manual_seed(config.seed)
        own = Prepared(
            config=config,
            space=prepared.space,
            splits=prepared.splits,
            tasks=prepared.tasks,
            table=None,
            costs=prepared.costs,
            latency_costs=None,
        )
        return BranchLoop(own, folder, BranchedSupernet(own.space, own.tasks))

    return make
