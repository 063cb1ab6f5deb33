"""Initial weights of a network: random, inherited from the search, from a file, or partly from timm.

timm's FBNetV3-B has the layers of variant a (the letters differ by resolution alone), so its weights fit that variant's
stage 0; the weights of timm's FBNetV3-D and -G fit no variant. timm pads three strided convolutions unusually, which a
supernet cannot: the weights are unaffected, the outputs change slightly. timm downloads the weights.
"""

from itertools import chain
from pathlib import Path

import torch
from torch import nn

from export.errors import UnavailableError, UserError
from fbnetv5.architecture import Architecture
from fbnetv5.blocks.specs import initialise
from fbnetv5.networks.backbone import Network
from fbnetv5.spaces.fbnetv3 import FBNETV3, STRIDES, FBNetV3Network
from fbnetv5.spaces.four_path import FourPathSpace

SCRATCH, INHERITED, TIMM = "scratch", "inherited", "timm"
TIMM_NAMES = {"a": "fbnetv3_b"}
"""Variant -> timm's model whose layers are those of its stage 0."""


def initial_network(architecture: Architecture, init: str, *, file: Path, seed: int) -> Network:
    """The network of an architecture file, with the weights that ``init`` names.

    Args:
        architecture: of the network.
        init: "inherited", "scratch", "timm", or the path of a safetensors file.
        file: the architecture file; inherited weights are in the file beside it.
        seed: of random weights.

    Raises:
        UserError: the weights are missing, damaged, or of another network.
        UnavailableError: timm is not installed, or cannot load the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build()
        initialise(network.backbone)
    if init == TIMM:
        if not isinstance(architecture.space, FourPathSpace):
            raise UserError(f"--init {TIMM} is for networks of {FourPathSpace().kind} spaces, whose stage 0 timm has")
        copy_stage_zero(network, architecture.space.variant, pretrained(architecture.space.variant))
    elif init != SCRATCH:
        path = file.with_suffix(".safetensors") if init == INHERITED else Path(init)
        if not path.exists():
            raise UserError(f"--init {init}: {path} does not exist. Name a file, or use --init {SCRATCH} or {TIMM}")
        network = architecture.load(path)
    return network


def pretrained(variant: str) -> nn.Module:
    """Timm's model whose layers are those of the variant's stage 0, with its published weights.

    Raises:
        UserError: timm has no such model.
        UnavailableError: timm is not installed, or cannot load the weights.
    """
    if variant not in TIMM_NAMES:
        letters = ", ".join(TIMM_NAMES)
        raise UserError(f"timm has no weights that fit variant {variant!r}, only {letters}. Use --init {SCRATCH}")
    import timm

    try:
        model: nn.Module = timm.create_model(TIMM_NAMES[variant], pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnavailableError(
            f"timm could not load the weights of {TIMM_NAMES[variant]} ({type(error).__name__}: {reason}). It "
            "downloads them once: connect this machine, or copy timm's cache from one that is connected"
        ) from error
    return model


def copy_stage_zero(network: Network, variant: str, peer: nn.Module) -> None:
    """Copy the weights of timm's model into the network's live stage-0 blocks; the order of layers is the same.

    Raises:
        UserError: the layers of the model differ.
    """
    stage_zero = FBNetV3Network(FBNETV3[variant].with_ordinary_padding()).blocks
    own_tensors, peer_tensors = stage_zero.state_dict(), list(peer.state_dict().items())
    for (name, tensor), (peer_name, peer_tensor) in zip(own_tensors.items(), peer_tensors, strict=False):
        if tensor.shape != peer_tensor.shape:
            shapes = f"{list(peer_tensor.shape)} instead of {list(tensor.shape)}"
            raise UserError(f"timm's model is not stage 0 of variant {variant}: {peer_name} has shape {shapes}")
        own_tensors[name] = peer_tensor
    stage_zero.load_state_dict(own_tensors)
    partitions = FBNETV3[variant].partitions()
    names = chain.from_iterable(
        [f"s0_p{path}_{number}" for number in range(len(blocks))]
        for path, blocks in zip(STRIDES, partitions, strict=True)
    )
    for name, block in zip(names, stage_zero, strict=True):
        if name in network.backbone.blocks:
            network.backbone.blocks[name].load_state_dict(block.state_dict())
