"""The settings of a labelling: the images, the teacher of each task, thresholds, and class names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, Strict

from export.document import Document, JsonTuple
from export.errors import UserError
from export.files import read_document
from fbnetv5.tasks import check_names

Share = Annotated[float, Field(ge=0.0, le=1.0)]
EVERY_OTHER = "*"
"""In ``TeacherConfig.classes``: all classes that are not named."""


class TeacherConfig(Document):
    """A teacher of one task and how its predictions become labels."""

    title: ClassVar[str] = "teacher"
    teacher: str | None = None
    """ONNX file, exported folder, or FAMILY:NAME[@FILE]; the flag --teacher TASK=... sets it as well."""
    threshold: Share | None = None
    """Minimum confidence of a label; null for --threshold."""
    thresholds: dict[str, Share] = Field(default_factory=dict)
    """By class of the data set: the minimum confidence of its labels, instead of the threshold."""
    classes: dict[str, str | None] = Field(default_factory=dict)
    """By class of the teacher: its name in the data set, or null to leave it out; "*" stands for all classes that are
    not named, which otherwise keep their names."""
    class_names: JsonTuple[str] | None = None
    """Names of the classes of a library's network with weights of your own, by class id."""


class LabelConfig(Document):
    """All settings that determine the labels."""

    title: ClassVar[str] = "label"
    flags: ClassVar[frozenset[str]] = frozenset({"images", "threshold", "derive", "ignore_labels", "soft_labels"})
    """Fields that have a flag on the command line and are not in a user's file."""
    images: str
    """Folder of the images, or a data set whose labels are kept."""
    teachers: dict[str, Annotated[TeacherConfig, Strict(False)]] = Field(default_factory=dict)
    """By task: its teacher, thresholds and class names."""
    derive: dict[str, str] = Field(default_factory=dict)
    """By task: how its labels follow from others."""
    threshold: Share = 0.5
    """Minimum confidence of a label."""
    soft_labels: Annotated[int, Field(ge=1)] | None = None
    """Classes per image whose probabilities by the teacher of cls are stored; null for none."""
    ignore_labels: bool = False
    """Take the images of a data set without their labels."""
    chunk: Annotated[int, Field(ge=1)] = 64
    """Images after which finished labels are stored; an interrupted labelling repeats one chunk at most."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Maximum number of images that a teacher runs on at once; as many are in memory."""

    @classmethod
    def settable(cls) -> list[str]:
        """Names of the fields of a user's file."""
        return sorted(set(cls.model_fields) - cls.flags)

    @classmethod
    def schema_of_files(cls) -> dict[str, Any]:
        """The JSON Schema of a user's file, for editors."""
        schema = cls.model_json_schema()
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "--config of fbnetv5 label",
            "type": "object",
            "properties": {name: schema["properties"][name] for name in cls.settable()},
            "additionalProperties": False,
            "$defs": schema["$defs"],
        }

    @classmethod
    def make(cls, fields: Path | Mapping[str, Any] | None, *, teachers: Mapping[str, str], **flags: Any) -> Self:
        """The settings of the flags and, for every other field, of a user's file.

        Args:
            fields: JSON or YAML file, or a mapping, of fields without a flag.
            teachers: by task, as ``--teacher`` names them.
            flags: other fields by name.

        Raises:
            UserError: the file is missing or unreadable, a field is unknown or has a wrong value, a task has no teacher
                or two, or there is nothing to do.
        """
        where = "config" if isinstance(fields, Mapping) else fields
        values = read_document(fields, what="configuration") if isinstance(fields, Path) else fields or {}
        if unknown := [name for name in values if name not in cls.settable()]:
            raise UserError(f"{where}: there is no field {unknown[0]!r} to set; there are: {', '.join(cls.settable())}")
        try:
            config = cls(**values, **flags)
        except UserError as error:
            raise UserError(f"{where}: {error}" if where else str(error)) from None
        return config._with_teachers(teachers)._checked()

    def _with_teachers(self, names: Mapping[str, str]) -> Self:
        """A copy with the teachers of the command line."""
        merged = dict(self.teachers)
        for task, name in names.items():
            settings = merged.get(task, TeacherConfig())
            if settings.teacher is not None:
                raise UserError(f"task {task} has two teachers, {settings.teacher} and {name}: name one")
            merged[task] = settings.changed(teacher=name)
        return self.changed(teachers=merged)

    def _checked(self) -> Self:
        check_names([*self.teachers, *self.derive])
        for task, settings in self.teachers.items():
            if settings.teacher is None:
                raise UserError(f"task {task} has settings and no teacher: add --teacher {task}=FILE")
            if task in self.derive:
                raise UserError(f"task {task} has a teacher and --derive {task}={self.derive[task]}: choose one")
        if self.soft_labels is not None and "cls" not in self.teachers:
            raise UserError("--soft-labels stores the probabilities of a teacher of cls: add --teacher cls=NETWORK")
        if not self.teachers and not self.derive:
            raise UserError("there is nothing to label with: add --teacher TASK=FILE, or --derive TASK=RULE")
        return self
