import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export.errors import UserError
from fbnetv5.runs.processes import (
    GradientAverage,
    distributed_state,
    fastest_convolutions,
    in_first_process,
    make_accelerator,
    process_group_cleanup,
    relaunch_command,
)


def refuse() -> Path:
    raise UserError("the folder exists already")


def test_a_single_process_runs_the_work_itself(tmp_path: Path) -> None:
    assert in_first_process(lambda: tmp_path) == tmp_path
    with pytest.raises(UserError, match="exists already"):
        in_first_process(refuse)


def test_gradients_of_a_single_process_stay() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    average = GradientAverage(make_accelerator(), [parameter, nn.Parameter(torch.zeros(1))])
    torch.autograd.backward((parameter * torch.tensor([1.0, -2.0])).sum())
    average.finish()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1.0, -2.0]


def test_a_checkpoint_stores_the_number_of_processes() -> None:
    assert distributed_state(make_accelerator()) == {"processes": 1, "mixed_precision": "no"}


@pytest.mark.parametrize(
    ("world_size", "line"),
    [(None, "fbnetv5 search --resume r"), ("2", "torchrun --nproc_per_node 2 -m fbnetv5 search --resume r")],
    ids=["one process", "two processes"],
)
def test_a_command_is_relaunched_in_as_many_processes(
    world_size: str | None, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world_size is not None:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    assert relaunch_command("search --resume r") == line


def test_the_process_group_is_destroyed_after_an_error() -> None:
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    with pytest.raises(UserError), process_group_cleanup():
        refuse()
    assert not torch.distributed.is_initialized()


def test_two_processes_share_their_work_and_agree(image_folder: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    (folder := tmp_path / "two").mkdir()
    arguments = [*command, str(folder), str(image_folder)]
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]


def test_convolutions_are_timed_inside_the_block_alone() -> None:
    before = torch.backends.cudnn.benchmark
    with fastest_convolutions():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before
