"""The network to train: that of an architecture file, or one that the options of a training make of it."""

from pathlib import Path

from export.errors import UserError
from export.progress import Log
from fbnetv5.architecture import Architecture
from fbnetv5.networks.pretrained import SCRATCH
from fbnetv5.training.initial import INHERITED
from fbnetv5.training.scaling import describe_scaling, scale
from fbnetv5.training.transfer import describe_transfer, transfer


def changed_network(
    source: Architecture,
    file: Path,
    *,
    task: str | None,
    variant: str | None,
    scale_to: str | None,
    data: Path | None,
    log: Log,
) -> Architecture:
    """The network itself, or its topology for another task or in another variant, then scaled.

    Args:
        source: the network.
        file: its file, for the provenance and errors.
        task: name of the task; None for that of the network.
        variant: name of the variant; None for that of the network's space.
        scale_to: multiply-adds of the scaled network; None for no scaling.
        data: folder of the images to train on; None for the demo scenes.
        log: called with a line per change.

    Raises:
        UserError: the network has several tasks and the options name one or a variant, or as of ``transfer`` and
            ``scale``.
    """
    network = source
    if task is not None or variant is not None:
        if len(source.choices) > 1:
            raise UserError(f"{file} is one network for {source.name}, trained as a whole: use --arch {file} alone")
        network = transfer(source, file, task=task, variant=variant, data=data)
        if network is not source:
            log(describe_transfer(source, network))
    if scale_to is None:
        return network
    scaled = scale(network, file, scale_to)
    log(describe_scaling(network, scaled))
    return scaled


def fitting_init(init: str, old: Architecture, new: Architecture, log: Log) -> str:
    """The initial weights of the other network: random where those of the first one, of other widths, do not fit.

    Args:
        init: the initial weights that the user named.
        old: the first network.
        new: the other one.
        log: called with a line if the weights are random instead.
    """
    if init != INHERITED or new.space == old.space:
        return init
    log(f"the weights of {old.space.label} do not fit {new.space.label}: the training starts with random weights")
    return SCRATCH
