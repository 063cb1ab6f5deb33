"""Run by ``test_processes.py`` in each of two processes: mean gradients, a common path and a common error.

Usage: torchrun --nproc_per_node 2 two_processes.py FOLDER
"""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export.errors import UserError
from fbnetv5.runs.processes import (
    average_gradients,
    distributed_state,
    in_first_process,
    make_accelerator,
    process_group_cleanup,
)


def check_gradients() -> None:
    """Every process gets the mean of the gradients 1 and 2, per parameter."""
    accelerator = make_accelerator()
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3, 1))]
    for parameter in (parameters[0], parameters[2]):
        parameter.grad = torch.full_like(parameter, accelerator.process_index + 1.0)
    average_gradients(accelerator, parameters)
    assert all(bool((parameter.grad == 1.5).all()) for parameter in parameters if parameter.grad is not None)
    assert parameters[1].grad is None
    assert distributed_state(accelerator)["processes"] == 2


def check_first_process(folder: Path) -> None:
    """The first process alone works; both get its path, and both raise its error."""
    own = folder / str(make_accelerator().process_index)

    def make() -> Path:
        own.mkdir()
        return own

    assert in_first_process(make) == folder / "0"
    assert [path.name for path in folder.iterdir()] == ["0"]

    def refuse() -> Path:
        raise UserError(f"refused in {own.name}")

    with pytest.raises(UserError, match="refused in 0"):
        in_first_process(refuse)


if __name__ == "__main__":
    with process_group_cleanup():
        check_gradients()
        check_first_process(Path(sys.argv[1]))
