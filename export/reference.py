"""``reference.npz``: inputs of an exported network and its outputs, for validation without the data.

It contains a few inputs, all outputs for them, and a sample of the output of every block. On another machine or in an
engine, the same inputs must give the same outputs; if they do not, the samples show which block differs.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np

from export.errors import UserError
from export.files import atomic_write
from export.runners import Array

NAME = "reference.npz"
_SAMPLES = 2048
"""Maximum number of values in the sample of a block."""
_KINDS = ("inputs", "outputs", "blocks")
DAMAGE = (OSError, ValueError, TypeError, EOFError, RuntimeError, BadZipFile, TokenError, zlib.error)
"""What numpy, zipfile and tokenize raise for a damaged file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Inputs of a network and its outputs for them."""

    inputs: Mapping[str, Array]
    """Inputs by name."""
    outputs: Mapping[str, Array]
    """Outputs by name."""
    blocks: Mapping[str, Array]
    """By block: the ``sample`` of its output."""


def sample(values: Array) -> Array:
    """At most ``_SAMPLES`` values, evenly spaced over the array; always at the same positions."""
    flat = values.ravel()
    positions = np.linspace(0, flat.size - 1, num=min(_SAMPLES, flat.size)).round().astype(np.int64)
    values_at: Array = flat[positions].astype(np.float32)
    return values_at


def write_reference(folder: Path, reference: Reference) -> None:
    """Write ``reference.npz`` into ``folder``, with an atomic write."""
    groups = {kind: getattr(reference, kind) for kind in _KINDS}
    arrays = {f"{kind}:{name}": array for kind, group in groups.items() for name, array in group.items()}
    with atomic_write(folder / NAME) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_reference(folder: Path) -> Reference:
    """Read ``reference.npz`` from ``folder``.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path} is missing: export again") from None
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}): export again") from None
    groups: dict[str, dict[str, Array]] = {kind: {} for kind in _KINDS}
    for name, array in arrays.items():
        kind, _, key = name.partition(":")
        if kind not in groups:
            raise UserError(f"{path} contains {name!r}, which is no reference: export again")
        groups[kind][key] = array
    return Reference(**groups)
