"""The elements of CVAT's annotations.xml with their lines, see ``fbnetv5.data.cvat``."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from export.errors import UserError


@dataclass(slots=True, kw_only=True)
class Item:
    """An element of an image."""

    kind: str
    attributes: dict[str, str]
    where: str
    """FILE:LINE."""

    @property
    def label(self) -> str:
        return self.attributes.get("label", "")

    def number(self, name: str, default: str | None = None) -> float:
        """The value of an attribute.

        Raises:
            UserError: it is missing or no finite number.
        """
        try:
            value = float(self.attributes.get(name, default or ""))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{self.where}: {self.kind} has no number {name!r}. Export the file again")
        return value


@dataclass(slots=True, kw_only=True)
class CvatImage:
    """An image of the file."""

    attributes: dict[str, str]
    where: str
    items: list[Item] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class CvatFile:
    """The content of annotations.xml."""

    labels: dict[str, str] = field(default_factory=dict)
    """Names of the labels in their order, with their types, "" where an old file has none."""
    images: list[CvatImage] = field(default_factory=list)


class Parser:
    """Reads a file with the line of each element, which ``xml.etree`` does not keep."""

    def __init__(self, path: Path) -> None:
        self.content = CvatFile()
        self._path = path
        self._open: list[str] = []
        self._text = ""
        self._label: dict[str, str] = {}
        self._expat = expat.ParserCreate()
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters

    def parse(self) -> CvatFile:
        """The content of the file.

        Raises:
            UserError: it cannot be read, is damaged, or is of a video.
        """
        try:
            self._expat.Parse(self._path.read_bytes(), True)
        except OSError as error:
            raise UserError(f"cannot read {self._path}: {error.strerror}. Make it a readable file") from None
        except expat.ExpatError as error:
            raise UserError(f"{self._path}:{error.lineno} is not valid XML ({error}). Export it again") from None
        except (LookupError, ValueError) as error:  # of an encoding that expat does not know
            raise UserError(f"{self._path} is not valid XML ({error}). Export it again") from None
        return self.content

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        where = f"{self._path}:{self._expat.CurrentLineNumber}"
        parent = self._open[-1] if self._open else ""
        if tag == "track":
            raise UserError(f'{where} is a track of a video. Export the task as "CVAT for images 1.1"')
        if tag == "image":
            self.content.images.append(CvatImage(attributes=attributes, where=where))
        elif parent == "image":
            self.content.images[-1].items.append(Item(kind=tag, attributes=attributes, where=where))
        self._open.append(tag)
        self._text = ""

    def _characters(self, text: str) -> None:
        self._text += text

    def _end(self, tag: str) -> None:
        self._open.pop()
        parent = self._open[-1] if self._open else ""
        if parent == "label" and tag in ("name", "type"):
            self._label[tag] = self._text.strip()
        elif tag == "label" and parent == "labels":
            self.content.labels[self._label.get("name", "")] = self._label.get("type", "")
            self._label = {}
