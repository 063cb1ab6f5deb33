"""What a training is told: one frozen record, written to its folder so that a resumed training is the same one.

What suits a task differs, so the fields' defaults come from ``RECIPES``: detection and segmentation see their pictures
at random scales, with boxes and masks moved along; a class belongs to the whole picture, which a crop may cut it from,
so classification only mirrors. They suit a training of a few epochs; a long one wants more change, see
docs/training.md.
"""

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from export.errors import UserError
from export.files import read_json, read_json_object, write_json
from fbnetv5.cost import Resolution, check_resolution
from fbnetv5.limits import NOT_NEGATIVE, POSITIVE, SEED, SHARE, Limits, at_least, check_limits

SCHEMA = 1
NAME = "training.json"
OPTIMIZERS = ("adamw", "sgd")
GIVEN = ("task", "init", "data", "size", "seed")
"""Fields that come from flags; a user's file may set the others."""
LIMITS: Limits = {
    "seed": SEED,
    "pictures": at_least(1),
    "held_out": at_least(1),
    "steps": at_least(1),
    # Batch norm has no statistics of one picture on a 1x1 map.
    "batch": at_least(2),
    "lr": POSITIVE,
    "momentum": SHARE,
    "weight_decay": NOT_NEGATIVE,
    "warmup_steps": at_least(0),
    "ema_decay": SHARE,
    "clip_norm": POSITIVE,
    "flip": SHARE,
    "colour": SHARE,
    "mixup": NOT_NEGATIVE,
    "evaluate_every": at_least(1),
    "checkpoint_every": at_least(1),
}
MOST_SCALE = 16
RECIPES: dict[str, dict[str, Any]] = {
    "cls": {"lr": 7e-4, "colour": 0.0},
    "det": {"scale": (0.7, 1.4)},
    "seg": {"scale": (0.7, 1.4)},
}
"""Per task, the fields whose defaults differ from those below."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training's result."""

    task: str
    size: Resolution
    """Height and width of the pictures trained on."""
    init: str = "inherited"
    """Where the weights come from: "inherited" from the search, "scratch", "timm", or a safetensors file."""
    data: str | None = None
    """Folder of the user's pictures; None for the demo scenes."""
    seed: int = 0
    pictures: tuple[int, int, int] = (8000, 2000, 1000)
    """How many demo scenes: two parts to train on, of which some are held out, and the test."""
    held_out: int = 1000
    """Most pictures kept out of the training, to choose the best weights by."""
    steps: int = 1500
    batch: int = 32
    """Pictures of a step, per process."""
    optimizer: str = "adamw"
    """Or "sgd", with Nesterov momentum, for which a lr some ten times higher is usual."""
    lr: float = 3e-3
    """At its highest, after the warm-up; half a cosine then brings it down to 1 %."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.02
    """Of convolutions and linear layers; norms and biases do not decay."""
    warmup_steps: int = 100
    ema_decay: float = 0.998
    """Per step, of the moving average of the weights, which is what is kept; gentler at first."""
    clip_norm: float = 5.0
    flip: float = 0.5
    """Probability of mirroring a picture."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the factor that a picture is resized by before a piece of the first size is cut out of it."""
    colour: float = 0.2
    """Most change of brightness, contrast and saturation."""
    mixup: float = 0.0
    """Alpha of mixup (arXiv 1710.09412), which blends pairs of pictures and their losses; 0 is off."""
    evaluate_every: int = 250
    """Steps between measurements on the held-out pictures."""
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        check_resolution(self.size)
        check_limits("training", self, LIMITS)
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"training: optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        if not 0 < self.scale[0] <= self.scale[1] <= MOST_SCALE:
            raise UserError(f"training: scale must be a range of factors above 0 to {MOST_SCALE}, not {self.scale}")
        if round(min(self.size) * self.scale[0]) < 1:
            size = f"{self.size[0]}x{self.size[1]}"
            raise UserError(f"training: scale from {self.scale[0]} leaves nothing of pictures of {size}")

    def save(self, folder: Path) -> None:
        """Write ``training.json``."""
        write_json(folder / NAME, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``training.json``.

        Raises:
            UserError: missing, damaged, or with fields of another version.
        """
        path = folder / NAME
        document = read_json(path, what="training configuration", schema=SCHEMA)
        del document["schema"]
        if set(document) != set(cls.__dataclass_fields__):
            wrong = ", ".join(sorted(set(document) ^ set(cls.__dataclass_fields__)))
            raise UserError(f"training configuration {path} is of another version; fields that differ: {wrong}")
        given = {name: document.pop(name) for name in GIVEN}
        try:
            given["size"] = tuple(given["size"])
            return cls(**given, **_checked(document, path))
        except TypeError as error:
            raise UserError(f"training configuration {path} is damaged ({error})") from None


def make_config(
    task: str, *, size: Resolution, init: str, data: Path | None, seed: int, file: Path | None
) -> TrainConfig:
    """A task's recipe, with the fields that a user's JSON file sets instead.

    Raises:
        UserError: the file is missing, not JSON, or has a field that does not exist, has a flag, or is of another type.
    """
    chosen = {} if file is None else _checked(read_json_object(file, what="training configuration"), file)
    folder = None if data is None else str(data.resolve())
    given: dict[str, Any] = {"task": task, "size": size, "init": init, "data": folder, "seed": seed}
    return TrainConfig(**given, **(RECIPES.get(task, {}) | chosen))


def _checked(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a JSON object, of the types that ``TrainConfig`` has."""
    defaults = {field.name: field.default for field in fields(TrainConfig) if field.default is not MISSING}
    for name in document:
        if name not in defaults or name in GIVEN:
            settable = ", ".join(sorted(set(defaults) - set(GIVEN)))
            raise UserError(f"{path}: there is no field {name!r} to set; there are: {settable}")
    return {name: _like(defaults[name], value, f"{path}: {name}") for name, value in document.items()}


def _like(default: Any, value: Any, where: str) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list) or len(value) != len(default):
            raise UserError(f"{where} must be like {list(default)}, not {value!r}")
        return tuple(_like(one, other, where) for one, other in zip(default, value, strict=True))
    if type(value) is type(default) or (isinstance(default, float) and type(value) is int):
        return value
    raise UserError(f"{where} must be like {default!r}, not {value!r}")
