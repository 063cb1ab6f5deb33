"""Labels images directly into Parquet shards, see ``fbnetv5.data.shard_format``: no folder of images in between.

The shards and their rows are those of ``fbnetv5 convert`` for the labelled folder: the images of each split in the
order of a hash of their names. The images of a shard are labelled in chunks; maps wait in ``.labeling/maps`` until all
chunks of their shard are finished. Then the shard is written to a temporary file and renamed, its row of the index goes
to ``.labeling/shards/SHARD.json``, and its maps are removed. ``index.json`` is written after the last shard.

Whether an image is readable is not known before it is labelled: shards are planned with all images, and one with
unreadable images has fewer rows than the others.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json, write_json
from fbnetv5.data.folder import KINDS, box_corners
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.loading import evenly_spaced
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.shard_format import DATA, ShardEntry, ShardIndex, check_parquet_library, write_index
from fbnetv5.data.shard_format import SCHEMA as INDEX_SCHEMA
from fbnetv5.data.shard_writer import (
    MEASURED_IMAGES,
    PlannedShard,
    by_hash,
    is_whole,
    plan_shards,
    rows_of_files,
    write_shard,
)
from fbnetv5.data.split_names import as_test_split
from fbnetv5.data.splits import TEST, split_names
from fbnetv5.data.targets import BOXES, IGNORED_BOXES, Target, class_names
from fbnetv5.labeling.assemble import LABELS, SCHEMA, LabelSummary, coco_box, summarise, write_labels
from fbnetv5.labeling.chunks import (
    MAPS,
    SETTINGS,
    WORK,
    ImageRow,
    Job,
    check_chunks,
    chunk_file,
    json_text,
    map_file,
    read_chunk,
)
from fbnetv5.labeling.labeller import Labeller
from fbnetv5.labeling.sources import SourceImages

ENTRIES = "shards"
"""Folder in ``WORK`` of the rows of the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShard:
    """A shard on disk."""

    entry: ShardEntry
    parts: tuple[int, ...]
    """Number of rows of each part: of the splits for weights and policies, or of the test split."""


