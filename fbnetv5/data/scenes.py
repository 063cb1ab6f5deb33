"""The demo data: images composed on the fly, with exact labels for every task and no download.

A crop of a photograph is the background. One to four Fashion-MNIST products (Xiao et al., arXiv:1708.07747) are pasted
onto it, from an eighth of the image to nearly all of it, so that every resolution of a network matters to some object.
Tints, contrast and backgrounds are random, and later objects cover earlier ones. The training and test splits share
neither products nor photographs. ``assets/LICENSES.md`` names every source.

A scene depends on (seed, split, index) alone. Its draws are relative to the image's size, so the same index is the
same composition at any size, save for objects that only just are, or are not, large and visible enough to keep.

Labels: ``TARGETS``. An object's class is that of its product, and the image's class is that of the object with the
largest visible area. Saliency is 1 on all objects. Edges are the contours of objects: the pixels of an object beside a
pixel of what it covers. Depth is the order of the layers, in layers: the background is ``MAX_OBJECTS`` + 1 away, and
each object is one layer nearer than the object that was pasted before it. The parts of an object are the thirds of
its height, which mirroring does not change. Normals are those of a dome over each object's frame, with x to the
right, y up and z to the camera; those of the photograph are unknown.

Left out: rotation, shadows and objects cut by the image's edge.

Shape legend: h x w pixels of one object, H x W of the image.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import count as endless
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fbnetv5.data.maps import borders
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import Sample
from fbnetv5.data.targets import (
    BOXES,
    CLASS,
    CLASS_MAP,
    DENSE_MAP,
    LINE_MAP,
    VECTOR_MAP,
    Boxes,
    Target,
    class_names,
)

Split = Literal["train", "test"]

PRODUCTS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
PARTS = ("top", "middle", "bottom")
TARGETS: dict[str, Target] = {
    "label": Target(kind=CLASS, classes=PRODUCTS),
    "boxes": Target(kind=BOXES, classes=PRODUCTS),
    "mask": Target(kind=CLASS_MAP, classes=("background", *PRODUCTS)),
    "saliency": Target(kind=CLASS_MAP),
    "edges": Target(kind=LINE_MAP),
    "depth": Target(kind=DENSE_MAP),
    "normals": Target(kind=VECTOR_MAP),
    "parts": Target(kind=CLASS_MAP, classes=("background", *PARTS)),
}
"""The labels that scenes can have."""
CLASSES = class_names(TARGETS)
ASSETS = Path(__file__).parent / "assets"
PRODUCT_SIDE = 28
MAX_OBJECTS = 4
MIN_SCALE, MAX_SCALE = 0.125, 0.9
"""An object's longer side, as a share of the image's shorter side; drawn log-uniformly."""
MIN_VISIBLE = 0.3
"""An object whose visible share is smaller is left out of the image."""
MIN_SIDE = 4
"""Pixels: so is an object whose visible part is narrower or lower."""
PIXEL_BYTES = {"mask": 1, "saliency": 1, "edges": 1, "depth": 4, "normals": 12, "parts": 1}
"""Memory of a cached label per pixel; other labels need almost none."""
CACHE_BYTES = 2 << 30
"""Scenes are cached in memory after they are first composed if the whole set is smaller than this."""


class Box(NamedTuple):
    """A box in whole pixels; x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """One object as rendered: its pixels, their place and their opacity."""

    product: int
    """Class id."""
    frame: Box
    """The place of its pixels in the image."""
    colours: NDArray[np.float32]
    """[h, w, 3], 0 to 255."""
    opacity: NDArray[np.float32]
    """[h, w, 1], 0 to 1, soft at the rim."""
    solid: NDArray[np.bool_]
    """[h, w]: the pixels that count as the object."""

    @property
    def window(self) -> tuple[slice, slice]:
        """The frame as an index into an [H, W] array."""
        return slice(self.frame.y0, self.frame.y1), slice(self.frame.x0, self.frame.x1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """An object of the image, with its visible part."""

    pasted: Pasted
    area: int
    """Pixels."""
    box: Box
    """The extent of its visible pixels."""


@cache
def photographs(split: Split) -> tuple[Image.Image, ...]:
    """The photographs of a split, RGB."""
    files = sorted(ASSETS.glob(f"photo-{split}-*.jpg"))
    return tuple(Image.open(file).convert("RGB") for file in files)


@cache
def products(split: Split) -> NDArray[np.uint8]:
    """The products of a split, uint8 [10, n, 28, 28]; 0 is outside of the product."""
    sheet = np.asarray(Image.open(ASSETS / f"products-{split}.png"))
    tiles = sheet.reshape(len(PRODUCTS), PRODUCT_SIDE, -1, PRODUCT_SIDE)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3))


