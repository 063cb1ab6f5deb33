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
    BUCKET_BYTES,
    GradientAverage,
    distributed_state,
    in_first_process,
    make_accelerator,
    process_group_cleanup,
)


def check_gradients() -> None:
    """Over two steps with other parameters, gradients become the means that one reduction after backward computes."""
    accelerator = make_accelerator()
    sizes = [(2,), (BUCKET_BYTES // 4,), (3, 2, 3, 3), (BUCKET_BYTES // 8, 2), (5,)]
    parameters = [nn.Parameter(torch.ones(size)) for size in sizes]
    parameters[2].data = parameters[2].data.to(memory_format=torch.channels_last)
    average = GradientAverage(accelerator, parameters)
    generator = torch.Generator().manual_seed(accelerator.process_index)
    for live in (parameters[:4], parameters[2:]):
        gradients = [torch.randn(parameter.shape, generator=generator) for parameter in live]
        expected = [accelerator.reduce(gradient, "mean") for gradient in gradients]
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward([(p * gradient).sum() for p, gradient in zip(live, gradients, strict=True)])
        average.finish()
        for parameter, mean in zip(live, expected, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, mean)
        assert all(parameter.grad is None for parameter in set(parameters) - set(live))
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
