"""Validates an exported folder on any machine: does it still contain the network that was exported?

Files are compared with their checksums, and the outputs for the stored inputs with the stored outputs: the outputs of
the ONNX file in ONNX Runtime and, with a GPU, the outputs of the engine. An engine for another GPU or TensorRT is
rebuilt from the ONNX file, in the folder. If outputs differ, the faulty block is named. Neither training data nor torch
are needed.

A check that this machine cannot do is reported as such and is no failure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.cuda import find_gpus
from export.errors import UnavailableError, UserError, VerificationError
from export.faulty_block import find_faulty_block
from export.manifest import Manifest, changed_files, installed_version, read_unverified_manifest, write_manifest
from export.parity import SAME_FILE_GATES, compare_groups
from export.precision_pipeline import REAL, Comparison, block_values, explain_failure
from export.progress import Progress
from export.reference import Reference, read_reference, sample
from export.runners import OrtRunner, Runner
from export.trt import bindings
from export.trt.engine import NAME as ENGINE
from export.trt.engine import build_engine
from export.trt.engine_runner import EngineRunner, open_engine

ONNX = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    """files, versions, onnx or engine."""
    passed: bool | None
    """None: the check could not be done here, or is for information only."""
    detail: str
    comparison: Comparison | None = None
    """The compared outputs, if there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The results of all checks of an exported folder."""

    manifest: Manifest
    """The manifest after the validation: it has the engine, if that was rebuilt."""
    reference: Reference
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(finding.passed is not False for finding in self.findings)

    def passed_check(self, check: str) -> bool:
        """Whether this check was done here and passed."""
        return any(finding.check == check and finding.passed for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 validate --json``, without the latencies."""
        engine = self.manifest.engine
        comparisons = [finding.comparison for finding in self.findings if finding.comparison is not None]
        return {
            "passed": self.passed,
            "precision": self.manifest.precision,
            "findings": [
                {"check": finding.check, "passed": finding.passed, "detail": finding.detail}
                for finding in self.findings
            ],
            "parity": [row for comparison in comparisons for row in comparison.to_json()],
            "engine": None
            if engine is None
            else {"runtime": engine.runtime, "version": engine.version, "ran": self.passed_check("engine")},
        }


def validate(folder: Path, say: Callable[[str], None], progress: Progress | None = None) -> Validation:
    """Validate an exported folder.

    Args:
        folder: folder with a ``manifest.json``.
        say: called with a line at each step.
        progress: called with the progress of an engine's build.

    Raises:
        UserError: the folder's manifest or reference is missing or damaged, or one of its files cannot be read.
    """
    manifest, reference = read_unverified_manifest(folder), read_reference(folder)
    changed = changed_files(folder, manifest)
    say("running the ONNX file")
    findings = [_check_files(manifest, changed), _check_versions(manifest), _check_onnx(folder, manifest, reference)]
    if manifest.engine is None:
        findings.append(Finding(check="engine", passed=None, detail="none was exported; fbnetv5 export --engine"))
    else:
        say("looking for a GPU for the engine")
        finding, manifest = _check_engine(folder, manifest, reference, changed, progress)
        findings.append(finding)
    return Validation(manifest=manifest, reference=reference, findings=tuple(findings))


def run_engine(engine: EngineRunner, manifest: Manifest, reference: Reference) -> Comparison:
    """Run a loaded engine and compare its outputs with the reference.

    Raises:
        UserError, VerificationError: the engine does not accept the inputs, or its outputs cannot be compared.
    """
    return _compare(f"{manifest.precision} engine", engine, manifest, reference)


def _check_files(manifest: Manifest, changed: list[str]) -> Finding:
    detail = f"{', '.join(changed)}: not the files of the manifest" if changed else ", ".join(manifest.sha256)
    return Finding(check="files", passed=not changed, detail=detail)


def _check_versions(manifest: Manifest) -> Finding:
    """List packages of another version; the comparison of outputs shows whether that matters."""
    installed = {package: installed_version(package) for package in manifest.versions}
    differences = [
        f"{package} {exported} there, {installed[package]} here"
        for package, exported in manifest.versions.items()
        if exported != installed[package]
    ]
    return Finding(check="versions", passed=None, detail="; ".join(differences) or "equal to those of the export")


