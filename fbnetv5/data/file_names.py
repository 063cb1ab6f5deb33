r"""Names of files in annotation files that mean a file that is there, and are spelled in another way.

images\0.jpg    a path of Windows
images/0.jpg    a path from the data set's folder instead of the folder of the images
é               one character (NFC), where the file's name has two (NFD, as macOS makes them), or the other way
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fbnetv5.data.notes import Notes


def spellings(name: str, folder: str) -> Iterator[str]:
    """The other spellings of a name, the likelier ones first.

    Args:
        name: as an annotation file spells it.
        folder: name of the folder that contains the file, which a path may start with.
    """
    path = name.replace("\\", "/").removeprefix("./")
    for candidate in dict.fromkeys((path, path.removeprefix(f"{folder}/"))):
        yield candidate
        yield unicodedata.normalize("NFC", candidate)
        yield unicodedata.normalize("NFD", candidate)


def repair_file_names(records: list[Any], folder: Path, notes: Notes) -> bool:
    """Give each record the "file_name" of a file that is there, as far as there is one.

    Args:
        records: "images" of a COCO file, each with a "file_name".
        folder: of the images.
        notes: counts the repaired names.

    Returns:
        Whether the first record's file is in the folder; if not, no record is changed.
    """
    listing = _Listing(folder)
    for position, record in enumerate(records):
        if record["file_name"] in listing:
            continue
        others = map(listing.find, spellings(record["file_name"], folder.name))
        if (other := next(filter(None, others), None)) is not None:
            record["file_name"] = other
            notes.add("file names repaired (backslashes, folder, case or form of Unicode)")
        elif position == 0:
            return False
    return bool(records)


class _Listing:
    """The files in a folder and in folders within; each folder is listed once, when a path in it is looked up."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}
        self._names_by_casefold: dict[str, dict[str, list[str]]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            self._names[folder] = self._list(folder)
        return name in self._names[folder]

    def find(self, path: str) -> str | None:
        """The path, or the only one of a file in the same folder that differs in upper and lower case; None without."""
        if path in self:
            return path
        folder, slash, name = path.rpartition("/")
        if folder not in self._names_by_casefold:
            self._names_by_casefold[folder] = _by_casefold(self._names[folder])
        same = self._names_by_casefold[folder].get(name.casefold(), ())
        return f"{folder}{slash}{same[0]}" if len(same) == 1 else None

    def _list(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(f"{self._root}{os.sep}{folder}"))  # noqa: PTH208  # paths would take longer
        except (OSError, ValueError):  # a null character, or half of a surrogate pair
            return frozenset()


def _by_casefold(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that differ in upper and lower case only, by their common form."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return groups
