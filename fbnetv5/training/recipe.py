"""The recipe of a training: the fields that a search over recipes sets, and the file that holds them.

FBNetV3 (arXiv 2006.02049) searches the optimizer, its learning rate and weight decay, the EMA of the
weights, dropout, stochastic depth and mixup together with the architecture. ``TrainConfig`` has all fields of a recipe
by inheritance, so each has one declaration. A ``Recipe`` is a file of such fields, none of them required; ``fbnetv5
train --config`` reads it.

The teacher of a distillation is a file and so no field of a recipe; how much it counts is. Not included: learning-rate
schedules other than half a cosine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from export.document import Document
from export.errors import UserError
from export.files import check_schema, read_document, write_json
from fbnetv5.data.config import Size
from fbnetv5.runs.config import NotNegative, Positive, Share

HEADER: Mapping[str, Any] = {"schema": 1, "kind": "recipe"}
"""Fields of a recipe file besides those of the recipe."""
MAX_SCALE = 16
"""Maximum factor of ``RecipeFields.scale``."""

DropRate = Annotated[float, Field(ge=0.0, lt=1.0)]


class RecipeFields(Document):
    """The fields of a recipe that ``TrainConfig`` inherits."""

    steps: Annotated[int, Field(ge=1)] = 1500
    """Steps of the optimizer."""
    epochs: Positive | None = None
    """Length of the training in epochs of the images, instead of steps; rounded up to whole steps."""
    batch: Annotated[int, Field(ge=2)] = 32
    """Images of a step, per process; batch norm has no statistics of one image on a 1x1 map."""
    optimizer: Literal["adamw", "sgd", "rmsprop"] = "adamw"
    """Optimizer; SGD has Nesterov momentum and usually wants a learning rate some ten times higher. RMSProp is
    TensorFlow's, with which MobileNetV3 (arXiv 1905.02244) was trained."""
    lr: Positive = 3e-3
    """Highest learning rate, after the warm-up; half a cosine then brings it down to 1 %. ``fbnetv5 train --init
    scratch`` has 1e-2 and a ``max_fan_in`` of 128, unless a recipe sets one of both or the optimizer."""
    max_fan_in: Annotated[int, Field(ge=1)] | None = None
    """Largest number of inputs per output with which a weight has the full learning rate; weights with more have one in
    inverse proportion to it, as in muP (arXiv 2203.03466). None: one learning rate for all weights."""
    momentum: Share = 0.9
    """Momentum of SGD and RMSProp."""
    weight_decay: NotNegative = 0.02
    """Decay of the weights of convolutions and linear layers; norms and biases do not decay. AdamW decays weights
    directly (arXiv 1711.05101); for SGD and RMSProp the decay is an L2 penalty and usually some 1000 times smaller."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises linearly."""
    ema_decay: Share = 0.998
    """Decay per step of the moving average of the weights, which the training stores; lower in the first steps. 0 turns
    the average off: the current weights and batch-norm statistics are evaluated and stored."""
    clip_norm: Positive = 5.0
    """Maximum norm of the gradient; larger ones are scaled down."""
    flip: Share = 0.5
    """Probability of mirroring an image."""
    scale: Annotated[tuple[float, float], Strict(False)] = (1.0, 1.0)
    """Range of the factor by which an image is resized before a crop of the training size is taken."""
    colour: Share = 0.2
    """Maximum change of brightness, contrast and saturation."""
    augment: Share = 0.0
    """Strength of RandAugment (arXiv 1909.13719) with two operations per image; 0.3 is the magnitude 9 of the paper's
    scale to 30, and 0 turns it off. Operations that move pixels are used for classification alone."""
    dropout: DropRate = 0.0
    """Probability of dropout before the last layer of every head: of single values before a linear layer (FBNetV3's
    classifier), of whole channels before a convolution (arXiv 1411.4280)."""
    stochastic_depth: DropRate = 0.0
    """Probability that the deepest residual block is skipped for an image in a step (arXiv 1603.09382); it rises
    linearly with depth from 0 at the stem."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (arXiv 1710.09412), which blends pairs of images and their losses; 0 turns it off."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix (arXiv 1905.04899), which pastes a box of one image into another; 0 turns it off. With mixup on
    as well, each step uses one of the two at random. Not for tasks with boxes."""
    mosaic: Share = 0.0
    """Probability that the images of a step are mosaics of four images each (arXiv 2004.10934). Not for tasks with
    labels of whole images, such as classes."""
    label_smoothing: DropRate = 0.0
    """Share of the target probability that is spread evenly over all classes (arXiv 1512.00567, section 7), for tasks
    whose loss is cross entropy: classification, segmentation and parts. Other tasks of the network are not affected."""

    distillation: Share = 0.8
    """With a teacher: the share of the distance from its outputs in the loss, over all images; the labels have the
    rest. FBNetV3's recipe has 0.8 (arXiv 2006.02049)."""
    temperature: Positive = 1.0
    """With a teacher: divides the logits of both networks before their probabilities are compared (arXiv 1503.02531);
    depth and normals have no probabilities and ignore it."""

    @model_validator(mode="before")
    @classmethod
    def _check_length(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and "steps" in fields and fields.get("epochs") is not None:
            raise UserError(f"{cls.title}: steps and epochs both set the length of the training: remove one of the two")
        return fields

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= MAX_SCALE:
            raise UserError(f"{self.title}: scale must be a range of factors above 0 to {MAX_SCALE}, not {self.scale}")
        return self


class Recipe(RecipeFields):
    """A recipe; only the fields that were set belong to it, and a training has its own defaults for the others."""

    title: ClassVar[str] = "recipe"
    size: Size | None = None
    """Height and width that images are fitted to."""

    def to_json(self) -> dict[str, Any]:
        """The fields that were set as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def save(self, path: Path) -> None:
        """Write the recipe with its header as a JSON file."""
        write_json(path, {**HEADER, **self.to_json()})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe.

        Raises:
            UserError: the file is missing, unreadable or no recipe, has an unknown field, or a value is invalid.
        """
        fields = without_header(read_document(path, what="recipe"), path)
        try:
            return cls(**fields)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def without_header(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of the document of a recipe file.

    Raises:
        UserError: the document is of another kind or schema.
    """
    if document.get("kind") != HEADER["kind"]:
        raise UserError(f"{path} has kind {document.get('kind')!r}, not {HEADER['kind']!r}: it is not a recipe")
    check_schema(document, path, what="recipe", schema=HEADER["schema"])
    return {name: value for name, value in document.items() if name not in HEADER}
