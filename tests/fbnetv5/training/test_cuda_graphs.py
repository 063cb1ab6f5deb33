"""A replayed network is the same network: outputs, gradients, statistics and random numbers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import pytest
import torch

from fbnetv5.data.scenes import CLASSES
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from fbnetv5.training.cuda_graphs import record
from fbnetv5.training.regularization import add_dropout

SPACE = FourPathSpace(stages=1, blocks_per_path=1)


def make_network(task: str) -> Network:
    torch.manual_seed(0)
    choices = np.ones(len(SPACE.variables), dtype=np.int64)
    return task_network(make_tasks((task,), CLASSES)[task], SPACE, choices).cuda().train()


def gradients(network: Network, raw: object) -> list[torch.Tensor]:
    tensors = [raw] if isinstance(raw, torch.Tensor) else list(raw)  # type: ignore[call-overload]
    network.zero_grad(set_to_none=True)
    torch.stack([tensor.float().square().mean() for tensor in tensors]).sum().backward()  # type: ignore[no-untyped-call]
    return [torch.zeros(()) if each.grad is None else each.grad.clone() for each in network.parameters()]


@pytest.mark.gpu
@pytest.mark.parametrize("task", ["cls", "det", "seg"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)
def test_a_replay_computes_what_the_network_computes(task: str, autocast: torch.dtype | None) -> None:
    network = make_network(task)
    copy = deepcopy(network)
    images = torch.randn(3, 4, 3, 64, 64, device="cuda")
    replay = record(network, images[0], autocast=autocast)
    for name, tensor in copy.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=0, atol=0)
    tolerance = 2e-2 if autocast is None else 2e-1  # TF32 and other algorithms in the two passes
    for batch in images:
        replayed = gradients(network, replay(batch)[task])
        with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
            raw = copy.raw(batch)[task]
        expected = gradients(copy, raw)
        norm = torch.stack([each.norm() for each in expected]).norm()
        error = torch.stack([(a - b).norm() for a, b in zip(replayed, expected, strict=True)]).norm()
        assert error < tolerance * norm
    for name, tensor in copy.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_replays_draw_new_numbers_from_the_seed_of_the_step() -> None:
    network = make_network("cls")
    add_dropout(network, 0.5)
    images = torch.randn(4, 3, 64, 64, device="cuda")
    replay = record(network, images)

    def outputs(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        result: torch.Tensor = replay(images)["cls"]
        return result.detach().clone()

    first, second, again = outputs(1), outputs(2), outputs(1)
    assert not torch.allclose(first, second, rtol=1e-3)
    torch.testing.assert_close(first, again, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_a_thread_may_pin_memory_during_the_recording() -> None:
    """As that of a data loader does."""
    recorded = threading.Event()

    def pin() -> int:
        pinned = 0
        while not recorded.is_set():
            torch.empty(1 << 20 | pinned).pin_memory()  # of another size each time, so that nothing is reused
            pinned += 1
        return pinned

    with ThreadPoolExecutor(1) as pool:
        pinning = pool.submit(pin)
        try:
            record(make_network("cls"), torch.zeros(2, 3, 64, 64, device="cuda"))
        finally:
            recorded.set()
        assert pinning.result() > 0
