"""Converts a data set of any layout into Parquet shards, see ``fbnetv5.data.shard_format``.

A shard is written to a temporary file and renamed, and then its row of the index to ``.convert/SHARD.json``. Both are
made of the same bytes whenever they are made, so an interrupted conversion continues with the first missing shard, as
does a finished one that has lost a shard; the index is written last. A source that has changed in between, by
``source_digest``, is refused. In memory there are the names of the source and one row group.

Images are stored as their files are. A map is stored as its file if that is a PNG in the format of
``fbnetv5.data.maps``, else it is encoded so; vectors of normals are then rounded to 8 bits.

Left out: a check that the pixels of every image can be read, which takes as long as an epoch; labels are checked.
"""

import hashlib
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export.errors import UserError
from export.files import atomic_write, read_json, write_json
from export.locks import locked
from export.progress import Progress
from fbnetv5.data.image_files import StoredFile, file_size, file_state, read_bytes
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.loading import evenly_spaced
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.shard_format import (
    BOX_COLUMNS,
    DATA,
    INDEX,
    SCHEMA,
    SOFT_LABEL,
    ShardEntry,
    ShardIndex,
    arrow_schema,
    check_parquet_library,
    column_of,
    read_index,
    write_index,
)
from fbnetv5.data.shards import ShardedImages
from fbnetv5.data.splits import TEST, split_indices
from fbnetv5.data.targets import Boxes, SoftLabel, class_names

WORK = ".convert"
"""Folder in the new data set of what is unfinished; removed at the end."""
SETTINGS = "settings.json"
SHARD_BYTES, MAX_SHARD_ROWS = 256 << 20, 16_384
"""Limits of a shard; its bytes are estimated from some images."""
GROUP_BYTES, MAX_GROUP_ROWS = 8 << 20, 128
"""Limits of a row group."""
MEASURED_IMAGES = 256
"""Images whose mean size determines the number of rows of a shard."""

_CHANGED = ", or the source has changed since: remove {folder}, or name another folder with -o"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """The rows of one shard."""

    file: str
    parts: Sequence[Sequence[int]]
    """Indices of images of the source, in the order of rows; the images of a part are of one split."""


def write_shards(data: LabelledImages, folder: Path, report: Progress, *, shard_rows: int | None = None) -> ShardIndex:
    """Write a data set as shards; an unfinished conversion of the same data set in the folder is continued.

    Missing and short shards of a finished one are written again.

    Args:
        data: the data set.
        folder: of the shards.
        report: called after every shard.
        shard_rows: images in a shard; None for as many as make about 256 MB; a continued conversion keeps its own.

    Raises:
        UserError: the data set is in shards already or has changed since the folder was begun, an image or label cannot
            be read, the folder contains something else, another process writes it, or a file cannot be written.
        UnavailableError: pyarrow is not installed.
    """
    check_parquet_library()
    if isinstance(data, ShardedImages):
        raise UserError("this data set is in Parquet shards already: copy its folder")
    data = data.with_ignored_boxes()
    digest = source_digest(data)
    if (folder / INDEX).exists():
        index = _finished(folder, digest)
        if all(is_whole(folder, shard) for shard in index.shards):
            return index
    _check_folder(folder)
    (folder / WORK).mkdir(parents=True, exist_ok=True)
    with locked(folder / WORK / "lock", f"another fbnetv5 convert is writing {folder}: wait for it"):
        index = _write_shards(data, folder, digest, report, shard_rows)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return index


def _write_shards(
    data: LabelledImages, folder: Path, digest: str, report: Progress, shard_rows: int | None
) -> ShardIndex:
    """Write what is missing of the shards; no other process does so."""
    if (folder / INDEX).exists():
        _reopen(folder, _finished(folder, digest))
    shard_rows = _start(folder, digest, shard_rows or fitting_rows(data))
    splits = [by_hash(data.names, indices) for indices in split_indices(data)]
    shards = plan_shards(splits, shard_rows)
    entries = []
    for done, shard in enumerate(shards):
        report("convert", done, len(shards))
        entry = _written(folder, shard)
        if entry is None:
            entry = write_shard(data, folder / DATA / shard.file, shard.parts)
            _write_entry(folder, entry)
        entries.append(entry)
    report("convert", len(shards), len(shards))
    weights, policies, test = map(len, splits)
    index = ShardIndex(
        schema=SCHEMA,
        source_sha256=digest,
        splits=(weights, policies, test),
        classes=class_names(data.targets),
        shards=tuple(entries),
    )
    write_index(folder, index)
    return index


