"""What a user may set of how TensorRT builds an engine, and the file that says it.

Precision and shapes are not among these: the one is what the ONNX graph says, the other belongs to the network. What an
option does depends on the flavour of TensorRT; ``export/trt/builder.py`` refuses those that it would take and not
honour.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json_object

COMPATIBILITIES = ("", "ampere_plus", "same_compute_capability")
MOST_LEVEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine is built."""

    workspace_mb: int | None = None
    """Most memory that a layer may work in, in units of 2**20 bytes; None is TensorRT's own, all that the GPU has."""
    timing_cache: Path | None = None
    """File of kernels' times: read if it is there, and written after the build, so that the next one is faster."""
    level: int | None = None
    """0 builds fastest and 5 searches longest for fast kernels; None is TensorRT's own, 3."""
    compatible: str = ""
    """Other GPUs the engine is to run on: "ampere_plus", "same_compute_capability", or "" for those like this one."""
    version_compatible: bool = False
    """To run in later minor versions of TensorRT too. It then holds code of its own, which runs where it is loaded."""

    def __post_init__(self) -> None:
        if self.workspace_mb is not None and (type(self.workspace_mb) is not int or self.workspace_mb < 1):
            raise UserError(f"workspace_mb is {self.workspace_mb!r}, where a whole number of at least 1 is needed")
        if self.timing_cache is not None and not isinstance(self.timing_cache, Path):
            raise UserError(f"timing_cache is {self.timing_cache!r}, where the path of a file is needed")
        if self.level is not None and (type(self.level) is not int or not 0 <= self.level <= MOST_LEVEL):
            raise UserError(f"level is {self.level!r}, where a whole number from 0 to {MOST_LEVEL} is needed")
        if self.compatible not in COMPATIBILITIES:
            known = ", ".join(map(repr, COMPATIBILITIES))
            raise UserError(f"compatible is {self.compatible!r}, where one of {known} is needed")
        if type(self.version_compatible) is not bool:
            raise UserError(f"version_compatible is {self.version_compatible!r}, where true or false is needed")

    @staticmethod
    def load(path: Path) -> "EngineOptions":
        """Those in a JSON file that a user wrote; a relative timing_cache in it is beside that file.

        Raises:
            UserError: the file cannot be read, or an option in it is unknown or of the wrong kind.
        """
        document = read_json_object(path, what="engine options")
        try:
            options = options_from_json(document)
        except UserError as error:
            raise UserError(f"engine options file {path}: {error}") from None
        if options.timing_cache is None:
            return options
        return EngineOptions(**{**asdict(options), "timing_cache": path.parent / options.timing_cache})

    def to_json(self) -> dict[str, Any]:
        """What ``options_from_json`` reads."""
        return {**asdict(self), "timing_cache": None if self.timing_cache is None else str(self.timing_cache)}


def options_from_json(document: Mapping[str, Any]) -> EngineOptions:
    """The options of a JSON object, which may leave any out.

    Raises:
        UserError: one is unknown or of the wrong kind.
    """
    known = [field.name for field in fields(EngineOptions)]
    if unknown := sorted(document.keys() - set(known)):
        raise UserError(f"there is no engine option {unknown[0]!r}; known are {', '.join(known)}")
    cache = document.get("timing_cache")
    return EngineOptions(**{**document, "timing_cache": Path(cache) if isinstance(cache, str) and cache else cache})
