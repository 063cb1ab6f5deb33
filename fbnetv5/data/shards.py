"""The layout of Parquet shards, see ``fbnetv5.data.shard_format``: for data sets of millions of images.

Opening reads ``index.json`` and the length of each shard. Nothing is kept in memory per image: a row group is read when
one of its images is needed, and the last few are kept. The splits are ranges of rows, and training shuffles row groups
and the images of a few of them at a time (``fbnetv5.data.shuffling``).

A shard is mapped into memory while a row group is read and not longer: pages of mapped files count as memory of the
process, up to the size of the data set. Worker processes read for themselves: as the images of a window are dealt out
at random, each process of a training and each of its workers reads nearly all row groups of its windows. On a local
disk all but the first read come from the system's cache; on a network file system the traffic grows with their number.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from export.errors import UserError
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import StoredFile
from fbnetv5.data.labelled_images import Corners, ImageRecord, LabelledImages
from fbnetv5.data.shard_format import (
    BOX_COLUMNS,
    DATA,
    INDEX,
    OWN_KEY,
    SIDES,
    SOFT_LABEL,
    ShardIndex,
    check_parquet_library,
    columns_of,
    own_metadata,
    read_index,
)
from fbnetv5.data.shuffling import WINDOW_BLOCKS, Sizes
from fbnetv5.data.targets import IGNORED_BOXES

if TYPE_CHECKING:
    import pyarrow as pa

K = TypeVar("K")
V = TypeVar("V")

MAX_GROUPS = 2 * WINDOW_BLOCKS
"""Row groups that a process keeps: the windows of two streams of batches."""
MAX_FOOTERS = 32
"""Shards whose footer a process keeps."""
REMEDY = "Copy the shard again, or convert the data set again"


class ShardedFile(StoredFile):
    """An image file in a shard."""

    remedy = REMEDY


class Recent(Generic[K, V]):
    """The values that were used last, of those that are read by key. Copies for other processes are empty."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit, "_values": OrderedDict()}

    def get(self, key: K, read: Callable[[K], V]) -> V:
        """The value of a key, from ``read`` unless it is kept."""
        if key not in self._values:
            self._values[key] = read(key)
            if len(self._values) > self._limit:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