class Shards:
    """The shards of one labelling; an ``Output``."""

    def __init__(
        self, labeller: Labeller, chunk: int, settings: Mapping[str, Any], folder: Path, shard_rows: int | None = None
    ) -> None:
        """Plan the shards and their chunks.

        Args:
            labeller: the images and teachers.
            chunk: images of a chunk.
            settings: that determine the labels.
            folder: of the new data set.
            shard_rows: images of a shard; None for as many as make about 256 MB; a continued labelling keeps its own.

        Raises:
            UserError: an image cannot be found, or a file of an earlier run is damaged.
            UnavailableError: pyarrow is not installed.
        """
        check_parquet_library()
        self._labeller = labeller
        self._folder = folder
        rows = shard_rows or _stored_rows(folder) or _fitting_rows(labeller.source)
        self.settings = {**settings, "shard_rows": rows}
        self._shards = plan_shards(_splits(labeller.source), rows)
        self._chunks = _chunks_of(self._shards, chunk, folder)
        chunks = {file: indices for chunks in self._chunks for file, indices in chunks.items()}
        self.job = Job(folder=folder / WORK / MAPS, chunks=chunks, with_images=False)
        self._written: list[WrittenShard] = []

    def update(self) -> None:
        """Write the next shards whose chunks are finished.

        Raises:
            UserError: an image or a map cannot be read, or a shard cannot be written.
        """
        for shard, chunks in list(zip(self._shards, self._chunks, strict=True))[len(self._written) :]:
            if not all(file.exists() for file in chunks):
                return
            self._written.append(self._stored(shard) or self._write(shard, chunks))

    def finish(self) -> LabelSummary:
        """Write the index, after all chunks are finished."""
        self.update()
        files = list(self.job.chunks)
        summary = summarise(self._folder, files, self._labeller.targets)
        write_index(self._folder, self._index())
        write_labels(summary, files, self.settings)
        return summary

    def _index(self) -> ShardIndex:
        parts = [shard.parts for shard in self._written]
        weights, policies = (sum(part[split] for part in parts if len(part) == TEST) for split in range(TEST))
        settings = json.dumps(self.settings, sort_keys=True, ensure_ascii=False)
        return ShardIndex(
            schema=INDEX_SCHEMA,
            source_sha256=hashlib.sha256(settings.encode()).hexdigest(),
            splits=(weights, policies, sum(part[0] for part in parts if len(part) == 1)),
            classes=class_names(self._targets),
            shards=tuple(shard.entry for shard in self._written),
        )

    @property
    def _targets(self) -> dict[str, Target]:
        """The targets and the ignored boxes of the source, in the order of a folder for several tasks."""
        targets = dict(self._labeller.targets)
        if "boxes" in targets and self._labeller.source.has_ignored_boxes:
            targets[IGNORED_BOXES] = Target(kind=BOXES)
        return {name: targets[name] for name in KINDS if name in targets}

    def _entry_file(self, shard: PlannedShard) -> Path:
        return self._folder / WORK / ENTRIES / f"{shard.file}.json"

    def _stored(self, shard: PlannedShard) -> WrittenShard | None:
        """A shard that was written before; None if there is none.

        Raises:
            UserError: it was removed or changed since; its maps are gone.
        """
        file = self._entry_file(shard)
        if not file.exists():
            return None
        document = read_json(file, what="shard", schema=SCHEMA)
        entry = ShardEntry(**document["shard"])
        if not is_whole(self._folder, entry):
            raise UserError(
                f"{self._folder / DATA / entry.file} was removed or changed since it was written: remove "
                f"{self._folder}, and repeat the command"
            )
        return WrittenShard(entry=entry, parts=tuple(document["parts"]))

    def _write(self, shard: PlannedShard, chunks: Mapping[Path, Sequence[int]]) -> WrittenShard:
        """Write a shard and its row of the index, and remove its maps."""
        check_chunks(chunks, self._labeller.source.names)
        data, parts = self._images(shard, chunks)
        entry = write_shard(data, self._folder / DATA / shard.file, parts)
        written = WrittenShard(entry=entry, parts=tuple(map(len, parts)))
        document = {"schema": SCHEMA, "shard": entry.to_json(), "parts": list(written.parts)}
        write_json(self._entry_file(shard), document)
        for index in range(len(data)):
            for path in (data.record(index).maps or {}).values():
                Path(path).unlink(missing_ok=True)
        return written

    def _images(self, shard: PlannedShard, chunks: Iterable[Path]) -> tuple[LabelledImages, list[range]]:
        """The images of a shard that were not left out, in the order of its rows, and the positions of each part."""
        source = self._labeller.source
        rows = {row.source: row for file in chunks for row in read_chunk(file)}
        records: dict[str, ImageRecord] = {}
        parts = []
        for part in shard.parts:
            first = len(records)
            for index in part:
                row = rows[json_text(source.names[index])]
                if row.name is not None:
                    records[source.new_names[index]] = self._record(row, source.new_names[index], source.path(index))
            parts.append(range(first, len(records)))
        return LabelledImages(records, self._targets), parts

    def _record(self, row: ImageRow, name: str, path: str) -> ImageRecord:
        """The record of an image as a folder for several tasks would have it."""
        boxes = ignored = None
        if row.boxes is not None:
            boxes = [box_corners(coco_box(box), row.size, path) for box in row.boxes]
        if row.ignored_boxes is not None:
            ignored = [box_corners(coco_box(box), row.size, path) for box in row.ignored_boxes]
        maps = {target: str(map_file(self.job.folder, target, name)) for target in FORMATS if target in row.origins}
        return ImageRecord(
            path=path,
            size=row.size,
            label=row.label,
            boxes=boxes,
            box_labels=row.box_labels,
            ignored_boxes=ignored,
            ignored_box_labels=row.ignored_box_labels,
            soft_label=row.soft_label,
            maps=maps or None,
        )


def _stored_rows(folder: Path) -> int | None:
    """The images of a shard in a labelling that was begun before; None if there is none."""
    for file in (folder / LABELS, folder / WORK / SETTINGS):
        if file.exists():
            rows = read_json(file, what="labelling", schema=SCHEMA).get("settings", {}).get("shard_rows")
            return rows if isinstance(rows, int) else None
    return None


def _fitting_rows(source: SourceImages) -> int:
    """The number of images whose files have about the size of a shard."""
    return rows_of_files([[source.path(index)] for index in evenly_spaced(len(source), MEASURED_IMAGES)])


def _splits(source: SourceImages) -> list[list[int]]:
    """The images of each split in the order of their rows: the splits of the labelled folder."""
    names = source.new_names
    test = as_test_split({name for index, name in enumerate(names) if source.is_test(index)}, names)
    return [by_hash(names, indices) for indices in split_names(names, test)]


def _chunks_of(shards: Sequence[PlannedShard], size: int, folder: Path) -> list[dict[Path, list[int]]]:
    """The chunks of each shard, of at most ``size`` images."""
    numbers = count()
    result = []
    for shard in shards:
        indices = [index for part in shard.parts for index in part]
        starts = range(0, len(indices), size)
        result.append({chunk_file(folder, next(numbers)): indices[start : start + size] for start in starts})
    return result
