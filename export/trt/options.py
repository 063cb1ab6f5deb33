"""The options of TensorRT's builder that a user may set, and the JSON file that contains them.

Precision and shapes are no options: the ONNX graph sets the precision, and the shapes belong to the network. What an
option does depends on the TensorRT variant; ``export/trt/builder.py`` refuses options that a variant would accept and
ignore.

A plain dataclass and not a ``Document``: the file that measures on other devices carries it, where pydantic is missing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json_object

COMPATIBILITIES = ("", "ampere_plus", "same_compute_capability")
MAX_LEVEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine is built."""

    workspace_mb: int | None = None
    """Maximum workspace of a layer in MiB (2**20 bytes); None is TensorRT's default, all memory of the GPU."""
    timing_cache: Path | None = None
    """File of kernel times: read if it exists, and written after the build, so that the next build is faster."""
    level: int | None = None
    """Optimisation level: 0 builds fastest, 5 searches longest for fast kernels; None is TensorRT's default, 3."""
    compatible: str = ""
    """Other GPUs that the engine must run on: "ampere_plus", "same_compute_capability", or "" for this GPU only."""
    version_compatible: bool = False
    """Also run in later minor versions of TensorRT. The engine then contains code that runs on the CPU."""

    def __post_init__(self) -> None:
        if self.workspace_mb is not None and (type(self.workspace_mb) is not int or self.workspace_mb < 1):
            raise UserError(f"workspace_mb is {self.workspace_mb!r}, where a whole number of at least 1 is needed")
        if self.timing_cache is not None and not isinstance(self.timing_cache, Path):
            raise UserError(f"timing_cache is {self.timing_cache!r}, where the path of a file is needed")
        if self.level is not None and (type(self.level) is not int or not 0 <= self.level <= MAX_LEVEL):
            raise UserError(f"level is {self.level!r}, where a whole number from 0 to {MAX_LEVEL} is needed")
        if self.compatible not in COMPATIBILITIES:
            choices = ", ".join(map(repr, COMPATIBILITIES))
            raise UserError(f"compatible is {self.compatible!r}, where one of {choices} is needed")
        if type(self.version_compatible) is not bool:
            raise UserError(f"version_compatible is {self.version_compatible!r}, where true or false is needed")

    @staticmethod
    def load(path: Path) -> "EngineOptions":
        """The options of a user's JSON file; a relative timing_cache is relative to that file.

        Raises:
            UserError: the file cannot be read, or an option is unknown or has a wrong value.
        """
        document = read_json_object(path, what="engine options")
        try:
            options = options_from_json(document)
        except UserError as error:
            raise UserError(f"engine options file {path}: {error}") from None
        if options.timing_cache is None:
            return options
        return EngineOptions(**{**asdict(options), "timing_cache": path.parent / options.timing_cache})

    def recorded(self) -> dict[str, Any]:
        """The options that are not TensorRT's defaults, without the timing cache: what an engine depends on."""
        names = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return {name: getattr(self, name) for name in names if name != "timing_cache"}

    def to_json(self) -> dict[str, Any]:
        """The options as a JSON object that ``options_from_json`` reads."""
        return {**asdict(self), "timing_cache": None if self.timing_cache is None else str(self.timing_cache)}


def options_from_json(document: Mapping[str, Any]) -> EngineOptions:
    """The options of a JSON object, which may leave any out.

    Raises:
        UserError: an option is unknown or has a wrong value.
    """
    names = [field.name for field in fields(EngineOptions)]
    if unknown := sorted(document.keys() - set(names)):
        raise UserError(f"there is no engine option {unknown[0]!r}; known are {', '.join(names)}")
    cache = document.get("timing_cache")
    return EngineOptions(**{**document, "timing_cache": Path(cache) if isinstance(cache, str) and cache else cache})
