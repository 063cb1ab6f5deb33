"""Published ImageNet weights of encoders: torchvision's, timm's, or those of a file, as one state dict per block.

The models have the layers of the encoders in the same order, so tensors are matched by order and checked by shape.
They were trained on images with the mean and deviation of ``fbnetv5/data/preprocess.py``. timm's FBNetV3-B has the
layers of A and B (these letters differ by resolution alone), with ordinary padding as here.

torchvision publishes two sets of weights per model. ``VERSION`` is the first: it alone existed when BMTAS was
published, and losses like those of the second, with label smoothing and mixing of images, raise ImageNet's accuracy but
make features that transfer less well (Kornblith et al., arXiv 2010.16402). The two were not compared here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from export.errors import UnavailableError, UserError
from fbnetv5.blocks.specs import Block
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.spaces.encoders import ENCODERS
from fbnetv5.spaces.fbnetv3 import VARIANTS
from fbnetv5.spaces.four_path import FourPaths
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.variants import stage_zero

SCRATCH, TORCHVISION, TIMM = "scratch", "torchvision", "timm"
PUBLISHED = {
    TORCHVISION: {"mobilenetv2": "mobilenet_v2", "resnet50": "resnet50"},
    TIMM: {
        "fbnetv3-a": "fbnetv3_b",
        "fbnetv3-b": "fbnetv3_b",
        "fbnetv3-d": "fbnetv3_d",
        "fbnetv3-g": "fbnetv3_g",
        "mobilenetv2": "mobilenetv2_100",
        "efficientnet-lite0": "efficientnet_lite0",
        "resnet50": "resnet50",
    },
}
"""Library -> encoder -> the library's model with these layers."""
VERSION = "IMAGENET1K_V1"
"""Version of torchvision's weights."""
COUNTER = "num_batches_tracked"
"""Buffer of batch norm that changes no output; files may lack it."""

State = dict[str, Tensor]
"""A state dict, in the order of its model's layers."""


def _full_source(source: str) -> str:
    return source if source in (SCRATCH, *PUBLISHED) else str(Path(source).resolve())


Source = Annotated[str, AfterValidator(_full_source)]
"""A source of weights as a field of a configuration, a file by its absolute path."""


def encoder_weights(encoder: str, source: str, *, width: float = 1.0) -> list[State]:
    """The weights of an encoder, one state dict per block, the stem's first.

    Args:
        encoder: a name of ``ENCODERS``.
        source: "torchvision", "timm", or the path of a safetensors file with the state dict of such a model.
        width: of the encoder; published weights are for 1.

    Raises:
        UserError: there are no such weights, or they do not fit the encoder.
        UnavailableError: the library cannot load its weights.
    """
    blocks = ENCODERS[encoder](1.0)
    if width != 1.0:
        raise UserError(f"--init {source}: published weights are for width 1, not {width:g}. Use --init {SCRATCH}")
    if source not in PUBLISHED:
        return _split(blocks, _from_file(Path(source), encoder), source)
    if encoder not in PUBLISHED[source]:
        raise UserError(
            f"{source} has no weights that fit {encoder}, only {', '.join(PUBLISHED[source])}. Use --init {SCRATCH}"
        )
    model = PUBLISHED[source][encoder]
    return _split(blocks, _LOADERS[source](model), f"{source}'s {model}")


def stage_zero_weights(space: Space, source: str) -> dict[str, State]:
    """The weights of an FBNetV3 by the nodes of stage 0 of a space; ``source`` is that of ``encoder_weights``.

    Raises:
        UserError: there are no such weights, or they do not fit.
        UnavailableError: the library cannot load its weights.
    """
    if not isinstance(space, FourPaths):
        raise UserError(f"--init {source} is for spaces of four paths, not for {space.label}")
    variant = VARIANTS[space.variant]
    if variant.light:
        raise UserError(f"--init {source}: no published weights fit {space.label}. Use --init {SCRATCH}")
    weights = encoder_weights(f"fbnetv3-{variant.letter}", source, width=variant.width)
    return dict(zip(stage_zero(space.encoder), weights, strict=True))


