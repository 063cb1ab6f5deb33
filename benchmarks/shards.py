"""How quickly a data set in Parquet shards opens and is read, and how much memory it takes, at a million images.

Expectation, for a million images: the data set opens in at most 5 s, the first batch comes at most 10 s later, no
process has more than 500 MB of memory of its own (USS: pages that no other process has; the code of torch is mapped
from files and shared), and two worker processes deliver at least 90 % of the images per second that they deliver when
they decode the same JPEG from memory, without any file. That is the limit, in the same run. A stream that starts at a
later step has the same bytes as one that gets there, and two processes share no image of an epoch.

The images are one JPEG of 256x256 pixels, repeated, each with a class and a box; dictionaries are off in these shards,
so every copy is on the disk. Writing uses the converter, so its speed is measured as well.

    python -m benchmarks.shards --images 1000000
"""

import argparse
import io
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image

from fbnetv5.data.image_files import StoredFile
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.loading import Order, Reading, batches
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.shard_format import DATA
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.data.splits import open_splits
from fbnetv5.data.targets import BOXES, CLASS, Target

P = ParamSpec("P")
T = TypeVar("T")

SIDE, SIZE, BATCH, WORKERS = 256, (224, 224), 64, 2
CLASSES = tuple(f"class {number}" for number in range(1000))
TARGETS = {"label": Target(kind=CLASS, classes=CLASSES), "boxes": Target(kind=BOXES, classes=CLASSES)}
REPETITIONS = 5
MAX_OPEN_S, MAX_FIRST_BATCH_S, MAX_USS_MB, MIN_RATIO = 5.0, 10.0, 500.0, 0.9


def jpeg(quality: int) -> bytes:
    """A smooth image."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((SIDE, SIDE)).save(file, format="JPEG", quality=quality)
    return file.getvalue()


def records(path: str, count: int) -> LabelledImages:
    """A data set of one file, many times."""
    box = (10.0, 20.0, 110.0, 170.0)
    rows = {
        f"{number:08d}.jpg": ImageRecord(
            path=path, size=(SIDE, SIDE), label=number % 1000, boxes=[box], box_labels=[number % 1000]
        )
        for number in range(count)
    }
    return LabelledImages(rows, TARGETS)


def write(folder: Path, content: bytes, count: int) -> None:
    """Write the shards of ``count`` images."""
    file = folder / "image.jpg"
    file.write_bytes(content)
    write_shards(records(str(file), count), folder / "shards", lambda *_: None)


def resident_mb(process: int | str = "self") -> float:
    """Resident memory of a process, in MB, shared libraries included."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))
    return int(match[1]) / 1000 if match else 0.0


def worker_mb() -> float:
    """The largest resident memory of the worker processes, in MB."""
    return max((resident_mb(child.pid or 0) for child in multiprocessing.active_children()), default=0.0)


