"""Whether an exported folder still holds the network that was exported, on whatever machine it has come to.

Files are held against their checksums, and the outputs to the stored inputs against the stored outputs: those of the
ONNX file in ONNX Runtime, and of the engine where there is a GPU for it. An engine of another GPU or TensorRT is built
anew from the ONNX file, in the folder. Where outputs differ, the block that parted from the reference is named. No
training data is needed, nor torch.

What cannot be checked here is said to be so, and is no failure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export import tensorrt
from export.blame import find_culprit
from export.calibration import Progress
from export.engine import NAME as ENGINE
from export.engine import Engine, build_engine
from export.engine_runner import open_engine
from export.errors import CheckFailed, NotHere, UserError
from export.ladder import REAL, Compared, failure, values_of_blocks
from export.manifest import Manifest, changed_files, read_claims, write_manifest
from export.options import EngineOptions
from export.parity import GATES, compare_answers
from export.reference import NAME as REFERENCE
from export.reference import Reference, read_reference, sample
from export.runners import OrtRunner, Runner

ONNX = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """files, versions, onnx or engine."""
    passed: bool | None
    """None: it could not be checked here, or only tells."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What became of an exported folder."""

    manifest: Manifest
    reference: Reference
    findings: tuple[Finding, ...]
    compared: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return all(finding.passed is not False for finding in self.findings)

    @property
    def engine_ran(self) -> bool:
        """There is an engine that gives what it should, on this machine's GPU."""
        return any(finding.what == "engine" and finding.passed for finding in self.findings)


def validate(folder: Path, say: Callable[[str], None], progress: Progress | None = None) -> Validation:
    """Check an exported folder.

    Args:
        folder: holds ``manifest.json``.
        say: takes one line about what is being done.
        progress: told how far an engine's build is.

    Raises:
        UserError: the folder's manifest, reference or ONNX file is missing, or cannot be read.
    """
    manifest, reference = read_claims(folder), read_reference(folder)
    changed = changed_files(folder, manifest)
    findings = [_files(manifest, changed), _versions(manifest)]
    compared: list[Compared] = []
    say("running the ONNX file")
    findings.append(_onnx(folder, manifest, reference, compared))
    if tensorrt.load_driver() is None:
        findings.append(Finding(what="engine", passed=None, detail="not run: no NVIDIA driver here, so no GPU"))
    else:
        say("running the engine")
        finding, manifest = _engine(folder, manifest, reference, compared, progress)
        findings.append(finding)
    return Validation(manifest=manifest, reference=reference, findings=tuple(findings), compared=tuple(compared))


def run_engine(folder: Path, manifest: Manifest, reference: Reference) -> Compared:
    """The outputs of the engine in the folder on this machine's GPU, held against the reference.

    Raises:
        NotHere: the GPU, TensorRT, or what gives GPU memory is missing.
        CheckFailed: the GPU refuses the engine.
    """
    assert manifest.engine is not None
    engine = open_engine(folder / manifest.engine.file, runtime=manifest.engine.runtime)
    return _compared(f"{manifest.precision} {manifest.engine.runtime}", engine, manifest, reference)


def _files(manifest: Manifest, changed: list[str]) -> Finding:
    detail = f"{', '.join(changed)}: not what the manifest was written for" if changed else ", ".join(manifest.sha256)
    return Finding(what="files", passed=not changed, detail=detail)


def _versions(manifest: Manifest) -> Finding:
    """Tells of packages that are others here; whether that matters, the outputs show."""
    others = []
    for package, exported_with in manifest.versions.items():
        try:
            here = version(package)
        except PackageNotFoundError:
            here = "none"
        if here != exported_with:
            others.append(f"{package} {exported_with} there, {here} here")
    return Finding(what="versions", passed=None, detail="; ".join(others) or "all as where it was exported")


def _onnx(folder: Path, manifest: Manifest, reference: Reference, compared: list[Compared]) -> Finding:
    try:
        content = (folder / ONNX).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {folder / ONNX}: {error.strerror or error}") from None
    try:
        runner = OrtRunner(content)
    except ImportError:
        return Finding(what="onnx", passed=None, detail="not run: onnxruntime is not here; pip install onnxruntime")
    one = _compared(f"{manifest.precision} onnxruntime", runner, manifest, reference)
    compared.append(one)
    if one.complaint is None:
        return Finding(what="onnx", passed=True, detail=_best(one))
    blocks = values_of_blocks(content, content, reference.inputs)
    samples = {name: sample(values) for name, values in blocks.items()}
    culprit = find_culprit(content, reference.blocks, samples, manifest.precision)
    return Finding(what="onnx", passed=False, detail=failure(one, culprit))


def _engine(
    folder: Path, manifest: Manifest, reference: Reference, compared: list[Compared], progress: Progress | None
) -> tuple[Finding, Manifest]:
    """The finding, and the manifest as it is then: an engine built anew is in it."""
    if manifest.engine is None:
        return Finding(what="engine", passed=None, detail="none was exported; fbnetv5 export --engine"), manifest
    rebuilt = ""
    try:
        try:
            one = run_engine(folder, manifest, reference)
        except (NotHere, CheckFailed) as error:
            manifest = _rebuild(folder, manifest, manifest.engine, progress)
            rebuilt = f"built anew, since the one in the folder does not run here ({error}): "
            one = run_engine(folder, manifest, reference)
    except NotHere as error:
        return Finding(what="engine", passed=None, detail=f"not run: {error}"), manifest
    except CheckFailed as error:
        return Finding(what="engine", passed=False, detail=str(error)), manifest
    compared.append(one)
    if one.complaint is not None:
        return Finding(what="engine", passed=False, detail=f"{rebuilt}{failure(one, None)}"), manifest
    return Finding(what="engine", passed=True, detail=f"{rebuilt}{_best(one)}"), manifest


def _rebuild(folder: Path, manifest: Manifest, engine: Engine, progress: Progress | None) -> Manifest:
    """Build the engine again on this machine, and say so in the folder's manifest."""
    built = build_engine(
        folder / ONNX,
        folder / ENGINE,
        engine.shapes,
        precision=manifest.precision,
        options=EngineOptions(),
        progress=progress,
    )
    changed = replace(manifest, engine=built)
    write_manifest(folder, changed, files=[ONNX, REFERENCE, ENGINE])
    return changed


def _compared(rung: str, run: Runner, manifest: Manifest, reference: Reference) -> Compared:
    outputs = compare_answers(
        reference.outputs,
        run(reference.inputs),
        manifest.answers.values(),
        gate=GATES[manifest.precision],
    )
    return Compared(rung=rung, precision=manifest.precision, pictures=REAL, outputs=outputs)


def _best(one: Compared) -> str:
    """What a comparison that passed has to tell."""
    worst = max(parity.error for parity in one.outputs if not parity.ranked)
    return f"{one.rung} gives what was exported: at most {worst:.1e} of an output's range off"


def to_json(validation: Validation) -> dict[str, Any]:
    """What ``fbnetv5 validate --json`` prints, without the times."""
    engine = validation.manifest.engine
    return {
        "passed": validation.passed,
        "precision": validation.manifest.precision,
        "findings": [
            {"what": finding.what, "passed": finding.passed, "detail": finding.detail}
            for finding in validation.findings
        ],
        "parity": [entry for one in validation.compared for entry in one.to_json()],
        "engine": None
        if engine is None
        else {"runtime": engine.runtime, "version": engine.version, "ran": validation.engine_ran},
    }
