"""``manifest.json``: the description of an exported folder, for a reader who has only the folder.

It describes the network's inputs and outputs, its preprocessing, architecture and labels, the package versions that
made it and the results of the verification. It has a checksum of every other file in the folder, so that a swapped or
truncated file is noticed when the folder is read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict

from export.document import Document, JsonTuple, PlainName
from export.errors import UserError
from export.files import read_json, write_json
from export.parity import OutputGroup
from export.precision import Precision
from export.runners import TensorSpec
from export.trt.engine import Engine

SCHEMA = 3
NAME = "manifest.json"


class TensorEntry(Document):
    """An input or output of the network, as ``TensorSpec`` describes it to runners."""

    title: ClassVar[str] = "tensor"
    name: str
    shape: JsonTuple[int | str]
    """A string is a dynamic axis, e.g. "batch"."""
    dtype: str
    """numpy's name, e.g. "float32"."""

    @classmethod
    def of(cls, spec: TensorSpec) -> Self:
        """The entry of an input or output of a runner."""
        return cls(name=spec.name, shape=spec.shape, dtype=spec.dtype)


class Preprocessing(Document):
    """The steps from an 8-bit image to the network's input: fit, scale, subtract ``mean``, divide by ``std``."""

    title: ClassVar[str] = "preprocessing"
    resize: Annotated[tuple[int, int], Strict(False)]
    """(height, width) in pixels."""
    mean: JsonTuple[float]
    """Mean of each channel, after scaling."""
    std: JsonTuple[float]
    """Standard deviation of each channel, after scaling."""
    scale: float = 1 / 255
    """Factor of the 8-bit values."""
    order: str = "RGB"
    """Order of the channels."""
    fit: Literal["stretch", "letterbox"] = "stretch"
    """How an image gets the size, with an antialiased bilinear filter: stretch changes its aspect; letterbox keeps it,
    centres the image and pads it. Manifests of earlier versions lack this field: their networks stretch."""
    padding: Annotated[int, Field(ge=0, le=255)] | None = None
    """8-bit value of padded pixels; None if the fit pads nothing."""


class Manifest(Document):
    """The content of ``manifest.json``."""

    title: ClassVar[str] = "manifest"
    precision: Precision
    """Precision of the ONNX file."""
    inputs: Annotated[JsonTuple[TensorEntry], Field(min_length=1)]
    """Inputs of the ONNX file."""
    outputs: JsonTuple[TensorEntry]
    """Outputs of the ONNX file."""
    task_outputs: Annotated[dict[str, OutputGroup], Field(min_length=1)]
    """By task: the outputs that belong to it."""
    preprocessing: Preprocessing
    labels: dict[str, JsonTuple[str]]
    """By task: class names by index."""
    architecture: dict[str, dict[str, Any]]
    """By task: the document of its architecture."""
    versions: dict[str, str]
    """By package: the version that took part in the export; see ``export_versions``."""
    parity: JsonTuple[dict[str, Any]]
    """One object per stage, kind of images and output; see ``export.precision_pipeline.Comparison``."""
    metrics: dict[str, dict[str, Any]]
    """By task: its metric at every stage."""
    engine: Engine | None = None
    """The engine of the same network, if one was built."""
    latency_ms: dict[str, float] = Field(default_factory=dict)
    """Median latency at the deploy resolution, batch 1, by what ran it on the machine of the export: "onnxruntime" on
    one thread of the CPU, "engine" on the GPU. Manifests of earlier versions lack this field."""
    machine: str | None = None
    """Name of the CPU of that machine."""
    sha256: dict[PlainName, str] = Field(default_factory=dict)
    """By file name: the checksum of each file in the folder; filled in by ``write_manifest``."""

    @property
    def has_fixed_size(self) -> bool:
        """Whether the ONNX file accepts images of one size alone."""
        return any(isinstance(side, int) for side in self.inputs[0].shape[2:])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that images are fitted to: those of the training if the ONNX file accepts them.

        Else, and where the architectures name no size or several, those of ``preprocessing``.
        """
        provenances = [document.get("provenance", {}) for document in self.architecture.values()]
        sizes = {tuple(provenance.get("trained_at") or ()) for provenance in provenances}
        if self.has_fixed_size or len(sizes) != 1 or not any(sizes):
            return self.preprocessing.resize
        height, width = sizes.pop()
        return height, width


def export_versions() -> dict[str, str]:
    """Versions of the packages that every export uses."""
    return {package: installed_version(package) for package in ("torch", "onnx", "onnxruntime")}


def installed_version(package: str) -> str:
    """The version of an installed package, or "none"; ONNX Runtime for GPUs is a distribution of another name."""
    with suppress(PackageNotFoundError):
        return version(package)
    for distribution in packages_distributions().get(package, ()):  # reads the file lists of all packages: a second
        with suppress(PackageNotFoundError):
            return version(distribution)
    return "none"


def write_manifest(folder: Path, manifest: Manifest, *, files: Sequence[str]) -> None:
    """Write ``manifest.json`` into ``folder``, with new checksums of ``files`` and the other checksums as they are.

    Raises:
        UserError: one of the files is missing, or the manifest cannot be written.
    """
    sha256 = {**manifest.sha256, **{name: file_sha256(folder / name) for name in files}}
    write_json(folder / NAME, {"schema": SCHEMA, **manifest.changed(sha256=sha256).to_json()})


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` from ``folder`` and compare the checksums of the other files with it.

    Raises:
        UserError: the manifest or a file is missing or damaged.
    """
    manifest = read_unverified_manifest(folder)
    for name in changed_files(folder, manifest):
        raise UserError(f"{folder / name} is not the file its manifest was written for: checksums differ. Export again")
    return manifest


def read_unverified_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` without looking at the other files.

    Raises:
        UserError: the manifest is missing or damaged.
    """
    path = folder / NAME
    if not path.exists() and (inner := sorted(file.parent for file in folder.glob(f"*/{NAME}"))):
        raise UserError(f"{folder} has exported folders: name one of {', '.join(map(str, inner))}")
    document = read_json(path, what="manifest", schema=(2, SCHEMA))
    fields = {name: value for name, value in document.items() if name != "schema"}
    try:
        return Manifest(**(_from_schema_2(fields) if document["schema"] == 2 else fields))
    except UserError as error:
        raise UserError(f"manifest file {path} is damaged ({error}): export again") from None


def _from_schema_2(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest of schema 2 under their names in schema 3; wrong values are left to the model."""
    renamed: dict[str, Any] = _renamed(fields, "answers", "task_outputs")
    renamed["engine"] = _renamed(renamed.get("engine"), "audited", "layers_source")
    if isinstance(renamed.get("parity"), list):
        renamed["parity"] = [
            _renamed(_renamed(row, "rung", "stage"), "pictures", "images") for row in renamed["parity"]
        ]
    if isinstance(renamed.get("metrics"), dict):
        renamed["metrics"] = {task: _renamed(row, "rungs", "stages") for task, row in renamed["metrics"].items()}
    return renamed


def _renamed(document: Any, old: str, new: str) -> Any:
    """A copy of an object with one of its fields renamed; any other value as it is."""
    if not isinstance(document, Mapping):
        return document
    return {new if name == old else name: value for name, value in document.items()}


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """The names of the files whose checksums differ from the manifest's.

    Raises:
        UserError: one of the files cannot be read.
    """
    return [name for name, expected in manifest.sha256.items() if file_sha256(folder / name) != expected]


def file_sha256(path: Path) -> str:
    """The checksum of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
