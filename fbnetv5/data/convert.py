"""Converts a data set of any layout into Parquet shards: ``fbnetv5.api.convert``, which ``fbnetv5 convert`` calls."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.files import AnyPath
from export.progress import Log, Progress, silent
from fbnetv5.data.describe import describe_data
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.shard_format import ShardIndex
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.data.splits import filled_split_indices


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """A data set in shards."""

    folder: Path
    """The folder of the shards, which ``data`` of every other function accepts."""
    index: ShardIndex
    """Shards, classes, and numbers of images by split."""

    @property
    def splits(self) -> dict[str, int]:
        """Number of images of each split: for weights, for policies, for testing."""
        return dict(zip(("weights", "policies", "test"), self.index.splits, strict=True))

    @property
    def images(self) -> int:
        """Number of images of all splits."""
        return sum(self.index.splits)

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 convert --json``."""
        return {
            "folder": str(self.folder),
            "images": self.images,
            "shards": len(self.index.shards),
            "bytes": sum(shard.size for shard in self.index.shards),
            "splits": self.splits,
            "targets": sorted(self.index.classes),
        }


def convert(
    data: AnyPath,
    output: AnyPath,
    *,
    strict_data: bool = False,
    log: Log = silent,
    progress: Progress = silent,
) -> ConvertResult:
    """Convert a data set into Parquet shards, for millions of images; an unfinished conversion is continued.

    Examples:
        >>> images = api.convert("coco", "coco-shards", progress=print).images

    Args:
        data: folder of a data set in any known layout.
        output: folder of the shards.
        strict_data: refuse a data set of which something was repaired, left out or not used.
        log: called with a line on how the data set is read.
        progress: called with (stage, done, total) after every shard.

    Returns:
        The folder and its index, which are written.

    Raises:
        UserError: the data set is unfit, a split has no image, or the output contains something else.
        UnavailableError: pyarrow is not installed.
    """
    source, folder = Path(data), Path(output)
    describe_data(source, log, strict=strict_data)
    images = open_folder(source)
    filled_split_indices(images, source)
    return ConvertResult(folder=folder, index=write_shards(images, folder, progress))
