"""The configuration of a run's images: the folder, or the demo scenes, and the image size."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, Strict

from export.document import Document
from export.errors import UserError
from export.files import is_utf8
from export.placement import Fit
from fbnetv5.data.loading import Reading, num_workers_for
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.data.splits import Splits, open_splits

DEMO_SIZE: Resolution = (64, 64)
"""Usual size of the demo scenes."""
Size = Annotated[Resolution, Strict(False), AfterValidator(check_resolution)]
Count = Annotated[int, Field(ge=1)]


class DataConfig(Document):
    """A user's folder of images, or the demo scenes."""

    title: ClassVar[str] = "data"
    folder: str | None = None
    """Folder of the user's images; None for the demo scenes."""
    size: Size = DEMO_SIZE
    """Height and width of the network's input, which images are fitted to."""
    fit: Fit = "stretch"
    """How images get that size: stretch, or letterbox, which keeps the aspect and pads with grey. Files of earlier
    versions lack this field: their runs stretched."""
    scenes: Annotated[tuple[Count, Count, Count], Strict(False)] = (8000, 2000, 1000)
    """Numbers of demo scenes: for weights, policies and test."""
    num_workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that read images beside each process of the run; None for up to four for a folder, none for the demo
    scenes. It changes the time alone."""
    prefetch: Annotated[int, Field(ge=1, le=256)] = 2
    """Batches that each of these processes reads ahead."""

    @classmethod
    def of(cls, folder: Path | None, *, size: Resolution = DEMO_SIZE, fit: Fit = "stretch") -> Self:
        """The images of a command's ``--data``.

        Raises:
            UserError: the folder's path is not UTF-8, and cannot be stored in a JSON file.
        """
        path = None if folder is None else str(folder.resolve())
        if path is not None and not is_utf8(path):
            raise UserError(f"the path of --data, {path!a}, is not UTF-8. Rename the folder, or use a link to it")
        return cls(folder=path, size=size, fit=fit)

    def open(self, targets: Collection[str]) -> Splits:
        """The three splits at the configured size, with those of the named labels that the data set has.

        Raises:
            UserError: the folder is unfit, or the size no multiple of 32.
        """
        folder = None if self.folder is None else Path(self.folder)
        return open_splits(folder, size=self.size, targets=targets, counts=self.scenes, fit=self.fit)

    @property
    def reading(self) -> Reading:
        """How images are read beside the steps."""
        workers = num_workers_for(self.folder) if self.num_workers is None else self.num_workers
        return Reading(num_workers=workers, prefetch=self.prefetch)
