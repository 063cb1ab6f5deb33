"""Data sets that a command has opened already: it reads one for the notes that it prints first, and then uses it.

The module is light: every command imports it, also those without images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fbnetv5.data.labelled_images import LabelledImages

_OPENED: ContextVar["dict[Path, LabelledImages] | None"] = ContextVar("opened", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """A context in which each folder is read once, whatever happens to its files."""
    token = _OPENED.set({})
    try:
        yield
    finally:
        _OPENED.reset(token)


def opened(root: Path, read: "Callable[[Path], LabelledImages]") -> "LabelledImages":
    """The data set of a folder by its absolute path: within ``opened_once`` the one that was read before, if it was."""
    folders = _OPENED.get()
    if folders is None:
        return read(root)
    if root not in folders:
        folders[root] = read(root)
    return folders[root]
