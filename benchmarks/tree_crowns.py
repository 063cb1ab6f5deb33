"""A public set of photographs with boxes: tree crowns from the air, in Ultralytics' YOLO layout.

The Python package ``deepforest`` (PyPI, 2.1.0, MIT) contains airborne photographs of NEON sites, at 10 cm per pixel,
with a box around every crown (Weinstein et al., Remote Sensing 11(11):1309, 2019). This script cuts two of Yellowstone
into tiles of 200 x 150 pixels, the upper two thirds of each for training and the rest for the test. Tiles do not
overlap, so no pixel is in two of them. A box stays in a tile that shows at least 40 % of it.

    pip download --no-deps deepforest==2.1.0 && unzip -q deepforest-*.whl -d deepforest
    python -m benchmarks.tree_crowns deepforest/deepforest/data --output crowns
"""

import argparse
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from PIL import Image

from export.files import atomic_write_text

WIDTH, HEIGHT = 200, 150
VISIBLE = 0.4
"""Smallest share of a box that its tile shows."""
SHARE_FOR_TRAINING = 2 / 3
"""Share of the rows of each photograph, from the top."""
PHOTOGRAPHS = ("2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop")

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


@dataclass(frozen=True)
class Tile:
    """A part of a photograph."""

    image: Image.Image
    boxes: Sequence[Box]
    name: str


def read_boxes(file: Path) -> list[Box]:
    """Boxes of an annotation in PASCAL VOC's format."""
    objects = ET.parse(file).getroot().iter("bndbox")
    return [tuple(float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")) for box in objects]  # type: ignore[misc]


def visible_part(box: Box, left: int, top: int) -> Box | None:
    """The part of a box inside a tile, in the tile's pixels; None if the tile shows less than ``VISIBLE`` of it."""
    x0, x1 = (min(max(x - left, 0.0), WIDTH) for x in (box[0], box[2]))
    y0, y1 = (min(max(y - top, 0.0), HEIGHT) for y in (box[1], box[3]))
    area = (box[2] - box[0]) * (box[3] - box[1])
    return (x0, y0, x1, y1) if area > 0 and (x1 - x0) * (y1 - y0) >= VISIBLE * area else None


def tiles(folder: Path, name: str, *, first: float, last: float) -> Iterator[Tile]:
    """Tiles of the rows of a photograph from one share of its height to another."""
    boxes = read_boxes(folder / f"{name}.xml")
    with Image.open(folder / f"{name}.png") as opened:
        photograph = opened.convert("RGB")
    height = photograph.height
    tops = range(round(first * height), round(last * height) - HEIGHT + 1, HEIGHT)
    for top, left in product(tops, range(0, photograph.width - WIDTH + 1, WIDTH)):
        visible = [part for box in boxes if (part := visible_part(box, left, top)) is not None]
        yield Tile(photograph.crop((left, top, left + WIDTH, top + HEIGHT)), visible, f"{name}-{left}-{top}")


def yolo_line(box: Box) -> str:
    """Class, centre and size, as shares of the tile's width and height."""
    x0, y0, x1, y1 = box
    centre = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT
    return " ".join(["0", *(f"{value:.6f}" for value in (*centre, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT))])


def write_part(tiles: Sequence[Tile], folder: Path, part: str) -> tuple[int, int]:
    """Write images and labels of a part; returns the numbers of images and of boxes."""
    images, labels = folder / "images" / part, folder / "labels" / part
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    counts = [0, 0]
    for tile in tiles:
        tile.image.save(images / f"{tile.name}.jpg", quality=95)
        lines = [yolo_line(box) for box in tile.boxes]
        atomic_write_text(labels / f"{tile.name}.txt", "".join(f"{line}\n" for line in lines))
        counts = [counts[0] + 1, counts[1] + len(lines)]
    return counts[0], counts[1]


def main() -> None:
    """Write the set and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the photographs of the package deepforest")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    shares = {"train": (0.0, SHARE_FOR_TRAINING), "test": (SHARE_FOR_TRAINING, 1.0)}
    for part, (first, last) in shares.items():
        cut = [tile for name in PHOTOGRAPHS for tile in tiles(options.source, name, first=first, last=last)]
        images, boxes = write_part(cut, options.output, part)
        print(f"{part}: {images} images, {boxes} boxes")
    atomic_write_text(
        options.output / "data.yaml", "path: .\ntrain: images/train\nval: images/test\nnames:\n  0: tree\n"
    )


if __name__ == "__main__":
    main()
