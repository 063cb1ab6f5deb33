"""Checkpoints: tensors in safetensors, everything else in a JSON file that is written last and names them.

Whatever moment a run is killed at, the newest JSON file belongs to a whole pair. Batch randomness is a function of the
seed and the step, so a checkpoint holds no generator state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.errors import UserError
from export.files import atomic_write, read_json, write_json

SCHEMA = 1


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(plain, str(temporary))
        except SafetensorError as error:
            raise UserError(f"cannot write {path}: {error}. Free space or name another folder") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: missing or damaged.
    """
    try:
        tensors: dict[str, Tensor] = load_file(str(path))
    except FileNotFoundError:
        raise UserError(f"weights file {path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights file {path} is damaged or half-written: {error}") from None
    return tensors


def by_group(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors named GROUP/NAME, by group and name."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    return groups


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name; parameters it never saw are absent."""
    return {
        f"{names[parameter]}|{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what ``optimizer_tensors`` gave, each tensor on its parameter's device and in its memory format."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        name, _, field = key.partition("|")
        parameter = parameters[name]
        like = parameter if value.shape == parameter.shape else value
        placed = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
        optimizer.state[parameter][field] = placed.copy_(value)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of ``step``, then remove older ones."""
    save_tensors(folder / f"step-{step}.safetensors", tensors)
    write_json(folder / f"step-{step}.json", {"schema": SCHEMA, "step": step, **state})
    for path in folder.iterdir():
        if path.stem != f"step-{step}":
            path.unlink(missing_ok=True)


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any], folder: Path, what: str) -> None:
    """Hold what a checkpoint says of itself against what goes on with it.

    Raises:
        UserError: it was made with something else.
    """
    for field, value in identity.items():
        if state.get(field) != value:
            raise UserError(
                f"the checkpoint in {folder} was made with other {field}: {state.get(field)}, now {value}. "
                f"Go on as it was begun, or start a new {what}"
            )


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint, or None if there is none yet.

    Raises:
        UserError: it is damaged.
    """
    newest = max(folder.glob("step-*.json"), key=lambda path: int(path.stem.removeprefix("step-")), default=None)
    if newest is None:
        return None
    state = read_json(newest, what="checkpoint", schema=SCHEMA)
    return load_tensors(newest.with_suffix(".safetensors")), state


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module of exactly those names and shapes.

    Raises:
        UserError: names or shapes differ.
    """
    expected = module.state_dict()
    if set(expected) != set(tensors):
        wrong = sorted(set(expected) ^ set(tensors))
        raise UserError(f"{path} holds the weights of another network: {len(wrong)} names differ, first {wrong[0]}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(expected[name].shape)}"
            raise UserError(f"{path} holds the weights of another network: {name} has shape {shapes}")
    module.load_state_dict(dict(tensors))