class ShardRows:
    """The rows of all shards as records, read when they are needed."""

    def __init__(self, root: Path, index: ShardIndex, targets: Collection[str]) -> None:
        """Describe the rows.

        Args:
            root: the folder of the data set.
            index: of the folder.
            targets: whose labels are read.
        """
        self._root = root
        self._index = index
        self._targets = tuple(targets)
        self._places = [(shard.file, group) for shard in index.shards for group in range(len(shard.groups))]
        self.group_sizes: Sizes = np.array([rows for shard in index.shards for rows in shard.groups], dtype=np.int64)
        self._counts = self.group_sizes.tolist()
        self._ends = np.cumsum(self.group_sizes).tolist()
        self._footers: Recent[str, pa.parquet.FileMetaData] = Recent(MAX_FOOTERS)
        self._groups: Recent[int, dict[str, pa.Array]] = Recent(MAX_GROUPS)

    def only(self, targets: Collection[str]) -> Self:
        """The same rows with the labels of these targets alone."""
        return type(self)(self._root, self._index, targets)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int, /) -> ImageRecord:
        """The image at ``index`` with its labels.

        Raises:
            UserError: its shard cannot be read.
        """
        group = bisect_right(self._ends, index)
        columns, row = self._groups.get(group, self._read_group), index - self._ends[group] + self._counts[group]
        values = {name: column[row].as_py() for name, column in columns.items()}
        place = f"{self._root / DATA / self._places[group][0]}, {values['image.path']!r}"
        width, height = (values[side] for side in SIDES)
        boxes, box_labels = _objects(values, "boxes")
        ignored_boxes, ignored_box_labels = _objects(values, IGNORED_BOXES)
        classes = values.get(f"{SOFT_LABEL}.category")
        return ImageRecord(
            path=ShardedFile(place, values["image.bytes"]),
            size=(height, width),
            label=values.get("label"),
            boxes=boxes,
            box_labels=box_labels,
            ignored_boxes=ignored_boxes,
            ignored_box_labels=ignored_box_labels,
            soft_label=None
            if classes is None
            else dict(zip(classes, values[f"{SOFT_LABEL}.probability"], strict=True)),
            maps=_maps(values, place, self._targets),
        )

    def _read_group(self, number: int) -> "dict[str, pa.Array]":
        """The rows of a row group, counted over all shards; fields of structs are columns "image.bytes" and so on."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        name, group = self._places[number]
        try:
            footer = self._footers.get(name, self._read_footer)
            with pa.memory_map(str(self._root / DATA / name)) as file:
                shard = ParquetFile(file, metadata=footer, page_checksum_verification=True)
                table = shard.read_row_group(group, columns=columns_of(self._targets), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read {self._root / DATA / name}: {_one_line(error)}. {REMEDY}") from None
        flat = table.flatten().combine_chunks()
        return {name: flat.column(name).chunk(0) for name in flat.column_names}

    def _read_footer(self, name: str) -> "pa.parquet.FileMetaData":
        """The footer of a shard.

        Raises:
            UserError: the file is no shard of this data set.
        """
        from pyarrow.parquet import read_metadata

        path = self._root / DATA / name
        footer = read_metadata(path, memory_map=True)
        if (footer.metadata or {}).get(OWN_KEY) != own_metadata(self._index.classes):
            raise UserError(f"{path} is no shard of this data set: its schema is another one. {REMEDY}")
        return footer


def _objects(values: dict[str, Any], target: str) -> tuple[list[Corners] | None, list[int] | None]:
    """The boxes of a target in a row and their class ids; None where the row has none."""
    boxes = values.get(f"{BOX_COLUMNS[target]}.bbox")
    return (None, None) if boxes is None else ([*map(_corners, boxes)], values[f"{BOX_COLUMNS[target]}.category"])


def _corners(box: Sequence[float]) -> Corners:
    x, y, width, height = box
    return x, y, x + width, y + height


def _maps(values: dict[str, Any], place: str, targets: Sequence[str]) -> dict[str, str]:
    """The stored maps of a row by target."""
    stored = {name: values.get(f"{name}.bytes") for name in targets}
    return {name: ShardedFile(f"{place}: {name}", file) for name, file in stored.items() if file is not None}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class ShardedImages(LabelledImages):
    """A data set in shards: a million images without a list of them. Their names are read with them."""

    def __init__(self, root: Path, index: ShardIndex) -> None:
        super().__init__({}, {name: target for name, target in index.targets.items() if name != IGNORED_BOXES})
        self.has_ignored_boxes = IGNORED_BOXES in index.targets
        rows = ShardRows(root, index, index.classes)
        self._records: ShardRows = rows
        self.block_sizes = rows.group_sizes
        ends = accumulate(index.splits)
        self.splits = tuple(range(end - count, end) for end, count in zip(ends, index.splits, strict=True))

    def only(self, targets: Collection[str]) -> Self:
        """The same images with the named labels alone; columns of the others are not read."""
        narrowed = copy(self)
        names = [name for name in self.targets if name in targets]
        ignored = [IGNORED_BOXES] if "boxes" in names and self.has_ignored_boxes else []
        narrowed._records = self._records.only([*names, *ignored])
        return LabelledImages.only(narrowed, targets)


def is_sharded(root: Path) -> bool:
    """Whether a folder has the index of shards."""
    return (root / INDEX).is_file() and (root / DATA).is_dir()


def read_shards(root: Path, headers: HeaderIndex) -> ShardedImages:
    """A data set in shards; of each shard the length is checked.

    Args:
        root: the folder.
        headers: not used; images in shards were checked when they were written.

    Raises:
        UserError: the index or a shard is missing, damaged or of another schema.
        UnavailableError: pyarrow is not installed.
    """
    check_parquet_library()
    index = read_index(root)
    for shard in index.shards:
        _check_length(root / DATA / shard.file, shard.size)
    return ShardedImages(root, index)


def _check_length(path: Path, size: int) -> None:
    try:
        length = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path}, which {INDEX} lists: {error.strerror}. {REMEDY}") from None
    if length != size:
        raise UserError(f"{path} has {length} bytes, {INDEX} says {size}: it is cut off or another file. {REMEDY}")