def source_digest(data: LabelledImages) -> str:
    """A checksum of the classes of the targets, and of the names, labels, splits and files of the images.

    Of files it has what ``file_state`` says: reading the bytes of all of them takes as long as the conversion.

    Raises:
        UserError: an image is missing.
    """
    digest = hashlib.sha256(repr(sorted(class_names(data.targets).items())).encode())
    for index, name in enumerate(data.names):
        facts = (name, name in data.test, *_facts(data, data.record(index)))
        digest.update(repr(facts).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def _facts(data: LabelledImages, record: ImageRecord) -> tuple[Any, ...]:
    """What a record says of its image, with the states of its files and without their paths."""
    paths = sorted((record.maps or {}).items())
    maps = [(target, _map_state(path), data.shapes(target, path)) for target, path in paths]
    soft = () if record.soft_label is None else (tuple(record.soft_label.items()),)
    ignored = () if record.ignored_boxes is None else (record.ignored_boxes, record.ignored_box_labels)
    return record.size, record.label, record.boxes, record.box_labels, file_state(record.path), maps, *soft, *ignored


def _map_state(path: str) -> tuple[int, ...] | str:
    """The ``file_state`` of a map, or "absent": in YOLO's layout an image without objects needs no label file."""
    is_absent = not isinstance(path, StoredFile) and not Path(path).exists()
    return "absent" if is_absent else file_state(path)


def fitting_rows(data: LabelledImages) -> int:
    """The number of images whose files and maps have about ``SHARD_BYTES``."""
    records = [data.record(index) for index in evenly_spaced(len(data), MEASURED_IMAGES)]
    return rows_of_files([[record.path, *(record.maps or {}).values()] for record in records])


def rows_of_files(files: Sequence[Sequence[str]]) -> int:
    """The number of images whose files have about ``SHARD_BYTES``, by the files of each of some images."""
    mean = max(1, sum(_size(path) for paths in files for path in paths) // max(1, len(files)))
    return max(1, min(SHARD_BYTES // mean, MAX_SHARD_ROWS))


def _size(path: str) -> int:
    """The length of a file in bytes, 0 for one that is absent."""
    try:
        return file_size(path)
    except FileNotFoundError:
        return 0


def plan_shards(splits: Sequence[Sequence[int]], shard_rows: int) -> list[PlannedShard]:
    """The shards of the three splits."""
    return [*plan(splits[:TEST], "train", shard_rows), *plan(splits[TEST:], "test", shard_rows)]


def plan(splits: Sequence[Sequence[int]], name: str, shard_rows: int) -> list[PlannedShard]:
    """The shards of consecutive splits, with the file names of ``datasets``."""
    total = sum(map(len, splits))
    count = -(-total // shard_rows)
    starts = [sum(map(len, splits[:number])) for number in range(len(splits))]
    shards = []
    for number in range(count):
        first, end = number * shard_rows, (number + 1) * shard_rows
        parts = [
            split[max(0, first - start) : max(0, end - start)] for start, split in zip(starts, splits, strict=True)
        ]
        shards.append(PlannedShard(file=f"{name}-{number:05d}-of-{count:05d}.parquet", parts=parts))
    return shards


def by_hash(names: Sequence[str], indices: Sequence[int]) -> list[int]:
    """The images of a split in the order of a hash of their names."""
    encoded = (names[index].encode(errors="surrogateescape") for index in indices)
    digests = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in encoded]
    order = np.argsort(np.array(digests, dtype=np.uint64), kind="stable")
    return [indices[place] for place in order.tolist()]


def _finished(folder: Path, digest: str) -> ShardIndex:
    """The index of a finished conversion.

    Raises:
        UserError: it is that of another data set, or the data set was changed.
    """
    index = read_index(folder)
    if index.source_sha256 != digest:
        raise UserError(f"{folder} has the shards of another data set{_CHANGED.format(folder=folder)}")
    return index


def is_whole(folder: Path, shard: ShardEntry) -> bool:
    """Whether a shard exists with its length."""
    path = folder / DATA / shard.file
    return path.exists() and path.stat().st_size == shard.size


def _reopen(folder: Path, index: ShardIndex) -> None:
    """Turn a finished conversion, of which shards are missing, into an unfinished one with the others."""
    for shard in index.shards:
        _write_entry(folder, shard)
    _write_settings(folder, index.source_sha256, max(shard.rows for shard in index.shards))
    (folder / INDEX).unlink()


def _check_folder(folder: Path) -> None:
    """Raise UserError if the folder contains something else than a conversion, finished or not."""
    if (folder / INDEX).exists() or (folder / WORK / SETTINGS).exists():
        return
    if folder.exists() and (not folder.is_dir() or any(path.name != WORK for path in folder.iterdir())):
        raise UserError(f"{folder} exists already and is no unfinished conversion: name another folder with -o")


def _start(folder: Path, digest: str, shard_rows: int) -> int:
    """Write the settings into a new folder, or compare them with an unfinished conversion's; returns its shard rows.

    Raises:
        UserError: the data set was changed.
    """
    file = folder / WORK / SETTINGS
    if file.exists():
        settings = read_json(file, what="conversion", schema=SCHEMA).get("settings", {})
        if settings.get("source_sha256") != digest:
            raise UserError(f"{folder} is an unfinished conversion of another data set{_CHANGED.format(folder=folder)}")
        shard_rows = int(settings["shard_rows"])
    _write_settings(folder, digest, shard_rows)
    for path in [*(folder / DATA).glob(".*.tmp"), *folder.glob(".*.tmp")]:
        path.unlink()
    return shard_rows


def _write_settings(folder: Path, digest: str, shard_rows: int) -> None:
    settings = {"source_sha256": digest, "shard_rows": shard_rows}
    write_json(folder / WORK / SETTINGS, {"schema": SCHEMA, "settings": settings})


def _entry_file(folder: Path, shard: PlannedShard | ShardEntry) -> Path:
    return folder / WORK / f"{shard.file}.json"


def _write_entry(folder: Path, entry: ShardEntry) -> None:
    write_json(_entry_file(folder, entry), {"schema": SCHEMA, "shard": entry.to_json()})


def _written(folder: Path, shard: PlannedShard) -> ShardEntry | None:
    """The index's row of a shard that was written before; None if it is missing or not finished."""
    file = _entry_file(folder, shard)
    if not file.exists():
        return None
    entry = ShardEntry(**read_json(file, what="shard", schema=SCHEMA)["shard"])
    return entry if is_whole(folder, entry) else None


def write_shard(data: LabelledImages, path: Path, parts: Sequence[Sequence[int]]) -> ShardEntry:
    """Write a shard; returns its row of the index.

    Args:
        data: the data set.
        path: of the shard.
        parts: as of ``PlannedShard``.

    Raises:
        UserError: a source file cannot be read, or the shard cannot be written.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema, groups = arrow_schema(class_names(data.targets)), []
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    with atomic_write(path) as temporary:
        with temporary.open("wb") as out, ParquetWriter(out, schema, **options) as writer:
            for rows in row_groups(data, parts):
                groups.append(len(rows))
                writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=len(rows))
        with temporary.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    return ShardEntry(file=path.name, groups=tuple(groups), size=size, sha256=checksum)


def row_groups(data: LabelledImages, parts: Sequence[Sequence[int]]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each row group; no group has images of two parts, which are those of two splits."""
    for indices in parts:
        rows: list[dict[str, Any]] = []
        size = 0
        for index in indices:
            rows.append(row_of(data, index))
            size += sum(len(cell["bytes"]) for cell in rows[-1].values() if isinstance(cell, dict) and "bytes" in cell)
            if len(rows) == MAX_GROUP_ROWS or size >= GROUP_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows


def row_of(data: LabelledImages, index: int) -> dict[str, Any]:
    """The columns of one image.

    Raises:
        UserError: the image or a label cannot be read.
    """
    record, labels = data.record(index), data.labels(index)
    name = data.names[index].encode(errors="backslashreplace").decode()
    height, width = record.size
    row: dict[str, Any] = {"width": width, "height": height}
    row["image"] = {"bytes": read_bytes(record.path), "path": name}
    for target, value in labels.items():
        if target in BOX_COLUMNS:
            row[column_of(target)] = objects_of(value)
        elif target == SOFT_LABEL:
            row[target] = probabilities_of(value)
        elif target in FORMATS:
            row[target] = {"bytes": _map_bytes(data, index, target, value.numpy()), "path": f"{name}.{target}.png"}
        else:
            row[target] = value
    return row


def objects_of(boxes: Boxes) -> dict[str, Any]:
    """Boxes as COCO's (x, y, width, height), and their class ids."""
    corners = boxes.xyxy.double()
    boxes_xywh = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in corners.tolist()]
    return {"bbox": boxes_xywh, "category": boxes.labels.tolist()}


def probabilities_of(label: SoftLabel) -> dict[str, Any]:
    """A soft label as class ids and probabilities."""
    return {"category": label.class_ids.tolist(), "probability": label.probabilities.tolist()}


def _map_bytes(data: LabelledImages, index: int, target: str, value: Any) -> bytes:
    """The PNG of a map: its file where that has the format, else the label in this format."""
    path = data.record(index).map_path(target)
    if path is not None and path.lower().endswith(".png") and data.is_plain(target):
        return read_bytes(path)
    file = io.BytesIO()
    Image.fromarray(FORMATS[target].pixels(value)).save(file, format="PNG")
    return file.getvalue()
