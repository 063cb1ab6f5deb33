"""The command as a whole: its plan, report, summary and exit code, with small parts in place of the real ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export import cuda
from tests.bare_python import bare_python
from tests.gpu.__main__ import NO_GPU, main
from tests.gpu.parts import PARTS, Part
from tests.gpu.processes import ROOT

PREAMBLE = """
import time

def summarise(result):
    return [f"figure {result['figure']}"]

def run(context):
    context.save({"figure": 1.5})
"""
BODIES = {
    "passes": "    return []",
    "fails": '    return ["one check failed"]',
    "raises": '    raise RuntimeError("a fault of the part")',
    "crashes": "    import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "    time.sleep(60)",
    "lacks": "    import a_package_that_is_nowhere",
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Part]:
    """Parts whose modules are in a folder of the test; each writes a figure, then ends in its way."""
    for name, body in BODIES.items():
        (tmp_path / f"part_that_{name}.py").write_text(f"{PREAMBLE}{body}\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    return {name: Part(name=name, purpose="-", packages=(), share=1.0, module=f"part_that_{name}") for name in BODIES}


def rehearse(parts: list[Part], folder: Path, minutes: float = 1.0) -> tuple[int, dict[str, Any]]:
    """Exit code and report of a rehearsal of these parts."""
    code = main(["--device", "cpu", "--output", str(folder), "--minutes", str(minutes)], tuple(parts))
    return code, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_without_a_gpu_all_parts_are_skipped_with_the_reason_and_the_exit_code_is_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "load_driver", lambda: None)
    assert main(["--output", str(tmp_path)]) == NO_GPU == 3
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {part["name"]: part["status"] for part in report["parts"]} == {part.name: "skipped" for part in PARTS}
    assert {part["reason"] for part in report["parts"]} == {"there is no NVIDIA GPU on this machine"}
    printed = capsys.readouterr().out
    assert all(f"  {part.name}: {part.purpose}\n" in printed for part in PARTS)
    assert "there is no NVIDIA GPU on this machine, so all parts are skipped" in printed


def test_a_part_that_fails_raises_or_crashes_does_not_end_the_others(parts: dict[str, Part], tmp_path: Path) -> None:
    names = ["fails", "raises", "crashes", "passes"]
    code, report = rehearse([parts[name] for name in names], tmp_path)
    assert code == 1
    assert [part["status"] for part in report["parts"]] == ["failed", "failed", "failed", "passed"]
    reasons = [part["reason"] for part in report["parts"]]
    assert reasons == [
        "one check failed",
        "exit code 1: RuntimeError: a fault of the part",
        "was ended by SIGSEGV",
        None,
    ]
    assert all(part["result"] == {"figure": 1.5} for part in report["parts"])
    assert report["rehearsal"] is True


def test_the_summary_names_every_part_with_its_figures(
    parts: dict[str, Part], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse([parts["passes"], parts["lacks"]], tmp_path)
    printed = capsys.readouterr().out
    assert "REHEARSAL on the CPU" in printed
    assert "passes passed (" in printed
    assert "  figure 1.5\n" in printed
    assert "not installed: a_package_that_is_nowhere" in printed


def test_a_missing_package_skips_the_part_and_is_no_failure(parts: dict[str, Part], tmp_path: Path) -> None:
    known_before = Part(name="search", purpose="-", packages=("numpy", "no-such-package"), share=1.0, module="none")
    code, report = rehearse([known_before, parts["lacks"]], tmp_path)
    assert code == 0
    assert [part["status"] for part in report["parts"]] == ["skipped", "skipped"]
    reasons = [part["reason"] for part in report["parts"]]
    assert reasons == ["not installed: no-such-package", "not installed: a_package_that_is_nowhere"]


def test_a_package_whose_import_fails_skips_a_real_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    (tmp_path / "torch.py").write_text(error, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    train = next(part for part in PARTS if part.name == "train")
    code, report = rehearse([train], tmp_path / "out")
    assert (code, report["parts"][0]["status"], report["parts"][0]["reason"]) == (0, "skipped", "not installed: torch")


def test_a_part_is_ended_at_its_limit_and_keeps_its_result(parts: dict[str, Part], tmp_path: Path) -> None:
    code, report = rehearse([parts["hangs"], parts["passes"]], tmp_path, minutes=0.2)
    hanging, next_part = report["parts"]
    assert (code, hanging["reason"], hanging["result"]) == (1, "did not end within 6.0 s", {"figure": 1.5})
    assert next_part["status"] == "passed"


def test_a_part_is_skipped_when_the_time_is_used_up(parts: dict[str, Part], tmp_path: Path) -> None:
    code, report = rehearse([parts["passes"]], tmp_path, minutes=0.05)
    assert (code, report["parts"][0]["reason"]) == (0, "the time is used up")


def test_a_part_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "search,speed"])
    assert "no part speed; the parts are environment, tests, search, profile, train" in capsys.readouterr().err


def test_importing_the_command_and_its_parts_needs_the_standard_library_only() -> None:
    modules = ["tests.gpu.__main__", "tests.gpu.worker", "tests.gpu.shares", *(part.module for part in PARTS)]
    code = f"import importlib; [importlib.import_module(name) for name in {modules}]"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True)


def test_a_machine_with_torch_and_onnx_only_gets_a_report_of_what_is_missing(tmp_path: Path) -> None:
    python = bare_python(tmp_path / "venv", "torch", "onnx", "onnxruntime")
    options = ["--device", "cpu", "--only", "tests,search,profile,train", "--output", str(tmp_path / "out")]
    subprocess.run([python, "-m", "tests.gpu", *options], cwd=ROOT, check=True)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert {part["status"] for part in report["parts"]} == {"skipped"}
    reasons = {part["name"]: part["reason"] for part in report["parts"]}
    assert "pytest" in reasons["tests"]
    assert "pycocotools" in reasons["search"]
    assert all("pydantic" in reason and " torch," not in reason for reason in reasons.values())
