"""The commands as a user types them: one search from profile to export, and every wrong argument."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from export.manifest import read_manifest
from fbnetv5.cli import entry
from fbnetv5.costs.tables import latency_table
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from latency.table import LatencyTable
from tests.command_line import document, fbnetv5
from tests.contract.schemas import check_document

QUICK = Path(__file__).parent.parent.parent / "quick-search.json"
SMALL = ["--stages", "1", "--blocks-per-path", "1"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where profile and search have run."""
    folder = tmp_path_factory.mktemp("work")
    table = document("profile", *SMALL, "--resolution", "64", "--networks", "9", cwd=folder)
    assert table["table"] == "luts/cpu-fp32-b1.json"
    assert all(value > 0 for value in table["latency_ms_p50"].values())
    assert table["latency_ms"].keys() == table["latency_ms_p50"].keys()
    assert table["measured"] == len(table["latency_ms"]) + 9 + 1  # a call that does nothing is measured too
    assert table["held_out"]["networks"] == 3
    assert sorted(path.name for path in (folder / "luts").iterdir()) == ["cpu-fp32-b1.html", "cpu-fp32-b1.json"]
    assert table["report"] == "luts/cpu-fp32-b1.html"
    assert all(key in (folder / table["report"]).read_text() for key in table["latency_ms"])
    found = document(
        "search", "--flops", "15M@64x64", "--device", "cpu", "--config", str(QUICK), "--name", "one", *SMALL, cwd=folder
    )
    assert set(found["architectures"]) == {"cls", "det", "seg"}
    return folder


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(work: Path) -> None:
    before = (work / "luts" / "cpu-fp32-b1.json").read_bytes()
    lacking = document("profile", *SMALL, "--resolution", "64", "--networks", "10", "--dry-run", cwd=work)
    assert lacking["blocks"] == []
    assert len(lacking["networks"]) == 1
    other = document("profile", *SMALL, "--resolution", "64", "--threads", "2", "--dry-run", cwd=work)
    assert other["table"] == "luts/cpu-fp32-b1-t2.json"
    assert len(other["blocks"]) > 20
    assert len(other["networks"]) == 48
    assert (work / "luts" / "cpu-fp32-b1.json").read_bytes() == before


def test_a_table_is_compared_with_random_networks(work: Path) -> None:
    table = "luts/cpu-fp32-b1.json"
    found = document("profile", "verify", table, "--networks", "2", *SMALL, "--resolution", "64", cwd=work)
    errors = {"mape", "bias", "within_5", "within_10", "kendall_tau"}
    assert found.keys() == {"networks", "standalone", "flops", "noise", "speed"} | errors
    assert found["standalone"].keys() == found["flops"].keys() == errors
    assert found["networks"] == 2
    missing = fbnetv5("profile", "verify", table, "--networks", "2", *SMALL, "--resolution", "96", cwd=work)
    assert missing.returncode == 2
    assert "blocks have no entry in the cpu table, first: " in missing.stderr
    assert "fbnetv5 profile --device cpu" in missing.stderr


@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_show_agrees_with_the_file_and_the_budget(work: Path, task: str) -> None:
    shown = document("show", f"runs/latest/{task}.json", cwd=work)
    stored = json.loads((work / "runs" / "one" / f"{task}.json").read_text())
    assert shown["macs"] == stored["cost"]["macs"]
    assert 0.85 * 15e6 <= shown["macs"] <= 15e6
    assert stored["cost"]["latency_ms"]["value"] > 0


def test_export_writes_a_file_per_task_that_equals_torch(work: Path) -> None:
    exported = document("export", cwd=work)["exported"]
    assert [one["task"] for one in exported] == ["cls", "det", "seg"]
    for one in exported:
        assert (work / one["folder"] / "model.onnx").exists()
        assert all(parity["error"] <= 1e-4 for parity in one["parity"])
        assert one["metric"]["onnxruntime"] == pytest.approx(one["metric"]["torch"], abs=1e-3)


def test_a_search_within_milliseconds_follows_the_table(work: Path) -> None:
    space = FourPathSpace(stages=1, blocks_per_path=1)
    table = LatencyTable.load(work / "luts" / "cpu-fp32-b1.json")
    task = make_tasks(("det",), CLASSES)["det"]
    costs = latency_table(space, task, (64, 64), table.values_ms)
    budget = (costs.min_cost + costs.max_cost) / 2
    quick = ["--tasks", "det", "--device", "cpu", "--config", str(QUICK), "--runs", "in-ms", *SMALL]
    found = document("search", "--latency", f"{budget:.6f}ms@64x64", *quick, cwd=work)
    latency = found["architectures"]["det"]["cost"]["latency_ms"]
    assert 0.85 * budget <= latency["value"] <= budget
    assert latency["table"] == "cpu-fp32-b1"


