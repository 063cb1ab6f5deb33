"""The three splits of a data set: for training weights, for training policies, and for testing.

The policies are rewarded on images that the weights have not learned, or they would favour whatever overfits
(FBNetV5, arXiv:2111.10007, and DARTS, arXiv:1806.09055, hold out a share of the training set for them too).
A user's images are assigned by a hash of the file name: adding, removing or reordering other images moves no image to
another split. The augmented copies of an image in an export of Roboflow are in one split.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np

from export.errors import UserError
from export.placement import Fit
from fbnetv5.data.labelled_images import LabelledImages
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import some_indices
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.data.roboflow import source_name
from fbnetv5.data.sample import ImageSet, ResizableSet, Sample, has_labels
from fbnetv5.data.scenes import TARGETS, Scenes
from fbnetv5.data.shards import ShardedImages
from fbnetv5.data.shuffling import Sizes, block_sizes_of, subset_sizes
from fbnetv5.data.targets import Target

SHARES = (0.7, 0.2, 0.1)
"""Of a user's images: for weights, policies and test."""
TEST = 2
"""Position of the test split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Three sets without a common image."""

    weights: ResizableSet
    """The network's weights are trained on this."""
    policies: ResizableSet
    """Held out from the weights: policies are trained and candidates scored on this."""
    test: ResizableSet
    """Never seen by the search; reported figures come from it."""

    def resized(self, size: Resolution) -> Self:
        """The same splits at another image size; nothing is read again.

        Raises:
            UserError: the size is no multiple of 32.
        """
        check_resolution(size)
        return type(self)(
            weights=self.weights.resized(size), policies=self.policies.resized(size), test=self.test.resized(size)
        )


class Subset:
    """Some images of a set, in ascending order."""

    def __init__(self, images: ImageSet, indices: Sequence[int]) -> None:
        self.targets = images.targets
        self._images = images
        self._indices = indices

    @property
    def block_sizes(self) -> Sizes | None:
        """See ``ReadInBlocks``."""
        sizes = block_sizes_of(self._images)
        return None if sizes is None else subset_sizes(sizes, self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._images[self._indices[index]]

    def has_labels(self, index: int, targets: Collection[str]) -> bool:
        """See ``KnowsLabels``."""
        return has_labels(self._images, self._indices[index], targets)


class Concatenated:
    """Two sets with the same targets, one after the other."""

    def __init__(self, first: ImageSet, second: ImageSet) -> None:
        self.targets = first.targets
        self._first = first
        self._second = second

    @property
    def block_sizes(self) -> Sizes | None:
        """See ``ReadInBlocks``."""
        first, second = block_sizes_of(self._first), block_sizes_of(self._second)
        return None if first is None or second is None else np.concatenate([first, second])

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, index: int) -> Sample:
        images, place = self._place(index)
        return images[place]

    def has_labels(self, index: int, targets: Collection[str]) -> bool:
        """See ``KnowsLabels``."""
        return has_labels(*self._place(index), targets)

    def _place(self, index: int) -> tuple[ImageSet, int]:
        """The set that an image is of, and its index in it."""
        beyond = index - len(self._first)
        return (self._first, index) if beyond < 0 else (self._second, beyond)


def without_policies(splits: Splits, max_held_out: int) -> tuple[ImageSet, ImageSet]:
    """(training images, held-out images) of a training without policies; of the latter at most ``max_held_out``.

    The held-out images represent the split that a search uses for its policies, see ``some_indices``.
    """
    held_out, everything = some_indices(splits.policies, max_held_out), range(len(splits.policies))
    others = everything[len(held_out) :] if isinstance(held_out, range) else sorted({*everything} - {*held_out})
    return Concatenated(splits.weights, Subset(splits.policies, others)), Subset(splits.policies, held_out)


def split_of(name: str, shares: tuple[float, ...] = SHARES) -> int:
    """The position of the split that an image of this name belongs to, where splits have these relative ``shares``."""
    digest = hashlib.sha256(source_name(name).encode(errors="surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64 * sum(shares)
    return next((split for split, end in enumerate(accumulate(shares[:-1])) if position < end), len(shares) - 1)


def split_indices(folder: LabelledImages) -> tuple[Sequence[int], ...]:
    """The images of each split of a user's data set; its own test split is used if it has one."""
    return folder.splits if isinstance(folder, ShardedImages) else split_names(folder.names, folder.test)


def split_names(names: Sequence[str], test: Collection[str]) -> tuple[Sequence[int], ...]:
    """The positions of the names of images in each split; the test split is ``test`` unless that is empty."""
    indices: tuple[list[int], list[int], list[int]] = ([], [], [])
    for index, name in enumerate(names):
        split = TEST if name in test else split_of(name, SHARES[:2] if test else SHARES)
        indices[split].append(index)
    return indices


def filled_split_indices(folder: LabelledImages, root: Path) -> tuple[Sequence[int], ...]:
    """The images of each split of a user's data set.

    Raises:
        UserError: a split has no image.
    """
    indices = split_indices(folder)
    if not all(indices):
        sizes = ", ".join(str(len(split)) for split in indices)
        raise UserError(
            f"{root} splits by file name into {sizes} images for weights, policies and test; each needs at least 1. "
            "Add images: about 40 images almost surely fill every split"
        )
    return indices


def split_folder(folder: LabelledImages, root: Path, size: Resolution, fit: Fit = "stretch") -> Splits:
    """The three splits of a user's data set.

    Raises:
        UserError: a split has no image.
    """
    indices = filled_split_indices(folder, root)
    weights, policies, test = (folder.resized(size, split, fit=fit) for split in indices)
    return Splits(weights=weights, policies=policies, test=test)


def open_splits(
    data: Path | None,
    *,
    size: tuple[int, int],
    targets: Collection[str],
    seed: int = 0,
    counts: tuple[int, int, int] = (8000, 2000, 1000),
    fit: Fit = "stretch",
) -> Splits:
    """The splits of a user's folder, or of the demo scenes.

    Args:
        data: the folder, or None for the demo scenes.
        size: (H, W) of all images.
        targets: names of the needed labels; the samples have those of them that the data set has.
        seed: of the demo scenes; a folder's split depends on file names alone.
        counts: how many demo scenes each split has.
        fit: of a folder's images; demo scenes are composed at the size.

    Raises:
        UserError: the size is no multiple of 32, or the folder is unfit.
    """
    check_resolution(size)
    if data is not None:
        return split_folder(open_folder(data).only(targets), data, size, fit)
    return Splits(
        weights=Scenes("train", size=size, count=counts[0], seed=seed, targets=targets),
        policies=Scenes("train", size=size, count=counts[1], seed=seed, first=counts[0], targets=targets),
        test=Scenes("test", size=size, count=counts[2], seed=seed, targets=targets),
    )


def targets_of(data: Path | None) -> Mapping[str, Target]:
    """What a user's folder, or the demo scenes, are labelled with.

    Raises:
        UserError: the folder is unfit.
    """
    return TARGETS if data is None else open_folder(data).targets
