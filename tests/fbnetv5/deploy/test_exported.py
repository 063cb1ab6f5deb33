from pathlib import Path

import pytest

from export.errors import VerificationError
from fbnetv5.deploy.exported import check_drop, metric_document
from tests.contract.schemas import check_document
from tests.fbnetv5.deploy.conftest import MakeExported


def test_the_document_of_one_task_is_valid(make_exported: MakeExported, tmp_path: Path) -> None:
    exported = make_exported(tmp_path)
    printed = exported.to_json()
    check_document(["export", "--task", "cls"], printed)
    assert (printed["task"], printed["onnx"]) == ("cls", str(tmp_path / "cls" / "model.onnx"))
    assert printed["macs"] == exported.model.architectures["cls"].cost.macs
    assert printed["latency_ms"] == {"predicted": None, "table": None, "measured": 1.25, "engine": None}


def test_a_drop_is_positive_where_the_exported_network_is_worse(make_exported: MakeExported, tmp_path: Path) -> None:
    exported = make_exported(tmp_path, torch_top1=0.5, onnx_top1=0.4)
    assert exported.drops == {"cls": pytest.approx(0.1)}
    metric = metric_document(exported, "cls")
    assert (metric["name"], metric["torch"], metric["onnxruntime"]) == ("top1", 0.5, 0.4)
    assert (metric["drop"], metric["resolution"]) == (pytest.approx(0.1), [32, 32])


@pytest.mark.parametrize(("stage", "value"), [("fp32", 0.2), ("fp32", float("nan")), ("engine", 0.2)])
def test_a_metric_that_drops_too_much_or_is_no_number_fails(
    make_exported: MakeExported, tmp_path: Path, stage: str, value: float
) -> None:
    tasks, metrics = make_exported(tmp_path).model.tasks, {"torch": {"cls": 0.5}, stage: {"cls": value}}
    left = "the engine is removed" if stage == "engine" else "nothing is written"
    with pytest.raises(VerificationError, match=rf"cls: top1 goes from 0\.5000 in torch to .* in {stage}, .*; {left}"):
        check_drop(tasks, metrics, stage, 0.1)
    check_drop(tasks, metrics, stage, None)
    check_drop(tasks, {"torch": {"cls": 0.5}, stage: {"cls": 0.45}}, stage, 0.1)


def test_the_largest_error_is_that_of_the_parity_rows(make_exported: MakeExported, tmp_path: Path) -> None:
    exported = make_exported(tmp_path)
    assert exported.max_error == max(row["error"] for row in exported.parity_rows) < 1e-4
