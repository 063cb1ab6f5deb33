"""How long opening a data set takes the first time, when every header is read, and later, from the header index.

Expectation: later openings cost a listing, one ``stat`` and some bookkeeping per image instead of one opened file, and
are at least three times as fast from a local disk with a warm page cache; a cold or remote disk widens the gap.
The limit, in the same run: listing the folder and calling ``stat`` on every file, which no index can avoid.

    python -m benchmarks.opening --images 5000
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from fbnetv5.data.config import DataConfig

REPETITIONS = 5
MIN_RATIO = 3.0


def make_folder(root: Path, images: int) -> Path:
    """A folder of small JPEGs, 160x120 pixels, with a class for each image."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((160, 120))
    records = [
        {"id": number, "file_name": f"{number:07d}.jpg", "height": 120, "width": 160, "label": number % 2}
        for number in range(images)
    ]
    for record in records:
        noise.save(root / f"images/{record['file_name']}", quality=80)
    (root / "instances.json").write_text(json.dumps({"labels": ["a", "b"], "images": records}), encoding="utf-8")
    return root


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def list_and_stat(folder: Path) -> None:
    """The work that every opening has to do."""
    with os.scandir(folder) as entries:
        for entry in entries:
            entry.stat()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        root = make_folder(Path(folder) / "data", count)
        config = DataConfig.of(root, size=(64, 64))
        list_and_stat(root / "images")  # warms the page cache
        first = seconds(lambda: config.open(["label"]))
        splits = config.open(["label"])
        later = median(seconds(lambda: config.open(["label"])) for _ in range(REPETITIONS))
        resized = median(seconds(lambda: splits.resized((96, 96))) for _ in range(REPETITIONS))
        limit = median(seconds(lambda: list_and_stat(root / "images")) for _ in range(REPETITIONS))
    print(f"{count} JPEGs: first opening {first:.3f} s, later {later:.3f} s, another size {resized:.6f} s")
    print(
        json.dumps(
            {
                "images": count,
                "first_s": round(first, 4),
                "later_s_p50": round(later, 4),
                "resized_s_p50": round(resized, 7),
                "list_and_stat_s_p50": round(limit, 4),
                "ratio": round(first / later, 2),
                "as_expected": first / later >= MIN_RATIO,
            }
        )
    )


if __name__ == "__main__":
    main()
