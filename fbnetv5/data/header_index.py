"""The header index: what the image files of a data set contain, read once and kept in the user's cache folder.

Opening a data set checks the size and pixel type of every image and map and, without declared class names, the class
ids in every mask. Opening every file for that takes most of the time: 0.92 s for 5000 small JPEGs on a local disk,
0.14 s with the index (``benchmarks/opening.py``), and the difference grows on network file systems. So each file's
result is stored with the file's length and modification time, and is used as long as both are unchanged.

There is one JSON file per data set. It is replaced as a whole, so several processes may open the data set at once, and
the last one to write wins. SQLite was the alternative: its locks are unreliable on network file systems, on which home
folders often are (sqlite.org, "How To Corrupt An SQLite Database File", section 2.1). An index that is missing,
damaged, of another version or not writable is never an error: the files are read again.

The images in tar files are files in this sense; those in shards are not, which were checked when they were written.

Left out: noticing a change that keeps both a file's length and
its modification time. Files whose names are not UTF-8 are read every time, as is a data set in a folder of such a name.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from export.errors import UserError
from export.files import atomic_write_text, is_utf8
from fbnetv5.data.image_files import Header, StoredFile, StoredPart, file_state, read_header, read_pixels


class FileRow(NamedTuple):
    """The stored facts of one file."""

    length: int
    """Bytes."""
    mtime_ns: int
    header: Header
    class_ids: tuple[int, ...] | None = None
    """The distinct values of a mask's pixels; None if they were never needed."""


class StoredIndex(BaseModel):
    """The JSON file. Distinct headers are few, so files refer to them by position."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["header index"] = "header index"
    schema_number: Literal[1] = Field(default=1, alias="schema")
    root: str
    """The data set's folder, resolved."""
    headers: tuple[Header, ...]
    files: dict[str, tuple[int, int, NonNegativeInt]]
    """By path relative to the folder: length, modification time in ns, position in ``headers``."""
    class_ids: dict[str, tuple[int, ...]]
    """By path, of those masks whose pixels were read."""


class HeaderIndex:
    """The headers of one data set's files. Each is read on first use, unless an earlier process stored it."""

    def __init__(self, root: Path, file: Path | None) -> None:
        """Load the stored rows.

        Args:
            root: the data set's folder.
            file: where rows are stored between processes; None for nowhere.
        """
        self._root = str(root.resolve())
        self._prefix = f"{root}{os.sep}"
        self._file = file
        self._stored = {} if file is None else _load(file, self._root)
        self._rows: dict[str, FileRow] = {}
        self._headers = {row.header: row.header for row in self._stored.values()}

    def header(self, path: str) -> Header:
        """The header of an image of the data set.

        Raises:
            UserError: the file cannot be read.
        """
        is_kept = isinstance(path, StoredPart) or not isinstance(path, StoredFile)
        return self._row(path).header if is_kept else read_header(path)

    def class_ids(self, path: str) -> tuple[int, ...]:
        """The distinct pixel values of a mask of at most 8 bits, ascending.

        Raises:
            UserError: the file cannot be read.
        """
        if isinstance(path, StoredFile) and not isinstance(path, StoredPart):
            return tuple(np.unique(read_pixels(path)).tolist())
        row = self._row(path)
        if row.class_ids is None:
            counts = np.bincount(read_pixels(path).astype(np.uint8).ravel())
            row = row._replace(class_ids=tuple(np.flatnonzero(counts).tolist()))
            self._rows[_key(path).removeprefix(self._prefix)] = row
        return row.class_ids or ()

    def save(self, *, is_complete: bool) -> None:
        """Store the rows, if any has changed and the file can be written.

        Args:
            is_complete: every file of the data set was used; rows of other files are then dropped.
        """
        rows = self._rows if is_complete else self._stored | self._rows
        if self._file is None or rows == self._stored:
            return
        headers = tuple({row.header: None for row in rows.values()})
        positions = {header: position for position, header in enumerate(headers)}
        stored = StoredIndex(
            root=self._root,
            headers=headers,
            files={path: (row.length, row.mtime_ns, positions[row.header]) for path, row in rows.items()},
            class_ids={path: row.class_ids for path, row in rows.items() if row.class_ids is not None},
        )
        with suppress(UserError):
            atomic_write_text(self._file, stored.model_dump_json(by_alias=True))

    def _row(self, path: str) -> FileRow:
        """The row of a file, read from the file itself if it is new or has changed."""
        try:
            length, *_, mtime_ns = file_state(path)
        except (UserError, ValueError):
            read_header(path)  # raises the error that names the file
            raise
        key = _key(path).removeprefix(self._prefix)
        row = self._rows.get(key) or self._stored.get(key)
        if row is None or (row.length, row.mtime_ns) != (length, mtime_ns):
            header = read_header(path)
            row = FileRow(length, mtime_ns, self._headers.setdefault(header, header))
        self._rows[key] = row
        return row


def _key(path: str) -> str:
    """The path of a file; of a part of a tar file, with its place."""
    return path.key if isinstance(path, StoredPart) else path


@contextmanager
def header_index(root: Path) -> Iterator[HeaderIndex]:
    """The index of a data set's folder, stored at the end; after an error or an interruption, what was read so far."""
    index = HeaderIndex(root, index_file(root))
    is_complete = False
    try:
        yield index
        is_complete = True
    finally:
        index.save(is_complete=is_complete)


def index_file(root: Path) -> Path | None:
    """Where a folder's index is stored, by the XDG Base Directory Specification.

    None without a home folder, and for a folder whose path is not UTF-8, which JSON cannot contain.
    """
    if not is_utf8(str(root.resolve())):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # unset, or relative, which the specification says to ignore
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return None
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()
    return cache / "fbnetv5" / f"headers-{digest[:16]}.json"


def _load(file: Path, root: str) -> dict[str, FileRow]:
    """The rows of an index file by path; {} where it is missing, damaged or of another version."""
    try:
        stored = StoredIndex.model_validate_json(file.read_bytes())
        if stored.root != root:
            return {}
        return {
            path: FileRow(length, mtime_ns, stored.headers[position], stored.class_ids.get(path))
            for path, (length, mtime_ns, position) in stored.files.items()
        }
    except (OSError, ValueError, IndexError):
        return {}