def extent(solid: NDArray[np.bool_]) -> Box:
    """The smallest box around the true pixels of ``solid``, which has at least one."""
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def draw_background(rng: np.random.Generator, split: Split, size: tuple[int, int]) -> NDArray[np.float32]:
    """A random crop of a photograph of the split, flipped and coloured at random: float32 [H, W, 3]."""
    photos = photographs(split)
    photo = photos[rng.integers(len(photos))]
    zoom, left, top, flip = rng.random(4)
    gains, shift = rng.uniform(0.7, 1.2, 3), rng.uniform(-25, 25)
    height, width = size
    unit = min(photo.width / width, photo.height / height) * (0.3 + 0.7 * zoom)
    x0, y0 = left * (photo.width - unit * width), top * (photo.height - unit * height)
    box = (x0, y0, min(x0 + unit * width, photo.width), min(y0 + unit * height, photo.height))
    crop = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box=box))
    if flip < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * gains.astype(np.float32) + np.float32(shift), 0, 255)


def draw_object(rng: np.random.Generator, split: Split, size: tuple[int, int]) -> Pasted:
    """A random product of the split, tinted, scaled and placed at random inside the image."""
    pool = products(split)
    product, variant = int(rng.integers(len(PRODUCTS))), int(rng.integers(pool.shape[1]))
    share, stretch, left, top, flip = rng.random(5)
    dark, bright = rng.uniform(0, 130, 3), rng.uniform(100, 255, 3)
    photo = pool[product, variant]
    tight = extent(photo > 0)
    height, width = size
    longest = min(size) * MIN_SCALE * (MAX_SCALE / MIN_SCALE) ** share
    unit = longest / max(tight.x1 - tight.x0, tight.y1 - tight.y0)
    w = min(width, max(MIN_SIDE, round((tight.x1 - tight.x0) * unit * 0.85 ** (2 * stretch - 1))))
    h = min(height, max(MIN_SIDE, round((tight.y1 - tight.y0) * unit)))
    grey_and_opacity = Image.fromarray(np.stack((photo, np.where(photo > 0, 255, 0).astype(np.uint8)), axis=-1))
    pixels = np.asarray(grey_and_opacity.resize((w, h), Image.Resampling.BILINEAR, box=tight), np.float32)
    if flip < 0.5:
        pixels = pixels[:, ::-1]
    pixels = pixels / np.float32(255)
    x0, y0 = round(left * (width - w)), round(top * (height - h))
    return Pasted(
        product=product,
        frame=Box(x0, y0, x0 + w, y0 + h),
        colours=dark.astype(np.float32) + pixels[:, :, :1] * (bright - dark).astype(np.float32),
        opacity=pixels[:, :, 1:],
        solid=pixels[:, :, 1] > 0.5,
    )


def visible_objects(objects: Iterable[Pasted], size: tuple[int, int]) -> list[Visible]:
    """The objects that are visible enough to stay in the image, lowest first; so are ``objects``.

    Decided from the topmost down: a dropped object covers nothing, and a kept one is covered by objects above it only.
    """
    covered = np.zeros(size, dtype=bool)
    kept: list[Visible] = []
    for pasted in reversed(list(objects)):
        visible = pasted.solid & ~covered[pasted.window]
        area, whole = int(visible.sum()), int(pasted.solid.sum())
        if area == 0 or area < MIN_VISIBLE * whole:
            continue
        x0, y0, x1, y1 = extent(visible)
        if min(x1 - x0, y1 - y0) < MIN_SIDE:
            continue
        covered[pasted.window] |= pasted.solid
        box = Box(pasted.frame.x0 + x0, pasted.frame.y0 + y0, pasted.frame.x0 + x1, pasted.frame.y0 + y1)
        kept.append(Visible(pasted=pasted, area=area, box=box))
    return kept[::-1]


