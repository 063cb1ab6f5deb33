from pathlib import Path

import pytest

from fbnetv5.cli.doctor import print_diagnosis
from fbnetv5.deploy.doctor import Diagnosis, Finding, abilities
from tests.command_line import document


def test_a_missing_part_is_no_failure_of_the_command(without_tensorrt: None, tmp_path: Path) -> None:
    diagnosis = document("doctor", cwd=tmp_path)
    assert {ability["name"]: ability["works"] for ability in diagnosis["abilities"]} == {
        "profile": True,
        "build": False,
        "run": True,
    }


def test_fixes_and_abilities_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    findings = (
        Finding(part="torch", status="works", detail="2.9", fix=None),
        Finding(part="onnxruntime", status="missing", detail="not installed", fix="pip install onnxruntime"),
    )
    print_diagnosis(Diagnosis(findings=findings, abilities=abilities(findings)))
    assert capsys.readouterr().out.splitlines()[:4] == [
        "torch: works: 2.9",
        "onnxruntime: missing: not installed",
        "  fix: pip install onnxruntime",
        "cannot profile: torch and onnxruntime are needed",
    ]
