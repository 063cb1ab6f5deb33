"""The paths of files without links: images that a link adds to a second split would be learned and tested."""

import os
from pathlib import Path


class RealPaths:
    """Computes the path of a file without links, as ``os.path.realpath``; of each folder, with a call a part, once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if Path(path).is_symlink():
            return os.path.realpath(path)
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}{os.sep}{name}"
