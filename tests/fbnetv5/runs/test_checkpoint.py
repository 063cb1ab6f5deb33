from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.runs.checkpoint import (
    check_identity,
    load_checkpoint,
    load_tensors,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    save_tensors,
)


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    return network.to(memory_format=torch.channels_last)


def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=0.01, fused=True)


def names_of(network: nn.Module) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in network.named_parameters()}


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


def saved_half_way(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = make_network()
    optimizer = make_optimizer(network)
    train(network, optimizer, range(3))
    save_tensors(folder / "weights.safetensors", network.state_dict())
    save_tensors(folder / "optimizer.safetensors", optimizer_tensors(optimizer, names_of(network)))
    return network, optimizer


def restored(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = make_network()
    optimizer = make_optimizer(network)
    load_weights(network, load_tensors(folder / "weights.safetensors"), folder)
    restore_optimizer(optimizer, names_of(network), load_tensors(folder / "optimizer.safetensors"))
    return network, optimizer


def test_a_resumed_training_is_equal_bit_for_bit(tmp_path: Path) -> None:
    undisturbed, optimizer = saved_half_way(tmp_path)
    resumed, resumed_optimizer = restored(tmp_path)
    for network, its_optimizer in ((undisturbed, optimizer), (resumed, resumed_optimizer)):
        train(network, its_optimizer, range(3, 6))
    assert bits(resumed.state_dict()) == bits(undisturbed.state_dict())


def test_optimizer_state_has_the_memory_format_of_its_parameter(tmp_path: Path) -> None:
    saved_half_way(tmp_path)
    network, optimizer = restored(tmp_path)
    for parameter in network.parameters():
        moments = [optimizer.state[parameter][key] for key in ("exp_avg", "exp_avg_sq")]
        assert [moment.stride() for moment in moments] == [parameter.stride()] * 2
    first = next(network.parameters())
    assert not first.is_contiguous()
    assert optimizer.state[first]["step"] == 3


def test_a_parameter_that_never_had_a_gradient_has_no_state() -> None:
    network = make_network()
    optimizer = make_optimizer(network)
    network[0](torch.randn(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    names = {name.partition("|")[0] for name in optimizer_tensors(optimizer, names_of(network))}
    assert names == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4)), "2 names differ, first 0.bias"),
        (nn.Sequential(nn.Linear(3, 2, bias=False)), r"0.weight has shape \[4, 3\] instead of \[2, 3\]"),
    ],
    ids=["names", "shapes"],
)
def test_weights_of_another_network_are_refused(other: nn.Module, message: str) -> None:
    tensors = {name: torch.zeros(4, *tensor.shape[1:]) for name, tensor in other.state_dict().items()}
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    before = deepcopy(network.state_dict())
    if "names" in message:
        tensors = {"0.bias": torch.zeros(4), "1.weight": torch.zeros(1)} | {"0.weight": torch.zeros(2, 3)}
    with pytest.raises(UserError, match=message):
        load_weights(network, tensors, Path("run/checkpoint"))
    assert bits(network.state_dict()) == bits(before)


def test_a_new_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint") is None


def test_a_checkpoint_replaces_the_previous_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 9, {"x": torch.zeros(2)}, {"tasks": []})
    save_checkpoint(tmp_path, 10, {"x": torch.arange(6.0).view(2, 3).T}, {"tasks": ["cls"]})
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    tensors, state = checkpoint
    assert (state["step"], state["tasks"]) == (10, ["cls"])
    assert torch.equal(tensors["x"], torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10.json", "step-10.safetensors"]


@pytest.mark.parametrize("left", ["step-12.safetensors", ".step-12.json.77.tmp", ".step-12.safetensors.77.tmp"])
def test_files_of_a_killed_save_are_ignored(tmp_path: Path, left: str) -> None:
    save_checkpoint(tmp_path, 9, {"x": torch.ones(1)}, {})
    (tmp_path / left).write_bytes(b"half")
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint[1]["step"] == 9
    save_checkpoint(tmp_path, 12, {"x": torch.ones(1)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-12.json", "step-12.safetensors"]


def test_the_newer_of_two_checkpoints_is_loaded(tmp_path: Path) -> None:
    for step in (9, 100):
        save_checkpoint(tmp_path / str(step), step, {"x": torch.full((1,), float(step))}, {})
        for path in (tmp_path / str(step)).iterdir():
            path.rename(tmp_path / path.name)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint[1]["step"], float(checkpoint[0]["x"])) == (100, 100.0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("step-9.json", b"{", "not valid JSON"),
        ("step-9.json", b'{"schema": 99}', "schema 99"),
        ("step-9.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "damaged or half-written"),
        ("step-9.safetensors", None, "does not exist"),
    ],
    ids=["half a document", "another schema", "damaged tensors", "no tensors"],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    save_checkpoint(tmp_path, 9, {"x": torch.ones(100)}, {})
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path)


def test_a_folder_is_refused_as_a_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder: name a \.safetensors file"):
        load_tensors(tmp_path)


def test_settings_are_compared_if_the_checkpoint_has_them(tmp_path: Path) -> None:
    check_identity({"images": 7}, {"images": 7, "latencies": "of a later version"}, tmp_path, "search")
    with pytest.raises(UserError, match=r"was made with other images: 7, now 8\. Resume with the same images"):
        check_identity({"images": 7}, {"images": 8}, tmp_path, "search")
