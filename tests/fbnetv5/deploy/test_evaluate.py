from pathlib import Path

import pytest

from fbnetv5 import api
from tests.command_line import document
from tests.contract.schemas import check_document


def test_a_network_is_evaluated_beside_its_baseline(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options = {"data": image_folder, "size": 64, "fit": "letterbox", "log": lines.append}
    evaluated = api.evaluate(arch=networks / "seg.json", baselines=[networks / "seg.json"], **options)  # type: ignore[arg-type]
    check_document(["eval"], evaluated.to_json())
    assert evaluated.comparison is not None
    assert evaluated.comparison.delta_m_percent == 0.0
    assert "read as several tasks" in lines[0]
    command = ["eval", "--arch", str(networks / "seg.json"), "--data", str(image_folder), "--size", "64"]
    printed = document(*command, "--fit", "letterbox", cwd=tmp_path)
    assert printed == evaluated.tasks["seg"].to_json()


def test_a_network_without_a_name_or_of_another_task_is_refused(networks: Path) -> None:
    with pytest.raises(api.UserError, match="name a network: --task det"):
        api.evaluate()
    with pytest.raises(api.UserError, match="is a network for cls, not for det"):
        api.evaluate("det", arch=networks / "cls.json")
