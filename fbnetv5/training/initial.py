"""Initial weights of a network: random, inherited from the search, from a file, or published ones of its encoder.

The encoder of a branched network is its blocks without the heads; that of a network of the four-path space is stage 0,
an FBNetV3. The other weights are random. ``fbnetv5/networks/pretrained.py`` lists the encoders that have weights.
"""

from pathlib import Path

import torch

from export.errors import UserError
from fbnetv5.architecture import Architecture
from fbnetv5.blocks.specs import initialise
from fbnetv5.networks.backbone import Network
from fbnetv5.networks.pretrained import PUBLISHED, SCRATCH, encoder_weights, load_blocks, stage_zero_weights
from fbnetv5.runs.checkpoint import load_tensors, load_weights
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.wide import WideSpace

INHERITED = "inherited"


def initial_network(
    architecture: Architecture, init: str, *, file: Path, seed: int, blocks_only: bool = False
) -> Network:
    """The network of an architecture file, with the weights that ``init`` names.

    Args:
        architecture: of the network.
        init: "inherited", "scratch", "torchvision", "timm", or the path of a safetensors file: of the network or, for a
            branched network, of torchvision's or timm's model of its encoder.
        file: the architecture file; inherited weights are in the file beside it.
        seed: of random weights.
        blocks_only: whether inherited weights are of a network of another task, whose head does not fit.

    Raises:
        UserError: the weights are missing, damaged, or of another network.
        UnavailableError: torchvision or timm cannot load its weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build()
        initialise(network.backbone)
    if init == SCRATCH:
        return network
    if init in PUBLISHED:
        copy_encoder(network, architecture.space, init)
        return network
    path = file.with_suffix(".safetensors") if init == INHERITED else Path(init)
    if not path.exists():
        raise UserError(f"--init {init}: {path} does not exist. Name a file, or use --init {SCRATCH}")
    if init == INHERITED and blocks_only:
        inherit_blocks(network, path)
        return network
    if isinstance(architecture.space, BranchingSpace) and not _is_whole(path):
        copy_encoder(network, architecture.space, init)
        return network
    return architecture.load(path)


def copy_encoder(network: Network, space: Space, source: str) -> None:
    """Copy the weights of an encoder into the blocks of a network; all copies of a layer get the same.

    Raises:
        UserError: there are no such weights, or they do not fit.
        UnavailableError: a library cannot load its weights.
    """
    if isinstance(space, BranchingSpace):
        names = [node.name for node in space.nodes]
        weights = dict(zip(names, encoder_weights(space.encoder, source, width=space.width), strict=True))
    elif isinstance(space, FourPathSpace):
        weights = stage_zero_weights(space, source)
    elif isinstance(space, WideSpace):
        raise UserError(
            f"--init {source}: blocks of {space.label} have other kernels and expansions than the encoder's"
        )
    else:
        raise UserError(f"--init {source} is for networks with an encoder, not for those of {space.label}")
    load_blocks(network, weights)


def inherit_blocks(network: Network, path: Path) -> None:
    """Copy the weights of blocks from a file of a network of the same space; blocks that it lacks stay as they are.

    Raises:
        UserError: the file is missing or damaged, or of another space.
    """
    tensors = load_tensors(path)
    for name, block in network.backbone.blocks.items():
        prefix = f"backbone.blocks.{name}."
        of_block = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if of_block:
            load_weights(block, of_block, path)


def _is_whole(path: Path) -> bool:
    """Whether a file has the weights of a network of this library and not those of an encoder alone."""
    return any(name.startswith("backbone.") for name in load_tensors(path))
