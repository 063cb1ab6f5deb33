"""Checkpoints: tensors in a safetensors file, all else in a JSON file that is written last and belongs to it.

Whenever a run is killed, the newest JSON file belongs to a complete pair. The randomness of batches is a function of
the seed and the step, so a checkpoint stores no generator state.
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

SCHEMA = 2
"""Schema 1 named the tensors of heads otherwise."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(plain, str(temporary))
        except SafetensorError as error:
            raise UserError(f"cannot write {path}: {error}. Free space or name another folder") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: the file is missing, a folder, or damaged.
    """
    if path.is_dir():
        raise UserError(f"weights file {path} is a folder: name a .safetensors file")
    try:
        tensors: dict[str, Tensor] = load_file(str(path))
    except FileNotFoundError:
        raise UserError(f"weights file {path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights file {path} is damaged or half-written: {error}") from None
    return tensors


def by_group(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group tensors that are named GROUP/NAME: group -> name -> tensor."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    return groups


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name; parameters without a state are absent."""
    return {
        f"{names[parameter]}|{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Restore the tensors of ``optimizer_tensors``, each on its parameter's device and in its memory format."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        name, _, field = key.partition("|")
        parameter = parameters[name]
        template = parameter if value.shape == parameter.shape else value
        restored = torch.empty_like(template, dtype=value.dtype, device=parameter.device)
        optimizer.state[parameter][field] = restored.copy_(value)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of ``step``, then remove older ones."""
    save_tensors(folder / f"step-{step}.safetensors", tensors)
    write_json(folder / f"step-{step}.json", {"schema": SCHEMA, "step": step, **state})
    for path in folder.iterdir():
        if path.stem != f"step-{step}":
            path.unlink(missing_ok=True)


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any], folder: Path, what: str) -> None:
    """Compare the settings stored in a checkpoint with those of the run that is resumed.

    One that an earlier version did not store is not compared.

    Raises:
        UserError: a setting differs.
    """
    for field, value in identity.items():
        if field in state and state[field] != value:
            raise UserError(
                f"{folder} was made with other {field}: {state[field]}, now {value}. "
                f"Resume with the same {field}, or start a new {what}"
            )


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint, or None if there is none yet.

    Raises:
        UserError: the checkpoint is damaged, or of an earlier version.
    """
    newest = max(folder.glob("step-*.json"), key=lambda path: int(path.stem.removeprefix("step-")), default=None)
    if newest is None:
        return None
    state = read_json(newest, what="checkpoint", schema=(1, SCHEMA))
    if state["schema"] != SCHEMA:
        raise UserError(f"{newest} is of an earlier version, which this one cannot resume. Start a new run")
    return load_tensors(newest.with_suffix(".safetensors")), state


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module of exactly those names and shapes.

    Raises:
        UserError: names or shapes differ.
    """
    expected = module.state_dict()
    if set(expected) != set(tensors):
        differing = sorted(set(expected) ^ set(tensors))
        names = f"{len(differing)} names differ, first {differing[0]}"
        raise UserError(f"{path} holds the weights of another network: {names}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(expected[name].shape)}"
            raise UserError(f"{path} holds the weights of another network: {name} has shape {shapes}")
    module.load_state_dict(dict(tensors))
