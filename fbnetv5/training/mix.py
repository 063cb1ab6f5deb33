"""Mosaic, mixup and CutMix: training images that are made of several images of a batch.

A mosaic (YOLOv4, arXiv 2004.10934) shows four images, each in one of four quarters around a random point, at the place
and scale that it has in its own image; boxes are cut at the borders. It comes first, and what follows mixes mosaics.

Image n of a batch is mixed with image N - 1 - n. In mixup (arXiv 1710.09412) both are blended; in CutMix (arXiv
1905.04899) a box of the second replaces that of the first. The loss of labels of whole images, such as the class, is
the weighted sum of the losses for the labels of both; this is the loss for the blended label where, as in cross
entropy, the loss is linear in the label. Maps such as masks and depth are pasted like the image. Mixup has no blended
map, so there the losses of all tasks are weighted sums.

torchvision's ``v2.MixUp`` and ``v2.CutMix`` refuse boxes and maps, and draw from torch's global generator; it has no
mosaic. Here a mix is a function of (seed, step) alone.

Shape legend: N images, H x W pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import Kind, Patch, Target, compose, paste
from fbnetv5.tasks.task import Task
from fbnetv5.training.recipe import RecipeFields


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Mixed images and the labels whose losses are added up."""

    images: Tensor
    """[N, 3, H, W], normalised."""
    labels: tuple[tuple[float, Batch], ...]
    """Batches of labels with their weights, which add up to 1; the first is that of the images themselves."""


def mix(batch: Batch, recipe: RecipeFields, kinds: Mapping[str, Kind], *, seed: int, step: int) -> Mix:
    """Normalise the images of a batch and mix them as the recipe says.

    Args:
        batch: of images and labels.
        recipe: its fields ``mosaic``, ``mixup`` and ``cutmix``; if the last two are on, each step uses one of them.
        kinds: of the labels, by name.
        seed: of the training.
        step: of the training.
    """
    if recipe.mosaic:
        batch = draw_mosaic(batch, recipe.mosaic, kinds, np.random.default_rng([seed, step, 1]))
    images = normalise(batch.images)
    if not recipe.mixup and not recipe.cutmix:
        return Mix(images=images, labels=((1.0, batch),))
    random = np.random.default_rng([seed, step])
    if recipe.cutmix and (not recipe.mixup or random.random() < 0.5):
        return cut_mix(images, batch, kinds, draw_patch(random, recipe.cutmix, images.shape[2:]))
    share = random.beta(recipe.mixup, recipe.mixup)
    blended = share * images + (1 - share) * images.flip(0)
    return Mix(images=blended, labels=((share, batch), (1 - share, batch.flipped())))


def draw_mosaic(batch: Batch, probability: float, kinds: Mapping[str, Kind], random: np.random.Generator) -> Batch:
    """The batch, or with a probability a mosaic of each image and the next three.

    The point at which the quarters meet is uniform over the middle half of rows and columns.
    """
    if random.random() >= probability:
        return batch
    height, width = batch.images.shape[2:]
    row, column = (int(random.integers(side // 4, side - side // 4 + 1)) for side in (height, width))
    upper, lower, left, right = slice(0, row), slice(row, height), slice(0, column), slice(column, width)
    patches = ((upper, left), (upper, right), (lower, left), (lower, right))
    labels = {name: kinds[name].mosaic(batch.targets[name], batch.present[name], patches) for name in batch.targets}
    return replace(
        batch,
        images=compose(batch.images, patches),
        targets={name: target for name, (target, _) in labels.items()},
        present={name: present for name, (_, present) in labels.items()},
    )


def draw_patch(random: np.random.Generator, alpha: float, size: tuple[int, ...]) -> Patch:
    """A random box (CutMix, equation 2), cut at the borders of the image.

    Its share of the image is 1 minus a draw from Beta(alpha, alpha) before that; its centre is uniform over the pixels.
    """
    root = (1 - random.beta(alpha, alpha)) ** 0.5
    slices = []
    for side in size:
        centre, half = int(random.integers(side)), int(side * root) // 2
        slices.append(slice(max(0, centre - half), min(side, centre + half)))
    rows, columns = slices
    return rows, columns


def cut_mix(images: Tensor, batch: Batch, kinds: Mapping[str, Kind], patch: Patch) -> Mix:
    """Paste a patch of each image's partner; the weights are the shares of the pixels that each of the two has."""
    rows, columns = patch
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start) / (images.shape[2] * images.shape[3])
    labels = {name: kinds[name].paste(batch.targets[name], batch.present[name], patch) for name in batch.targets}
    own = replace(
        batch,
        targets={name: target for name, (target, _) in labels.items()},
        present={name: present for name, (_, present) in labels.items()},
    )
    flipped = batch.flipped()
    whole = [name for name in labels if kinds[name].of_whole_image]
    other = replace(
        own,
        targets={**own.targets, **{name: flipped.targets[name] for name in whole}},
        present={**own.present, **{name: flipped.present[name] for name in whole}},
    )
    return Mix(images=paste(images, patch), labels=((1 - pasted, own), (pasted, other)))


def check_mixable(recipe: RecipeFields, tasks: Iterable[Task], targets: Mapping[str, Target]) -> None:
    """Raise a ``UserError`` if CutMix or mosaic is on and the labels of a task do not allow it."""
    kinds = {task.name: [targets[name].kind for name in task.targets] for task in tasks}
    unfit = [task for task, of_task in kinds.items() if not all(kind.can_paste for kind in of_task)]
    if recipe.cutmix and unfit:
        raise UserError(
            f"training: cutmix does not suit {', '.join(unfit)}: a pasted patch cuts the labels. Set cutmix to 0, "
            "or use mixup"
        )
    whole = [task for task, of_task in kinds.items() if any(kind.of_whole_image for kind in of_task)]
    if recipe.mosaic and whole:
        raise UserError(
            f"training: mosaic does not suit {', '.join(whole)}: four images have no common label. Set mosaic to 0"
        )
