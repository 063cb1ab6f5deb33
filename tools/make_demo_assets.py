"""Makes ``fbnetv5/data/assets`` again: the products and photographs that the demo scenes are composed of.

Run it only to change what ships; the result is kept in the repository. It reads folders that were fetched beforehand:

    apt-get download dataset-fashion-mnist mypaint-data-extras    # each unpacked with: dpkg-deb -x FILE.deb debian
    pip download --no-deps scikit-image                           # unpacked with: unzip scikit_image-*.whl -d wheel
    python tools/make_demo_assets.py --debian debian --wheel wheel --out fbnetv5/data/assets

Products: the first 800 per class of Fashion-MNIST's training split and the first 150 of its test split, as one grey
sheet a split, a row a class. A product stands where its pixel is above 0: whatever is darker than ``GROUND`` becomes 0,
save dark spots inside a product, which are raised to at least 1 so that no background shines through a black print.
Sandals and bags keep their gaps, which are real ones.

Photographs: only those whose author or publisher gave them to the public domain or under CC0, as the docstrings of
``skimage/data/_fetchers.py`` and the copyright file of ``mypaint-data-extras`` state; LICENSES.md lists them.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

GROUND = 12
"""Up to this grey a pixel of Fashion-MNIST is ground: its black has faint noise around the products."""
SANDAL, BAG = 5, 8
PER_CLASS = {"train": 800, "test": 150}
FILES = {"train": "train", "test": "t10k"}
LONGEST_SIDE = 320
JPEG_QUALITY = 88
PHOTOGRAPHS = {
    "train": (
        "astronaut.png",
        "brick.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "retina.jpg",
        "ramon/HR_Cork.png",
        "ramon/HR_PastelPaper 01.png",
        "ramon/HR_SketchPaper 02.png",
        "mrmamurk/mamurk_f_1.png",
    ),
    "test": (
        "camera.png",
        "grass.png",
        "rocket.jpg",
        "ramon/HR_DecoPaper.png",
        "mrmamurk/mamurk_a_2.png",
    ),
}
"""By split: a file of scikit-image's data folder, or of MyPaint's backgrounds where a folder is named."""


def spread(reached: Mask, passable: Mask) -> Mask:
    """The pixels reached after one more step in four directions. Both are bool [n, h, w]."""
    wider = reached.copy()
    wider[:, 1:] |= reached[:, :-1]
    wider[:, :-1] |= reached[:, 1:]
    wider[:, :, 1:] |= reached[:, :, :-1]
    wider[:, :, :-1] |= reached[:, :, 1:]
    return wider & passable


def without_holes(solid: Mask) -> Mask:
    """``solid`` (bool [n, h, w]) with everything that its ground cannot reach from the border made solid too."""
    passable = np.pad(~solid, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    outside = np.zeros_like(passable)
    outside[:, 0] = True
    while not np.array_equal(outside, wider := spread(outside, passable)):
        outside = wider
    return ~outside[:, 1:-1, 1:-1]


def sheet(folder: Path, split: str) -> Pixels:
    """One split's products: uint8 [10 * 28, per class * 28], a row a class."""
    stem = FILES[split]
    images = np.frombuffer(gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = images.reshape(-1, 28, 28)
    rows = []
    for label in range(10):
        products = images[labels == label][: PER_CLASS[split]]
        solid = products > GROUND
        if label not in (SANDAL, BAG):
            solid = without_holes(solid)
        rows.append(np.concatenate(list(np.where(solid, np.maximum(products, 1), 0)), axis=1))
    return np.concatenate(rows).astype(np.uint8)


def main() -> None:
    """Parse the folders and write the sheets and photographs."""
    parser = argparse.ArgumentParser(description="Make fbnetv5/data/assets from unpacked packages.")
    parser.add_argument("--debian", type=Path, required=True, help="where the Debian packages were unpacked")
    parser.add_argument("--wheel", type=Path, required=True, help="where scikit-image's wheel was unpacked")
    parser.add_argument("--out", type=Path, required=True, help="the assets folder")
    arguments = parser.parse_args()
    share = arguments.debian / "usr/share"
    for split, names in PHOTOGRAPHS.items():
        products = Image.fromarray(sheet(share / "datasets/fashion-mnist", split))
        products.save(arguments.out / f"products-{split}.png", optimize=True)
        for name in names:
            folder = share / "mypaint/backgrounds" if "/" in name else arguments.wheel / "skimage/data"
            photograph = Image.open(folder / name).convert("RGB")
            photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
            stem = Path(name).stem.lower().replace(" ", "-").replace("_", "-")
            photograph.save(arguments.out / f"photo-{split}-{stem}.jpg", quality=JPEG_QUALITY)


if __name__ == "__main__":
    main()
