"""The figures of the check on onnx's test models, on results made up here."""

import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from benchmarks.backend_models import check_missing, check_model, figures, refusals_table
from tests.tensorrt_marks import with_tensorrt


def record(built: bool, validated: bool, hint: str | None = "cast it") -> dict[str, Any]:
    problem = {"stage": "builder", "code": "REFUSED", "operator": "TopK", "message": "a | b", "hint": hint}
    by_mode = {"built": built, "validated": validated}
    return {mode: {"accepted": ok, "problems": [] if ok else [problem]} for mode, ok in by_mode.items()}


def test_the_share_is_of_the_models_accepted_without_a_build() -> None:
    counted = figures([record(True, True), record(False, True), record(False, False), record(True, False)])
    assert (counted["accepted_without_build"], counted["not_built"], counted["share_not_built"]) == (2, 1, 0.5)
    assert (counted["built"], counted["refused_without_build_but_built"]) == (2, 1)
    assert not counted["as_expected"]


def test_an_error_or_a_refusal_without_a_hint_is_not_expected() -> None:
    good = [record(True, True), record(False, False)]
    assert figures(good)["as_expected"]
    assert not figures([*good, {"error": "it ended"}])["as_expected"]
    assert not figures([*good, record(False, False, hint=None)])["as_expected"]


def test_the_table_has_the_refused_models_only() -> None:
    table = refusals_table({"good": record(True, True), "bad": record(False, False)}, 30, seed=0)
    assert table.splitlines()[2:] == ["| bad | TopK | builder: a \\| b | cast it |"]


@with_tensorrt
def test_only_missing_models_are_checked(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    path, results = tmp_path / "relu.onnx", tmp_path / "results.jsonl"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    results.write_text(json.dumps({"model": "old", "error": "kept"}) + "\n")
    records = check_missing([tmp_path / "old.onnx", path], results, jobs=1)
    assert records["old"] == {"error": "kept"}
    assert records["relu"] == check_model(path)
    assert len(results.read_text().splitlines()) == 2
