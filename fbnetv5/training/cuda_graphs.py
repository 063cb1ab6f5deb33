"""A network's forward and backward pass as two CUDA graphs, which are recorded once and replayed in every step.

A small network on a GPU is limited by the CPU, which launches a thousand kernels one by one. A CUDA graph launches them
all at once. It repeats the recorded kernels on the recorded memory, so shapes and the order of the kernels must not
change: a derived network can be replayed, a supernet cannot.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv5.networks.backbone import Network

Raw = Callable[[Tensor], dict[str, Any]]
"""Normalised images [N, 3, H, W] -> task -> the raw outputs of its head."""


class _RawOutputs(nn.Module):
    """A module whose forward pass is ``Network.raw``, because torch replays the forward pass of a module."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Any]:
        return self.network.raw(images)


def record(network: Network, images: Tensor, *, autocast: torch.dtype | None = None) -> Raw:
    """Record ``network.raw`` for batches of the shape of ``images``, in train mode, with its backward pass.

    The outputs and gradients of a replay overwrite those of the one before, so gradients cannot be added up over
    replays. Weights and batch-norm statistics are as before; the hooks of the network's blocks are recorded, and
    numbers that they draw differ in every replay.

    Args:
        network: on a GPU, in train mode.
        images: normalised [N, 3, H, W], on the same GPU.
        autocast: the type of mixed precision; None for none.
    """
    # Gradients are accumulated on another stream than the replays'; autograd orders the two.
    warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
    buffers = dict(network.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    # Weights that autocast has converted must not be kept from one replay to the next.
    with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None, cache_enabled=False):
        samples = (images.detach().clone(),)
        replay: Any = torch.cuda.make_graphed_callables(
            _RawOutputs(network), samples, allow_unused_input=True, **_beside_other_threads()
        )
    for name, buffer in buffers.items():
        buffer.copy_(before[name])
    recorded: Raw = replay
    return recorded


def _beside_other_threads() -> dict[str, Any]:
    """The argument, which earlier versions of torch lack, that lets other threads pin memory during the recording.

    The thread that pins the batches of a data loader would end the recording, or be ended by it.
    """
    parameters = inspect.signature(torch.cuda.make_graphed_callables).parameters
    return {"capture_error_mode": "thread_local"} if "capture_error_mode" in parameters else {}