def pages_mb(process: int | str = "self") -> dict[str, float]:
    """Memory of a process in MB: "uss", pages of its own; "pss", with its share of the pages that others have too."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
    kb = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return {"uss": (kb["Private_Clean"] + kb["Private_Dirty"]) / 1000, "pss": kb["Pss"] / 1000}


def largest_pages_mb() -> dict[str, float]:
    """``pages_mb`` of the process with the most of its own, of this one and its workers."""
    processes: list[int | str] = ["self", *(child.pid or 0 for child in multiprocessing.active_children())]
    return max((pages_mb(process) for process in processes), key=lambda pages: pages["uss"])


class Stream:
    """Endless batches of a set from two workers, and how long the first one took."""

    def __init__(self, images: ImageSet) -> None:
        start = time.perf_counter()
        self._batches: Iterator[object] = batches(
            images, Order(batch=BATCH, seed=0), reading=Reading(num_workers=WORKERS)
        )
        next(self._batches)
        self.first_batch_s = time.perf_counter() - start

    def images_per_s(self, steps: int) -> float:
        """Throughput over ``steps`` batches after one that empties the queues."""
        for _ in islice(self._batches, 2 * WORKERS + 2):
            pass
        start = time.perf_counter()
        for _ in islice(self._batches, steps):
            pass
        return steps * BATCH / (time.perf_counter() - start)


def resumes_to_the_same_bytes(images: ImageSet, first_step: int = 5, steps: int = 3) -> bool:
    """Whether a stream that starts at a later step has the batches of one that started at step 0."""
    whole, resumed = (batches(images, Order(batch=BATCH, seed=0, first_step=first)) for first in (0, first_step))
    pairs = zip(islice(whole, first_step, first_step + steps), resumed, strict=False)
    return all(torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices) for a, b in pairs)


def shared_images(images: ImageSet) -> int:
    """The number of images that two processes both have in an epoch, or that one has twice."""
    orders = (Order(batch=BATCH, seed=0, rank=rank, world=2) for rank in range(2))
    steps = len(images) // (2 * BATCH)
    counts = np.zeros(len(images), np.int64)
    for order in orders:
        for indices in islice(order.groups(images), steps):
            np.add.at(counts, list(indices), 1)
    return int((counts > 1).sum())


def measure(root: Path, content: bytes, steps: int) -> dict[str, Any]:
    """Open the shards and read them, beside the decoder alone; in a process that did nothing else."""
    libraries, before_mb, start = pages_mb(), resident_mb(), time.perf_counter()
    splits = open_splits(root, size=SIZE, targets=["label", "boxes"])
    open_s, opened_mb = time.perf_counter() - start, resident_mb()
    figures: dict[str, list[float]] = {"shards": [], "decoder": []}
    opened = pages_mb()
    memory, pages, first_batch_s = [], [], []
    for repetition in range(REPETITIONS):
        for name in sorted(figures, reverse=repetition % 2 == 0):
            images = splits.weights if name == "shards" else records(StoredFile("memory", content), 5000).resized(SIZE)
            stream = Stream(images)
            figures[name].append(stream.images_per_s(steps))
            if name == "shards":
                memory.append(max(worker_mb(), resident_mb()))
                pages.append(largest_pages_mb())
                first_batch_s.append(stream.first_batch_s)
            del stream
    ratios = [ours / limit for ours, limit in zip(figures["shards"], figures["decoder"], strict=True)]
    return {
        "open_s": round(open_s, 3),
        "first_batch_s_max": round(max(first_batch_s), 3),
        "libraries_mb": round(before_mb, 1),
        "opened_mb": round(opened_mb - before_mb, 1),
        "reading_mb_max": round(max(memory) - before_mb, 1),
        **{f"libraries_{name}_mb": round(value, 1) for name, value in libraries.items()},
        **{f"opened_{name}_mb": round(value, 1) for name, value in opened.items()},
        **{f"reading_{name}_mb_max": round(max(page[name] for page in pages), 1) for name in ("uss", "pss")},
        "images_per_s_p50": round(median(figures["shards"]), 1),
        "decoder_images_per_s_p50": round(median(figures["decoder"]), 1),
        "ratio_p50": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "resumes": resumes_to_the_same_bytes(splits.weights),
        "shared_images": shared_images(splits.weights),
    }


def in_new_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a function that runs in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=use_default_start) as process:
        return process.submit(function, *args, **kwargs).result()


def use_default_start() -> None:
    """Start the processes of this process in the platform's way; a spawned process would spawn them too."""
    multiprocessing.set_start_method(None, force=True)


def is_as_expected(figures: dict[str, Any]) -> bool:
    return bool(
        figures["open_s"] <= MAX_OPEN_S
        and figures["first_batch_s_max"] <= MAX_FIRST_BATCH_S
        and max(figures["opened_uss_mb"], figures["reading_uss_mb_max"]) <= MAX_USS_MB
        and figures["ratio_p50"] >= MIN_RATIO
        and figures["resumes"]
        and not figures["shared_images"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--quality", type=int, default=50, help="of the JPEG; 50 makes it small")
    parser.add_argument("--steps", type=int, default=60, help="measured batches per repetition")
    parser.add_argument("--folder", type=Path, help="where the shards are written, instead of the system's /tmp")
    options = parser.parse_args()
    content = jpeg(options.quality)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, start = Path(name), time.perf_counter()
        in_new_process(write, folder, content, options.images)
        write_s = time.perf_counter() - start
        shards = list((folder / "shards" / DATA).iterdir())
        gigabytes = sum(path.stat().st_size for path in shards) / 1e9
        figures = in_new_process(measure, folder / "shards", content, options.steps)
    print(f"{options.images} images of {len(content)} bytes in {len(shards)} shards, {gigabytes:.2f} GB: {figures}")
    document = {
        "load": os.getloadavg(),
        "images": options.images,
        "image_bytes": len(content),
        "shards": len(shards),
        "gigabytes": round(gigabytes, 3),
        "write_s": round(write_s, 1),
        **figures,
        "as_expected": is_as_expected(figures),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
