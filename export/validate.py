"""Whether an exported folder still holds the network that was exported, on whatever machine it has come to.

Files are held against their checksums, and the outputs to the stored inputs against the stored outputs: those of the
ONNX file in ONNX Runtime, and of the engine where there is a GPU for it. An engine of another GPU or TensorRT is built
anew from the ONNX file, in the folder. Where outputs differ, the block that parted from the reference is named. No
training data is needed, nor torch.

What cannot be checked here is said to be so, and is no failure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.calibration import Progress
from export.cuda import found_gpus
from export.errors import UnavailableError, UserError, VerificationError
from export.faulty_block import find_culprit
from export.manifest import Manifest, changed_files, read_claims, version_here, write_manifest
from export.parity import SAME_FILE, compare_answers
from export.precision_pipeline import REAL, Compared, complaint_of, failure, values_of_blocks
from export.reference import Reference, read_reference, sample
from export.runners import OrtRunner, Runner
from export.trt import bindings
from export.trt.engine import NAME as ENGINE
from export.trt.engine import build_engine
from export.trt.engine_runner import EngineRunner, open_engine

ONNX = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """files, versions, onnx or engine."""
    passed: bool | None
    """None: it could not be checked here, or only tells."""
    detail: str
    compared: Compared | None = None
    """The figures, where outputs were compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What became of an exported folder."""

    manifest: Manifest
    """As it is now: an engine that was built anew is in it."""
    reference: Reference
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return all(finding.passed is not False for finding in self.findings)

    def holds(self, what: str) -> bool:
        """Whether that was checked here and passed."""
        return any(finding.what == what and finding.passed for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """What ``fbnetv5 validate --json`` prints, without the times."""
        engine = self.manifest.engine
        compared = [finding.compared for finding in self.findings if finding.compared is not None]
        return {
            "passed": self.passed,
            "precision": self.manifest.precision,
            "findings": [{"what": one.what, "passed": one.passed, "detail": one.detail} for one in self.findings],
            "parity": [entry for one in compared for entry in one.to_json()],
            "engine": None
            if engine is None
            else {"runtime": engine.runtime, "version": engine.version, "ran": self.holds("engine")},
        }


def validate(folder: Path, say: Callable[[str], None], progress: Progress | None = None) -> Validation:
    """Check an exported folder.

    Args:
        folder: holds ``manifest.json``.
        say: takes one line about what is being done.
        progress: told how far an engine's build is.

    Raises:
        UserError: the folder's manifest or reference is missing or damaged, or a file that it names cannot be read.
    """
    manifest, reference = read_claims(folder), read_reference(folder)
    changed = changed_files(folder, manifest)
    say("running the ONNX file")
    findings = [_files(manifest, changed), _versions(manifest), _onnx(folder, manifest, reference)]
    if manifest.engine is None:
        findings.append(Finding(what="engine", passed=None, detail="none was exported; fbnetv5 export --engine"))
    else:
        say("looking for a GPU for the engine")
        finding, manifest = _engine(folder, manifest, reference, changed, progress)
        findings.append(finding)
    return Validation(manifest=manifest, reference=reference, findings=tuple(findings))


def run_engine(engine: EngineRunner, manifest: Manifest, reference: Reference) -> Compared:
    """A loaded engine's outputs, held against the reference.

    Raises:
        UserError, VerificationError: the engine does not take the inputs, or its outputs are none that can be compared.
    """
    return _compared(f"{manifest.precision} engine", engine, manifest, reference)


def _files(manifest: Manifest, changed: list[str]) -> Finding:
    detail = f"{', '.join(changed)}: not what the manifest was written for" if changed else ", ".join(manifest.sha256)
    return Finding(what="files", passed=not changed, detail=detail)


def _versions(manifest: Manifest) -> Finding:
    """Tells of packages that are others here; whether that matters, the outputs show."""
    here = {package: version_here(package) for package in manifest.versions}
    others = [
        f"{name} {there} there, {here[name]} here" for name, there in manifest.versions.items() if there != here[name]
    ]
    return Finding(what="versions", passed=None, detail="; ".join(others) or "all as where it was exported")


def _onnx(folder: Path, manifest: Manifest, reference: Reference) -> Finding:
    content = (folder / ONNX).read_bytes()
    try:
        one = _compared(f"{manifest.precision} onnxruntime", OrtRunner(content), manifest, reference)
        if one.complaint is None:
            return Finding(what="onnx", passed=True, detail=_best(one), compared=one)
        blocks = values_of_blocks(content, content, reference.inputs)
        samples = {name: sample(values) for name, values in blocks.items()}
        culprit = find_culprit(content, reference.blocks, samples, manifest.precision)
        return Finding(what="onnx", passed=False, detail=failure(one, culprit), compared=one)
    except ImportError:
        return Finding(what="onnx", passed=None, detail="not run: onnxruntime is not here; pip install onnxruntime")
    except UserError as error:
        return Finding(what="onnx", passed=False, detail=str(error))


def _engine(
    folder: Path, manifest: Manifest, reference: Reference, changed: list[str], progress: Progress | None
) -> tuple[Finding, Manifest]:
    """The finding, and the manifest as it is then."""
    told = ""
    try:
        if not found_gpus():
            raise UnavailableError("no NVIDIA GPU here")
        engine, refusal = _open(folder, manifest)
        if engine is None:
            if ONNX in changed:
                return Finding(
                    what="engine", passed=False, detail=f"{refusal}; and {ONNX} is not as exported"
                ), manifest
            told = f"built anew, since the one in the folder is not for here ({refusal}): "
            manifest = _rebuild(folder, manifest, progress)
            engine, refusal = _open(folder, manifest)
        if engine is None:
            return Finding(what="engine", passed=False, detail=f"{told}{refusal}"), manifest
        one = run_engine(engine, manifest, reference)
    except UnavailableError as error:
        return Finding(what="engine", passed=None, detail=f"{told}not run: {error}"), manifest
    except UserError as error:
        return Finding(what="engine", passed=False, detail=f"{told}{error}"), manifest
    passed = one.complaint is None
    detail = f"{told}{_best(one) if passed else complaint_of(one)}"
    return Finding(what="engine", passed=passed, detail=detail, compared=one), manifest


def _open(folder: Path, manifest: Manifest) -> tuple[EngineRunner | None, str]:
    """The engine, or why it is not for this machine.

    Raises:
        UnavailableError: no TensorRT or what gives GPU memory is here.
    """
    assert manifest.engine is not None
    try:
        runtime = bindings.load(manifest.engine.runtime)
    except UnavailableError as error:
        bindings.find_flavour()  # there must be another, or there is nothing to build with
        return None, str(error)
    if runtime.version != manifest.engine.version:
        return None, f"it is of {runtime.name} {manifest.engine.version}, and {runtime.version} is here"
    try:
        return open_engine(folder / manifest.engine.file, runtime=runtime.name), ""
    except VerificationError as error:
        return None, str(error)


def _rebuild(folder: Path, manifest: Manifest, progress: Progress | None) -> Manifest:
    """Build the engine again on this machine, and say so in the folder's manifest; other checksums stay as they are."""
    assert manifest.engine is not None
    built = build_engine(
        folder / ONNX, folder / ENGINE, manifest.engine.shapes, precision=manifest.precision, progress=progress
    )
    write_manifest(folder, replace(manifest, engine=built), files=[ENGINE])
    return read_claims(folder)


def _compared(rung: str, run: Runner, manifest: Manifest, reference: Reference) -> Compared:
    gate = SAME_FILE[manifest.precision]
    outputs = compare_answers(reference.outputs, run(reference.inputs), manifest.answers.values(), gate=gate)
    return Compared(rung=rung, precision=manifest.precision, images=REAL, outputs=outputs, same=True)


def _best(one: Compared) -> str:
    """What a comparison that passed has to tell."""
    worst = max((parity.error for parity in one.outputs if not parity.ranked), default=0.0)
    return f"{one.rung} gives what was exported: at most {worst:.1e} of an output's range off"
