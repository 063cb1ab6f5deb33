"""``reference.npz``: what a network answered where it was exported, for whoever has the folder and not the data.

It holds a few inputs, all outputs to them, and of every block a sample of what it gave. On another machine or in an
engine the same inputs must give the same outputs; where they do not, the samples tell which block parted from them.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from export.errors import UserError
from export.files import atomic_write
from export.runners import Array

NAME = "reference.npz"
_SAMPLES = 2048
"""Of a block's values."""
_KINDS = ("inputs", "outputs", "blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Inputs and what came of them."""

    inputs: Mapping[str, Array]
    """By name."""
    outputs: Mapping[str, Array]
    """By name."""
    blocks: Mapping[str, Array]
    """By block, what ``sample`` takes of its output."""


def sample(values: Array) -> Array:
    """At most ``_SAMPLES`` of the values, evenly spread over the array; always the same ones."""
    flat = values.ravel()
    places = np.linspace(0, flat.size - 1, num=min(_SAMPLES, flat.size)).round().astype(np.int64)
    taken: Array = flat[places].astype(np.float32)
    return taken


def write_reference(folder: Path, reference: Reference) -> None:
    """Write ``reference.npz`` into ``folder``, whole or not at all."""
    groups = {kind: getattr(reference, kind) for kind in _KINDS}
    arrays = {f"{kind}:{name}": array for kind, group in groups.items() for name, array in group.items()}
    with atomic_write(folder / NAME) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_reference(folder: Path) -> Reference:
    """Read ``reference.npz`` from ``folder``.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path} is missing: export again") from None
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): export again") from None
    found: dict[str, dict[str, Array]] = {kind: {} for kind in _KINDS}
    for name, array in arrays.items():
        kind, _, rest = name.partition(":")
        if kind not in found:
            raise UserError(f"{path} holds {name!r}, which is no reference: export again")
        found[kind][rest] = array
    return Reference(**found)
