"""Weights of published networks: files on this machine, downloaded only if the user says so."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import UnavailableError, UserError
from export.locks import wait_for_lock

STATE_KEYS = ("state_dict", "model")
"""Under which some training scripts store the weights in a checkpoint."""


def url_file(url: str, *, name: str, download: bool) -> Path:
    """The file of an address in torch's cache. Of several processes of a machine that lack it, one downloads it.

    Args:
        url: of the file.
        name: of the network, for messages.
        download: whether a missing file is downloaded.

    Raises:
        UnavailableError: it is missing and may not, or cannot, be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        _check_download(name, str(path), download)
        with _download_errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_name(f".{path.name}.lock").open("w") as lock:
                wait_for_lock(lock)
                if not path.exists():
                    torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def hub_file(repository: str, files: Sequence[str], *, name: str, download: bool) -> Path:
    """The first of these files of a Hugging Face repository that is there, in the cache of huggingface_hub.

    Raises:
        UnavailableError: none is on this machine, and it may not, or cannot, be downloaded.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for file in files:
        if isinstance(path := try_to_load_from_cache(repository, file), str):
            return Path(path)
    _check_download(name, f"{constants.HF_HUB_CACHE} ({repository})", download)
    with _download_errors(name):
        for file in files[:-1]:
            try:
                return Path(hf_hub_download(repository, file))
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, files[-1]))


def _check_download(name: str, place: str, download: bool) -> None:
    if not download:
        raise UnavailableError(
            f"the weights of {name} are not on this machine ({place}): add --download, or name a file of weights as "
            f"{name}@FILE"
        )


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """A context in which a failed download raises UnavailableError; the libraries' exceptions have no common base."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        reason = " ".join(str(error).split())[:200]
        raise UnavailableError(
            f"the weights of {name} cannot be downloaded ({type(error).__name__}: {reason}): name a file of weights as "
            f"{name}@FILE"
        ) from None


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a file of weights, .safetensors or torch's format, into a network of the same shapes.

    Raises:
        UserError: the file cannot be read or is of another network.
    """
    state = read_weights(file)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{file} has the weights of another network ({reason}): correct the name, or class_names if it has classes "
            "of your own"
        ) from None


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """The weights in a file by name.

    Raises:
        UserError: it cannot be read.
    """
    try:
        is_safe = file.suffix == ".safetensors"
        state: Any = load_file(file) if is_safe else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - both libraries raise many types
        reason = "it does not exist" if not file.exists() else " ".join(str(error).split())[:200]
        raise UserError(f"cannot read the weights {file}: {reason}") from None
    for key in STATE_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise UserError(f"{file} contains no weights by name: save a network's state_dict()")
    return state
