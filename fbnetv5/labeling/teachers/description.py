"""``NAME.json`` beside ``NAME.onnx``: what the ONNX file expects and returns. JSON Schema: docs/schemas/teacher.json.

{"schema": 1, "task": "det", "size": [640, 640], "fit": "letterbox", "decoder": "yolo", "classes": ["cat", "dog"]}
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from export.document import Document, JsonTuple
from export.errors import UserError
from export.files import read_json
from fbnetv5.labeling.teachers.decoders import TASKS, Decoding, Name
from fbnetv5.labeling.teachers.preparation import Fit, Interpolation, Preparation

SCHEMA = 1
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Of each unit of depth."""
TASKS_WITH_CLASSES = ("cls", "det", "seg", "parts")

Side = Annotated[int, Field(ge=1)]
Channels = Annotated[tuple[float, float, float], Strict(False)]


class TeacherDescription(Document):
    """The content of the file."""

    title: ClassVar[str] = "teacher description"
    task: Literal["cls", "det", "seg", "parts", "saliency", "edges", "depth", "normals"]
    """Task whose labels the network predicts."""
    size: Annotated[tuple[Side, Side], Strict(False)]
    """Height and width of its input in pixels."""
    decoder: Name
    """Form of its outputs: logits [N, C] (cls); yolo: rows of cx, cy, w, h, (objectness,) class scores in pixels of the
    input, [N, A, 4 + C] or [N, 4 + C, A] (det); ssd: boxes [N, A, 4] as x0, y0, x1, y1 with scores [N, A] and labels
    [N, A], or with scores [N, A, C] (det); pixel_logits [N, C, h, w] (seg, parts); probability [N, 1, h, w] (saliency,
    edges); depth [N, 1, h, w] (depth); normals [N, 3, h, w] (normals)."""
    classes: JsonTuple[str] = ()
    """Names of the classes by id; "" for an id that stands for no class, such as the background of a detector."""
    fit: Fit = "stretch"
    """How an image gets the size: stretch; letterbox, which keeps the aspect and pads with grey; crop, which cuts."""
    crop_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """With crop: the size as a share of the resized image's shorter side."""
    interpolation: Interpolation = "bilinear"
    """How images are resized: bilinear or bicubic, with antialiasing."""
    scale: float = 1 / 255
    """Factor of the 8-bit values."""
    mean: Channels = (0.0, 0.0, 0.0)
    """Subtracted from each channel of the input after scaling."""
    std: Channels = (1.0, 1.0, 1.0)
    """Divides each channel of the input after the mean is subtracted."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels of the input."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """Order of the axes of the input."""
    outputs: JsonTuple[str] = ()
    """Names of the outputs that the decoder reads, in its order; without names, all outputs in the file's order."""
    nms_iou: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    """det: overlap above which the lower-scored of two boxes of one class is a duplicate."""
    max_boxes: Annotated[int, Field(ge=1)] = 100
    """det: maximum number of boxes of an image."""
    first_label: Annotated[int, Field(ge=0)] = 0
    """ssd: label of the first class."""
    box_unit: Literal["pixels", "share"] = "pixels"
    """ssd: whether boxes are in pixels of the input or shares of its sides."""
    unit: Literal["m", "cm", "mm"] = "m"
    """depth: unit of the values."""

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.task not in TASKS[self.decoder]:
            raise ValueError(
                f"decoder {self.decoder!r} is for {' and '.join(TASKS[self.decoder])}, not for {self.task}"
            )
        named = [name for name in self.classes if name]
        if repeated := [name for name in named if named.count(name) > 1]:
            raise ValueError(f"classes name {repeated[0]!r} twice; each class has a name of its own")
        if (self.task in TASKS_WITH_CLASSES) != bool(self.classes):
            raise ValueError(f"task {self.task} {'needs' if not self.classes else 'has no'} classes")
        if self.fit == "crop" and self.task != "cls":
            raise ValueError(f"fit 'crop' leaves parts of an image unlabelled: task {self.task} needs another fit")
        return self

    @property
    def preparation(self) -> Preparation:
        """The steps from an image to the input."""
        return Preparation(
            size=self.size,
            scale=self.scale,
            mean=self.mean,
            std=self.std,
            fit=self.fit,
            crop_share=self.crop_share,
            interpolation=self.interpolation,
            bgr=self.order == "bgr",
            channels_last=self.layout == "nhwc",
        )

    @property
    def decoding(self) -> Decoding:
        """How the outputs are read."""
        return Decoding(
            name=self.decoder,
            classes=len(self.classes),
            nms_iou=self.nms_iou,
            max_boxes=self.max_boxes,
            first_label=self.first_label,
            relative_boxes=self.box_unit == "share",
            metres=METRES[self.unit],
        )

    @classmethod
    def schema_of_files(cls) -> dict[str, Any]:
        """The JSON Schema of a user's file, for editors."""
        schema = cls.model_json_schema()
        number = {"const": SCHEMA, "description": "Schema number of the file."}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "title": "description of an ONNX teacher",
            "properties": {"schema": number, **schema["properties"]},
            "required": ["schema", *schema["required"]],
        }


def read_description(path: Path) -> TeacherDescription:
    """The description in a file.

    Raises:
        UserError: it is missing, or something in it is wrong.
    """
    if not path.exists():
        raise UserError(
            f"{path} does not exist: it describes the ONNX file beside it (task, size, decoder, classes; schema: "
            "docs/schemas/teacher.json). Write it"
        )
    document = read_json(path, what="teacher description", schema=SCHEMA)
    document.pop("$schema", None)
    try:
        return TeacherDescription(**{name: value for name, value in document.items() if name != "schema"})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
