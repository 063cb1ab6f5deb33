import os
from pathlib import Path

import pytest

from fbnetv5.deploy import doctor as module
from fbnetv5.deploy.doctor import PROBES, Finding, Status, abilities, doctor

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


def findings(**status: Status) -> tuple[Finding, ...]:
    return tuple(Finding(part=part, status=state, detail="1.0", fix=None) for part, state in status.items())


def test_every_part_has_a_finding_and_a_broken_part_has_a_fix_or_needs_the_driver() -> None:
    diagnosis = doctor()
    assert [finding.part for finding in diagnosis.findings] == [probe.part for probe in PROBES]
    status = {finding.part: finding.status for finding in diagnosis.findings}
    assert status["torch"] == status["onnxruntime"] == "works"
    for finding in diagnosis.findings:
        assert (finding.status == "works") == (finding.fix is None) or finding.detail == "needs the driver"
    assert [ability.name for ability in diagnosis.abilities] == ["profile", "build", "run"]


BINDINGS = """
__version__ = '10.9'
class ILogger: pass
class NetworkDefinitionCreationFlag: STRONGLY_TYPED = 1
"""


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (CRASH, "broken", "was ended by SIGSEGV"),
        ("raise ImportError('libnvinfer.so.11: cannot open')", "missing", "does not load (libnvinfer.so.11"),
        ("import tensorrt_libs", "missing", "does not load (No module named 'tensorrt_libs')"),
        ("", "missing", "without its content"),
        ("__version__ = '8.6'\nBuilder = id", "missing", "8.6 is too old"),
        (f"{BINDINGS}\nBuilder = None", "missing", "without an NVIDIA driver"),
        (f"{BINDINGS}\nBuilder = id", "works", "10.9"),
    ],
    ids=["crash", "no library", "incomplete", "stubs", "old", "no driver", "complete"],
)
def test_tensorrt_in_any_state_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, status: Status, detail: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(module, "PROBES", tuple(probe for probe in PROBES if probe.part == "tensorrt"))
    (finding,) = doctor().findings
    assert finding.status == status
    assert detail in finding.detail


def test_onnxruntime_installed_twice_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(module, "PROBES", tuple(probe for probe in PROBES if probe.part == "onnxruntime"))
    (finding,) = doctor().findings
    assert finding.status == "broken"
    assert "overwrite each other" in finding.detail
    assert "uninstall" in (finding.fix or "")


def test_one_variant_is_enough_to_build() -> None:
    _, build, _ = abilities(findings(torch="works", onnxruntime="works", tensorrt="missing", tensorrt_rtx="works"))
    assert build.works
    assert build.detail.endswith("with tensorrt_rtx 1.0")


def test_without_torch_nothing_is_profiled_or_run() -> None:
    profile, build, run = abilities(findings(torch="broken", onnxruntime="works", tensorrt_rtx="broken"))
    assert not profile.works
    assert not build.works
    assert not run.works


@pytest.mark.parametrize(("number", "version"), [(13000, "13.0"), (12080, "12.8"), (11040, "11.4")])
def test_cuda_versions_are_decoded(number: int, version: str) -> None:
    assert module._cuda_version(number) == version


@pytest.mark.parametrize(("gpu", "runs"), [("works", "and engines"), ("missing", "no engines")])
def test_engines_run_where_there_is_a_gpu(gpu: Status, runs: str) -> None:
    working = findings(torch="works", onnxruntime="works", tensorrt="works", gpu=gpu)
    (ability,) = (ability for ability in abilities(working) if ability.name == "run")
    assert runs in ability.detail