def dome(height: int, width: int) -> NDArray[np.float32]:
    """Unit normals of a paraboloid over a frame, leaning by 45 degrees at the middles of its sides: [3, h, w]."""
    x = (2 * np.arange(width, dtype=np.float32) + 1) / width - 1
    y = 1 - (2 * np.arange(height, dtype=np.float32)[:, None] + 1) / height
    vectors = np.stack(np.broadcast_arrays(x, y, np.float32(1)))
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=0)
    return unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The painted objects, lowest first, and the object of each pixel."""

    objects: list[Visible]
    numbers: NDArray[np.uint8]
    """[H, W]: 0 for the background, 1 for the lowest object and so on."""

    def label(self) -> int:
        return max(self.objects, key=lambda visible: visible.area).pasted.product

    def boxes(self) -> Boxes:
        return Boxes(
            torch.tensor([visible.box for visible in self.objects], dtype=torch.float32),
            torch.tensor([visible.pasted.product for visible in self.objects]),
        )

    def mask(self) -> Tensor:
        ids = [0, *(visible.pasted.product + 1 for visible in self.objects)]
        return torch.from_numpy(np.array(ids, dtype=np.uint8)[self.numbers])

    def saliency(self) -> Tensor:
        return torch.from_numpy((self.numbers > 0).astype(np.uint8))

    def edges(self) -> Tensor:
        return torch.from_numpy(borders(self.numbers))

    def depth(self) -> Tensor:
        return torch.from_numpy((MAX_OBJECTS + 1 - self.numbers).astype(np.float32))

    def normals(self) -> Tensor:
        vectors = np.full((3, *self.numbers.shape), np.nan, dtype=np.float32)
        for window, mine in self._visible_pixels():
            np.copyto(vectors[:, *window], dome(*mine.shape), where=mine)
        return torch.from_numpy(vectors)

    def parts(self) -> Tensor:
        ids = np.zeros_like(self.numbers)
        for window, mine in self._visible_pixels():
            thirds = 1 + len(PARTS) * np.arange(len(mine))[:, None] // len(mine)
            np.copyto(ids[window], thirds, where=mine, casting="unsafe")
        return torch.from_numpy(ids)

    def _visible_pixels(self) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
        """The window of each object's frame, and which pixels in the window show the object: bool [h, w]."""
        for number, visible in enumerate(self.objects, start=1):
            window = visible.pasted.window
            yield window, self.numbers[window] == number


LABELLERS: dict[str, Callable[[Layers], Any]] = {
    "label": Layers.label,
    "boxes": Layers.boxes,
    "mask": Layers.mask,
    "saliency": Layers.saliency,
    "edges": Layers.edges,
    "depth": Layers.depth,
    "normals": Layers.normals,
    "parts": Layers.parts,
}
"""By name of the target. A task with a target of its own adds to this and to ``TARGETS``."""


def render(
    background: NDArray[np.float32], objects: list[Visible], targets: Collection[str] = tuple(TARGETS)
) -> Sample:
    """Paint the objects onto the background, lowest first, and label the result with the named targets."""
    numbers = np.zeros(background.shape[:2], dtype=np.uint8)
    for number, pasted in enumerate((visible.pasted for visible in objects), start=1):
        under = background[pasted.window]
        under += pasted.opacity * (pasted.colours - under)
        numbers[pasted.window][pasted.solid] = number
    image = np.ascontiguousarray(background.round().astype(np.uint8).transpose(2, 0, 1))
    layers = Layers(objects=objects, numbers=numbers)
    return Sample(image=torch.from_numpy(image), targets={name: LABELLERS[name](layers) for name in targets})


def compose(
    split: Split, index: int, *, size: tuple[int, int], seed: int, targets: Collection[str] = tuple(TARGETS)
) -> Sample:
    """One scene with the named targets; see the module."""
    rng = np.random.default_rng((seed, int(split == "test"), index))
    background = draw_background(rng, split, size)
    for _ in endless():
        objects = [draw_object(rng, split, size) for _ in range(rng.integers(1, MAX_OBJECTS + 1))]
        if kept := visible_objects(objects, size):
            break
    return render(background, kept, targets)


class Scenes:
    """A range of demo scenes of one split, as a set of images."""

    def __init__(
        self,
        split: Split,
        *,
        size: tuple[int, int],
        count: int,
        seed: int = 0,
        first: int = 0,
        targets: Collection[str] = tuple(TARGETS),
    ) -> None:
        """Describe the scenes; each is composed when it is first read.

        Args:
            split: whose products and photographs to use.
            size: (H, W) in pixels.
            count: how many scenes.
            seed: another seed makes other scenes of the same products.
            first: index of the first scene; ranges that do not overlap share no scene.
            targets: names of the labels that the scenes have; names outside of ``TARGETS`` are ignored.
        """
        self.targets: Mapping[str, Target] = {name: target for name, target in TARGETS.items() if name in targets}
        self._split: Split = split
        self._count = count
        self._seed = seed
        self._first = first
        self._set_size(size)

    def resized(self, size: Resolution) -> Self:
        """The same scenes composed at another size."""
        scenes = copy(self)
        scenes._set_size(size)
        return scenes

    def _set_size(self, size: Resolution) -> None:
        """Start with an empty cache, which is used if the whole set is smaller than ``CACHE_BYTES``."""
        self._size = size
        pixel_bytes = 3 + sum(PIXEL_BYTES.get(name, 0) for name in self.targets)
        self._is_cached = self._count * size[0] * size[1] * pixel_bytes <= CACHE_BYTES
        self._composed: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        """The scene at ``index``; cached scenes are the same tensors each time, so never change them in place."""
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}")
        if (scene := self._composed.get(index)) is not None:
            return scene
        sample = compose(self._split, self._first + index, size=self._size, seed=self._seed, targets=self.targets)
        if self._is_cached:
            self._composed[index] = sample
        return sample