def _check_onnx(folder: Path, manifest: Manifest, reference: Reference) -> Finding:
    content = (folder / ONNX).read_bytes()
    try:
        runner = OrtRunner(content)
    except ImportError:
        return Finding(check="onnx", passed=None, detail="not run: no onnxruntime here; pip install onnxruntime")
    except UserError as error:
        return Finding(check="onnx", passed=False, detail=str(error))
    try:
        comparison = _compare(f"{manifest.precision} onnxruntime", runner, manifest, reference)
        if comparison.failure_reason is None:
            return Finding(check="onnx", passed=True, detail=_describe_pass(comparison), comparison=comparison)
        detail = _explain(comparison, content, manifest, reference)
        return Finding(check="onnx", passed=False, detail=detail, comparison=comparison)
    except UserError as error:
        return Finding(check="onnx", passed=False, detail=str(error))


def _explain(comparison: Comparison, content: bytes, manifest: Manifest, reference: Reference) -> str:
    """Why a comparison failed, with the block where the error begins if onnx is installed, which splits the graph."""
    try:
        blocks = block_values(content, content, reference.inputs)
        samples = {name: sample(values) for name, values in blocks.items()}
        output = comparison.failed_output
        faulty_block = find_faulty_block(content, reference.blocks, samples, manifest.precision, output=output)
    except ImportError:
        return comparison.failure_message
    return explain_failure(comparison, faulty_block)


def _check_engine(
    folder: Path, manifest: Manifest, reference: Reference, changed: list[str], progress: Progress | None
) -> tuple[Finding, Manifest]:
    """The finding, and the manifest after a rebuild of the engine, if there was one."""
    assert manifest.engine is not None
    rebuilt = ""
    try:
        if not find_gpus():
            raise UnavailableError("no NVIDIA GPU here")
        manifest.engine.check_code()
        engine, reason = _open(folder, manifest)
        if engine is None:
            if ONNX in changed:
                detail = f"{reason}; and {ONNX} is not as exported"
                return Finding(check="engine", passed=False, detail=detail), manifest
            rebuilt = f"rebuilt, because the engine in the folder is not for this machine ({reason}): "
            manifest = _rebuild(folder, manifest, progress)
            engine, reason = _open(folder, manifest)
        if engine is None:
            return Finding(check="engine", passed=False, detail=f"{rebuilt}{reason}"), manifest
        comparison = run_engine(engine, manifest, reference)
    except UnavailableError as error:
        return Finding(check="engine", passed=None, detail=f"{rebuilt}not run: {error}"), manifest
    except UserError as error:
        return Finding(check="engine", passed=False, detail=f"{rebuilt}{error}"), manifest
    passed = comparison.failure_reason is None
    detail = f"{rebuilt}{_describe_pass(comparison) if passed else comparison.failure_message}"
    return Finding(check="engine", passed=passed, detail=detail, comparison=comparison), manifest


def _open(folder: Path, manifest: Manifest) -> tuple[EngineRunner | None, str]:
    """The engine, or None and the reason why it does not load, if it is of another GPU or TensorRT.

    Raises:
        UnavailableError: no TensorRT is installed, or no package that allocates GPU memory.
        VerificationError: it does not load, although it is of this GPU and TensorRT, as without enough memory.
    """
    assert manifest.engine is not None
    try:
        variant = bindings.load_variant(manifest.engine.runtime)
    except UnavailableError as error:
        bindings.find_variant()  # raises if there is no other variant to rebuild the engine with
        return None, str(error)
    if variant.version != manifest.engine.version:
        return None, f"it is of {variant.name} {manifest.engine.version}, and {variant.version} is here"
    try:
        return open_engine(folder / manifest.engine.file, runtime=variant.name), ""
    except VerificationError as error:
        if manifest.engine.gpu in [gpu.name for gpu in find_gpus()]:
            raise
        return None, str(error)


def _rebuild(folder: Path, manifest: Manifest, progress: Progress | None) -> Manifest:
    """Rebuild the engine on this machine and write it to the folder's manifest; other checksums stay as they are."""
    assert manifest.engine is not None
    engine = build_engine(
        folder / ONNX,
        folder / ENGINE,
        manifest.engine.shapes,
        precision=manifest.precision,
        options=manifest.engine.build_options,
        progress=progress,
    )
    write_manifest(folder, manifest.changed(engine=engine), files=[ENGINE])
    return read_unverified_manifest(folder)


def _compare(stage: str, run: Runner, manifest: Manifest, reference: Reference) -> Comparison:
    gate, groups = SAME_FILE_GATES[manifest.precision], manifest.task_outputs.values()
    outputs = compare_groups(reference.outputs, run(reference.inputs), groups, gate=gate)
    return Comparison(stage=stage, precision=manifest.precision, images=REAL, outputs=outputs, same_file=True)


def _describe_pass(comparison: Comparison) -> str:
    return f"{comparison.stage} gives the exported outputs: error at most {comparison.max_error:.1e} of their range"
