"""``manifest.json``: all that someone needs who receives an exported folder and has nothing else.

It says what to feed the network, what comes out, which architecture it is, what made it and how well it was proven,
and it holds a checksum of every file beside it, so that a file that was swapped or cut off is noticed when the folder
is read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json, write_json
from export.parity import Answer
from export.precision import check_precision
from export.runners import TensorSpec
from export.trt.bindings import NAMES
from export.trt.engine import Engine, engine_from_json

SCHEMA = 2
NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an 8-bit image to the network's input: resize, scale, subtract ``mean``, divide by ``std``."""

    resize: tuple[int, int]
    """(height, width) in pixels."""
    mean: tuple[float, ...]
    """Per channel, after scaling."""
    std: tuple[float, ...]
    scale: float = 1 / 255
    order: str = "RGB"
    """Of the channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says."""

    precision: str
    """fp32, fp16 or int8."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    answers: dict[str, Answer]
    """By task: which outputs are its."""
    preprocessing: Preprocessing
    labels: dict[str, tuple[str, ...]]
    """Class names by index, by task."""
    architecture: dict[str, dict[str, Any]]
    """The architecture's own document, by task."""
    versions: dict[str, str]
    """Of everything that took part, by package; see ``export_versions``."""
    parity: tuple[dict[str, Any], ...]
    """An object for each output, kind of images and rung; see ``export/precision_pipeline.py``."""
    metrics: dict[str, dict[str, Any]]
    """By task: its metric at every rung."""
    engine: Engine | None = None
    """Of the same network, where one was built."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of every file in the folder, by name; filled in when it is written."""


def export_versions() -> dict[str, str]:
    """Versions of the packages every export goes through."""
    return {package: version_here(package) for package in ("torch", "onnx", "onnxruntime")}


def version_here(package: str) -> str:
    """Of an installed package, or "none"; ONNX Runtime for GPUs is a project of another name."""
    for project in (package, *packages_distributions().get(package, ())):
        with suppress(PackageNotFoundError):
            return version(project)
    return "none"


def write_manifest(folder: Path, manifest: Manifest, *, files: Sequence[str]) -> None:
    """Write ``manifest.json`` into ``folder``, with the checksums of ``files`` there beside those it has already.

    Raises:
        UserError: one of the files is missing, or the manifest cannot be written.
    """
    sha256 = {**manifest.sha256, **{name: _sha256(folder / name) for name in files}}
    write_json(folder / NAME, {"schema": SCHEMA, **asdict(manifest), "sha256": sha256})


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` from ``folder`` and hold the files beside it against their checksums.

    Raises:
        UserError: the manifest or a file is missing or damaged.
    """
    manifest = read_claims(folder)
    for name in changed_files(folder, manifest):
        raise UserError(f"{folder / name} is not the file its manifest was written for: checksums differ. Export again")
    return manifest


def read_claims(folder: Path) -> Manifest:
    """What ``manifest.json`` says, with nothing beside it looked at.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / NAME
    document = read_json(path, what="manifest", schema=SCHEMA)
    try:
        return _parse(document)
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"manifest file {path} is damaged ({type(error).__name__}: {error}): export again") from None


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """The names of files whose checksums are not the manifest's.

    Raises:
        UserError: one of them cannot be read.
    """
    return [name for name, expected in manifest.sha256.items() if _sha256(folder / name) != expected]


def _parse(document: Mapping[str, Any]) -> Manifest:
    """Raise KeyError, TypeError, ValueError or AttributeError where ``document`` is not a manifest."""
    preprocessing = document["preprocessing"]
    check_precision(document["precision"])
    if not document["answers"] or not all(one["outputs"] for one in document["answers"].values()):
        raise ValueError("it names no outputs")
    return Manifest(
        precision=str(document["precision"]),
        inputs=_specs(document["inputs"]),
        outputs=_specs(document["outputs"]),
        answers={
            task: Answer(outputs=tuple(one["outputs"]), ranked_by=one["ranked_by"])
            for task, one in document["answers"].items()
        },
        preprocessing=Preprocessing(**{key: _tuple_if_list(value) for key, value in preprocessing.items()}),
        labels={task: tuple(map(str, names)) for task, names in document["labels"].items()},
        architecture={task: dict(one) for task, one in document["architecture"].items()},
        versions={package: str(value) for package, value in document["versions"].items()},
        parity=tuple(dict(entry) for entry in document["parity"]),
        metrics={task: dict(one) for task, one in document["metrics"].items()},
        engine=None if document["engine"] is None else _engine(document["engine"]),
        sha256={_plain_name(name): str(value) for name, value in document["sha256"].items()},
    )


def _engine(document: dict[str, Any]) -> Engine:
    engine = engine_from_json(document)
    _plain_name(engine.file)
    if engine.runtime not in NAMES:
        raise ValueError(f"{engine.runtime!r} is no runtime; known are {', '.join(NAMES)}")
    return engine


def _specs(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=e["name"], shape=tuple(e["shape"]), dtype=e["dtype"]) for e in entries)


def _tuple_if_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain_name(name: str) -> str:
    """A file of the folder itself: a manifest from elsewhere must not name files outside it."""
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