def test_an_engine_is_built_without_a_gpu_and_says_that_it_was_not_run(work: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    exported = document("export", "--task", "seg", "--engine", "--precision", "fp16", cwd=work)
    assert (work / exported["engine"]).stat().st_size > 1_000_000
    assert exported["ran"] is False
    assert exported["precision"]["requested"] == "fp16"
    assert exported["precision"]["layers"]["HALF"] > exported["precision"]["layers"]["FLOAT"]
    assert {one["stage"] for one in exported["parity"]} == {"fp32 onnxruntime", "fp16 onnxruntime"}
    assert list(exported["metric"]["stages"]) == ["torch", "fp32", "fp16"]
    manifest = read_manifest(work / exported["folder"])
    assert manifest.engine is not None
    assert set(manifest.sha256) == {"model.onnx", "model.engine", "reference.npz"}


def test_an_engine_that_cannot_be_built_leaves_the_onnx_file_and_no_older_engine(
    without_tensorrt: None, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "cls").mkdir()
    (tmp_path / "cls" / "model.engine").write_bytes(b"of another network")
    done = fbnetv5("export", "--task", "cls", "--engine", "--output", str(tmp_path), "--json", cwd=work)
    assert done.returncode == 3
    assert "pip install 'fbnetv5[rtx]'" in done.stderr
    assert "--minShapes=images:1x3x64x64 --optShapes=images:1x3x64x64 --maxShapes=images:8x3x64x64" in done.stderr
    exported = json.loads(done.stdout)
    check_document(["export", "--task", "cls"], exported)
    assert exported["engine"] is None
    assert read_manifest(tmp_path / "cls").engine is None
    assert {path.name for path in (tmp_path / "cls").iterdir()} == {"model.onnx", "reference.npz", "manifest.json"}


def test_several_tasks_in_one_file_from_pixels_are_validated_elsewhere(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    options = ["--precision", "fp16", "--pixels", "--engine", "--output", str(tmp_path)]
    exported = document("export", "--task", "cls,seg", *options, cwd=work)
    assert exported["precision"]["layers"]["HALF"] > 0
    assert exported["sharing"]["blocks_shared"] > 0
    for found in exported["tasks"].values():
        assert list(found["metric"]["stages"]) == ["torch", "fp32", "fp16"]
    folder = tmp_path / "cls+seg"
    manifest = read_manifest(folder)
    assert [one.dtype for one in manifest.inputs] == ["uint8"]
    assert [one.name for one in manifest.outputs] == ["cls_logits", "seg_logits"]
    assert document("validate", str(folder), cwd=tmp_path)["passed"]
    whole = (folder / "reference.npz").read_bytes()
    (folder / "reference.npz").write_bytes(whole[:-100])
    done = fbnetv5("validate", str(folder), cwd=tmp_path)
    assert done.returncode == 2
    assert "reference.npz is damaged" in done.stderr


def test_a_metric_that_drops_too_far_fails_and_nothing_is_written(work: Path, tmp_path: Path) -> None:
    done = fbnetv5("export", "--task", "cls", "--max-drop", "-0.5", "--output", str(tmp_path), cwd=work)
    assert done.returncode == 1
    assert "and at most -0.5 was allowed (--max-drop); nothing is written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_detector_answers_in_the_form_asked_for(work: Path, tmp_path: Path) -> None:
    usual = document("export", "--task", "det", "--output", str(tmp_path / "topk"), cwd=work)
    exported = document("export", "--task", "det", "--head", "decode", "--output", str(tmp_path), cwd=work)
    assert [one.name for one in read_manifest(tmp_path / "det").outputs] == ["boxes", "scores"]
    assert exported["metric"]["onnxruntime"] == pytest.approx(usual["metric"]["onnxruntime"], abs=1e-6)
    assert exported["metric"]["onnxruntime"] > 0


def test_an_unreachable_latency_budget_says_what_is_reachable(work: Path) -> None:
    ranges = fbnetv5("search", "--latency", "900ms@64x64", "--device", "cpu", *SMALL, cwd=work)
    assert ranges.returncode == 2
    assert "networks of this space cost" in ranges.stderr
    assert "outside what this space offers" in ranges.stderr
    assert "Traceback" not in ranges.stderr


def test_a_table_without_the_blocks_asked_for_names_one_and_the_command(work: Path) -> None:
    done = fbnetv5("search", "--latency", "3ms@96x96", "--device", "cpu", *SMALL, cwd=work)
    assert done.returncode == 2
    assert "blocks have no entry" in done.stderr
    assert "fbnetv5 profile --device cpu" in done.stderr


def test_a_table_is_compared_with_the_networks_of_a_run(work: Path) -> None:
    table, small = "luts/cpu-fp32-b1.json", [*SMALL, "--resolution", "64"]
    found = document("profile", "verify", table, "--run", "runs/one", *small, cwd=work)
    assert found["networks"] == 3


WRONG = {
    "no budget": (["search"], "either --flops, such as 400M, or --latency"),
    "two budgets": (["search", "--flops", "400M", "--latency", "8ms"], "either --flops"),
    "no unit": (["search", "--flops", "400"], "positive number with its unit"),
    "negative": (["search", "--flops=-1M"], "positive number with its unit"),
    "too small": (["search", "--flops", "1M"], "outside what this space offers"),
    "too large": (["search", "--flops", "900G"], "outside what this space offers"),
    "unknown task": (["search", "--flops", "400M", "--tasks", "cls,pose"], "unknown task 'pose'"),
    "unknown variant": (["search", "--flops", "400M", "--variant", "q"], "unknown variant 'q'"),
    "unknown device": (["profile", "--device", "abacus"], "no device 'abacus'"),
    "no threads": (["profile", "--threads", "0"], "--threads"),
    "few networks": (["profile", "--networks", "3"], "at least 9 measured networks, not 3"),
    "nothing to verify": (["profile", "verify", "luts/none.json"], "does not exist"),
    "unknown network": (["show", "fbnetv3-z"], "unknown network 'fbnetv3-z'"),
    "no such file": (["show", "runs/none/det.json"], "does not exist"),
    "no such folder": (["search", "--flops", "400M", "--data", "nowhere"], "nowhere"),
    "odd size": (["search", "--flops", "400M", "--size", "65x65"], "multiples of 32"),
    "no such ONNX file": (["check", "nowhere.onnx"], "cannot read nowhere.onnx"),
    "no run": (["export"], "does not exist"),
    "unknown precision": (["export", "--precision", "fp8"], "there is no precision 'fp8'"),
    "two sizes": (["export", "--fixed-size", "--dynamic-size"], "exclude each other"),
    "engine of nms": (["export", "--task", "det", "--head", "nms", "--engine"], "TensorRT builds no engine of it"),
    "head of all": (["export", "--head", "decode"], "--head is of one task; add --task det"),
    "keep what is float": (["export", "--keep-float", "/head/*"], "needs --precision int8"),
    "config of no engine": (["export", "--engine-config", "e.json"], "it needs --engine"),
    "nothing to validate": (["validate", "nowhere"], "manifest file nowhere/manifest.json does not exist"),
    "no run to resume": (["search", "--resume", "runs/none"], "does not exist"),
    "resume otherwise": (["search", "--resume", "r", "--seed", "0", "--config", "c"], "leave out --seed, --config"),
    "train otherwise": (["train", "--resume", "r", "--init", "timm", "--size", "64"], "leave out --init, --size"),
    "no table": (["search", "--latency", "8ms", "--device", "cpu"], "fbnetv5 profile --device cpu"),
    "latency of nothing": (["search", "--latency", "8ms"], "add --device cpu, or --table FILE"),
    "unknown option": (["search", "--flop", "400M"], "--flop"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_clear_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = fbnetv5(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["profile"], ["search", "--latency", "8ms"]])
def test_a_device_that_is_not_here_is_exit_code_3_and_the_other_ways_are_named(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = fbnetv5(*arguments, "--device", "a100", cwd=tmp_path)
    assert done.returncode == 3
    line = " ".join(done.stderr.split())
    assert "device 'a100' is not here: no NVIDIA device or driver was found on this machine" in line
    assert "fbnetv5 profile bundle FOLDER --device a100" in line
    assert "fbnetv5 profile estimate --device a100" in line
    assert list(tmp_path.iterdir()) == []


def test_check_has_an_exit_code_for_its_result(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    for operator, code in (("Relu", 0), ("Sharpen", 1)):
        path = relu(tmp_path / f"{operator}.onnx", operator)
        done = fbnetv5("check", str(path), "--json", cwd=tmp_path)
        assert done.returncode == code, done.stderr
        result = json.loads(done.stdout)
        check_document(["check"], result)
        assert result["accepted"] == (code == 0)
        done = fbnetv5("check", str(path), cwd=tmp_path)
        assert ("hint: " in done.stdout) == (code == 1)


def test_check_without_tensorrt_names_the_package_to_install(without_tensorrt: None, tmp_path: Path) -> None:
    done = fbnetv5("check", str(relu(tmp_path / "m.onnx")), cwd=tmp_path)
    assert done.returncode == 3
    assert "pip install 'fbnetv5[rtx]'" in done.stderr


def test_doctor_finds_what_is_missing_and_still_ends_well(without_tensorrt: None, tmp_path: Path) -> None:
    diagnosis = document("doctor", cwd=tmp_path)
    assert {ability["name"]: ability["works"] for ability in diagnosis["abilities"]} == {
        "profile": True,
        "build": False,
        "run": True,
    }


def relu(path: Path, operator: str = "Relu") -> Path:
    """A graph of one operator."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ('{"step": 3}', "no field 'step'"),
        ('{"steps": "3"}', "search: steps: must be a valid integer, not '3'"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_wrong_config_file_names_the_field(tmp_path: Path, field: str, message: str) -> None:
    (tmp_path / "c.json").write_text(field)
    done = fbnetv5("search", "--flops", "400M", "--config", "c.json", cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize("letter", "abcdefg")
def test_show_gives_every_published_network(tmp_path: Path, letter: str) -> None:
    from fbnetv5.deploy.show import show

    shown = show(f"fbnetv3-{letter}")
    assert isinstance(shown["macs"], int)
    assert shown["macs"] == sum(row["macs"] for row in shown["blocks"])


@pytest.mark.parametrize("name", ["group/new", "..", "latest", ""])
def test_a_run_has_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    done = fbnetv5("search", "--flops", "15M@64x64", *SMALL, "--name", name, cwd=tmp_path)
    assert done.returncode == 2
    assert f"--name {name!r} is not the name of a run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_budget_just_outside_is_told_with_the_digits_that_differ(tmp_path: Path) -> None:
    low = document("space", *SMALL, "--resolution", "64x64", "--tasks", "cls", cwd=tmp_path)["macs"]["cls"]["cheapest"]
    flops = f"{(low - 1) / 1e6:.6f}M@64x64"
    done = fbnetv5("search", "--flops", flops, "--tasks", "cls", *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert f"budget {(low - 1) / 1e6:.6f}M for cls at 64x64 is outside what this space offers: {low / 1e6:.6f}M" in (
        done.stderr
    )


def test_names_that_stdout_cannot_write_are_escaped(image_folder: Path, tmp_path: Path) -> None:
    path = image_folder / "instances.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"bag"', '"手提包"'), encoding="utf-8")
    folder = image_folder.rename(tmp_path / "图片")
    command = [sys.executable, "-m", "fbnetv5", "space", *SMALL, "--data", str(folder)]
    for more in (["--json"], []):
        done = subprocess.run(
            [*command, *more], cwd=tmp_path, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
        )
        assert done.returncode == 0, done.stderr
    refused = subprocess.run(
        [*command[:-1], str(tmp_path / "没有")], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (refused.returncode, "\\u6ca1\\u6709 does not exist" in refused.stderr.decode("ascii")) == (2, True)


@pytest.mark.parametrize("arguments", [["show", "fbnetv3-g"], ["--help"]], ids=" ".join)
def test_a_reader_that_leaves_ends_the_command_without_a_word(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "fbnetv5", *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_without_stdout_a_command_ends_well() -> None:
    done = subprocess.run(["/bin/sh", "-c", f"{sys.executable} -m fbnetv5 show fbnetv3-a >&-"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_fault_of_ours_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    printed = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 70
    assert "Traceback" in printed
    assert "this is a fault of fbnetv5, not yours (ZeroDivisionError: division by zero). Report it" in printed


def test_onnx_runtime_reports_nothing_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    content = relu(tmp_path / "x.onnx").read_bytes()
    code = f"from export.runners import OrtRunner; OrtRunner({content!r})"
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["HOME"] = str(tmp_path / "home")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list((tmp_path / "home").iterdir()) == []
