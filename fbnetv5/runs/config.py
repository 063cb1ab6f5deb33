"""The ``config.json`` of a run folder: the fields of every method's configuration, and reading and writing of the file.

Readers of finished runs (export, verify) need no field of a method: they load a ``Run``. Files of schema 1, in which
methods had no kind, are converted when they are read.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, Strict

from export.document import Document
from export.errors import UserError
from export.files import read_document, read_json_object, write_json
from fbnetv5.data.config import DataConfig

NAME = "config.json"
SCHEMA = 2
OLD_TRAINING = "training.json"
"""File of a training's configuration in schema 1."""

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""The seeds of image streams and of torch's and numpy's generators are small multiples of it."""
Positive = Annotated[float, Field(gt=0.0, le=1e12)]
NotNegative = Annotated[float, Field(ge=0.0, le=1e12)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
MaxSkipped = Annotated[int, Field(ge=0)]
Images = Annotated[DataConfig, Strict(False)]


class Run(Document):
    """The fields of ``config.json`` that readers of a finished run need."""

    title: ClassVar[str] = "run"
    kind: str
    """The method: "search", "later-task", "branch", "nars", "derivation" or "training"."""
    tasks: Annotated[tuple[str, ...], Strict(False)]
    """Tasks in the run's order."""
    data: Images
    """Images that the run learned from and was evaluated on."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the ``config.json`` of a run folder of any method.

        Raises:
            UserError: the folder is not a run folder, or the file is damaged or of another version.
        """
        document = read_config(folder)
        return cls(**{name: document[name] for name in cls.model_fields if name in document})


class RunConfig(Document):
    """Base of every method's configuration: all fields that determine a run's result."""

    kind: ClassVar[str]
    """Name of the method in ``config.json``."""
    flags: ClassVar[frozenset[str]]
    """Fields that have a flag on the command line; a user's file may set the others."""
    data_fields: ClassVar[frozenset[str]] = frozenset({"scenes", "num_workers", "prefetch"})
    """Fields of ``data`` that a user's file may set."""
    data: Images = DataConfig()
    seed: Seed = 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the run's tasks, in order."""
        raise NotImplementedError

    @classmethod
    def settable(cls) -> list[str]:
        """Names of the fields of a user's file: those without a flag, and some of ``data``."""
        return sorted(set(cls.model_fields) - cls.flags | cls.data_fields)

    @classmethod
    def schema_of_files(cls) -> dict[str, Any]:
        """The JSON Schema of a user's file, for editors."""
        schema = cls.model_json_schema()
        of_data = DataConfig.model_json_schema()["properties"]
        properties = {
            name: (of_data if name in cls.data_fields else schema["properties"])[name] for name in cls.settable()
        }
        used = {name: record for name, record in schema.get("$defs", {}).items() if f"$defs/{name}'" in str(properties)}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"--config of a {cls.title}",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **({"$defs": used} if used else {}),
        }

    def save(self, folder: Path) -> None:
        """Write ``config.json``."""
        header = {"schema": SCHEMA, "kind": self.kind, "tasks": list(self.tasks)}
        write_json(folder / NAME, header | self.to_json())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``config.json``. A field that was added after the file was written has its default.

        Raises:
            UserError: the file is missing, damaged, of another method, or has fields of another version.
        """
        document, path = read_config(folder), folder / NAME
        kind, _ = document.pop("kind", None), document.pop("tasks", None)
        if kind != cls.kind:
            raise UserError(f"{folder} is the folder of a {kind}, not of a {cls.kind}")
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        if not required <= document.keys() <= cls.model_fields.keys():
            differing = ", ".join(sorted((required - document.keys()) | (document.keys() - cls.model_fields.keys())))
            raise UserError(f"{path} is of another version; fields that differ: {differing}. Start a new {cls.kind}")
        try:
            return cls(**document)
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from None

    @classmethod
    def read_fields(cls, source: Path | Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a user's file, or of a mapping in its place.

        Raises:
            UserError: the file is missing or unreadable.
        """
        return dict(source) if isinstance(source, Mapping) else read_document(source, what="configuration")

    @classmethod
    def make(
        cls,
        fields: Path | Mapping[str, Any] | None,
        *,
        defaults: Mapping[str, Any] | None = None,
        used: Collection[str] = (),
        **flags: Any,
    ) -> Self:
        """A configuration from the command line's flags and, for every other field, a user's file.

        Args:
            fields: JSON or YAML file, or a mapping, of fields without a flag, and of those of ``data_fields``.
            defaults: values, in place of the model's, of fields that neither the flags nor the file set.
            used: fields of ``data_fields`` that the user set by a flag.
            flags: fields by name; ``data`` is among them.

        Raises:
            UserError: the file is missing or unreadable, has a field that does not exist or that has a flag, or a value
                is invalid.
        """
        if fields is None:
            return cls(**{**(defaults or {}), **flags})
        where, settable = "config" if isinstance(fields, Mapping) else fields, cls.settable()
        values = cls.read_fields(fields)
        if unknown := [name for name in values if name not in settable]:
            raise UserError(f"{where}: there is no field {unknown[0]!r} to set; there are: {', '.join(settable)}")
        if both := [name for name in values if name in used]:
            raise UserError(f"{where}: {both[0]} is also set by --{both[0]}: remove one of the two")
        try:
            if of_data := {name: values.pop(name) for name in cls.data_fields & values.keys()}:
                flags["data"] = flags["data"].changed(**of_data)
            return cls(**{**(defaults or {}), **flags, **values})
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The document of a run folder's ``config.json``, converted to schema 2.

    Raises:
        UserError: the folder is not a run folder, or the file is damaged or of an unknown schema.
    """
    document = read_json_object(folder / NAME, what="run configuration")
    schema = document.pop("schema", None)
    if schema == 1:
        document = _from_schema_1(document, folder)
    elif schema != SCHEMA:
        supported = f"this version reads 1 and {SCHEMA}"
        raise UserError(f"run configuration file {folder / NAME} has schema {schema!r}; {supported}")
    if "kind" not in document:
        raise UserError(f"run configuration file {folder / NAME} is damaged: kind is missing")
    if "task" in document:  # of a training before networks of several tasks were trained
        document |= {"task_names": [document.pop("task")], "task_weights": "average"}
    return document


def _from_schema_1(search: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Convert schema 1, which had the data's fields beside the others and a separate file for a training."""
    budgets = search.get("budgets", {})
    if not isinstance(budgets, dict):
        raise UserError(f"{folder / NAME} is damaged: budgets is no object of tasks")
    kind, document, tasks = "search", search, list(budgets)
    if (folder / OLD_TRAINING).exists():
        kind, document = "training", read_json_object(folder / OLD_TRAINING, what="training configuration")
        document.pop("schema", None)
        tasks = [document.get("task")]
    data = {new: document.pop(old, None) for new, old in (("folder", "data"), ("size", "size"), ("scenes", "pictures"))}
    return {"kind": kind, "tasks": tasks, "data": data, **document}
