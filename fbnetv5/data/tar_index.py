"""The members of tar files, read once and kept in the user's cache folder, like the headers of image files.

Reading a tar file's members means reading a header of 512 bytes for each, with seeks over the bodies in between: the
list is kept as long as the file's length and modification time are unchanged. The list has the text of small label
members as well, which would otherwise be read from all over the file again.

As for ``fbnetv5.data.header_index``, a missing, damaged or unwritable index is never an error.
"""

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from export.errors import UserError
from export.files import atomic_write_text
from fbnetv5.data.header_index import index_file

MAX_TEXT = 1 << 14
"""Bytes of a label member whose text is kept."""


class Member(NamedTuple):
    """A file in a tar file."""

    name: str
    start: int
    """Of its content, in bytes."""
    length: int
    text: str | None = None
    """Its content, of a small label."""


class TarRow(NamedTuple):
    """The stored members of one tar file."""

    length: int
    """Bytes of the tar file."""
    mtime_ns: int
    members: tuple[Member, ...]


class StoredTars(BaseModel):
    """The JSON file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["tar index"] = "tar index"
    schema_number: Literal[1] = Field(default=1, alias="schema")
    root: str
    """The data set's folder, resolved."""
    tars: dict[str, TarRow]
    """By path relative to the folder."""


class TarIndex:
    """The members of the tar files of one data set."""

    def __init__(self, root: Path, file: Path | None) -> None:
        """Load the stored rows.

        Args:
            root: the data set's folder.
            file: where rows are stored between processes; None for nowhere.
        """
        self._root = root
        self._file = file
        self._stored = {} if file is None else _load(file, str(root.resolve()))
        self._rows: dict[str, TarRow] = {}

    def members(self, path: Path, texts: Iterable[str]) -> tuple[Member, ...]:
        """The files in a tar file, in its order.

        Args:
            path: the tar file, in the folder; it may be a link.
            texts: ends of the names of label members.

        Raises:
            UserError: the file is damaged or compressed.
        """
        key = path.relative_to(self._root).as_posix()
        try:
            state = path.stat()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}. Copy the file again") from None
        row = self._stored.get(key)
        if row is None or (row.length, row.mtime_ns) != (state.st_size, state.st_mtime_ns):
            row = TarRow(state.st_size, state.st_mtime_ns, tuple(_read(path, state.st_size, tuple(texts))))
        self._rows[key] = row
        return row.members

    def save(self) -> None:
        """Store the rows of this opening, if any has changed and the file can be written."""
        if self._file is not None and self._rows != self._stored:
            stored = StoredTars(root=str(self._root.resolve()), tars=self._rows)
            with suppress(UserError, ValueError):  # a name that is not UTF-8 cannot be stored
                atomic_write_text(self._file, stored.model_dump_json(by_alias=True))


@contextmanager
def tar_index(root: Path) -> Iterator[TarIndex]:
    """The index of a data set's folder, stored at the end unless there was an error."""
    file = index_file(root)
    index = TarIndex(root, None if file is None else file.with_name(file.name.replace("headers", "tars", 1)))
    yield index
    index.save()


def _read(path: Path, size: int, texts: tuple[str, ...]) -> Iterator[Member]:
    try:
        with path.open("rb", buffering=tarfile.BLOCKSIZE) as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for member in file:
                if member.offset_data + member.size > size:
                    raise UserError(f"{path} is cut off within {member.name!r}. Copy the file again")
                if member.isfile():
                    is_text = member.name.lower().endswith(texts) and member.size <= MAX_TEXT
                    text = _text(_content(raw, member)) if is_text else None
                    yield Member(member.name, member.offset_data, member.size, text)
            _check_end(path, raw, file.offset)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"cannot read {path}: {error}. Copy the file again, without compression") from None


def _check_end(path: Path, raw: BinaryIO, offset: int) -> None:
    """Raise UserError unless the members end in a block of zeros: ``tarfile`` ends quietly at a damaged header too."""
    raw.seek(offset)
    block = raw.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise UserError(f"{path} is cut off or damaged at byte {offset}. Copy the file again")


def _content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member; the reader of the members finds its own place again."""
    file.seek(member.offset_data)
    return file.read(member.size)


def _text(content: bytes) -> str | None:
    """The content as text; None where it is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _load(file: Path, root: str) -> dict[str, TarRow]:
    """The rows of an index file; {} where it is missing, damaged or of another version."""
    try:
        stored = StoredTars.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored.tars if stored.root == root else {}