def load_blocks(network: Network, weights: Mapping[str, State]) -> None:
    """Copy weights by node into the network's blocks; nodes without a block, and blocks without weights, are left."""
    for step in network.backbone.graph.steps:
        if step.node in weights:
            network.backbone.blocks[step.name].load_state_dict(weights[step.node])


def _split(blocks: Sequence[Block], tensors: Mapping[str, Tensor], title: str) -> list[State]:
    """Divide a model's tensors, which begin with the encoder's, among the blocks.

    Raises:
        UserError: the tensors do not have the shapes of the blocks.
    """
    remaining = iter(_without_counters(tensors))
    states: list[State] = []
    for block in blocks:
        states.append(state := {})
        for name, own in _on_meta(block.build).items():
            if name.endswith(COUNTER):
                state[name] = torch.zeros((), dtype=own.dtype)
                continue
            source = next(remaining, None)
            if source is None or tensors[source].shape != own.shape:
                shape = "is missing" if source is None else f"has shape {list(tensors[source].shape)}"
                wanted = f"{source or 'a tensor'} {shape}, {list(own.shape)} is needed"
                raise UserError(f"{title} does not have the layers of the encoder: {wanted}")
            state[name] = tensors[source]
    return states


def _on_meta(build: Callable[[], nn.Module]) -> State:
    """The state dict of a module that is built without memory and without random numbers."""
    with torch.device("meta"):
        return dict(build().state_dict())


def _from_file(path: Path, encoder: str) -> State:
    """The tensors of a file in the order of torchvision's or timm's model, whichever has these names.

    Raises:
        UserError: the file is missing, damaged, or of another model.
    """
    libraries = [library for library, models in PUBLISHED.items() if encoder in models]
    if not path.exists():
        sources = ", ".join([SCRATCH, *libraries])
        raise UserError(f"--init {path}: {path} does not exist. Name a file, or one of: {sources}")
    tensors = load_tensors(path)
    needed = sum(len(_without_counters(_on_meta(block.build))) for block in ENCODERS[encoder](1.0))
    for library in libraries:
        build = partial(_untrained, library, PUBLISHED[library][encoder])
        names = _without_counters(_on_meta(build))[:needed]
        if all(name in tensors for name in names):
            return {name: tensors[name] for name in names}
    models = " or ".join(f"{library}'s {PUBLISHED[library][encoder]}" for library in libraries)
    wanted = f"does not have the tensors of {models}" if models else f"cannot be used: no library has {encoder}"
    raise UserError(f"--init {path}: the file {wanted}. Use --init {SCRATCH}")


def _without_counters(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(COUNTER)]


def _untrained(library: str, model: str) -> nn.Module:
    """The library's model with random weights."""
    if library == TIMM:
        import timm

        peer: nn.Module = timm.create_model(model, pretrained=False)
    else:
        import torchvision

        peer = torchvision.models.get_model(model)
    return peer


def _from_torchvision(model: str) -> State:
    """Torchvision's weights, from its cache or the network.

    Raises:
        UnavailableError: neither has them.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(model)[VERSION]
    try:
        tensors = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise _unavailable(TORCHVISION, model, error, f"torch's cache ({torch.hub.get_dir()})") from error
    return dict(tensors)


def _from_timm(model: str) -> State:
    """Timm's weights, from its cache or the network.

    Raises:
        UnavailableError: neither has them.
    """
    import timm
    from huggingface_hub import constants

    try:
        with torch.random.fork_rng(devices=[]):
            peer: nn.Module = timm.create_model(model, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unavailable(TIMM, model, error, f"timm's cache ({constants.HF_HUB_CACHE})") from error
    return dict(peer.state_dict())


def _unavailable(library: str, model: str, error: Exception, cache: str) -> UnavailableError:
    reason = (str(error).strip() or "no reason is stated").splitlines()[0]
    return UnavailableError(
        f"{library} could not load the weights of {model} ({type(error).__name__}: {reason}). It downloads them "
        f"once: connect this machine, or copy {cache} from one that is connected"
    )


_LOADERS: dict[str, Callable[[str], State]] = {TORCHVISION: _from_torchvision, TIMM: _from_timm}
