"""``predictions.json``, written image by image: memory does not grow with their number.

Rows wait in two files without a name in the folder of the results, one for images and one for boxes, which vanish with
the process. At the end both are copied into the document, which replaces an earlier one.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from export.errors import UserError
from export.files import atomic_write


class Rows:
    """The rows of a JSON list, one a line, on disk."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - open until close

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row to the end of the list."""
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        self._file.write(f"{',' if self.count else ''}\n    {text}".encode())
        self.count += 1

    def copy(self, out: IO[bytes]) -> None:
        """Write the whole list."""
        self._file.seek(0)
        out.write(b"[")
        shutil.copyfileobj(self._file, out)
        out.write(b"\n  ]" if self.count else b"]")

    def close(self) -> None:
        self._file.close()


class PredictionsFile:
    """The document of one prediction. The folder is made with the first image."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lists: dict[str, Rows] = {}

    @property
    def boxes(self) -> int:
        """Number of boxes so far."""
        return self._lists["annotations"].count if self._lists else 0

    def add(self, image: Mapping[str, Any], annotations: Iterable[Mapping[str, Any]]) -> None:
        """Add the rows of an image and of its boxes.

        Raises:
            UserError: they cannot be written.
        """
        try:
            if not self._lists:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._lists = {name: Rows(self._path.parent) for name in ("images", "annotations")}
            self._lists["images"].add(image)
            for annotation in annotations:
                self._lists["annotations"].add(annotation)
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror or error}. Free space or name another folder with -o"
            ) from None

    def finish(self, document: Mapping[str, Any]) -> None:
        """Write the document; None as a value stands for the list of that name.

        Raises:
            UserError: it cannot be written.
        """
        with atomic_write(self._path) as temporary, temporary.open("wb") as out:
            for number, (name, value) in enumerate(document.items()):
                out.write(f"{',' if number else '{'}\n  {json.dumps(name)}: ".encode())
                if value is None:
                    self._lists[name].copy(out)
                else:
                    out.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
            out.write(b"\n}\n")
        for rows in self._lists.values():
            rows.close()
