"""The topology of a network for another task, or in another variant of its space, before a training.

FBNetV5 trains one topology per task on stage 0 of FBNetV3-A, C and F, and of A with fewer channels (arXiv 2111.10007).
Here nodes correspond by their names (``fbnetv5/spaces/variants.py``): the other network has the choices of the first
one. Another task reads the features of its own paths with a head of its own.
"""

from pathlib import Path

from export.errors import UserError
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, make_architecture
from fbnetv5.data.splits import targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.variants import move_choices
from fbnetv5.tasks import make_tasks

KEPT = ("trained_at", "fit")
"""Entries of the provenance that hold for the other network: they are the defaults of its images."""


def transfer(
    architecture: Architecture, file: Path, *, task: str | None, variant: str | None, data: Path | None
) -> Architecture:
    """The network of the same choices for another task, or in another variant; the same one if neither differs.

    Args:
        architecture: of one task.
        file: its file, for the provenance and errors.
        task: name of the task; None for that of the network.
        variant: name of the variant; None for that of the network's space.
        data: folder of the images to train on, which name the classes of another task; None for the demo scenes.

    Raises:
        UserError: the network has several tasks, its space has no variants or not the features that the task reads, or
            the images have no labels of the task.
    """
    own = architecture.task
    name, space = task or own, _in_variant(architecture.space, variant, file)
    if name == own and space == architecture.space:
        return architecture
    classes = architecture.classes if name == own else class_names(targets_of(data))
    ((_, of_task),) = make_tasks((name,), classes).items()
    if missing := [str(path) for path in of_task.paths if path not in space.ends]:
        raise UserError(f"{file}: networks of {space.label} have no feature at stride {missing[0]}, which {name} reads")
    choices = architecture.choices_array
    if isinstance(space, FourPathSpace) and isinstance(architecture.space, FourPathSpace):
        choices = move_choices(choices, architecture.space, space)
    provenance = {key: architecture.provenance[key] for key in KEPT if key in architecture.provenance}
    origin = {"file": str(file.resolve()), "task": own, "space": architecture.space.label}
    return make_architecture(
        space,
        {name: choices},
        of_task.classes,
        architecture.resolution,
        provenance={"version": __version__, **provenance, "transferred_from": origin},
    )


def describe_transfer(old: Architecture, new: Architecture) -> str:
    """One line: the costs of both networks, and the features that only the other task reads."""
    costs = [f"{each.cost.macs / 1e6:.1f}M multiply-adds, {each.cost.params / 1e6:.2f}M params" for each in (old, new)]
    size = "x".join(map(str, new.resolution))
    line = (
        f"{new.name} in {new.space.label}, with the topology of {old.name} in {old.space.label}: {costs[1]} at {size}"
    )
    others = [str(path) for path in new.make_task().paths if path not in old.make_task().paths]
    unread = f"; {old.name} reads no feature at stride {' and '.join(others)}, so its choices there mean nothing"
    return f"{line}, instead of {costs[0]}{unread if others else ''}"


def _in_variant(space: Space, variant: str | None, file: Path) -> Space:
    """The space in another variant.

    Raises:
        UserError: it has no variants, or not this one.
    """
    if variant is None:
        return space
    if not isinstance(space, FourPathSpace):
        raise UserError(
            f"{file} is a network of {space.label}; only networks of the default and the strict space of fbnetv5 "
            "search can move to another variant"
        )
    return space.changed(variant=variant)
